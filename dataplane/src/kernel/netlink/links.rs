//! Links and their addresses, made and removed.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{
        InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    },
};
use weft_abi::Mac;

use super::Netlink;
use crate::DataplaneError;

impl Netlink {
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
}
