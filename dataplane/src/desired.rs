//! What this node's network should be, from the cluster's state alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use weft_types::{BackendId, NodeId, netstate::NetState, service::Protocol};

/// What this node's network should be: the cluster's part. The node's own part (links, addresses,
/// sandboxes) is added by [`crate::Dataplane`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Revision of the state it was made from.
    pub revision: u64,
    /// Seed of the ring hash.
    pub ring_seed: u64,
    /// This node's number; never 0.
    pub node: u32,
    /// VNI of the ingress network; 0 while there is none.
    pub mesh: u32,
    /// All nodes by number.
    pub nodes: BTreeMap<u32, Node>,
    /// Overlay subnets and their VNI.
    pub subnets: BTreeMap<IpNetwork, u32>,
    /// Attachments of all nodes.
    pub endpoints: BTreeMap<BackendId, Endpoint>,
    /// Where clients knock.
    pub fronts: BTreeMap<Frontend, Target>,
    /// Ring number -> who may be chosen.
    pub rings: BTreeMap<u32, BTreeSet<BackendId>>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its underlay address.
    pub addr: IpAddr,
    /// Does not answer.
    pub dead: bool,
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// VNI.
    pub net: u32,
    /// Number of the node that runs it.
    pub node: u32,
    /// Its addresses, v4 first.
    pub addresses: Vec<IpAddr>,
    /// Leaving: keeps flows, gets no new ones.
    pub draining: bool,
    /// On an internal network.
    pub internal: bool,
}

/// Where clients knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// A published port, on every address of this node. Host order.
    Port(Protocol, u16),
    /// A service's address on the network with this VNI.
    Vip(u32, IpAddr),
}

/// What is behind a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Key of [`Desired::rings`].
    pub ring: u32,
    /// Port of the task, host order; 0 keeps the client's.
    pub port: u16,
    /// Only tasks of this node.
    pub host_mode: bool,
}

/// A state from which nothing can be desired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DesireError {
    /// The state does not list this node.
    #[error("network state {revision} does not list this node {node}")]
    NotAMember {
        /// Revision of the state.
        revision: u64,
        /// This node.
        node: NodeId,
    },
}

impl Desired {
    /// What the node `node` should hold, given the cluster's state and the nodes that its own probes
    /// found dead.
    ///
    /// # Errors
    /// When the state does not list the node.
    pub fn of(state: &NetState, node: NodeId, dead: &BTreeSet<NodeId>) -> Result<Self, DesireError> {
        let _ = dead;
        Err(DesireError::NotAMember { revision: state.revision, node })
    }
}
