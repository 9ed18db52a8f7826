//! Nodes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Labels, Meta, NodeId, Rest, Timestamp, Version, task::GenericResource, task::Platform,
};

/// What the user may change of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeSpec {
    /// The user's name for it; usually absent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The user's own.
    #[serde(deserialize_with = "crate::service::null_as_default")]
    pub labels: Labels,
    /// Role wished.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Part in the cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Votes too.
    Manager,
}

/// Whether a node takes tasks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Yes.
    #[default]
    Active,
    /// No new ones.
    Pause,
    /// None, and those it has move.
    Drain,
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Kind of machine.
    pub platform: Platform,
    /// What it has.
    pub resources: NodeResources,
    /// Its container engine.
    pub engine: EngineDescription,
    /// What it trusts.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeResources {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Countable and named resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
}

/// A node's container engine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineDescription {
    /// Its version.
    pub engine_version: String,
    /// Its labels.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its plugins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<EnginePlugin>,
}

/// A plugin of an engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EnginePlugin {
    /// `Network`, `Volume`, `Log` …
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A certificate authority as Docker's API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TlsInfo {
    /// Root certificate, PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_root: String,
    /// Subject of the issuer, base64 of DER.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_issuer_subject: String,
    /// Public key of the issuer, base64 of DER.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_issuer_public_key: String,
}

/// Where a node was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeStatus {
    /// In which state.
    pub state: NodeState,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its address, as the managers saw it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub addr: String,
}

/// A node's state.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not heard of since the leader changed.
    #[default]
    Unknown,
    /// Silent too long.
    Down,
    /// Has a session.
    Ready,
    /// Said good-bye.
    Disconnected,
}

/// A manager's place among its peers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManagerStatus {
    /// Whether it leads.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leader: bool,
    /// Whether the leader reaches it.
    pub reachability: Reachability,
    /// `address:port` of its API for nodes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub addr: String,
}

/// Whether the leader reaches a manager.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Not known yet.
    #[default]
    Unknown,
    /// No.
    Unreachable,
    /// Yes.
    Reachable,
}

/// A node, as the store holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// Its id; also the CN of its certificate.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What the user may change.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What it told of itself.
    #[serde(default)]
    pub description: NodeDescription,
    /// Where it was last seen.
    #[serde(default)]
    pub status: NodeStatus,
    /// Its place among the managers; `None` for workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
    /// Internal. Role in force (its certificate's), while `spec.role` is the one wished.
    #[serde(default)]
    pub role: Role,
    /// Internal. Small number of the node, never reused while the node exists: its name in kernel
    /// tables and in its Raft membership. From 1.
    #[serde(default)]
    pub index: u32,
    /// Internal. Underlay address that carries task traffic.
    #[serde(default)]
    pub data_path_addr: Option<IpAddr>,
    /// Internal. All global addresses of its interfaces, both families.
    #[serde(default)]
    pub addresses: std::collections::BTreeSet<IpAddr>,
    /// Internal. Its key and port for networks that are encrypted.
    #[serde(default)]
    pub wireguard: Option<crate::netstate::WireGuardPeer>,
    /// Internal. When it was last found to be down.
    #[serde(default)]
    pub down_since: Timestamp,
    /// Internal. Network revision that this node's kernel holds.
    #[serde(default)]
    pub applied_revision: u64,
    /// Internal. Version of the certificate it holds, for rotation.
    #[serde(default)]
    pub certificate: Version,
}
