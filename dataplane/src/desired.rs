//! What this node's network should be, from the cluster's state alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use weft_types::{
    BackendId, NetworkId, NodeId, ServiceId,
    netstate::{EndpointPhase, NetEndpoint, NetService, NetState},
    service::{PortConfig, Protocol},
    steering::{Listen, Steering},
};

use crate::probe::Verdicts;

/// What this node's network should be: the cluster's part. The node's own part (links, addresses,
/// sandboxes) is added by [`crate::Dataplane`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Revision of the state it was made from.
    pub revision: u64,
    /// Seed of the ring hash.
    pub ring_seed: u64,
    /// This node's number; never 0.
    pub node: u32,
    /// VNI of the ingress network; 0 while there is none.
    pub mesh: u32,
    /// All nodes by number.
    pub nodes: BTreeMap<u32, Node>,
    /// Overlay subnets and their VNI.
    pub subnets: BTreeMap<IpNetwork, u32>,
    /// VNIs of networks whose packets travel between nodes only encrypted.
    pub ciphered: BTreeSet<u32>,
    /// This node's own keys for them, one per generation; without any they cannot be had. The cluster does
    /// not know them: whoever has them puts them here.
    pub keys: Vec<crate::WireGuard>,
    /// Attachments of all nodes.
    pub endpoints: BTreeMap<BackendId, Endpoint>,
    /// Where clients knock.
    pub fronts: BTreeMap<Frontend, Target>,
    /// Ring number -> who may be chosen.
    pub rings: BTreeMap<u32, BTreeSet<BackendId>>,
    /// Ring number -> who is chosen when none of a ring that prefers the near ones is left.
    pub spill: BTreeMap<u32, BTreeSet<BackendId>>,
    /// Ring number -> name of its service, for people.
    pub service_names: BTreeMap<u32, String>,
    /// Shares of backends, by ring; one that is not named has one share.
    pub weights: BTreeMap<u32, BTreeMap<BackendId, u32>>,
    /// Frontends that answer in some places of nodes alone.
    pub listens: BTreeMap<Frontend, Vec<Listen>>,
    /// Ring number -> sources that alone may ask, where not all may.
    pub allowed: BTreeMap<u32, Vec<IpNetwork>>,
    /// Ring number -> bytes a second, per node and direction.
    pub caps: BTreeMap<u32, u64>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its host name, for people.
    pub name: String,
    /// Its underlay address.
    pub addr: IpAddr,
    /// Its other addresses, of both families.
    pub addresses: BTreeSet<IpAddr>,
    /// Where it stands; empty where that is not told.
    pub zone: String,
    /// Managers do not hear of its agent: what it told of itself may be old, and its tasks are being
    /// replaced. The host may live and forward all the same.
    pub missed: bool,
    /// Does not answer; where nobody has probed it, managers are believed.
    pub dead: bool,
    /// Its key and port for encrypted networks, once told.
    pub wireguard: Option<weft_types::netstate::WireGuardPeer>,
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its task's name, for people.
    pub name: String,
    /// Its service's name, for people; none for a user's own container.
    pub service: Option<String>,
    /// VNI.
    pub net: u32,
    /// Number of the node that runs it.
    pub node: u32,
    /// Its addresses, v4 first.
    pub addresses: Vec<IpAddr>,
    /// Leaving: keeps flows, gets no new ones.
    pub draining: bool,
}

/// Where clients knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// A published port, on every address of this node. Host order.
    Port(Protocol, u16),
    /// A service's address on the network with this VNI.
    Vip(u32, IpAddr),
    /// Published ports from the first to the last, which lead to as many ports of the task.
    Ports(Protocol, u16, u16),
}

impl Frontend {
    /// Whether it is a published port that takes packets of this IP protocol for this port.
    pub(crate) fn takes(&self, proto: u8, port: u16) -> bool {
        match *self {
            Self::Port(protocol, at) => protocol.number() == proto && at == port,
            Self::Ports(protocol, first, last) => {
                protocol.number() == proto && (first..=last).contains(&port)
            }
            Self::Vip(..) => false,
        }
    }
}

