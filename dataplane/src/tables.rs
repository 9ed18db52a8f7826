//! The rows that the programs read: desire and host put together, and the difference of two sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use weft_abi::{
    Addr, AllowKey, Backend, Be16, Cap, Config, Endpoint, Front, FrontKey, NETS_PER_TASK, NetAddr,
    Netns, Node, NodeAddr, Prefixed, RangeKey, SubnetKey, Task, backend, config, front, netns,
    node, node_addr, range_pieces,
};
use weft_types::steering::Listen;

use crate::{
    cipher::{self, Way},
    desired::{Desired, Frontend},
    mesh::{Rings, Slots},
};

macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident $Variant:ident: $Key:ty => $Value:ty,)*) => {
        /// Every table that the agent writes.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub(crate) struct Tables {
            $($(#[$doc])* pub(crate) $field: BTreeMap<$Key, $Value>,)*
        }

        /// One row to write.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum Row { $($Variant($Key, $Value),)* }

        /// One row to remove.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum Gone { $($Variant($Key),)* }

        impl Tables {
            /// What must be written, then what must be removed, to make `have` equal to `self`.
            /// Tables are in an order in which no row names one that is not there yet; removal goes
            /// the other way.
            pub(crate) fn plan(&self, have: &Self) -> Plan {
                let mut plan = Plan::default();
                $(
                    for (key, value) in &self.$field {
                        if have.$field.get(key) != Some(value) {
                            plan.put.push(Row::$Variant(*key, value.clone()));
                        }
                    }
                    for key in have.$field.keys() {
                        if !self.$field.contains_key(key) {
                            plan.remove.push(Gone::$Variant(*key));
                        }
                    }
                )*
                plan.remove.reverse();
                plan
            }

            /// What the tables hold once the row is written.
            pub(crate) fn put(&mut self, row: Row) {
                match row { $(Row::$Variant(key, value) => { self.$field.insert(key, value); })* }
            }

            /// What the tables hold once the row is removed.
            pub(crate) fn remove(&mut self, gone: &Gone) {
                match gone { $(Gone::$Variant(key) => { self.$field.remove(key); })* }
            }
        }
    };
}

tables! {
    /// Hosts by number.
    nodes Nodes: u32 => Node,
    /// Hosts by address.
    node_by_addr NodeByAddr: Addr => NodeAddr,
    /// Which node holds an address now that may move: where answers go when the node that a client came
    /// in by is dead.
    owner Owner: Addr => u32,
    /// Addresses at which published ports answer.
    local_addrs LocalAddrs: Addr => u32,
    /// Overlay prefixes.
    subnets Subnets: SubnetKey => u32,
    /// Networks that are encrypted.
    ciphered Ciphered: u32 => u32,
    /// Attachments as targets.
    backends Backends: u32 => Backend,
    /// Local interfaces by backend.
    local_tasks LocalTasks: u32 => Endpoint,
    /// Local interfaces by index.
    endpoints Endpoints: u32 => Endpoint,
    /// Attachments by address.
    tasks Tasks: NetAddr => Task,
    /// Services that are counted.
    services Services: u32 => (),
    /// Rings before the last change.
    rings_before RingsBefore: u32 => Slots,
    /// Rings.
    rings Rings: u32 => Slots,
    /// Who may ask services that not all may ask.
    allowed Allowed: Prefixed<AllowKey> => u32,
    /// What services may use.
    caps Caps: u32 => Cap,
    /// Frontends.
    front Front: FrontKey => Front,
    /// Frontends that are ranges of ports.
    front_ranges FrontRanges: Prefixed<RangeKey> => Front,
    /// Namespaces whose sockets are helped.
    netns Netns: u64 => Netns,
    /// The one row of the configuration; last, because without it the programs do nothing.
    config Config: u32 => Config,
}

impl Row {
    /// Which table of rings this is of, if any: writing one waits for running programs.
    pub(crate) fn ring_table(&self) -> Option<u8> {
        match self {
            Self::RingsBefore(..) => Some(0),
            Self::Rings(..) => Some(1),
            _ => None,
        }
    }
}

