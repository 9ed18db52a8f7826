//! Routes, rules and neighbours, made and removed.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{Neighbour, Netlink, PROTOCOL, Route};
use crate::DataplaneError;

impl Netlink {
    pub(super) fn route_message(route: &Route) -> RouteMessage {
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

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}
