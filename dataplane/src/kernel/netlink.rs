//! Links, addresses, routes and neighbours of the namespace in which the socket was opened.
//!
//! Synchronous on purpose: one request, one answer, on a thread that may stand in any namespace.

mod links;
mod read;
mod routes;

use std::{io, net::IpAddr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::NeighbourMessage,
    route::{RouteMessage, RouteProtocol},
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
}
