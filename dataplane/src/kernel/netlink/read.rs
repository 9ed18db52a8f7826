//! What the kernel's answers say.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags},
    link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader},
};
use weft_abi::Mac;

use super::{Link, LinkAddress, Neighbour, PROTOCOL, Route};

pub(super) fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Vec::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        is_port: false,
        kind: String::new(),
        vxlan: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(_) => link.is_port = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::Data(InfoData::Vxlan(data)) => {
                            let port = data.iter().find_map(|info| match info {
                                InfoVxlan::Port(port) => Some(*port),
                                _ => None,
                            });
                            let external = data.contains(&InfoVxlan::CollectMetadata(true));
                            link.vxlan = Some((port.unwrap_or(0), external));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}

pub(super) fn address_of(message: RouteNetlinkMessage) -> Option<LinkAddress> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut own = None;
    let mut unusable = false;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link the other attribute is the peer's.
            AddressAttribute::Local(addr) => own = Some(*addr),
            AddressAttribute::Address(addr) => own = own.or(Some(*addr)),
            AddressAttribute::Flags(flags) => {
                unusable = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
            }
            _ => {}
        }
    }
    let addr = IpNetwork::new(own?, message.header.prefix_len).ok()?;
    Some(LinkAddress {
        link: message.header.index,
        addr,
        unusable,
    })
}

pub(super) fn route_of(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    if message.header.protocol != PROTOCOL || message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut to, mut link, mut source) = (None, None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => to = ip_of(addr),
            RouteAttribute::Oif(index) => link = Some(index),
            RouteAttribute::PrefSource(addr) => source = ip_of(addr),
            _ => {}
        }
    }
    let to = IpNetwork::new(to?, message.header.destination_prefix_length).ok()?;
    Some(Route {
        to,
        link: link?,
        source,
    })
}

fn ip_of(addr: RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some(addr.into()),
        RouteAddress::Inet6(addr) => Some(addr.into()),
        _ => None,
    }
}

pub(super) fn neighbour_of(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut addr, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                addr = Some(IpAddr::V4(ip))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                addr = Some(IpAddr::V6(ip))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = Mac::try_from(bytes.as_slice()).ok()
            }
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        addr: addr?,
        mac: mac?,
    })
}
