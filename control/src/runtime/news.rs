//! What a node has been told in its session, and the step from there to what it must know.

use std::collections::BTreeMap;

use weft_proto::dispatcher::{AssignmentSet, ManagerMessage};
use weft_types::{
    NodeId, Version,
    netstate::NetState,
    node::{Node, Role},
    task::Task,
};

use super::{Manager, rotation, session::Session};
use crate::{dispatcher, store::View};

impl Manager {
    /// What the node does not know yet of `view`.
    pub(super) fn news(
        &self,
        session: &Session,
        view: &View,
        told: &mut Told,
    ) -> Vec<ManagerMessage> {
        let mut news = Vec::new();
        let Some(node) = view.node(session.node) else {
            return news;
        };
        if told
            .node
            .as_ref()
            .is_none_or(|old| !tells_the_same(old, node))
        {
            told.node = Some(Node::clone(node));
            news.push(ManagerMessage::Node(Box::new(Node::clone(node))));
        }
        let managers = self.managers();
        if told.managers != managers {
            told.managers.clone_from(&managers);
            news.push(ManagerMessage::Managers(managers));
        }
        let mut renew = None;
        if let Some(cluster) = view.cluster() {
            let roots = rotation::trusted(cluster);
            if told.roots != roots {
                told.roots.clone_from(&roots);
                news.push(ManagerMessage::TrustRoot(roots));
            }
            renew = rotation::is_stale(cluster, node).then(|| rotation::epoch(cluster));
        }
        // A role that the node has already asks it to renew its certificate.
        let role = self.due_role(node);
        if told.role != role || (renew.is_some() && told.renew != renew) {
            (told.role, told.renew) = (role, renew);
            news.push(ManagerMessage::Role(role));
        }
        // The network before the tasks: a sandbox can then be made as soon as its task is known.
        if let Some(mut net) = told.other_network(view, session.node) {
            net.revision = view.index();
            let delta = told.net.delta_to(&net);
            told.net = net;
            session.acked().sent(view.index());
            news.push(ManagerMessage::NetState(Box::new(delta)));
        } else if session.acked().still(view.index()) {
            self.wake.notify_one();
        }
        let ingredients = ingredients(view, session.node);
        if told.ingredients != ingredients {
            told.ingredients = ingredients;
            let set = told.assign(dispatcher::assignments(view, session.node));
            news.extend(set.map(|set| ManagerMessage::Assignments(Box::new(set))));
        }
        news
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

/// Whether a node's own object has not changed in a way that matters to the node.
fn tells_the_same(old: &Node, new: &Node) -> bool {
    old.spec == new.spec
        && old.role == new.role
        && old.index == new.index
        && old.data_path_addr == new.data_path_addr
        && old.description == new.description
}

/// What a node has been told in this session.
pub(super) struct Told {
    node: Option<Node>,
    managers: Vec<(NodeId, String)>,
    roots: String,
    role: Role,
    /// The epoch for which it was asked to renew its certificate.
    renew: Option<Version>,
    pub(super) net: NetState,
    /// The view that the network was looked at last in.
    seen: Option<View>,
    ingredients: Vec<u64>,
    assigned: Option<AssignmentSet>,
}

impl Told {
    pub(super) fn new(role: Role) -> Self {
        Self {
            node: None,
            managers: Vec::new(),
            roots: String::new(),
            role,
            renew: None,
            net: NetState::default(),
            seen: None,
            ingredients: Vec::new(),
            assigned: None,
        }
    }

    /// The network as `view` has it, if it is not what the node was told.
    fn other_network(&mut self, view: &View, node: NodeId) -> Option<NetState> {
        let seen = self.seen.replace(view.clone());
        let knows_something = self.net.revision != 0;
        if knows_something
            && seen.is_some_and(|seen| !dispatcher::network_differs(&seen, view, node))
        {
            return None;
        }
        let net = dispatcher::project(view, node);
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
    let wanted: std::collections::BTreeSet<K> = new.iter().map(&key).collect();
    let changed = new
        .iter()
        .filter(|item| !known.get(&key(item)).is_some_and(|old| same(old, item)));
    let changed = changed.cloned().collect();
    let gone = known.into_keys().filter(|key| !wanted.contains(key));
    (changed, gone.collect())
}