/// What is behind a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Key of [`Desired::rings`].
    pub ring: u32,
    /// Port of the task, host order, for a range the first; 0 keeps the client's.
    pub port: u16,
    /// Only tasks of this node.
    pub host_mode: bool,
    /// Seconds for which a client stays with its task; 0: each flow chooses.
    pub affinity: u32,
    /// Only the sources in [`Desired::allowed`] may ask.
    pub allowed: bool,
    /// Of two tasks that the ring names, the one with fewer connections is taken.
    pub least: bool,
}

impl Target {
    /// A target without anything special.
    fn plain(ring: u32, port: u16) -> Self {
        Self {
            ring,
            port,
            host_mode: false,
            affinity: 0,
            allowed: false,
            least: false,
        }
    }
}

/// A state from which nothing can be desired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DesireError {
    /// The state does not list this node.
    #[error("network state {revision} does not list this node {node}")]
    NotAMember {
        /// Revision of the state.
        revision: u64,
        /// This node.
        node: NodeId,
    },
}

impl Desired {
    /// What the node `node` should hold, given the cluster's state and the nodes that its own probes
    /// found dead.
    ///
    /// # Errors
    /// When the state does not list the node.
    pub fn of(
        state: &NetState,
        node: NodeId,
        dead: &BTreeSet<NodeId>,
    ) -> Result<Self, DesireError> {
        let own =
            state
                .nodes
                .get(&node)
                .filter(|own| own.index != 0)
                .ok_or(DesireError::NotAMember {
                    revision: state.revision,
                    node,
                })?;
        let mut desired = Self {
            revision: state.revision,
            ring_seed: state.ring_seed,
            node: own.index,
            ..Self::default()
        };
        for (id, peer) in &state.nodes {
            // A node that runs this line is alive, whatever a manager believes.
            let missed = *id != node && !peer.alive;
            desired.nodes.insert(
                peer.index,
                Node {
                    name: peer.hostname.clone(),
                    addr: peer.addr,
                    addresses: peer.addresses.clone(),
                    zone: peer.zone.clone(),
                    missed,
                    dead: missed || (*id != node && dead.contains(id)),
                    wireguard: peer.wireguard,
                },
            );
        }
        for network in state.networks.values() {
            if network.ingress {
                desired.mesh = network.vni;
            }
            if network.encrypted {
                desired.ciphered.insert(network.vni);
            }
            desired
                .subnets
                .extend(network.subnets.iter().map(|subnet| (*subnet, network.vni)));
        }
        for (backend, endpoint) in &state.endpoints {
            let (Some(network), Some(peer)) = (
                state.networks.get(&endpoint.network),
                state.nodes.get(&endpoint.node),
            ) else {
                continue;
            };
            desired.endpoints.insert(
                *backend,
                Endpoint {
                    name: endpoint.name.clone(),
                    service: endpoint
                        .service
                        .and_then(|service| state.services.get(&service))
                        .map(|service| service.name.clone()),
                    net: network.vni,
                    node: peer.index,
                    addresses: endpoint.addresses.iter().map(IpNetwork::ip).collect(),
                    draining: endpoint.phase == EndpointPhase::Draining,
                },
            );
        }
        desired.add_services(state);
        desired.add_host_ports(state, node);
        Ok(desired)
    }

    /// The same with nodes dead or alive as their hosts answer, which goes before what managers hear of
    /// their agents.
    #[must_use]
    pub(crate) fn judged(&self, verdicts: &Verdicts) -> Self {
        let Verdicts { dead, living } = verdicts;
        let mut desired = self.clone();
        for (index, node) in &mut desired.nodes {
            let believed = node.dead && !living.contains(index);
            node.dead = *index != self.node && (believed || dead.contains(index));
        }
        let gone = |backend: &BackendId| {
            let endpoint = self.endpoints.get(backend);
            endpoint
                .is_some_and(|endpoint| endpoint.node != self.node && dead.contains(&endpoint.node))
        };
        for (ring, backends) in &mut desired.rings {
            backends.retain(|backend| !gone(backend));
            if backends.is_empty()
                && let Some(others) = self.spill.get(ring)
            {
                backends.extend(others.iter().filter(|backend| !gone(backend)));
            }
        }
        desired
    }

