//! What an agent shows and asks of its owner.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use weft_types::{
    NodeId, TaskId,
    netstate::NetState,
    node::{Node, Role},
};

/// Something that the owner of the agent must act on.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The node's role should be this: get a certificate for it.
    Role(Role),
    /// The root certificate in force, PEM.
    TrustRoot(String),
    /// The node was removed from the cluster; its tasks are being stopped.
    Removed,
}

/// What others may see of a running agent.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    /// Whether a manager has welcomed this node and the connection stands.
    pub is_connected: bool,
    /// Managers known.
    pub managers: Vec<(Option<NodeId>, SocketAddr)>,
    /// The node's own object as last told.
    pub node: Option<Arc<Node>>,
    /// The network as last told.
    pub net: Arc<NetState>,
    /// Revision that the kernel holds.
    pub applied_revision: u64,
    /// Why the kernel does not hold the network as last told; nothing while it does.
    pub refusal: Option<String>,
    /// Containers by task.
    pub containers: BTreeMap<TaskId, String>,
    /// Addresses that the managers hold here for users' own containers: container by task.
    pub attachments: Arc<BTreeMap<TaskId, String>>,
    /// Whether a manager has told everything that belongs here, in this life.
    pub knows_all: bool,
    /// Whether no container of a task is left.
    pub is_empty: bool,
}
