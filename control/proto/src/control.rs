//! What the front door asks of the managers.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use weft_types::{
    NodeId, ServiceId, TaskId, TaskState,
    cluster::{Cluster, ClusterSpec},
    network::{Network, NetworkSpec},
    node::{Node, NodeSpec},
    secret::{Config, ConfigSpec, Secret, SecretSpec},
    service::{Service, ServiceSpec},
    task::Task,
};

use crate::{ControlError, Tunnel, TunnelAsk};

/// One request of the control API. References (`String`) are resolved by the manager: exact id,
/// then exact name, then unique id prefix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// The cluster object.
    GetCluster,
    /// Changes the cluster's spec and rotates what is asked.
    UpdateCluster {
        /// The version that the client read.
        version: u64,
        /// The new spec, whole.
        spec: Box<ClusterSpec>,
        /// Makes a new worker token.
        rotate_worker_token: bool,
        /// Makes a new manager token.
        rotate_manager_token: bool,
        /// Makes a new unlock key.
        rotate_unlock_key: bool,
    },
    /// The unlock key; empty when the cluster does not lock.
    GetUnlockKey,
    /// All nodes.
    ListNodes,
    /// One node.
    GetNode(String),
    /// Replaces a node's spec.
    UpdateNode {
        /// Which.
        node: String,
        /// The version that the client read.
        version: u64,
        /// The new spec, whole.
        spec: NodeSpec,
    },
    /// Forgets a node.
    RemoveNode {
        /// Which.
        node: String,
        /// Even if it is not down.
        force: bool,
    },
    /// All services.
    ListServices,
    /// One service.
    GetService(String),
    /// Makes a service.
    CreateService {
        /// What is wished.
        spec: Box<ServiceSpec>,
        /// Registry credentials (base64 JSON), may be empty.
        registry_auth: String,
    },
    /// Replaces a service's spec, or swaps it with the previous one.
    UpdateService {
        /// Which.
        service: String,
        /// The version that the client read.
        version: u64,
        /// The new spec, whole.
        spec: Box<ServiceSpec>,
        /// Registry credentials; `None` keeps the ones at hand.
        registry_auth: Option<String>,
        /// Without credentials given, take those of the previous spec instead of the ones at hand.
        auth_from_previous: bool,
        /// Go back to the previous spec; `spec` is only validated.
        rollback: bool,
    },
    /// Removes a service and its tasks.
    RemoveService(String),
    /// Tasks, narrowed by what is given; empty lists do not narrow.
    ListTasks {
        /// Of these services.
        services: Vec<ServiceId>,
        /// On these nodes.
        nodes: Vec<NodeId>,
        /// With one of these desired states.
        desired: Vec<TaskState>,
        /// Only tasks that an update would not replace.
        up_to_date: bool,
    },
    /// One task.
    GetTask(String),
    /// All networks.
    ListNetworks,
    /// One network.
    GetNetwork(String),
    /// Makes a network.
    CreateNetwork(Box<NetworkSpec>),
    /// Removes a network.
    RemoveNetwork(String),
    /// All secrets, without their data.
    ListSecrets,
    /// One secret, without its data.
    GetSecret(String),
    /// Makes a secret.
    CreateSecret(Box<SecretSpec>),
    /// Changes a secret's labels.
    UpdateSecret {
        /// Which.
        secret: String,
        /// The version that the client read.
        version: u64,
        /// The new spec, whole.
        spec: Box<SecretSpec>,
    },
    /// Removes a secret.
    RemoveSecret(String),
    /// All configs.
    ListConfigs,
    /// One config.
    GetConfig(String),
    /// Makes a config.
    CreateConfig(Box<ConfigSpec>),
    /// Changes a config's labels.
    UpdateConfig {
        /// Which.
        config: String,
        /// The version that the client read.
        version: u64,
        /// The new spec, whole.
        spec: Box<ConfigSpec>,
    },
    /// Removes a config.
    RemoveConfig(String),
    /// Wishes an address on an attachable network for a user's own container; answered when the
    /// allocator has given one.
    AttachNetwork {
        /// The node that the container is on.
        node: NodeId,
        /// The engine's id of the container.
        container_id: String,
        /// Its name there.
        container_name: String,
        /// Which network.
        network: String,
        /// Further names.
        aliases: Vec<String>,
        /// Fixed addresses, at most one per family.
        addresses: Vec<std::net::IpAddr>,
    },
    /// Takes the address back.
    DetachNetwork(TaskId),
    /// Which tasks would have to move for services to be spread evenly again.
    Rebalance {
        /// So many moves at most.
        budget: usize,
        /// Moves them too, each one started in its new place before it is stopped in the old.
        apply: bool,
    },
    /// Has a node asked to offer a tunnel to its front door. Of one manager to another only.
    Tunnel {
        /// Which.
        node: NodeId,
        /// To whom.
        ask: TunnelAsk,
    },
}

