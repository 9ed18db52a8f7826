//! What the front door asks of the node it belongs to.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use serde::Deserialize;
use weft_proto::{ControlApi, ControlError, ErrorCode};
use weft_types::{NodeId, TaskId, cluster::ClusterSpec, netstate::NetState, node::Availability};

/// The node behind the front door: its membership in a swarm and its own containers' networks.
///
/// Errors of these methods reach the client word for word: where Docker has a `rpc error: code = …`
/// prefix, the message carries it. Texts that follow from [`LocalStatus`] alone (already part of a
/// swarm, not part of one, last manager …) are the front door's own business.
#[async_trait]
pub trait NodeControl: Send + Sync + 'static {
    /// Founds a swarm with this node as its first manager (or, with `force_new_cluster`, goes on
    /// alone with the store at hand). Answers when the manager serves requests.
    ///
    /// # Errors
    /// When an address cannot be used (`InvalidArgument`, in Docker's words) or the store cannot
    /// be made; the node is inactive again then.
    async fn init(&self, request: InitRequest) -> Result<NodeId, ControlError>;

    /// Joins a swarm. Answers when the node has its certificate and its first session.
    ///
    /// # Errors
    /// With the token's or the network's fault; the node is inactive again, except for
    /// `DeadlineExceeded`, when it goes on trying.
    async fn join(&self, request: JoinRequest) -> Result<(), ControlError>;

    /// Leaves the swarm: removes task containers and networks of this node and forgets its state.
    /// The front door has already refused what Docker refuses without `force`.
    ///
    /// # Errors
    /// When something could not be removed.
    async fn leave(&self, force: bool) -> Result<(), ControlError>;

    /// Unlocks a locked manager.
    ///
    /// # Errors
    /// `InvalidArgument` `invalid key string`, or `Unauthenticated`
    /// `swarm could not be unlocked: invalid key provided`.
    async fn unlock(&self, key: &str) -> Result<(), ControlError>;

    /// Where the node stands. Cheap; asked by each ping.
    async fn status(&self) -> LocalStatus;

    /// The manager in this process.
    ///
    /// # Errors
    /// Why there is none.
    async fn control(&self) -> Result<Arc<dyn ControlApi>, NotManager>;

    /// The network as this node's kernel holds it; the default when it is in no swarm.
    async fn net_state(&self) -> Arc<NetState> {
        Arc::new(NetState::default())
    }

    /// Containers of this node that are on swarm networks: the engine's full id (64 digits) by
    /// task.
    async fn local_containers(&self) -> BTreeMap<TaskId, String> {
        BTreeMap::new()
    }

    /// Where on this host the gate lies: the program that holds a container's own back until its
    /// network is there. `None`: this node cannot put users' own
    /// containers on swarm networks, and the front door refuses to make such.
    fn gate(&self) -> Option<PathBuf> {
        None
    }

    /// Puts a user's own container on an attachable swarm network; it gets its interface at once
    /// if it runs, else when it starts.
    ///
    /// # Errors
    /// In Docker's words, as the managers give them (without the `rpc error:` prefix): not
    /// attachable, no such network, already attached, no address.
    async fn attach(&self, request: AttachRequest) -> Result<(), ControlError> {
        let _ = request;
        Err(ControlError::new(
            ErrorCode::Unimplemented,
            "attaching containers to swarm networks is not supported by this node yet",
        ))
    }

    /// Waits until a user's own container that was started, or whose networks of the engine's were
    /// changed, has on swarm networks what it wishes for. One that wishes for nothing is left alone.
    ///
    /// # Errors
    /// As [`NodeControl::attach`].
    async fn settle(&self, container_id: &str) -> Result<(), ControlError> {
        let _ = container_id;
        Ok(())
    }

    /// Takes a user's own container off a swarm network.
    ///
    /// # Errors
    /// When it is not on it.
    async fn detach(&self, request: DetachRequest) -> Result<(), ControlError> {
        let _ = request;
        Err(ControlError::new(
            ErrorCode::Unimplemented,
            "detaching containers from swarm networks is not supported by this node yet",
        ))
    }
}

