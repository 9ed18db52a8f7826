//! A node's session with a manager: one bidirectional stream; and what a node may ask for itself.
//!
//! The service's other method, `Ask`, takes a [`crate::ControlRequest`] of a node that is no manager,
//! about its own users' containers: see [`is_own`].

use serde::{Deserialize, Serialize};
use weft_types::{
    NodeId, SessionId, TaskId,
    netstate::NetDelta,
    node::{Node, NodeDescription, Role},
    secret::{Config, Secret},
    task::{Task, TaskStatus},
};

use crate::control::{ControlRequest, LogItem, LogSelector};

/// Whether `node` may ask this for itself: addresses for its own users' containers. `owner` says whose
/// attachment a task is.
#[must_use]
pub fn is_own(
    request: &ControlRequest,
    node: NodeId,
    owner: impl Fn(TaskId) -> Option<NodeId>,
) -> bool {
    match request {
        ControlRequest::AttachNetwork { node: named, .. } => *named == node,
        ControlRequest::DetachNetwork(task) => owner(*task) == Some(node),
        _ => false,
    }
}

/// From the node. The first message is [`NodeMessage::Hello`], and only the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NodeMessage {
    /// Who it is (its certificate proves it), what it has, what its kernel holds.
    Hello {
        /// What it tells of itself.
        description: Box<NodeDescription>,
        /// Underlay address for task traffic; `None` means the address it connects from.
        data_path_addr: Option<std::net::IpAddr>,
        /// All global addresses of its interfaces, both families.
        addresses: std::collections::BTreeSet<std::net::IpAddr>,
        /// Its key and port for networks that are encrypted.
        #[serde(default)]
        wireguard: Option<weft_types::netstate::WireGuardPeer>,
        /// Network revision that its kernel holds; 0 is none.
        applied_revision: u64,
        /// Version of this wire, see [`crate::WIRE_VERSION`].
        wire_version: u32,
    },
    /// It is alive. Due every period that the manager named.
    Heartbeat,
    /// What it tells of itself has changed.
    Description(Box<NodeDescription>),
    /// The addresses of its interfaces have changed; all of them.
    Addresses(std::collections::BTreeSet<std::net::IpAddr>),
    /// Its key and port for networks that are encrypted have changed.
    WireGuard(weft_types::netstate::WireGuardPeer),
    /// Where tasks were seen. Sent again until acknowledged by [`ManagerMessage::StatusStored`].
    Status {
        /// Number of this report, growing within the session.
        sequence: u64,
        /// Task and status.
        updates: Vec<(TaskId, TaskStatus)>,
    },
    /// Its kernel holds this network revision, read back.
    Applied {
        /// Which.
        revision: u64,
    },
    /// It lost the thread of network deltas: send a snapshot.
    NetStateGap,
    /// Lines for a log request.
    Logs {
        /// The request's number.
        request: u64,
        /// Lines.
        items: Vec<LogItem>,
        /// Nothing more will come.
        end: bool,
    },
    /// It leaves and will not come back with this id.
    Leave,
}

/// From the manager. The first message is [`ManagerMessage::Welcome`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ManagerMessage {
    /// The session stands.
    Welcome {
        /// Names this session.
        session: SessionId,
        /// Milliseconds between heartbeats.
        heartbeat_millis: u64,
    },
    /// The node's own object changed (role, labels, availability).
    Node(Box<Node>),
    /// Managers to turn to, with addresses (`ip:port`), the leader first.
    Managers(Vec<(NodeId, String)>),
    /// The root certificate in force, PEM.
    TrustRoot(String),
    /// The node's role should be this: get a certificate for it.
    Role(Role),
    /// What the node must run.
    Assignments(Box<AssignmentSet>),
    /// The network.
    NetState(Box<NetDelta>),
    /// Status reports up to this number are stored.
    StatusStored(u64),
    /// Lines of logs are wished.
    LogRequest {
        /// Names it.
        request: u64,
        /// Which lines; tasks are always listed.
        selector: LogSelector,
    },
    /// Nobody listens to these lines any more.
    LogCancel(u64),
    /// A manager wishes to talk to the node's front door.
    Tunnel(crate::tunnel::TunnelAsk),
    /// This manager does not lead: come to the one at this address, or ask again later.
    Redirect(Option<String>),
    /// The node was removed from the cluster: stop what it runs.
    Removed,
}

/// What a node must run and hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AssignmentSet {
    /// Whether this is everything: what is not named must go.
    pub complete: bool,
    /// New or changed.
    pub tasks: Vec<Task>,
    /// No longer this node's: stop them and forget.
    pub removed_tasks: Vec<TaskId>,
    /// New or changed, with data.
    pub secrets: Vec<Secret>,
    /// No longer needed here.
    pub removed_secrets: Vec<weft_types::SecretId>,
    /// New or changed, with data.
    pub configs: Vec<Config>,
    /// No longer needed here.
    pub removed_configs: Vec<weft_types::ConfigId>,
}
