//! Links, addresses, routes and neighbours of the namespace in which the socket was opened.
//!
//! Synchronous on purpose: one request, one answer, on a thread that may stand in any namespace.

mod read;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use ipnetwork::IpNetwork;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{
        InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use read::{address_of, link_of, neighbour_of, route_of};
use weft_abi::Mac;

use super::error::DataplaneError;

/// Marks the routes that are ours, so that nobody else's are ever removed.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(119);

/// A link as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    /// Port of a bridge or bond.
    pub(crate) is_port: bool,
    /// `veth`, `vxlan`, `bridge`; empty for hardware.
    pub(crate) kind: String,
    /// For a VXLAN device: port, and whether it takes its keys from the packet.
    pub(crate) vxlan: Option<(u16, bool)>,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkAddress {
    pub(crate) link: u32,
    pub(crate) addr: IpNetwork,
    /// Still being checked for duplicates, or found to be one.
    pub(crate) unusable: bool,
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) to: IpNetwork,
    pub(crate) link: u32,
    pub(crate) source: Option<IpAddr>,
}

/// A permanent neighbour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Neighbour {
    pub(crate) link: u32,
    pub(crate) addr: IpAddr,
    pub(crate) mac: Mac,
}

/// An open rtnetlink socket.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

type Messages = Vec<RouteNetlinkMessage>;

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, DataplaneError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self {
                socket,
                sequence: 0,
            })
        };
        open().map_err(|source| DataplaneError::Link {
            operation: "open",
            object: "rtnetlink socket".to_owned(),
            source,
        })
    }

    pub(super) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: &'static str,
        object: &str,
    ) -> Result<Messages, DataplaneError> {
        self.exchange(message, flags)
            .map_err(|source| DataplaneError::Link {
                operation,
                object: object.to_owned(),
                source,
            })
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Messages> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.take(&datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Takes one datagram apart; true when the answer is complete.
    fn take(&self, datagram: &[u8], answers: &mut Messages) -> io::Result<bool> {
        let mut rest = datagram;
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < 16 || length > rest.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "netlink message cut short",
                ));
            }
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
                Ok(message) if message.header.sequence_number != self.sequence => {}
                Ok(message) => match message.payload {
                    NetlinkPayload::Done(_) => return Ok(true),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                },
                // One object that this library cannot read must not hide all the others.
                Err(error) => tracing::debug!(%error, "netlink message not understood"),
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(false)
    }

    /// All links.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, DataplaneError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(request, NLM_F_DUMP, "list", "links")?;
        Ok(answers.into_iter().filter_map(link_of).collect())
    }

    /// The link of this name.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, DataplaneError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(
            RouteNetlinkMessage::GetLink(message),
            NLM_F_ACK,
            "look up link",
            name,
        ) {
            Ok(answers) => Ok(answers.into_iter().find_map(link_of)),
            Err(DataplaneError::Link { source, .. })
                if source.raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// All addresses.
    pub(crate) fn addresses(&mut self) -> Result<Vec<LinkAddress>, DataplaneError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask(request, NLM_F_DUMP, "list", "addresses")?;
        Ok(answers.into_iter().filter_map(address_of).collect())
    }

    /// Routes of ours in the main table.
    pub(crate) fn routes(&mut self) -> Result<Vec<Route>, DataplaneError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.ask(
                RouteNetlinkMessage::GetRoute(message),
                NLM_F_DUMP,
                "list",
                "routes",
            )?;
            routes.extend(answers.into_iter().filter_map(route_of));
        }
        Ok(routes)
    }

    /// Permanent neighbours.
    pub(crate) fn neighbours(&mut self) -> Result<Vec<Neighbour>, DataplaneError> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.ask(request, NLM_F_DUMP, "list", "neighbours")?;
        Ok(answers.into_iter().filter_map(neighbour_of).collect())
    }

    /// Makes the overlay device: one VXLAN device for all networks, which takes network and peer from
    /// the packet, learns nothing and resolves nothing.
    pub(crate) fn add_overlay(
        &mut self,
        name: &str,
        mac: Mac,
        port: u16,
    ) -> Result<(), DataplaneError> {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
        message.attributes.extend([
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::CollectMetadata(true),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Port(port),
                    InfoVxlan::UDPZeroCsumTX(true),
                    InfoVxlan::UDPZeroCsumRX(true),
                ])),
            ]),
        ]);
        let request = RouteNetlinkMessage::NewLink(message);
        self.ask(
            request,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            "make overlay device",
            name,
        )?;
        Ok(())
    }

    /// Makes a veth pair: `name` here, with the hardware address `mac`; its peer is born in the
    /// namespace `peer_netns` as `peer_name` with `peer_mac`. Both down, both with this MTU.
    pub(crate) fn add_veth(
        &mut self,
        name: &str,
        mac: Mac,
        peer_netns: BorrowedFd<'_>,
        peer_name: &str,
        peer_mac: Mac,
        mtu: u32,
    ) -> Result<(), DataplaneError> {
        let mut peer = LinkMessage::default();
        peer.attributes.extend([
            LinkAttribute::IfName(peer_name.to_owned()),
            LinkAttribute::Address(peer_mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NetNsFd(peer_netns.as_raw_fd()),
        ]);
        let mut message = LinkMessage::default();
        message.attributes.extend([
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ]);
        let request = RouteNetlinkMessage::NewLink(message);
        self.ask(
            request,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            "make interface",
            name,
        )?;
        Ok(())
    }

    /// Sets MTU and takes the link up.
    pub(crate) fn take_up(&mut self, index: u32, mtu: Option<u32>) -> Result<(), DataplaneError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        let request = RouteNetlinkMessage::SetLink(message);
        self.ask(request, NLM_F_ACK, "take up link", &index.to_string())?;
        Ok(())
    }

    /// Removes a link; one that is gone is fine.
    pub(crate) fn remove_link(&mut self, name: &str) -> Result<(), DataplaneError> {
        let Some(link) = self.link(name)? else {
            return Ok(());
        };
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        match self.ask(
            RouteNetlinkMessage::DelLink(message),
            NLM_F_ACK,
            "remove link",
            name,
        ) {
            Err(DataplaneError::Link { source, .. })
                if source.raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Puts an address on a link, without asking the neighbourhood whether it is free: the allocator
    /// said so. With `prefix_route`, its subnet is on the link.
    pub(crate) fn add_address(
        &mut self,
        link: u32,
        addr: IpNetwork,
        prefix_route: bool,
    ) -> Result<(), DataplaneError> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        message.header.prefix_len = addr.prefix();
        message.header.scope = AddressScope::Universe;
        let mut flags = AddressFlags::empty();
        if addr.is_ipv6() {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            flags |= AddressFlags::Nodad;
        } else {
            message.header.family = AddressFamily::Inet;
        }
        if !prefix_route {
            flags |= AddressFlags::Noprefixroute;
        }
        message.attributes.extend([
            AddressAttribute::Local(addr.ip()),
            AddressAttribute::Address(addr.ip()),
            AddressAttribute::Flags(flags),
        ]);
        let request = RouteNetlinkMessage::NewAddress(message);
        self.ask(
            request,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            "add address",
            &addr.to_string(),
        )?;
        Ok(())
    }

    fn route_message(route: &Route) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(route.to.ip());
        message.header.destination_prefix_length = route.to.prefix();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = PROTOCOL;
        message.header.scope = if route.to.is_ipv4() {
            RouteScope::Link
        } else {
            RouteScope::Universe
        };
        message.header.kind = RouteType::Unicast;
        message
            .attributes
            .push(RouteAttribute::Destination(route_address(
                route.to.network(),
            )));
        message.attributes.push(RouteAttribute::Oif(route.link));
        message.attributes.extend(
            route
                .source
                .map(|source| RouteAttribute::PrefSource(route_address(source))),
        );
        message
    }

    /// Adds or replaces a route of ours.
    pub(crate) fn put_route(&mut self, route: &Route) -> Result<(), DataplaneError> {
        let request = RouteNetlinkMessage::NewRoute(Self::route_message(route));
        self.ask(
            request,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            "add route to",
            &route.to.to_string(),
        )?;
        Ok(())
    }

    /// Removes a route of ours; one that is gone is fine.
    pub(crate) fn remove_route(&mut self, route: &Route) -> Result<(), DataplaneError> {
        let request = RouteNetlinkMessage::DelRoute(Self::route_message(route));
        match self.ask(request, NLM_F_ACK, "remove route to", &route.to.to_string()) {
            Err(DataplaneError::Link { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Adds a default route through `gateway`, which is taken to be on the link; in `table`.
    pub(crate) fn add_default_route(
        &mut self,
        link: u32,
        gateway: IpAddr,
        source: Option<IpAddr>,
        table: u8,
    ) -> Result<(), DataplaneError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = table;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Oif(link));
        message
            .attributes
            .push(RouteAttribute::Gateway(route_address(gateway)));
        message
            .attributes
            .extend(source.map(|source| RouteAttribute::PrefSource(route_address(source))));
        let request = RouteNetlinkMessage::NewRoute(message);
        let object = format!("via {gateway} in table {table}");
        self.ask(
            request,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            "add default route",
            &object,
        )?;
        Ok(())
    }

    /// Packets from `source` look into `table` first.
    pub(crate) fn add_source_rule(
        &mut self,
        source: IpAddr,
        table: u8,
    ) -> Result<(), DataplaneError> {
        let mut message = RuleMessage::default();
        message.header.family = family(source);
        message.header.src_len = if source.is_ipv4() { 32 } else { 128 };
        message.header.table = table;
        message.header.action = RuleAction::ToTable;
        message.attributes.extend([
            RuleAttribute::Source(source),
            RuleAttribute::Priority(1000 + u32::from(table)),
        ]);
        let request = RouteNetlinkMessage::NewRule(message);
        match self.ask(
            request,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            "add rule for",
            &source.to_string(),
        ) {
            Err(DataplaneError::Link { source, .. })
                if source.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Adds or replaces a permanent neighbour.
    pub(crate) fn put_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), DataplaneError> {
        let request = RouteNetlinkMessage::NewNeighbour(neighbour_message(neighbour));
        let object = neighbour.addr.to_string();
        self.ask(
            request,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            "add neighbour",
            &object,
        )?;
        Ok(())
    }

    /// Removes a permanent neighbour; one that is gone is fine.
    pub(crate) fn remove_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), DataplaneError> {
        let request = RouteNetlinkMessage::DelNeighbour(neighbour_message(neighbour));
        match self.ask(
            request,
            NLM_F_ACK,
            "remove neighbour",
            &neighbour.addr.to_string(),
        ) {
            Err(DataplaneError::Link { source, .. })
                if matches!(
                    source.raw_os_error(),
                    Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)
                ) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn route_address(addr: IpAddr) -> RouteAddress {
    addr.into()
}

fn neighbour_message(neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbour.addr);
    message.header.ifindex = neighbour.link;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.extend([
        NeighbourAttribute::Destination(neighbour.addr.into()),
        NeighbourAttribute::LinkLayerAddress(neighbour.mac.to_vec()),
    ]);
    message
}