impl Gone {
    /// As [`Row::ring_table`].
    pub(crate) fn ring_table(&self) -> Option<u8> {
        match self {
            Self::RingsBefore(_) => Some(0),
            Self::Rings(_) => Some(1),
            _ => None,
        }
    }
}

/// Rows to write, then rows to remove, each in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) put: Vec<Row>,
    pub(crate) remove: Vec<Gone>,
}

impl Plan {
    pub(crate) fn len(&self) -> usize {
        self.put.len() + self.remove.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The host's own part: links, addresses and sandboxes as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Data path address.
    pub(crate) underlay: IpAddr,
    /// UDP port of VXLAN, host order.
    pub(crate) vxlan_port: u16,
    /// Index of the overlay device.
    pub(crate) overlay: u32,
    /// Index of the link with the data path address.
    pub(crate) uplink: u32,
    /// [`weft_abi::config`] bits.
    pub(crate) flags: u32,
    /// Cookie of the host's namespace.
    pub(crate) cookie: u64,
    /// Addresses of this host, loopback not included.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Addresses by the name of their link, loopback included, link-local ones left out.
    pub(crate) named: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Interfaces of local tasks.
    pub(crate) interfaces: Vec<Endpoint>,
    /// Namespaces of local tasks and the networks they are on.
    pub(crate) namespaces: BTreeMap<u64, BTreeSet<u32>>,
    /// Longest packets that the tunnel carries to each node, in clear and encrypted.
    pub(crate) mtus: BTreeMap<u32, [u32; 2]>,
    /// How packets of encrypted networks go to each node.
    pub(crate) ways: BTreeMap<u32, Way>,
}

impl Tables {
    /// The rows for `desired` on `host`. Rings must be up to date with `desired`.
    pub(crate) fn of(desired: &Desired, host: &Host, rings: &Rings) -> Self {
        let mut tables = Self {
            rings: rings.current(),
            rings_before: rings.before(),
            services: desired.rings.keys().map(|ring| (*ring, ())).collect(),
            ..Self::default()
        };
        tables.add_nodes(desired, host);
        tables.add_ciphered(desired, host);
        tables.add_endpoints(desired, host);
        tables.add_fronts(desired, host);
        tables.add_limits(desired);
        let mut flags = host.flags;
        for (flag, needed) in [
            (config::CIPHERED, !desired.ciphered.is_empty()),
            (
                config::LISTEN | config::CARRIED,
                !desired.listens.is_empty(),
            ),
            (config::RANGES, !tables.front_ranges.is_empty()),
            (config::CAPS, !tables.caps.is_empty()),
        ] {
            if needed {
                flags |= flag;
            }
        }
        tables.add_namespaces(host);
        tables.config.insert(
            0,
            Config {
                seed: desired.ring_seed,
                node: desired.node,
                mesh: desired.mesh,
                overlay: host.overlay,
                uplink: host.uplink,
                flags,
                vxlan_port: Be16::new(host.vxlan_port),
                pad: 0,
                underlay: host.underlay.into(),
            },
        );
        tables
    }

    fn add_nodes(&mut self, desired: &Desired, host: &Host) {
        for (index, peer) in &desired.nodes {
            let flags = if peer.dead { node::DEAD } else { 0 };
            let [mtu, mtu_encrypted] = host.mtus.get(index).copied().unwrap_or_default();
            let row = Node {
                underlay: peer.addr.into(),
                flags,
                mtu,
                mtu_encrypted,
                ..Node::default()
            };
            self.nodes.insert(*index, row);
        }
        // The living after the dead, and of them those heard of last: an address that moved is told of
        // both for a while.
        let mut told: Vec<_> = desired.nodes.iter().collect();
        told.sort_by_key(|(_, peer)| (!peer.dead, !peer.missed));
        for (index, peer) in told {
            for addr in peer.addresses.iter().filter(|addr| is_ours_alone(**addr)) {
                let row = NodeAddr {
                    node: *index,
                    flags: node_addr::HOST,
                };
                self.node_by_addr.insert((*addr).into(), row);
                if !peer.dead {
                    self.owner.insert((*addr).into(), *index);
                }
            }
        }
        // After the others, so that an address told twice stays an underlay address.
        for (index, peer) in &desired.nodes {
            let flags = node_addr::HOST | node_addr::UNDERLAY;
            self.node_by_addr.insert(
                peer.addr.into(),
                NodeAddr {
                    node: *index,
                    flags,
                },
            );
        }
        for addr in &host.addresses {
            self.local_addrs.insert((*addr).into(), 1);
            if is_ours_alone(*addr) {
                let own = NodeAddr {
                    node: desired.node,
                    flags: node_addr::HOST,
                };
                let row = self.node_by_addr.entry((*addr).into()).or_insert(own);
                // What this host sees on its own links beats what was told of it.
                row.node = desired.node;
                self.owner.insert((*addr).into(), desired.node);
            }
        }
    }