/// Body of `POST /swarm/init`, checked for what follows from itself alone: pools, subnet size and
/// data path port are valid or zero. Addresses are as the client wrote them: an IP address or an
/// interface's name, perhaps with a port; empty means "choose".
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    /// Where managers listen; `0.0.0.0:2377` when empty.
    #[serde(deserialize_with = "null_as_default")]
    pub listen_addr: String,
    /// Where others reach this node.
    #[serde(deserialize_with = "null_as_default")]
    pub advertise_addr: String,
    /// Which address carries task traffic; the advertised one when empty.
    #[serde(deserialize_with = "null_as_default")]
    pub data_path_addr: String,
    /// UDP port of VXLAN, 0 means 4789.
    #[serde(deserialize_with = "null_as_default")]
    pub data_path_port: u32,
    /// Pools that subnets are cut from; empty means 10.0.0.0/8.
    #[serde(deserialize_with = "null_as_default")]
    pub default_addr_pool: Vec<String>,
    /// Prefix length of the subnets cut, 0 means 24.
    #[serde(deserialize_with = "null_as_default")]
    pub subnet_size: u32,
    /// Go on alone with the state at hand.
    #[serde(deserialize_with = "null_as_default")]
    pub force_new_cluster: bool,
    /// The cluster's spec; zero fields keep their defaults.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: ClusterSpec,
    /// Managers need the unlock key after a restart.
    #[serde(deserialize_with = "null_as_default")]
    pub auto_lock_managers: bool,
    /// Whether this node takes tasks; empty is active.
    #[serde(deserialize_with = "availability")]
    pub availability: Availability,
}

/// Body of `POST /swarm/join`; addresses as in [`InitRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    /// Where this node listens if it becomes a manager.
    #[serde(deserialize_with = "null_as_default")]
    pub listen_addr: String,
    /// Where others reach this node.
    #[serde(deserialize_with = "null_as_default")]
    pub advertise_addr: String,
    /// Which address carries task traffic.
    #[serde(deserialize_with = "null_as_default")]
    pub data_path_addr: String,
    /// Managers to turn to, one at least; port 2377 when none is given.
    #[serde(deserialize_with = "null_as_default")]
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`.
    #[serde(deserialize_with = "null_as_default")]
    pub join_token: String,
    /// Whether this node takes tasks; empty is active.
    #[serde(deserialize_with = "availability")]
    pub availability: Availability,
}

/// A wish of `docker run --network` or `docker network connect`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachRequest {
    /// The engine's id of the container, 64 digits.
    pub container_id: String,
    /// Its name, without the slash.
    pub container_name: String,
    /// Name or id of the network.
    pub network: String,
    /// Further names on it.
    pub aliases: Vec<String>,
    /// Fixed addresses, at most one per family.
    pub addresses: Vec<std::net::IpAddr>,
    /// The container was made with it and starts now: what was said about this network since then counts for more.
    pub starting: bool,
}

/// A wish of `docker network disconnect`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DetachRequest {
    /// The engine's id of the container, 64 digits.
    pub container_id: String,
    /// Name or id of the network.
    pub network: String,
    /// Even if the container is gone.
    pub force: bool,
}

/// Where a node stands, as `docker info` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalStatus {
    /// Its membership.
    pub state: LocalState,
    /// Its id, when it has one and is not locked.
    pub node_id: Option<NodeId>,
    /// Where others reach it, without a port; empty when unknown.
    pub node_addr: String,
    /// Whether a manager runs here (leader or not, with or without a quorum).
    pub control_available: bool,
    /// Managers known here: id (empty for addresses only tried so far) and `ip:port`.
    pub remote_managers: Vec<(Option<NodeId>, String)>,
    /// What is wrong, for people; empty when nothing is.
    pub error: String,
}

/// A node's membership in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalState {
    /// In none.
    #[default]
    Inactive,
    /// Joining.
    Pending,
    /// In one.
    Active,
    /// In one, but something is broken for good.
    Error,
    /// A manager whose state is encrypted and whose key is missing.
    Locked,
}

impl LocalState {
    /// The state's name in Docker's JSON and headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// Why this node answers no request about the cluster. The texts are Docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotManager {
    /// It is in no swarm.
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    Inactive,
    /// It is a worker.
    #[error(
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
    )]
    Worker,
    /// Its manager starts.
    #[error(
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
    )]
    Starting,
    /// Its manager is locked.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it."
    )]
    Locked,
    /// Its certificate has expired.
    #[error("Swarm certificates have expired. To replace them, leave the swarm and join again.")]
    CertificateExpired,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn availability<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Availability, D::Error> {
    let text = Option::<String>::deserialize(d)?.unwrap_or_default();
    crate::words::availability(&text).map_err(serde::de::Error::custom)
}
