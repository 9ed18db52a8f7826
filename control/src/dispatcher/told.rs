//! What a node has been told of tasks and network in its session, and the step from there to what
//! it must run and know.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::dispatcher::AssignmentSet;
use weft_types::{
    NodeId,
    netstate::{NetDelta, NetState},
    task::Task,
};

use super::{assignments, network_differs, project};
use crate::store::View;

/// What a node has been told in one session; a new session begins with nothing told.
#[derive(Debug, Default)]
pub struct Told {
    net: NetState,
    /// The view that the network was looked at last in.
    seen: Option<View>,
    ingredients: Vec<u64>,
    assigned: Option<AssignmentSet>,
}

impl Told {
    /// The node cannot follow the steps of the network any more: the next is a snapshot.
    pub fn lost_thread(&mut self) {
        self.net = NetState::default();
    }

    /// The step to the network as `view` has it, numbered by the view's index; `None` when the
    /// node knows it already.
    pub fn network(&mut self, view: &View, node: NodeId) -> Option<NetDelta> {
        let mut net = self.other_network(view, node)?;
        net.revision = view.index();
        let delta = self.net.delta_to(&net);
        self.net = net;
        Some(delta)
    }

    /// The step to what the node must run by `view`, everything at first; `None` when the node
    /// knows it already.
    pub fn assignments(&mut self, view: &View, node: NodeId) -> Option<AssignmentSet> {
        let ingredients = ingredients(view, node);
        if self.ingredients == ingredients {
            return None;
        }
        self.ingredients = ingredients;
        self.assign(assignments(view, node))
    }

    /// The network as `view` has it, if it is not what the node was told.
    fn other_network(&mut self, view: &View, node: NodeId) -> Option<NetState> {
        let seen = self.seen.replace(view.clone());
        let knows_something = self.net.revision != 0;
        if knows_something && seen.is_some_and(|seen| !network_differs(&seen, view, node)) {
            return None;
        }
        let net = project(view, node);
        (!knows_something || !self.net.same_facts(&net)).then_some(net)
    }

    /// The step to `all`, the complete set; `None` when the node knows it already.
    fn assign(&mut self, mut all: AssignmentSet) -> Option<AssignmentSet> {
        all.complete = true;
        let Some(old) = self.assigned.replace(all.clone()) else {
            return Some(all);
        };
        let (tasks, removed_tasks) = step(&old.tasks, &all.tasks, |task| task.id, asks_the_same);
        let (secrets, removed_secrets) = step(
            &old.secrets,
            &all.secrets,
            |secret| secret.id,
            |old, new| old.meta.version == new.meta.version,
        );
        let (configs, removed_configs) = step(
            &old.configs,
            &all.configs,
            |config| config.id,
            |old, new| old.meta.version == new.meta.version,
        );
        let step = AssignmentSet {
            complete: false,
            tasks,
            removed_tasks,
            secrets,
            removed_secrets,
            configs,
            removed_configs,
        };
        (step != AssignmentSet::default()).then_some(step)
    }
}

/// The versions of all that a node's assignments are made of: much cheaper than making them.
fn ingredients(view: &View, node: NodeId) -> Vec<u64> {
    let tasks = view.tasks_on_node(node).map(|task| task.meta.version.index);
    let secrets = view.secrets().map(|secret| secret.meta.version.index);
    let configs = view.configs().map(|config| config.meta.version.index);
    // Zero is no version: it stands between the kinds, and makes even nothing an ingredient.
    let kinds = tasks.chain([0]).chain(secrets).chain([0]).chain(configs);
    kinds.collect()
}

/// Whether two versions of a task ask the same of its node: what the node itself reported is not
/// told to it again.
fn asks_the_same(old: &Task, new: &Task) -> bool {
    old.meta.version == new.meta.version
        || (old.desired_state == new.desired_state
            && old.withdrawn == new.withdrawn
            && old.start_after == new.start_after
            && old.spec_version == new.spec_version
            && old.spec == new.spec
            && old.networks_attachments == new.networks_attachments
            && old.ports == new.ports
            && old.generic_resources == new.generic_resources
            && old.registry_auth == new.registry_auth)
}

/// What is new or changed, and what is gone.
fn step<T: Clone, K: Ord + Copy>(
    old: &[T],
    new: &[T],
    key: impl Fn(&T) -> K,
    same: impl Fn(&T, &T) -> bool,
) -> (Vec<T>, Vec<K>) {
    let known: BTreeMap<K, &T> = old.iter().map(|item| (key(item), item)).collect();
    let wanted: BTreeSet<K> = new.iter().map(&key).collect();
    let changed = new
        .iter()
        .filter(|item| !known.get(&key(item)).is_some_and(|old| same(old, item)));
    let changed = changed.cloned().collect();
    let gone = known.into_keys().filter(|key| !wanted.contains(key));
    (changed, gone.collect())
}
