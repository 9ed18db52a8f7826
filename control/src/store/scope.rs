//! What must be looked at again.

use std::{collections::BTreeSet, sync::Arc};

use imbl::ordmap::DiffItem;
use weft_types::{ServiceId, TaskState, node::Node, task::Task};

use super::View;

/// What a loop must look at: everything, or what changed.
///
/// Leaving something out is safe only if nothing that its decision depends on has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Everything, whatever the other fields say.
    pub all: bool,
    /// These services and their tasks; also of services that are gone.
    pub services: BTreeSet<ServiceId>,
    /// A task has let go of what it held on a node.
    pub room: bool,
}

impl Scope {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && !self.room && self.services.is_empty()
    }

    /// What of `new` is not as it was in `old`. Costs about as much as there are differences.
    ///
    /// A change of the cluster, of a network, or of what a node is or offers concerns everybody.
    #[must_use]
    pub fn between(old: &View, new: &View) -> Self {
        let same_cluster = match (&old.cluster, &new.cluster) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
            (None, None) => true,
            _ => false,
        };
        if !same_cluster || !old.networks.ptr_eq(&new.networks) && old.networks != new.networks {
            return Self::all();
        }
        let nodes_differ = old.nodes.diff(&new.nodes).any(|item| match item {
            DiffItem::Update {
                old: (_, old),
                new: (_, new),
            } => differs(old, new),
            DiffItem::Add(..) | DiffItem::Remove(..) => true,
        });
        if nodes_differ {
            return Self::all();
        }
        let mut scope = Self::default();
        for item in old.services.diff(&new.services) {
            let id = match item {
                DiffItem::Add(id, _) | DiffItem::Remove(id, _) => id,
                DiffItem::Update { new: (id, _), .. } => id,
            };
            scope.services.insert(*id);
        }
        for item in old.tasks.diff(&new.tasks) {
            match item {
                DiffItem::Add(_, task) => scope.note(None, Some(task)),
                DiffItem::Remove(_, task) => scope.note(Some(task), None),
                DiffItem::Update {
                    old: (_, old),
                    new: (_, new),
                } => {
                    scope.note(Some(old), Some(new));
                }
            }
        }
        scope
    }

    /// A task was `old` and is `new`.
    pub(super) fn note(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let held =
            |task: &Task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
        if old.is_some_and(held) && !new.is_some_and(held) {
            self.room = true;
        }
        let services = old
            .into_iter()
            .chain(new)
            .filter_map(|task| task.service_id);
        self.services.extend(services);
    }
}

/// Whether a node's change concerns a loop. What it has applied does not.
fn differs(old: &Node, new: &Node) -> bool {
    (
        old.status.state,
        &old.status.addr,
        old.role,
        &old.spec,
        &old.description,
    ) != (
        new.status.state,
        &new.status.addr,
        new.role,
        &new.spec,
        &new.description,
    )
}