/// A task to be replaced by one on another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which.
    pub task: TaskId,
    /// Its name for people, `<service>.<slot>`.
    pub name: String,
    /// Where it is.
    pub from: NodeId,
    /// Where its replacement is to be.
    pub to: NodeId,
}

/// The answer to a [`ControlRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ControlReply {
    /// Done; nothing to say.
    Done,
    /// The id of what was made.
    Created(String),
    /// A key.
    Key(String),
    /// The cluster.
    Cluster(Box<Cluster>),
    /// Nodes.
    Nodes(Vec<Node>),
    /// Services, as the store shares them: lists are long and asked for often.
    Services(Vec<Arc<Service>>),
    /// Tasks, shared likewise.
    Tasks(Vec<Arc<Task>>),
    /// Networks.
    Networks(Vec<Network>),
    /// Secrets.
    Secrets(Vec<Secret>),
    /// Configs.
    Configs(Vec<Config>),
    /// Tasks that would move, or do.
    Moves(Vec<Move>),
}

/// An object before or after a change, for events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// The cluster.
    Cluster(Box<Cluster>),
    /// A node.
    Node(Box<Node>),
    /// A service.
    Service(Box<Service>),
    /// A task.
    Task(Box<Task>),
    /// A network.
    Network(Box<Network>),
    /// A secret, without data.
    Secret(Box<Secret>),
    /// A config.
    Config(Box<Config>),
}

/// A change of the store, in commit order. `old` absent: created; `new` absent: removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Index of the commit.
    pub index: u64,
    /// When it was committed.
    pub at: weft_types::Timestamp,
    /// Before.
    pub old: Option<Object>,
    /// After.
    pub new: Option<Object>,
}

/// Which lines of logs are wished.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogSelector {
    /// Of these services' tasks.
    pub services: Vec<ServiceId>,
    /// Of these tasks.
    pub tasks: Vec<TaskId>,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Go on with new lines.
    pub follow: bool,
    /// Last lines per task; `None` is all.
    pub tail: Option<u64>,
    /// Only lines since then.
    pub since: weft_types::Timestamp,
}

/// Standard output or error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// On which node.
    pub node: NodeId,
    /// Of which service.
    pub service: Option<ServiceId>,
    /// Of which task.
    pub task: TaskId,
    /// On which stream.
    pub stream: LogStream,
    /// When.
    pub at: weft_types::Timestamp,
    /// Driver attributes (labels, environment) asked for by log options.
    pub attributes: weft_types::Labels,
    /// The line with its newline, if it had one; raw bytes for terminals.
    #[serde(with = "serde_bytes")]
    pub line: Vec<u8>,
}

/// What a log stream carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogItem {
    /// A line.
    Line(LogLine),
    /// Lines are missing, for this reason (`node <id> is not available`).
    Warning(String),
}

/// Where a manager stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ManagerStanding {
    /// This node leads.
    pub leads: bool,
    /// The leader's id, if there is one.
    pub leader: Option<NodeId>,
    /// Why requests cannot be served, for `docker info`; empty when they can.
    pub error: String,
}

/// What a manager does for the front door of its own node.
///
/// Any manager answers; followers forward to the leader.
#[async_trait]
pub trait ControlApi: Send + Sync + 'static {
    /// Serves one request.
    ///
    /// # Errors
    /// With the code that the request earned; `Unavailable` when there is no leader. Never hangs
    /// longer than 20 s.
    async fn call(&self, request: ControlRequest) -> Result<ControlReply, ControlError>;

    /// Follows the changes of the store from now on.
    async fn watch(&self) -> tokio::sync::broadcast::Receiver<std::sync::Arc<Event>>;

    /// Lines of tasks' logs, from all nodes that have some.
    ///
    /// The stream ends when all is said and `follow` is off. A node that does not answer becomes
    /// a [`LogItem::Warning`], never a hang.
    ///
    /// # Errors
    /// When the request cannot be served at all.
    async fn logs(
        &self,
        selector: LogSelector,
    ) -> Result<tokio::sync::mpsc::Receiver<LogItem>, ControlError>;

    /// Where this manager stands.
    async fn standing(&self) -> ManagerStanding;

    /// A connection to the front door of a node.
    ///
    /// # Errors
    /// `Unavailable` when the node has no session or does not come within 5 s.
    async fn tunnel(&self, node: NodeId) -> Result<Tunnel, ControlError> {
        Err(ControlError::new(
            crate::ErrorCode::Unimplemented,
            format!("node {node} cannot be reached from here"),
        ))
    }
}
