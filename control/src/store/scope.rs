//! What must be looked at again.

use std::{collections::BTreeSet, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};
use weft_types::{ServiceId, TaskState, node::Node, service::Service, task::Task};

use super::View;

/// What of two views is not the same: objects before and after.
#[derive(Debug, Default)]
pub struct Differences<'a> {
    /// Nodes, before and after.
    pub nodes: Vec<(Option<&'a Node>, Option<&'a Node>)>,
    /// Whether any network differs.
    pub networks: bool,
    /// Services, before and after.
    pub services: Vec<(Option<&'a Service>, Option<&'a Service>)>,
    /// Tasks, before and after.
    pub tasks: Vec<(Option<&'a Task>, Option<&'a Task>)>,
}

impl<'a> Differences<'a> {
    /// What `new` has otherwise than `old`. Costs about as much as there are differences.
    #[must_use]
    pub fn between(old: &'a View, new: &'a View) -> Self {
        let same_networks = old.networks.ptr_eq(&new.networks) || old.networks == new.networks;
        Self {
            nodes: pairs(&old.nodes, &new.nodes),
            networks: !same_networks,
            services: pairs(&old.services, &new.services),
            tasks: pairs(&old.tasks, &new.tasks),
        }
    }
}

/// What differs between two tables.
fn pairs<'a, K: Ord + Clone, V: PartialEq>(
    old: &'a OrdMap<K, Arc<V>>,
    new: &'a OrdMap<K, Arc<V>>,
) -> Vec<(Option<&'a V>, Option<&'a V>)> {
    old.diff(new)
        .map(|item| match item {
            DiffItem::Add(_, new) => (None, Some(new.as_ref())),
            DiffItem::Remove(_, old) => (Some(old.as_ref()), None),
            DiffItem::Update {
                old: (_, old),
                new: (_, new),
            } => (Some(old.as_ref()), Some(new.as_ref())),
        })
        .collect()
}

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
        let differences = Differences::between(old, new);
        let nodes_differ = differences.nodes.iter().any(|(old, new)| match (old, new) {
            (Some(old), Some(new)) => differs(old, new),
            _ => true,
        });
        if !same_cluster || differences.networks || nodes_differ {
            return Self::all();
        }
        let mut scope = Self::default();
        for (old, new) in differences.services {
            scope.services.extend(old.or(new).map(|service| service.id));
        }
        for (old, new) in differences.tasks {
            scope.note(old, new);
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
