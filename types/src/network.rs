//! Networks.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Labels, Meta, NetworkId, Rest};

/// What `docker network create` asks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSpec {
    /// Unique in the cluster.
    pub name: String,
    /// The user's own.
    #[serde(deserialize_with = "crate::service::null_as_default")]
    pub labels: Labels,
    /// Driver and its options; we serve `overlay`, and name `bridge` and `host` as predefined.
    pub driver_configuration: Driver,
    /// Whether it has IPv6 beside IPv4.
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "std::ops::Not::not")]
    pub ipv6_enabled: bool,
    /// Without a way to the world.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Open to `docker run` and `network connect`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attachable: bool,
    /// The network of published ports.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    /// Subnets asked for.
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<IpamOptions>,
    /// A node-local network that holds the options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_from: Option<serde_json::Value>,
    /// `swarm`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A network that every node has for itself, under the same name on each: its engine's own.
///
/// Services name it by its name, in place of an id: it is no object of the cluster, and gives out
/// no address that the cluster knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeNetwork {
    /// The node's own interfaces and ports.
    Host,
    /// The engine's default bridge.
    Bridge,
}

impl NodeNetwork {
    /// The one that `name` names, if it names one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Host, Self::Bridge]
            .into_iter()
            .find(|network| network.name() == name)
    }

    /// Its name, which is its driver's too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Bridge => "bridge",
        }
    }
}

/// A driver and its options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Driver {
    /// Driver name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Labels>,
}

/// Subnets of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamOptions {
    /// Who gives out addresses; `default` is us.
    pub driver: Driver,
    /// One per subnet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<IpamConfig>,
}

/// One subnet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// The subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNetwork>,
    /// The part of it that is given out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNetwork>,
    /// Its first hop; never given to a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A network, as the store holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: NetworkId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What was asked.
    pub spec: NetworkSpec,
    /// Set by the allocator: driver and `vxlanid_list`. `None` while it is not allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_state: Option<Driver>,
    /// Set by the allocator: the subnets in force, v4 first.
    #[serde(rename = "IPAM", default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamOptions>,
    /// Internal. VXLAN network identifier, one per network; `None` while not allocated.
    #[serde(default)]
    pub vni: Option<u32>,
    /// Internal. Why it is not allocated; empty when it is.
    #[serde(default)]
    pub allocation_error: String,
    /// Internal. Marked for removal.
    #[serde(default)]
    pub pending_delete: bool,
}

impl Network {
    /// The subnets in force, v4 first; empty while it is not allocated.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> {
        self.ipam
            .iter()
            .flat_map(|ipam| ipam.configs.iter().filter_map(|config| config.subnet))
    }
}