    fn add_services(&mut self, state: &NetState) {
        let choosable = choosable(state, &self.nodes);
        let ingress = state
            .networks
            .iter()
            .find(|(_, network)| network.ingress)
            .map(|(id, _)| *id);
        for (service, wish) in &state.services {
            // What does not parse was never accepted by a manager of this version.
            let steering = Steering::of(&wish.labels).unwrap_or_default();
            if let Some(ingress) = ingress
                && !wish.ports.is_empty()
            {
                let ring = self.ring(&choosable, (*service, ingress), wish, &steering);
                if !steering.allow.is_empty() {
                    self.allowed.insert(ring, steering.allow.clone());
                }
                for (front, port) in fronts(&wish.ports, &steering) {
                    let target = Target {
                        affinity: affinity(&steering),
                        allowed: !steering.allow.is_empty(),
                        least: steering.least,
                        ..Target::plain(ring, port.target_port)
                    };
                    self.fronts.insert(front, target);
                    if let Some(places) = steering.listens(port.published_port) {
                        self.listens.insert(front, places.to_vec());
                    }
                }
            }
            for (network, vips) in &wish.vips {
                let Some(vni) = state.networks.get(network).map(|network| network.vni) else {
                    continue;
                };
                if vips.is_empty() {
                    continue;
                }
                let ring = self.ring(&choosable, (*service, *network), wish, &steering);
                for vip in vips {
                    let target = Target {
                        affinity: affinity(&steering),
                        least: steering.least,
                        ..Target::plain(ring, 0)
                    };
                    self.fronts.insert(Frontend::Vip(vni, *vip), target);
                }
            }
        }
    }

    /// Ports of `mode=host`: they lead to this node's tasks alone. A port that the mesh has too stays
    /// the mesh's.
    fn add_host_ports(&mut self, state: &NetState, node: NodeId) {
        let here = state.endpoints.iter().filter(|(_, endpoint)| {
            endpoint.node == node && endpoint.phase != EndpointPhase::Draining
        });
        for (backend, endpoint) in here {
            for port in &endpoint.host_ports {
                let front = Frontend::Port(port.protocol, port.published_port);
                if self
                    .fronts
                    .get(&front)
                    .is_some_and(|target| !target.host_mode)
                {
                    continue;
                }
                let key = format!("host/{}/{}", port.protocol.as_str(), port.published_port);
                let ring = free_number(&self.rings, hash(&key), |_| true);
                // A task has its host ports on each of its networks: one of them is enough.
                let target = self.fronts.entry(front).or_insert(Target {
                    host_mode: true,
                    ..Target::plain(ring, port.target_port)
                });
                let backends = self.rings.entry(target.ring).or_default();
                if backends.is_empty() {
                    backends.insert(*backend);
                    let name = endpoint.name.clone();
                    self.service_names.insert(target.ring, name);
                }
            }
        }
    }

