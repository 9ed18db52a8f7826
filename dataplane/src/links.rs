//! What routes, neighbours and uplinks should be, from desire and what the host has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use weft_abi::{Addr, Endpoint};

use crate::{
    config::Uplinks,
    desired::Desired,
    kernel::netlink::{Link, LinkAddress, Neighbour, Route},
    tables::LOOPBACK,
};

/// Name of the overlay device.
pub(crate) const OVERLAY: &str = "weft0";

/// Whether a link of this name was made by us.
pub(crate) fn is_ours(name: &str) -> bool {
    let made_from_number = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    name == OVERLAY
        || crate::cipher::DEVICES.contains(&name)
        || made_from_number("wv")
        || made_from_number("we")
}

/// The links and addresses of the host at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Surroundings {
    /// All links by index.
    pub(crate) links: BTreeMap<u32, Link>,
    /// Addresses of links that are not ours, loopback ones left out, with their link.
    pub(crate) addresses: BTreeMap<IpAddr, u32>,
}

impl Surroundings {
    pub(crate) fn new(links: Vec<Link>, addresses: Vec<LinkAddress>) -> Self {
        let links: BTreeMap<u32, Link> = links.into_iter().map(|link| (link.index, link)).collect();
        let foreign = |index: &u32| links.get(index).is_some_and(|link| !is_ours(&link.name));
        let addresses = addresses
            .into_iter()
            .filter(|address| {
                !address.unusable && !address.addr.ip().is_loopback() && foreign(&address.link)
            })
            .map(|address| (address.addr.ip(), address.link))
            .collect();
        Self { links, addresses }
    }

    /// Links at which published ports answer.
    pub(crate) fn uplinks(&self, wish: &Uplinks) -> BTreeMap<u32, String> {
        let with_address: BTreeSet<u32> = self
            .addresses
            .iter()
            .filter(|(addr, _)| !is_link_local(**addr))
            .map(|(_, link)| *link)
            .collect();
        let counts = |link: &&Link| match wish {
            Uplinks::Named(names) => names.contains(&link.name),
            // One end of an engine's veth has no address; a host that is itself a namespace has its
            // uplink on one that does.
            Uplinks::Auto => {
                link.up
                    && !link.loopback
                    && !link.is_port
                    && !is_ours(&link.name)
                    && (link.kind != "veth" || with_address.contains(&link.index))
            }
        };
        self.links
            .values()
            .filter(counts)
            .map(|link| (link.index, link.name.clone()))
            .collect()
    }

    /// Addresses by the name of their link, loopback's with its own, link-local ones left out.
    pub(crate) fn named(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut named: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for link in self.links.values().filter(|link| link.loopback) {
            named.insert(link.name.clone(), LOOPBACK.into());
        }
        for (addr, link) in self
            .addresses
            .iter()
            .filter(|(addr, _)| !is_link_local(**addr))
        {
            if let Some(link) = self.links.get(link) {
                named.entry(link.name.clone()).or_default().insert(*addr);
            }
        }
        named
    }

    /// Links that were made by us.
    pub(crate) fn ours(&self) -> BTreeSet<u32> {
        self.links
            .values()
            .filter(|link| is_ours(&link.name))
            .map(|link| link.index)
            .collect()
    }

    /// The link that has this address.
    pub(crate) fn link_of(&self, addr: IpAddr) -> Option<&Link> {
        self.links.get(self.addresses.get(&addr)?)
    }

    /// The link that tunnelled packets leave by. A cluster of one host may have a loopback address as
    /// data path: then it is the link that clients come in by.
    pub(crate) fn data_link(&self, data_path: IpAddr) -> Option<&Link> {
        if !data_path.is_loopback() {
            return self.link_of(data_path);
        }
        let with_address = self
            .addresses
            .iter()
            .filter(|(addr, _)| !is_link_local(**addr));
        let links = with_address.filter_map(|(_, link)| self.links.get(link));
        let first = links.filter(|link| link.up).min_by_key(|link| link.index);
        first.or_else(|| self.links.values().find(|link| link.loopback))
    }

    /// The address of this host that its own processes should show to tasks of the other family than
    /// the data path's: a global one, best on the data path's link.
    fn source(&self, data_path: IpAddr, v4: bool) -> Option<IpAddr> {
        if data_path.is_ipv4() == v4 && !data_path.is_loopback() {
            return Some(data_path);
        }
        let link = self.addresses.get(&data_path);
        let mut fit: Vec<_> = self
            .addresses
            .iter()
            .filter(|(addr, _)| addr.is_ipv4() == v4 && !is_link_local(**addr))
            .collect();
        fit.sort_by_key(|(addr, on)| (Some(*on) != link, **addr));
        fit.first().map(|(addr, _)| **addr)
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

/// Routes from the host to tasks: overlay subnets through the overlay device, tasks of this node
/// through their own interface.
pub(crate) fn routes(
    desired: Option<&Desired>,
    interfaces: &[Endpoint],
    surroundings: &Surroundings,
    data_path: IpAddr,
    overlay: u32,
) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    let mut add = |to: IpNetwork, link: u32| {
        routes.insert(Route {
            to,
            link,
            source: surroundings.source(data_path, to.is_ipv4()),
        });
    };
    for subnet in desired
        .into_iter()
        .flat_map(|desired| desired.subnets.keys())
    {
        if let Ok(subnet) = IpNetwork::new(subnet.network(), subnet.prefix()) {
            add(subnet, overlay);
        }
    }
    for interface in interfaces {
        for addr in addresses(interface) {
            add(IpNetwork::from(addr), interface.ifindex);
        }
    }
    routes
}

/// Neighbours that need no asking: tasks of this node.
pub(crate) fn neighbours(interfaces: &[Endpoint]) -> BTreeSet<Neighbour> {
    let each = interfaces.iter().flat_map(|interface| {
        addresses(interface).map(|addr| Neighbour {
            link: interface.ifindex,
            addr,
            mac: interface.mac,
        })
    });
    each.collect()
}

/// The addresses of an interface.
pub(crate) fn addresses(interface: &Endpoint) -> impl Iterator<Item = IpAddr> {
    [interface.addr4, interface.addr6]
        .into_iter()
        .filter(|addr: &Addr| !addr.is_any())
        .map(IpAddr::from)
}

/// Room that tunnelling takes from a packet, in bytes.
pub(crate) fn overhead(data_path: IpAddr) -> u32 {
    if data_path.is_ipv4() { 50 } else { 70 }
}
