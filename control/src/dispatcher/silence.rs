//! Which nodes are lost, by what can be heard of them.

use std::collections::BTreeMap;

use weft_types::{
    NodeId,
    node::{Node, NodeState},
};

use super::is_empty;
use crate::store::View;

/// Text of a node that is down because it is silent.
const HEARTBEAT_FAILURE: &str = "heartbeat failure";

/// Text of a node that is down because it left.
const LEFT: &str = "node left the cluster";

/// What can be heard of a node that has, or had, a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// Its session stands.
    Speaks,
    /// Its session has ended, a short time ago.
    Gone,
    /// Nothing, for too long.
    Silent,
}

/// The nodes whose session says more than the store: they must say hello again. Either a term has
/// begun since and whether they live is unknown, or they were written down while they came back.
#[must_use]
pub fn misknown(view: &View, sounds: &BTreeMap<NodeId, Sound>) -> Vec<NodeId> {
    let is_misknown = |(node, sound): &(&NodeId, &Sound)| {
        let node = view.node(**node);
        node.is_some_and(|node| match node.status.state {
            NodeState::Unknown => true,
            NodeState::Down => **sound == Sound::Speaks,
            _ => false,
        })
    };
    let misknown = sounds.iter().filter(is_misknown);
    misknown.map(|(node, _)| *node).collect()
}

/// The nodes that are to be down and are not yet, and why. Nodes without a session count as silent
/// when `absent_too`.
#[must_use]
pub fn lost(
    view: &View,
    sounds: &BTreeMap<NodeId, Sound>,
    absent_too: bool,
) -> Vec<(NodeId, &'static str)> {
    let fate = |node: &Node| {
        let sound = sounds.get(&node.id).copied();
        match (node.status.state, sound) {
            (NodeState::Down, _) => None,
            (NodeState::Disconnected, Some(Sound::Speaks)) => {
                is_empty(view, node.id).then_some(LEFT)
            }
            (NodeState::Disconnected, _) => Some(LEFT),
            (_, Some(Sound::Silent)) => Some(HEARTBEAT_FAILURE),
            (_, None) if absent_too => Some(HEARTBEAT_FAILURE),
            _ => None,
        }
    };
    view.nodes()
        .filter_map(|node| Some((node.id, fate(node)?)))
        .collect()
}