    /// Nodes' addresses inside the encrypted underlay, and who must use them.
    fn add_ciphered(&mut self, desired: &Desired, host: &Host) {
        if desired.ciphered.is_empty() {
            return;
        }
        self.ciphered
            .extend(desired.ciphered.iter().map(|vni| (*vni, 1)));
        for index in desired.nodes.keys() {
            if let (Some(row), Some(way)) = (self.nodes.get_mut(index), host.ways.get(index)) {
                row.encrypted = IpAddr::V4(way.to).into();
            }
            // Both are known always: a node may move to its other keys before this one hears of it.
            for addr in cipher::addresses(*index) {
                let addr = Addr::from(IpAddr::V4(addr));
                let flags = node_addr::CIPHERED;
                self.node_by_addr.insert(
                    addr,
                    NodeAddr {
                        node: *index,
                        flags,
                    },
                );
                if *index == desired.node {
                    // So that packets for it on a link to the world are known for forged.
                    self.local_addrs.insert(addr, 1);
                }
            }
        }
    }

    fn add_endpoints(&mut self, desired: &Desired, host: &Host) {
        for (subnet, vni) in &desired.subnets {
            self.subnets.insert(subnet_key(*subnet), *vni);
        }
        for interface in &host.interfaces {
            self.endpoints.insert(interface.ifindex, *interface);
            if interface.id != 0 {
                self.local_tasks.insert(interface.id, *interface);
            }
        }
        for (id, endpoint) in &desired.endpoints {
            let addr_of = |v4: bool| {
                let addr = endpoint.addresses.iter().find(|addr| addr.is_ipv4() == v4);
                addr.map_or(Addr::ANY, |addr| Addr::from(*addr))
            };
            let flags = if endpoint.draining {
                backend::DRAINING
            } else {
                0
            };
            self.backends.insert(
                id.0,
                Backend {
                    addr4: addr_of(true),
                    addr6: addr_of(false),
                    node: endpoint.node,
                    net: endpoint.net,
                    flags,
                },
            );
            let ifindex = self
                .local_tasks
                .get(&id.0)
                .map_or(0, |interface| interface.ifindex);
            for addr in &endpoint.addresses {
                let key = NetAddr {
                    net: endpoint.net,
                    addr: (*addr).into(),
                };
                self.tasks.insert(
                    key,
                    Task {
                        id: id.0,
                        node: endpoint.node,
                        ifindex,
                    },
                );
            }
        }
        // A sandbox lives on for a while after the cluster forgot its task: it keeps its address.
        for interface in host.interfaces.iter().filter(|interface| interface.id != 0) {
            let task = Task {
                id: interface.id,
                node: desired.node,
                ifindex: interface.ifindex,
            };
            for addr in [interface.addr4, interface.addr6] {
                if !addr.is_any() {
                    self.tasks
                        .entry(NetAddr {
                            net: interface.net,
                            addr,
                        })
                        .or_insert(task);
                }
            }
            self.backends.entry(interface.id).or_insert(Backend {
                addr4: interface.addr4,
                addr6: interface.addr6,
                node: desired.node,
                net: interface.net,
                flags: backend::DRAINING,
            });
        }
    }

