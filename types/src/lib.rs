//! Words of the cluster: ids, specs, objects, task states, ports, addresses, defaults.
//!
//! PURE: no runtime, clock, file, socket or randomness. The serde form of every spec and object is
//! Docker's own JSON (API 1.44 and later), so that what a client sent is what it gets back: fields
//! that we do not interpret are kept in `rest`. The same structs are what the store and the wire
//! between nodes carry. Fields that Docker's API does not have are marked "internal"; the front
//! door leaves them out.

pub mod cluster;
pub mod container;
pub mod copy_on_write;
pub mod id;
pub mod netstate;
pub mod network;
pub mod node;
pub mod secret;
pub mod service;
pub mod steering;
pub mod task;
pub mod task_state;
pub mod template;
pub mod timestamp;
pub mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use copy_on_write::Shared;
pub use id::{
    BackendId, ClusterId, ConfigId, Id, NetworkId, NodeId, ParseIdError, SecretId, ServiceId,
    SessionId, TaskId,
};
pub use task_state::TaskState;
pub use timestamp::Timestamp;

/// Labels, or any other map of text to text that Docker writes sorted.
pub type Labels = BTreeMap<String, String>;

/// Fields of a JSON object that we do not interpret, kept so that they come back unchanged.
pub type Rest = serde_json::Map<String, serde_json::Value>;

/// The version of an object: the Raft index of the commit that changed it last.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// Cluster-wide, one per commit, only growing.
    #[serde(default)]
    pub index: u64,
}

/// What every object of the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    /// For optimistic writes.
    #[serde(default)]
    pub version: Version,
    /// When it was made.
    #[serde(default)]
    pub created_at: Timestamp,
    /// When it was changed last.
    #[serde(default)]
    pub updated_at: Timestamp,
}
