//! The cluster as an object.

use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, Labels, Meta, NodeId, Rest, Timestamp, Version, netstate::KeyGenerations,
    node::TlsInfo, task::LogDriver,
};

/// What `docker swarm update` may change.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterSpec {
    /// Always `default`.
    pub name: String,
    /// The user's own.
    #[serde(deserialize_with = "crate::service::null_as_default")]
    pub labels: Labels,
    /// History of tasks.
    pub orchestration: OrchestrationConfig,
    /// Consensus.
    pub raft: RaftConfig,
    /// Heartbeats.
    pub dispatcher: DispatcherConfig,
    /// Certificates.
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    /// Defaults of tasks.
    pub task_defaults: TaskDefaults,
    /// Locking.
    pub encryption_config: EncryptionConfig,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// History of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct OrchestrationConfig {
    /// Tasks kept per slot, the live one included; `None` means 5, negative means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

/// Consensus.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RaftConfig {
    /// Log entries between snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_interval: Option<u64>,
    /// Old snapshots kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_old_snapshots: Option<u64>,
    /// Log entries kept behind a snapshot for slow followers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_entries_for_slow_followers: Option<u64>,
    /// Ticks without a leader before an election.
    pub election_tick: i64,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_tick: i64,
}

/// Heartbeats of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DispatcherConfig {
    /// Nanoseconds between a node's heartbeats; 0 means 5 s.
    #[serde(skip_serializing_if = "crate::service::is_zero")]
    pub heartbeat_period: i64,
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CaConfig {
    /// Nanoseconds that a node's certificate is valid; 0 means 90 days.
    #[serde(skip_serializing_if = "crate::service::is_zero")]
    pub node_cert_expiry: i64,
    /// External authorities.
    #[serde(rename = "ExternalCAs", skip_serializing_if = "Option::is_none")]
    pub external_cas: Option<Vec<serde_json::Value>>,
    /// Write-only: certificate to sign with.
    #[serde(rename = "SigningCACert", skip_serializing_if = "String::is_empty")]
    pub signing_ca_cert: String,
    /// Write-only: its key.
    #[serde(rename = "SigningCAKey", skip_serializing_if = "String::is_empty")]
    pub signing_ca_key: String,
    /// Grows to force a rotation.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub force_rotate: u64,
}

impl CaConfig {
    /// How long a node's certificate is valid: what the user chose, or Docker's 90 days.
    #[must_use]
    pub fn validity(&self) -> Duration {
        match u64::try_from(self.node_cert_expiry) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => Duration::from_secs(90 * 24 * 3600),
        }
    }
}

fn is_zero_u64(number: &u64) -> bool {
    *number == 0
}

/// Defaults of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskDefaults {
    /// Log driver of tasks that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
}

/// Locking.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EncryptionConfig {
    /// Managers need the unlock key after a restart.
    pub auto_lock_managers: bool,
}

/// Tokens that let a node join.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinTokens {
    /// As a worker.
    pub worker: String,
    /// As a manager.
    pub manager: String,
}

/// The cluster, as the store holds it: one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    /// Its id; also the O of its certificates.
    #[serde(rename = "ID")]
    pub id: ClusterId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What the user may change.
    pub spec: ClusterSpec,
    /// Its certificate authority, as the API shows it.
    #[serde(rename = "TLSInfo", default)]
    pub tls_info: TlsInfo,
    /// Whether certificates are being replaced.
    #[serde(default)]
    pub root_rotation_in_progress: bool,
    /// Pools that subnets are cut from; empty means 10.0.0.0/8.
    #[serde(default)]
    pub default_addr_pool: Vec<IpNetwork>,
    /// Prefix length of the subnets cut.
    #[serde(default)]
    pub subnet_size: u8,
    /// UDP port of VXLAN.
    #[serde(default)]
    pub data_path_port: u16,
    /// Tokens.
    #[serde(default)]
    pub join_tokens: JoinTokens,
    /// Internal. The authority's private key, PEM. Never shown.
    #[serde(default)]
    pub ca_key: String,
    /// Internal. The root that certificates are being moved to; `None` when none is.
    #[serde(default)]
    pub rotation: Option<RootRotation>,
    /// Internal. The `ForceRotate` that was carried out last.
    #[serde(default)]
    pub rotated: u64,
    /// Internal. Generations of the nodes' keys for encrypted networks.
    #[serde(default)]
    pub keys: KeyRotation,
    /// Internal. The commit since which all that users may change is as it is; 0 when they changed
    /// nothing yet. What managers write beside it, as in a rotation, outdates no reader of it.
    #[serde(default)]
    pub spec_version: Version,
    /// Internal. Unlock key (`SWMKEY-1-…`), empty when not locked.
    #[serde(default)]
    pub unlock_key: String,
    /// Internal. Seed of the ring hash, the same on every node.
    #[serde(default)]
    pub ring_seed: u64,
    /// Internal. Prefix (fd…/48) that IPv6 subnets are cut from.
    #[serde(default)]
    pub ula_prefix: Option<IpNetwork>,
    /// Internal. Removed nodes whose certificates are refused.
    #[serde(default)]
    pub blacklist: Vec<NodeId>,
    /// Internal. State of the allocator that objects do not carry.
    #[serde(default)]
    pub allocator: AllocatorState,
}

/// A root certificate that is taking the place of the cluster's. While it does, every node trusts
/// both, and new certificates come with the new root signed by the old one, so that whoever knows
/// only one of the two trusts them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootRotation {
    /// The new root, PEM.
    pub certificate: String,
    /// Its private key, PEM. Never shown.
    pub key: String,
    /// The new root's key under the old root's signature, PEM.
    pub cross: String,
    /// The `ForceRotate` that asked for it.
    pub epoch: u64,
}

/// Which keys for encrypted networks the nodes have, and why. The keys themselves never leave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyRotation {
    /// What every node is told.
    pub generations: KeyGenerations,
    /// When the newest generation began; the epoch until that was first written down.
    pub since: Timestamp,
    /// The `ForceRotate` that was heeded last.
    pub asked: u64,
}

/// What the allocator must remember beyond the objects: where its series stand, and what was
/// freed a short time ago.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AllocatorState {
    /// Last backend number given.
    pub last_backend: u32,
    /// Last VNI given.
    pub last_vni: u32,
    /// Last node index given.
    pub last_node_index: u32,
    /// Fields that the allocator adds; opaque to everybody else.
    #[serde(flatten)]
    pub rest: Rest,
}
