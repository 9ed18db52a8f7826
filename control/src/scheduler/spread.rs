//! Which of the nodes that can take a task should.

use std::collections::BTreeMap;

use weft_types::node::Node;

use super::{
    filter::{Explanation, Needs, refuse},
    node_table::{NodeTable, Row},
};

/// From so many recent failures on, a node is avoided.
const FAULTS: usize = 5;

/// The best node for one more task: by the preferences, then the one with the fewest tasks of the
/// service, then the fewest at all.
pub(super) fn choose(table: &NodeTable, needs: &Needs) -> Result<usize, Explanation> {
    let mut explanation = Explanation::default();
    let mut able = Vec::new();
    for (place, row) in table.rows() {
        match refuse(row, needs) {
            None => able.push(place),
            Some(filter) => explanation.count(filter),
        }
    }
    let mut all: Vec<usize> = table.rows().map(|(place, _)| place).collect();
    let placement = needs.spec().placement.as_ref();
    let preferences = placement.and_then(|placement| placement.preferences.as_ref());
    for preference in preferences.into_iter().flatten() {
        let Some(spread) = &preference.spread else {
            continue;
        };
        let Some(label) = Label::parse(&spread.spread_descriptor) else {
            continue;
        };
        (all, able) = narrow(table, needs, &label, &all, &able);
    }
    able.into_iter()
        .min_by_key(|place| rank(table.row(*place), needs))
        .ok_or(explanation)
}

fn rank(row: &Row, needs: &Needs) -> impl Ord + use<> {
    let failures = row.failures(needs);
    let avoided = if failures >= FAULTS { failures } else { 0 };
    (
        avoided,
        row.of_service(needs.service),
        row.tasks,
        row.node.id,
    )
}

/// A label that tasks are spread over.
enum Label<'a> {
    Node(&'a str),
    Engine(&'a str),
}

impl<'a> Label<'a> {
    fn parse(descriptor: &'a str) -> Option<Self> {
        let cut = |prefix: &str| {
            let head = descriptor.get(..prefix.len())?;
            let rest = descriptor.get(prefix.len()..)?;
            (head.eq_ignore_ascii_case(prefix) && !rest.is_empty()).then_some(rest)
        };
        cut("node.labels.")
            .map(Self::Node)
            .or_else(|| cut("engine.labels.").map(Self::Engine))
    }

    /// A missing label is a branch of its own.
    fn of<'n>(&self, node: &'n Node) -> &'n str {
        let value = match self {
            Self::Node(name) => node.spec.labels.get(*name),
            Self::Engine(name) => node.description.engine.labels.get(*name),
        };
        value.map_or("", String::as_str)
    }
}

/// The branch, among those that can take a task, that has the fewest of the service.
fn narrow(
    table: &NodeTable,
    needs: &Needs,
    label: &Label<'_>,
    all: &[usize],
    able: &[usize],
) -> (Vec<usize>, Vec<usize>) {
    let mut branches: BTreeMap<&str, (usize, Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for place in all {
        let row = table.row(*place);
        let branch = branches.entry(label.of(&row.node)).or_default();
        branch.0 += row.of_service(needs.service);
        branch.1.push(*place);
    }
    for place in able {
        let row = table.row(*place);
        branches
            .entry(label.of(&row.node))
            .or_default()
            .2
            .push(*place);
    }
    branches
        .into_values()
        .filter(|(_, _, able)| !able.is_empty())
        .min_by_key(|(count, ..)| *count)
        .map(|(_, all, able)| (all, able))
        .unwrap_or_default()
}
