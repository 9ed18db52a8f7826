//! Links, addresses, routes and neighbours of the namespace in which the socket was opened.
//!
//! Synchronous on purpose: one request, one answer, on a thread that may stand in any namespace.

mod diag;
mod links;
mod read;
mod routes;
mod talk;

use std::net::IpAddr;

pub(crate) use diag::Diag;
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::NeighbourMessage,
    route::{RouteMessage, RouteProtocol},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use read::{address_of, link_of, neighbour_of, route_of};
use talk::Talk;
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
    talk: Talk,
}

type Messages = Vec<RouteNetlinkMessage>;

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, DataplaneError> {
        let talk = Talk::open(NETLINK_ROUTE).map_err(|source| DataplaneError::Link {
            operation: "open",
            object: "rtnetlink socket".to_owned(),
            source,
        })?;
        Ok(Self { talk })
    }

    pub(super) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: &'static str,
        object: &str,
    ) -> Result<Messages, DataplaneError> {
        self.talk
            .exchange(message, flags)
            .map_err(|source| DataplaneError::Link {
                operation,
                object: object.to_owned(),
                source,
            })
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