    fn add_fronts(&mut self, desired: &Desired, host: &Host) {
        for (frontend, target) in &desired.fronts {
            let mut row = Front {
                service: target.ring,
                port: Be16::new(target.port),
                affinity: target.affinity,
                ..Front::default()
            };
            if target.host_mode {
                row.flags |= front::HOST_MODE;
            }
            if target.allowed {
                row.flags |= front::ALLOWED;
            }
            if target.least {
                row.flags |= front::LEAST;
            }
            let listens = desired.listens.get(frontend);
            let at = listens.map_or_else(
                || BTreeSet::from([Addr::ANY]),
                |places| listening_addresses(desired, host, places),
            );
            match *frontend {
                Frontend::Vip(vni, vip) => {
                    let key = FrontKey {
                        net: vni,
                        addr: vip.into(),
                        ..FrontKey::default()
                    };
                    self.front.insert(key, row);
                }
                Frontend::Port(protocol, port) => {
                    let key = |addr| FrontKey {
                        net: 0,
                        addr,
                        port: Be16::new(port),
                        proto: protocol.number(),
                        pad: 0,
                    };
                    self.front
                        .extend(at.into_iter().map(|addr| (key(addr), row)));
                }
                Frontend::Ports(protocol, first, last) => {
                    row.base = Be16::new(first);
                    for (addr, (port, bits)) in at
                        .into_iter()
                        .flat_map(|addr| range_pieces(first, last).map(move |piece| (addr, piece)))
                    {
                        let data = RangeKey {
                            addr,
                            proto: protocol.number(),
                            pad: 0,
                            port: Be16::new(port),
                        };
                        let prefix = RangeKey::WHOLE - bits;
                        self.front_ranges.insert(Prefixed { prefix, data }, row);
                    }
                }
            }
        }
    }

    fn add_limits(&mut self, desired: &Desired) {
        for (ring, nets) in &desired.allowed {
            for net in nets {
                let SubnetKey { prefix, addr } = subnet_key(*net);
                let data = AllowKey {
                    service: *ring,
                    addr,
                };
                let prefix = 32 + prefix;
                self.allowed.insert(Prefixed { prefix, data }, 1);
            }
        }
        for (ring, rate) in &desired.caps {
            // A tenth of a second at once, and in any case what one large segment has.
            let burst = (rate / 10).max(128 * 1024);
            self.caps.insert(*ring, Cap { rate: *rate, burst });
        }
    }

    fn add_namespaces(&mut self, host: &Host) {
        self.netns.insert(
            host.cookie,
            Netns {
                flags: netns::HOST,
                ..Netns::default()
            },
        );
        for (cookie, networks) in &host.namespaces {
            let mut row = Netns::default();
            for (slot, vni) in row.nets.iter_mut().zip(networks) {
                *slot = *vni;
            }
            row.count = networks.len().min(NETS_PER_TASK) as u32;
            self.netns.insert(*cookie, row);
        }
    }
}

/// The addresses of these places, and the one for packets that another node took in: that node alone
/// knows its interfaces.
///
/// Of prefixes also those of other nodes, loopback included: a task that asks at another node's address
/// is answered from here. One that asks at another node's interface goes there.
fn listening_addresses(desired: &Desired, host: &Host, places: &[Listen]) -> BTreeSet<Addr> {
    let nodes = desired.nodes.values();
    let told = nodes.flat_map(|node| node.addresses.iter().chain([&node.addr]));
    let all: Vec<&IpAddr> = told.chain(&host.addresses).chain(&LOOPBACK).collect();
    let mut listening = BTreeSet::from([FrontKey::CARRIED]);
    for place in places {
        match place {
            Listen::Net(net) => {
                let inside = all.iter().filter(|addr| net.contains(***addr));
                listening.extend(inside.map(|addr| Addr::from(**addr)));
            }
            Listen::Interface(name) => {
                let addresses = host.named.get(name).into_iter().flatten();
                listening.extend(addresses.map(|addr| Addr::from(*addr)));
            }
        }
    }
    listening
}

/// Of every host.
pub(crate) const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
];

/// Whether an address can name one host: link-local ones are on every link.
fn is_ours_alone(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !addr.is_link_local(),
        IpAddr::V6(addr) => !addr.is_unicast_link_local(),
    }
}

pub(crate) fn subnet_key(subnet: IpNetwork) -> SubnetKey {
    let bits = u32::from(subnet.prefix());
    SubnetKey {
        prefix: if subnet.is_ipv4() { 96 + bits } else { bits },
        addr: subnet.network().into(),
    }
}

#[cfg(test)]
mod tests;
