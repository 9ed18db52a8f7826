//! Tasks to nodes, and why not.
//!
//! PURE. Spreads by the number of the service's tasks on a node, never moves a task, and says on
//! the task itself why it waits. Nothing rebalances.

mod filter;
mod node_table;
mod rebalance;
mod spread;

pub use rebalance::plan;

use std::{collections::BTreeMap, sync::Arc};

use weft_types::{ServiceId, TaskState, Timestamp, task::Task};

use self::{
    filter::{Explanation, Needs},
    node_table::NodeTable,
};
use crate::store::{Draft, IdSource, Outcome, Scope, View};

/// Which of the pending tasks can have a node.
#[must_use]
pub fn reconcile(view: &View, now: Timestamp, ids: &mut IdSource) -> Outcome {
    let mut draft = Draft::new(view, now);
    run(&mut draft, ids, &Scope::all());
    draft.outcome()
}

/// The same, as a part of a larger thought.
pub(crate) fn run(draft: &mut Draft, _ids: &mut IdSource, scope: &Scope) {
    let is_news = scope.all || scope.room;
    let pending: Vec<Arc<Task>> = draft
        .tasks_waiting()
        .filter(|task| {
            task.status.state == TaskState::Pending && task.desired_state <= TaskState::Complete
        })
        // One that waits for a node goes on waiting until a node has room or changes.
        .filter(|task| {
            is_news
                || task
                    .service_id
                    .is_none_or(|service| scope.services.contains(&service))
        })
        .cloned()
        .collect();
    if pending.is_empty() {
        return;
    }
    let mut groups: BTreeMap<(Option<ServiceId>, u64), Vec<Arc<Task>>> = BTreeMap::new();
    for task in pending {
        let group = (task.service_id, task.spec_version.index);
        groups.entry(group).or_default().push(task);
    }
    let firsts = groups.values().filter_map(|tasks| tasks.first());
    let needs: Vec<Needs> = firsts.map(|task| Needs::of(draft, task)).collect();
    let mut table = NodeTable::of(draft, &needs);
    for (tasks, needs) in groups.into_values().zip(needs) {
        let (bound, free): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|task| task.node_id.is_some());
        for task in bound {
            place_preassigned(draft, &mut table, &task, &needs);
        }
        place_group(draft, &mut table, &free, &needs);
    }
}

/// A task that belongs on one node waits until that node can take it.
fn place_preassigned(draft: &mut Draft, table: &mut NodeTable, task: &Task, needs: &Needs) {
    let row = task.node_id.and_then(|id| table.row_of(id));
    let mut explanation = Explanation::default();
    let refused = match (row, task.service_id) {
        // A user's own container is on its node already.
        (Some(_), None) => None,
        (Some(row), Some(_)) => filter::refuse(table.row(row), needs),
        (None, _) => Some(filter::Filter::Ready),
    };
    match (refused, row) {
        (None, Some(row)) => {
            let message = "scheduler confirmed task can run on preassigned node";
            assign(draft, table, row, task, needs, message);
        }
        (refused, _) => {
            explanation.count(refused.unwrap_or(filter::Filter::Ready));
            wait(draft, task, &explanation);
        }
    }
}

/// Tasks of one service and spec, which any node that passes may take.
fn place_group(draft: &mut Draft, table: &mut NodeTable, tasks: &[Arc<Task>], needs: &Needs) {
    let mut full = None;
    for task in tasks {
        if full.is_none() {
            match spread::choose(table, needs) {
                Ok(row) => {
                    let message = "scheduler assigned task to node";
                    assign(draft, table, row, task, needs, message);
                    continue;
                }
                // What has no room for one task of the group has none for the next.
                Err(explanation) => full = Some(explanation),
            }
        }
        if let Some(explanation) = &full {
            wait(draft, task, explanation);
        }
    }
}

fn assign(
    draft: &mut Draft,
    table: &mut NodeTable,
    row: usize,
    task: &Task,
    needs: &Needs,
    message: &str,
) {
    let now = draft.now();
    let claimed = table.claim(row, needs);
    let mut ports = task.ports.clone();
    table.fill_ports(row, &mut ports, draft.ledger());
    let node = table.row(row).node.id;
    let log_driver = needs.log_driver.clone();
    draft.edit_task(task.id, |task| {
        task.node_id = Some(node);
        task.generic_resources = claimed;
        task.ports = ports;
        task.log_driver = log_driver;
        task.status.state = TaskState::Assigned;
        task.status.timestamp = now;
        task.status.message = message.to_owned();
        task.status.err.clear();
    });
}

fn wait(draft: &mut Draft, task: &Task, explanation: &Explanation) {
    let reason = explanation.to_string();
    if task.status.err == reason {
        return;
    }
    let now = draft.now();
    draft.edit_task(task.id, |task| {
        task.status.timestamp = now;
        task.status.err = reason;
    });
}