    /// The ring of a service on a network, made as its labels wish.
    fn ring(
        &mut self,
        choosable: &BTreeMap<(ServiceId, NetworkId), BTreeSet<BackendId>>,
        of: (ServiceId, NetworkId),
        wish: &NetService,
        steering: &Steering,
    ) -> u32 {
        let all = choosable.get(&of).cloned().unwrap_or_default();
        let node_of = |backend: &BackendId| self.endpoints.get(backend).map(|task| task.node);
        let zone_of = |node: u32| self.nodes.get(&node).map(|node| node.zone.as_str());
        let own_zone = zone_of(self.node).filter(|zone| !zone.is_empty());
        let is_here = |backend: &BackendId| node_of(backend) == Some(self.node);
        let is_near = |backend: &BackendId| {
            own_zone.is_some() && node_of(backend).and_then(zone_of) == own_zone
        };
        // The nearest that are there; all when none is near.
        let part = |is_inside: &dyn Fn(&BackendId) -> bool| -> Option<BTreeSet<BackendId>> {
            let inside: BTreeSet<_> = all.iter().copied().filter(|task| is_inside(task)).collect();
            (!inside.is_empty()).then_some(inside)
        };
        let here = steering.prefer_local.then(|| part(&is_here)).flatten();
        let near = || steering.prefer_zone.then(|| part(&is_near)).flatten();
        let backends = here.or_else(near).unwrap_or_else(|| all.clone());
        let mut weights = BTreeMap::new();
        if !steering.weights.is_empty() {
            for backend in &all {
                let node = node_of(backend).and_then(|node| self.nodes.get(&node));
                weights.extend(node.map(|node| (*backend, steering.weight(&node.name))));
            }
        }
        let (service, network) = of;
        let key = format!("{service}/{network}");
        let ring = free_number(&self.rings, hash(&key), |held| *held == backends);
        if backends != all {
            self.spill.insert(ring, all);
        }
        self.rings.insert(ring, backends);
        if !weights.is_empty() {
            self.weights.insert(ring, weights);
        }
        self.service_names.insert(ring, wish.name.clone());
        self.caps.extend(steering.cap.map(|cap| (ring, cap)));
        ring
    }
}

fn affinity(steering: &Steering) -> u32 {
    let time = steering.affinity.map_or(0, |time| time.as_secs());
    u32::try_from(time).unwrap_or(u32::MAX)
}

/// Consecutive ports from which on a range is one frontend.
const RANGE: usize = 8;

/// Frontends of published ports, with the port or the first port of each: long runs of ports that lead
/// to as long runs of the task's become one.
fn fronts<'a>(ports: &'a [PortConfig], steering: &Steering) -> Vec<(Frontend, &'a PortConfig)> {
    let mut sorted: Vec<&PortConfig> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.protocol, port.published_port));
    let follows = |a: &&PortConfig, b: &&PortConfig| {
        a.protocol == b.protocol
            && a.published_port.checked_add(1) == Some(b.published_port)
            && a.target_port.checked_add(1) == Some(b.target_port)
            && steering.listens(a.published_port) == steering.listens(b.published_port)
    };
    let mut fronts = Vec::new();
    for run in sorted.chunk_by(follows) {
        match run {
            [first, .., last] if run.len() >= RANGE => {
                let range =
                    Frontend::Ports(first.protocol, first.published_port, last.published_port);
                fronts.push((range, *first));
            }
            _ => fronts.extend(
                run.iter()
                    .map(|port| (Frontend::Port(port.protocol, port.published_port), *port)),
            ),
        }
    }
    fronts
}

/// Who may be chosen, by service and network: serving, and on a node that answers.
fn choosable(
    state: &NetState,
    nodes: &BTreeMap<u32, Node>,
) -> BTreeMap<(ServiceId, NetworkId), BTreeSet<BackendId>> {
    let mut choosable: BTreeMap<_, BTreeSet<BackendId>> = BTreeMap::new();
    for (backend, endpoint) in &state.endpoints {
        if let Some(service) = endpoint.service
            && is_choosable(state, nodes, endpoint)
        {
            choosable
                .entry((service, endpoint.network))
                .or_default()
                .insert(*backend);
        }
    }
    choosable
}

fn is_choosable(state: &NetState, nodes: &BTreeMap<u32, Node>, endpoint: &NetEndpoint) -> bool {
    let node = state
        .nodes
        .get(&endpoint.node)
        .and_then(|node| nodes.get(&node.index));
    endpoint.phase == EndpointPhase::Serving && node.is_some_and(|node| !node.dead)
}

/// The first number from `start` on that is free, or taken by the very same ring: ring numbers come
/// from names, so that a restart finds the numbers it had.
fn free_number(
    rings: &BTreeMap<u32, BTreeSet<BackendId>>,
    start: u32,
    same: impl Fn(&BTreeSet<BackendId>) -> bool,
) -> u32 {
    let mut number = start.max(1);
    while rings.get(&number).is_some_and(|held| !same(held)) {
        number = number.wrapping_add(1).max(1);
    }
    number
}

/// FNV-1a, folded to 32 bits.
fn hash(text: &str) -> u32 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests;
