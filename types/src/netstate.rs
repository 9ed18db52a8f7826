//! What a node must know of the cluster's network: a numbered projection of the store.
//!
//! The manager computes it, the agent turns it into kernel state and DNS zones and reports the
//! revision that its kernel holds. Level-triggered: the whole state is the truth, deltas only
//! save bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    BackendId, Labels, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
    service::{EndpointMode, PortConfig},
};

/// The network as one node must know it: the networks it takes part in, everybody on them, all
/// nodes, and every published port.
///
/// Invariant: endpoints and services name only networks that are in `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetState {
    /// Grows with each change; comparable between nodes.
    pub revision: u64,
    /// Seed of the ring hash.
    pub ring_seed: u64,
    /// UDP port of VXLAN, host order.
    pub data_path_port: u16,
    /// Generations of the nodes' keys for encrypted networks.
    #[serde(default)]
    pub keys: KeyGenerations,
    /// All nodes of the cluster.
    pub nodes: BTreeMap<NodeId, NetNode>,
    /// Networks that this node takes part in; always the ingress network.
    pub networks: BTreeMap<NetworkId, NetNetwork>,
    /// Attachments on those networks, of tasks on all nodes.
    pub endpoints: BTreeMap<BackendId, NetEndpoint>,
    /// Services that have a name on those networks or publish a port.
    pub services: BTreeMap<ServiceId, NetService>,
}

/// A node, as others' tables need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetNode {
    /// Its small number.
    pub index: u32,
    /// Host name.
    pub hostname: String,
    /// Underlay address that carries task traffic.
    pub addr: IpAddr,
    /// Its other addresses, of both families: a task's reply to one of them goes to this node.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// Whether managers think it alive. A node's own probes may know better.
    pub alive: bool,
    /// How it is reached for networks that are encrypted; `None` until it told.
    #[serde(default)]
    pub wireguard: Option<WireGuardPeer>,
    /// Its label [`ZONE`]; empty when it has none.
    #[serde(default)]
    pub zone: String,
}

/// Label of a node that says in which zone it stands, for services that prefer their own.
pub const ZONE: &str = "weft.zone";

/// Which generations of the nodes' keys for encrypted networks are in use. Each node makes a key of its
/// own for the newest, and keeps the older one for as long as `oldest` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyGenerations {
    /// The one that nodes use with each other as soon as they can.
    pub newest: u64,
    /// `newest`, or the one before it while nodes move to the newest.
    pub oldest: u64,
}

/// How a node is reached inside the encrypted underlay, besides its underlay address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WireGuardPeer {
    /// Its public key: a point of Curve25519.
    pub key: [u8; 32],
    /// UDP port it listens on, host order.
    pub port: u16,
    /// Generation of this key, the newest that the node has.
    #[serde(default)]
    pub generation: u64,
    /// Its key of the generation before, for as long as it answers to that too.
    #[serde(default)]
    pub before: Option<FormerKey>,
    /// It uses the older key with no node any more that is alive and has a newer one.
    #[serde(default)]
    pub settled: bool,
}

/// A node's key of the generation before its newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerKey {
    /// The public key.
    pub key: [u8; 32],
    /// UDP port it listens on with that key, host order.
    pub port: u16,
}

impl WireGuardPeer {
    /// Public key and port of one generation, if the node has such.
    #[must_use]
    pub fn of(&self, generation: u64) -> Option<([u8; 32], u16)> {
        if generation == self.generation {
            return Some((self.key, self.port));
        }
        let former = self.before?;
        (self.generation.checked_sub(1) == Some(generation)).then_some((former.key, former.port))
    }
}

/// A network, as a node needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetNetwork {
    /// Its name; the suffix of names on it.
    pub name: String,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Subnets, v4 first.
    pub subnets: Vec<IpNetwork>,
    /// First hops, one per subnet that has one; nobody's address.
    pub gateways: Vec<IpAddr>,
    /// Container MTU asked for by option, in bytes; `None` means computed from the underlay.
    pub mtu_bytes: Option<u16>,
    /// The network of published ports.
    pub ingress: bool,
    /// Without a way to the world.
    pub internal: bool,
    /// Packets must be encrypted.
    pub encrypted: bool,
    /// What its users are shown.
    #[serde(default)]
    pub about: NetworkAbout,
}

/// Of a network, what `docker network inspect` shows on a node that is no manager; no packet depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkAbout {
    /// When it was made.
    pub created_at: Timestamp,
    /// Users' own containers may be on it.
    pub attachable: bool,
    /// Its labels.
    pub labels: Labels,
}

