//! Consensus: the log, its storage, its peers.
//!
//! A door around openraft. Everything that the rest of the manager knows of consensus goes through
//! this module, so that a change of the engine stays here. The replicated state itself is
//! [`crate::store`]; this room only orders its transactions and keeps them.
//!
//! On disk, in the manager's `raft` directory: `key` (the data key), `log.redb` (log, vote and
//! marks in one database, so that they can never contradict each other) and `snapshot`. Every
//! record is sealed, and the database is checked against its checksums before it is used; a flipped
//! bit is found when it is read and stops the manager. One case cannot be told: a bit flipped in the
//! very last commit, after a stop that was not clean, looks like a commit that was torn, and the
//! commit before it is taken.
//!
//! What of the log may be purged: only what a snapshot on disk covers. A snapshot is on disk,
//! synced, before the engine hears of it.

mod key;
mod log;
mod machine;
mod network;
mod pace;
mod revive;
mod serve;

use std::{fmt, sync::Arc};

use openraft::{Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use weft_types::NodeId;

use crate::store::{ApplyError, Transaction};

pub use key::{KeyError, Seal};
pub use log::LogStore;
pub use machine::{Image, Machine, Replica};
pub use network::Peers;
pub use pace::Pace;
pub use revive::revive;
pub use serve::{Inbox, ServeError};

/// What an entry of the log carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proposal(pub Arc<Transaction>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes", self.0.changes.len())
    }
}

/// What came of a proposal once it was committed. Entries without a transaction answer `Ok`.
pub type Verdict = Result<(), ApplyError>;

/// A manager as a member of the consensus group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// `ip:port` at which its peers reach it.
    pub addr: String,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            node: NodeId::numbered(0),
            addr: String::new(),
        }
    }
}

openraft::declare_raft_types!(
    /// The types that consensus works with. Members are numbered at random when they join, and a
    /// number is never used again: a node that left and came back is somebody new.
    pub Types:
        D = Proposal,
        R = Verdict,
        NodeId = u64,
        Node = Member,
);

/// The consensus engine of this manager.
pub type Raft = openraft::Raft<Types, Machine>;

/// Milliseconds between a leader's heartbeats, and how long the answer to one may take: managers
/// further apart than that cannot work together.
const HEARTBEAT_MS: u64 = 200;

/// Milliseconds after which a follower stands for election, at least and at most, once the silent
/// leader's lease is over; the lease is the upper end. So a dead leader is replaced after 0.9 to
/// 1.2 s, and three heartbeats may be lost before anybody thinks of it.
const ELECTION_MS: (u64, u64) = (300, 600);

/// How the engine is run.
///
/// # Errors
/// When the constants above contradict each other.
pub fn config(cluster: &str) -> Result<Arc<Config>, openraft::ConfigError> {
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        install_snapshot_timeout: 60_000,
        max_payload_entries: 256,
        replication_lag_threshold: 2_000,
        // When is the cluster's own setting, see the runtime.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 64,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(3 * ELECTION_MS.1),
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}
