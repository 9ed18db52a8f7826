//! The step from what a node knew of the network to what it must know, by what changed alone.

use std::collections::{BTreeMap, BTreeSet};

use weft_types::{
    BackendId, NetworkId, NodeId,
    netstate::{NetDelta, NetEndpoint, NetNetwork},
    node::{Node, NodeDescription, NodeState},
    task::Task,
};

use super::netstate::{
    Facts, encrypts_all, net_network, net_node, net_service, project_parts, rows,
};
use crate::{
    orchestrator::occupies,
    store::{Differences, View},
};

/// The networks that tasks on a node take part in, and how many attachments of tasks hold it there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts(BTreeMap<NetworkId, usize>);

impl Parts {
    /// What `node` takes part in by its tasks.
    pub(super) fn of(view: &View, node: NodeId) -> Self {
        let mut parts = Self::default();
        for task in view.tasks_on_node(node) {
            parts.count(task, true);
        }
        parts
    }

    /// The networks, and the ingress network, which every node takes part in.
    pub(super) fn networks(&self, view: &View) -> BTreeSet<NetworkId> {
        let ingress = view.ingress_network().map(|network| network.id);
        self.0.keys().copied().chain(ingress).collect()
    }

    /// What it takes part in after `differences`.
    pub(super) fn after(&self, differences: &Differences<'_>, node: NodeId) -> Self {
        let mut parts = self.clone();
        let here = |task: &&Task| task.node_id == Some(node);
        for (old, new) in &differences.tasks {
            // First what is new: a network that goes and comes was never left.
            if let Some(new) = new.filter(here) {
                parts.count(new, true);
            }
            if let Some(old) = old.filter(here) {
                parts.count(old, false);
            }
        }
        parts
    }

    fn count(&mut self, task: &Task, comes: bool) {
        if !occupies(task) {
            return;
        }
        for attachment in &task.networks_attachments {
            let held = self.0.entry(attachment.network_id).or_default();
            *held = if comes {
                *held + 1
            } else {
                held.saturating_sub(1)
            };
            if *held == 0 {
                self.0.remove(&attachment.network_id);
            }
        }
    }
}

/// What a node that took part in `before` and knew the network by `old` must hear to know it by
/// `new`, where it takes part in `after`; `None` when that is the same. Without revisions.
///
/// Costs about as much as there are differences, unless the node takes part in other networks.
pub(super) fn step(
    (old, before): (&View, &BTreeSet<NetworkId>),
    (new, after): (&View, &BTreeSet<NetworkId>),
    differences: &Differences<'_>,
) -> Option<NetDelta> {
    let known = known(new, after);
    let knew = self::known(old, before);
    if before != after || !known.keys().eq(knew.keys()) {
        let (old, new) = (project_parts(old, before), project_parts(new, after));
        return (!old.same_facts(&new)).then(|| old.delta_to(&new));
    }
    let facts = Facts::of(new);
    let mut delta = NetDelta {
        ring_seed: facts.ring_seed,
        data_path_port: facts.data_path_port,
        keys: facts.keys,
        ..NetDelta::default()
    };
    for (id, network) in &known {
        if knew.get(id) != Some(network) {
            delta.networks.insert(*id, Some(network.clone()));
        }
    }
    let mut endpoints = Endpoints::default();
    for (was, is) in &differences.nodes {
        let Some(id) = was.or(*is).map(|node| node.id) else {
            continue;
        };
        let (told, tells) = (was.and_then(net_node), is.and_then(net_node));
        if told != tells {
            delta.nodes.insert(id, tells);
        }
        // Whether its tasks may be chosen, and what they are called, follows from what it is.
        if was.map(about) != is.map(about) {
            for task in new.tasks_on_node(id) {
                let was = old.task(task.id).map(AsRef::as_ref);
                endpoints.note((old, was), (new, Some(task)), &known);
            }
        }
    }
    for (was, is) in &differences.tasks {
        endpoints.note((old, *was), (new, *is), &known);
    }
    delta.endpoints = endpoints.changed();
    for (was, is) in &differences.services {
        let Some(id) = was.or(*is).map(|service| service.id) else {
            continue;
        };
        let told = was.and_then(|service| net_service(service, &knew));
        let tells = is.and_then(|service| net_service(service, &known));
        if told != tells {
            delta.services.insert(id, tells);
        }
    }
    let says_something = facts != Facts::of(old)
        || !delta.nodes.is_empty()
        || !delta.networks.is_empty()
        || !delta.endpoints.is_empty()
        || !delta.services.is_empty();
    says_something.then_some(delta)
}

/// What its tasks' endpoints are made of, of a node.
fn about(node: &Node) -> (bool, &NodeDescription) {
    (node.status.state == NodeState::Down, &node.description)
}

/// What is known of these networks.
fn known(view: &View, parts: &BTreeSet<NetworkId>) -> BTreeMap<NetworkId, NetNetwork> {
    let encrypts_all = encrypts_all(view);
    let networks = parts.iter().filter_map(|id| view.network(*id));
    networks
        .filter_map(|network| Some((network.id, net_network(network, encrypts_all)?)))
        .collect()
}

/// Endpoints as they were and are.
#[derive(Default)]
struct Endpoints {
    were: BTreeMap<BackendId, NetEndpoint>,
    are: BTreeMap<BackendId, NetEndpoint>,
}

impl Endpoints {
    fn note(
        &mut self,
        (old, was): (&View, Option<&Task>),
        (new, is): (&View, Option<&Task>),
        known: &BTreeMap<NetworkId, NetNetwork>,
    ) {
        let is_part = |row: &(BackendId, NetEndpoint)| known.contains_key(&row.1.network);
        if let Some(was) = was {
            self.were.extend(rows(old, was).filter(is_part));
        }
        if let Some(is) = is {
            self.are.extend(rows(new, is).filter(is_part));
        }
    }

    /// New or changed, or `None` for those that are gone.
    fn changed(self) -> BTreeMap<BackendId, Option<NetEndpoint>> {
        let Self { were, mut are } = self;
        let mut changed = BTreeMap::new();
        for (id, was) in were {
            match are.remove(&id) {
                Some(is) if is == was => {}
                is => {
                    changed.insert(id, is);
                }
            }
        }
        changed.extend(are.into_iter().map(|(id, is)| (id, Some(is))));
        changed
    }
}