/// One task's attachment to one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetEndpoint {
    /// Whose.
    pub task: TaskId,
    /// On which network.
    pub network: NetworkId,
    /// On which node.
    pub node: NodeId,
    /// Addresses with the subnet's prefix length, v4 first.
    pub addresses: Vec<IpNetwork>,
    /// Of which service; `None` for a user's own container.
    pub service: Option<ServiceId>,
    /// Container name, `<service>.<slot>.<task id>`.
    pub name: String,
    /// Further names of this one container: its host name, its container id's first 12 digits,
    /// a user container's aliases.
    pub names: Vec<String>,
    /// Whether it may be chosen.
    pub phase: EndpointPhase,
    /// Its host-mode ports.
    pub host_ports: Vec<PortConfig>,
}

/// Whether an endpoint may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndpointPhase {
    /// Reachable by address, but not healthy yet: in no ring, and no name leads to it.
    Starting,
    /// In rings and names.
    Serving,
    /// In no ring and no name; its flows live on until it stops.
    Draining,
}

/// A service, as a node needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetService {
    /// Its name.
    pub name: String,
    /// What the name resolves to.
    pub mode: EndpointMode,
    /// VIPs per network, v4 first.
    pub vips: BTreeMap<NetworkId, Vec<IpAddr>>,
    /// Further names per network.
    pub aliases: BTreeMap<NetworkId, BTreeSet<String>>,
    /// Ports published by the routing mesh (`PublishMode::Ingress` only), numbers filled in.
    pub ports: Vec<PortConfig>,
    /// The service's labels that steer the data plane (`weft.*`).
    pub labels: BTreeMap<String, String>,
}

/// A step from one revision to another. Everything named is replaced whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDelta {
    /// The revision this step starts from; 0 means from nothing: forget all that was known.
    pub base: u64,
    /// The revision it leads to.
    pub revision: u64,
    /// As in [`NetState`].
    pub ring_seed: u64,
    /// As in [`NetState`].
    pub data_path_port: u16,
    /// As in [`NetState`].
    pub keys: KeyGenerations,
    /// New or changed; `None` removes.
    pub nodes: BTreeMap<NodeId, Option<NetNode>>,
    /// New or changed; `None` removes.
    pub networks: BTreeMap<NetworkId, Option<NetNetwork>>,
    /// New or changed; `None` removes.
    pub endpoints: BTreeMap<BackendId, Option<NetEndpoint>>,
    /// New or changed; `None` removes.
    pub services: BTreeMap<ServiceId, Option<NetService>>,
}

/// A delta that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network delta from revision {base} cannot follow revision {have}: ask for a snapshot")]
pub struct DeltaGapError {
    /// The revision held.
    pub have: u64,
    /// The revision the delta starts from.
    pub base: u64,
}

fn changes<K: Ord + Copy, V: Clone + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let mut changes: BTreeMap<K, Option<V>> = gone.map(|key| (*key, None)).collect();
    for (key, value) in new {
        if old.get(key) != Some(value) {
            changes.insert(*key, Some(value.clone()));
        }
    }
    changes
}

fn apply<K: Ord, V>(map: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

impl NetState {
    /// The step that leads from `self` to `new`; from nothing if `self` is the default.
    #[must_use]
    pub fn delta_to(&self, new: &Self) -> NetDelta {
        NetDelta {
            base: self.revision,
            revision: new.revision,
            ring_seed: new.ring_seed,
            data_path_port: new.data_path_port,
            keys: new.keys,
            nodes: changes(&self.nodes, &new.nodes),
            networks: changes(&self.networks, &new.networks),
            endpoints: changes(&self.endpoints, &new.endpoints),
            services: changes(&self.services, &new.services),
        }
    }

    /// Takes the step `delta`.
    ///
    /// # Errors
    /// When the delta starts from another revision than the one held; nothing is changed then.
    pub fn apply(&mut self, delta: NetDelta) -> Result<(), DeltaGapError> {
        if delta.base == 0 {
            *self = Self::default();
        } else if delta.base != self.revision {
            return Err(DeltaGapError {
                have: self.revision,
                base: delta.base,
            });
        }
        self.revision = delta.revision;
        self.ring_seed = delta.ring_seed;
        self.data_path_port = delta.data_path_port;
        self.keys = delta.keys;
        apply(&mut self.nodes, delta.nodes);
        apply(&mut self.networks, delta.networks);
        apply(&mut self.endpoints, delta.endpoints);
        apply(&mut self.services, delta.services);
        Ok(())
    }

    /// Whether two states say the same, whatever their revisions.
    #[must_use]
    pub fn same_facts(&self, other: &Self) -> bool {
        self.ring_seed == other.ring_seed
            && self.data_path_port == other.data_path_port
            && self.keys == other.keys
            && self.nodes == other.nodes
            && self.networks == other.networks
            && self.endpoints == other.endpoints
            && self.services == other.services
    }
}
