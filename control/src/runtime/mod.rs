//! The manager as a running thing: its start and end, its leader's loops, its answers.
//!
//! Everything that decides is elsewhere and pure; here are the clock, the sockets and the files.
//! There is one way to change the state: [`Manager::propose`], one proposal at a time, decided on
//! the newest view. The leader's loop asks [`crate::settle`] after each commit and whenever a
//! moment comes that it named.

mod bootstrap;
mod call;
mod clock;
mod disk;
mod enter;
mod issue;
mod keys;
mod leader;
mod logs;
mod members;
mod news;
mod propose;
mod rotation;
mod route;
mod session;
mod start;
mod talk;
mod tunnel;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use openraft::{RaftMetrics, async_runtime::watch::WatchReceiver, errors::Fatal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_proto::{ControlError, ErrorCode, identity::Credentials, raft::RaftMessage};
use weft_types::{
    ClusterId, NodeId,
    cluster::ClusterSpec,
    node::{Availability, NodeDescription},
};

use crate::{
    raft::{Inbox, KeyError, Pace, Peers, Raft, Replica, Seal, ServeError, Types},
    rpc::Connections,
    store::{IdSource, View},
};

pub(crate) use logs::LogHub;
pub(crate) use propose::ProposeError;
pub(crate) use route::{Forwarded, Leadership, NOT_LEADER};
pub(crate) use session::Sessions;
pub(crate) use session::outbox;
pub use start::StartError;
pub(crate) use tunnel::Tunnels;

/// Where a manager keeps its state and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerConfig {
    /// The node's state directory; the manager's files are in `raft` in it.
    pub state_dir: PathBuf,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address at which the other nodes reach it.
    pub advertise: SocketAddr,
}

/// What `docker swarm init` asks; what it asks when it asks for nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InitOptions {
    /// The cluster's spec.
    pub spec: ClusterSpec,
    /// Pools that subnets are cut from; empty means 10.0.0.0/8.
    pub default_addr_pool: Vec<IpNetwork>,
    /// Prefix length of the subnets cut; 0 means 24.
    pub subnet_size: u8,
    /// UDP port of VXLAN; 0 means 4789.
    pub data_path_port: u16,
    /// Address for task traffic; `None` means the advertised one.
    pub data_path_addr: Option<IpAddr>,
    /// Availability of the first node.
    pub availability: Availability,
    /// What the first node tells of itself.
    pub description: NodeDescription,
}

/// A manager: the role that a node plays beside running tasks.
///
/// It works until [`Manager::shutdown`]; dropping the handle does not stop it.
pub struct Manager {
    me: Weak<Self>,
    config: ManagerConfig,
    cluster: ClusterId,
    node: NodeId,
    credentials: Credentials,
    raft: Raft,
    replica: Arc<Replica>,
    pace: Arc<Pace>,
    seal: Seal,
    peers: Peers,
    inbox: Inbox,
    connections: Connections,
    sessions: Sessions,
    /// Reports of nodes on their way into the store.
    reports: mpsc::Sender<session::Report>,
    logs: LogHub,
    /// Tunnels that nodes were asked for.
    tunnels: Tunnels,
    ids: Mutex<IdSource>,
    /// Held while a proposal is decided and committed.
    turn: tokio::sync::Mutex<()>,
    /// When it was made the only manager of a cluster that had lost the others, if it was.
    revived_at: Option<Instant>,
    /// Whether this manager leads and its term has begun in the store.
    reigns: watch::Sender<bool>,
    /// Wakes the leader's loop for reasons that are no commit.
    wake: tokio::sync::Notify,
    stop: CancellationToken,
    /// Cancelled when everything that was started has ended.
    ended: CancellationToken,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("node", &self.node)
            .field("advertise", &self.config.advertise)
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// The certificate in use here; the agent of the same node uses and renews it.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// The cluster that this manager is of.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// The state as this manager has it, perhaps a little behind.
    pub(crate) fn view(&self) -> View {
        self.replica.view()
    }

    /// How consensus stands on this manager.
    pub(crate) fn metrics(&self) -> RaftMetrics<Types> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Answers a message of another manager's consensus engine.
    pub(crate) async fn take_message(
        &self,
        message: RaftMessage,
    ) -> Result<RaftMessage, ServeError> {
        if let Err(fatal) = self.metrics().running_state {
            return Err(ServeError::Stopped(fatal.to_string()));
        }
        self.inbox.take(message).await
    }

    /// Makes a snapshot now and drops from the log what it covers, as far as followers allow.
    pub async fn compact(&self) {
        let applied = self.metrics().last_applied;
        // An engine that has stopped has nothing to compact.
        if self.raft.trigger().snapshot().await.is_err() {
            return;
        }
        let mut metrics = self.raft.metrics();
        while metrics.borrow_and_update().snapshot < applied {
            if metrics.changed().await.is_err() {
                return;
            }
        }
        if let Some(applied) = applied {
            let _ = self.raft.trigger().purge_log(applied.index).await;
        }
    }

    /// Waits until consensus has stopped by itself, and says why: most likely its disk takes no
    /// more writes. What was acknowledged is on the disks of a majority; what was under way is
    /// here as a whole or not at all. The manager serves nothing any more: shut it down, and start
    /// it again when the cause is mended.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            match &metrics.borrow_and_update().running_state {
                Ok(()) => {}
                Err(Fatal::Stopped) => break,
                Err(fatal) => return stopped(fatal),
            }
            if metrics.changed().await.is_err() {
                break;
            }
        }
        // Shut down in order.
        std::future::pending().await
    }

    /// How long a write of this manager's log takes, or took in the last minute, if that is so long
    /// that the disk must be looked at.
    #[must_use]
    pub fn slow_disk(&self) -> Option<Duration> {
        self.pace.slow()
    }

    /// Entries in this manager's log: those that no snapshot covers yet, and some behind it for slow
    /// followers.
    #[must_use]
    pub fn log_entries(&self) -> u64 {
        let metrics = self.metrics();
        let purged = metrics.purged.map_or(0, |id| id.index);
        metrics.last_log_index.unwrap_or(0).saturating_sub(purged)
    }

    /// Stops everything and waits until the files are closed. Membership is kept.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        // An engine that has failed has nothing more to close.
        let _ = self.raft.shutdown().await;
        self.ended.cancelled().await;
    }
}

/// Why consensus stopped, in words that say what to look at.
fn stopped(fatal: &Fatal<Types>) -> String {
    if *fatal == Fatal::Stopped {
        return "the manager is being stopped".to_owned();
    }
    format!(
        "the manager has stopped, because its log cannot be kept: {fatal}; it starts again by \
         itself once the disk under its state directory takes writes"
    )
}

impl From<KeyError> for ControlError {
    fn from(error: KeyError) -> Self {
        let code = match error {
            KeyError::Locked => ErrorCode::Unavailable,
            KeyError::NoUnlockKey => ErrorCode::InvalidArgument,
            KeyError::WrongUnlockKey => ErrorCode::Unauthenticated,
            KeyError::NotLocked => ErrorCode::AlreadyExists,
            _ => ErrorCode::Unknown,
        };
        Self::new(code, error.to_string())
    }
}
