//! Nodes come, tell of themselves, and fall silent.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use weft_types::{
    NodeId, Timestamp,
    netstate::WireGuardPeer,
    node::{NodeDescription, NodeState},
};

use crate::{
    orchestrator::occupies,
    store::{Change, Draft, View},
};

/// Heartbeats that a ready node may miss before it is down.
pub const HEARTBEATS_MISSED: u32 = 3;
/// Heartbeats that a node may miss that has not been heard of since the leader changed.
pub const HEARTBEATS_MISSED_UNKNOWN: u32 = 6;

/// Docker's period when the cluster names none.
const DEFAULT_PERIOD: Duration = Duration::from_secs(5);

/// How often a node is to be heard of.
#[must_use]
pub fn heartbeat_period(view: &View) -> Duration {
    let nanos = view
        .cluster()
        .map_or(0, |cluster| cluster.spec.dispatcher.heartbeat_period);
    match u64::try_from(nanos) {
        Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
        _ => DEFAULT_PERIOD,
    }
}

/// What a node says when its session begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// What it tells of itself.
    pub description: NodeDescription,
    /// The address it comes from.
    pub remote: IpAddr,
    /// The address for task traffic, if it named one.
    pub data_path_addr: Option<IpAddr>,
    /// All addresses of its interfaces.
    pub addresses: BTreeSet<IpAddr>,
    /// How it is reached for networks that are encrypted.
    pub wireguard: Option<WireGuardPeer>,
}

/// A node's session began: it is ready.
#[must_use]
pub fn register(
    view: &View,
    now: Timestamp,
    node: NodeId,
    registration: &Registration,
) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    draft.edit_node(node, |node| {
        node.description = registration.description.clone();
        node.addresses.clone_from(&registration.addresses);
        node.wireguard = registration.wireguard;
        node.data_path_addr = Some(registration.data_path_addr.unwrap_or(registration.remote));
        node.status.state = NodeState::Ready;
        node.status.message.clear();
        node.status.addr = registration.remote.to_string();
    });
    draft.changes()
}

/// What a node tells of itself has changed.
#[must_use]
pub fn describe(
    view: &View,
    now: Timestamp,
    node: NodeId,
    description: &NodeDescription,
) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    draft.edit_node(node, |node| node.description = description.clone());
    draft.changes()
}

/// The addresses of a node's interfaces have changed.
#[must_use]
pub fn addresses(
    view: &View,
    now: Timestamp,
    node: NodeId,
    addresses: &BTreeSet<IpAddr>,
) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    draft.edit_node(node, |node| node.addresses.clone_from(addresses));
    draft.changes()
}

/// How a node is reached for networks that are encrypted.
#[must_use]
pub fn wireguard(view: &View, now: Timestamp, node: NodeId, peer: WireGuardPeer) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    draft.edit_node(node, |node| node.wireguard = Some(peer));
    draft.changes()
}

/// A node has been silent too long, or said good-bye.
#[must_use]
pub fn down(view: &View, now: Timestamp, node: NodeId, message: &str) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    draft.edit_node(node, |node| {
        if node.status.state != NodeState::Down {
            node.status.state = NodeState::Down;
            node.down_since = now;
            message.clone_into(&mut node.status.message);
        }
    });
    draft.changes()
}

/// A node says good-bye: its tasks are to move as if it were drained, without a failed request.
/// It is down when they have ended or its session is over.
#[must_use]
pub fn leave(view: &View, now: Timestamp, node: NodeId) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    draft.edit_node(node, |node| {
        if node.status.state != NodeState::Down {
            node.status.state = NodeState::Disconnected;
            "node is leaving the swarm".clone_into(&mut node.status.message);
        }
    });
    draft.changes()
}

/// Whether nothing runs on a node any more that its managers know of.
#[must_use]
pub fn is_empty(view: &View, node: NodeId) -> bool {
    let mut tasks = view.tasks_on_node(node);
    !tasks.any(|task| task.service_id.is_some() && occupies(task))
}

/// A leader's term begins: whether a node lives must be heard anew.
#[must_use]
pub fn unknown(view: &View, now: Timestamp) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    let nodes: Vec<NodeId> = draft.nodes().map(|node| node.id).collect();
    for id in nodes {
        draft.edit_node(id, |node| {
            let leaves = node.status.state == NodeState::Disconnected;
            if node.status.state != NodeState::Down && !leaves {
                node.status.state = NodeState::Unknown;
                "Node moved to \"unknown\" state due to leadership change in cluster"
                    .clone_into(&mut node.status.message);
            }
        });
    }
    draft.changes()
}
