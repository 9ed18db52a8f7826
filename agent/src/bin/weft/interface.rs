//! The host's network interfaces, as `swarm init` and `join` choose among them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use weft_docker::address::Interface;

/// Beginnings of names that engines, hypervisors and weft give to links of their own.
const NOT_THE_HOSTS: &[&str] = &["docker", "br-", "veth", "weft", "virbr", "wg", "tap", "tun"];

/// All interfaces with an address.
pub(crate) fn all() -> Vec<Interface> {
    let Ok(found) = getifaddrs() else {
        return Vec::new();
    };
    let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
    for one in found {
        let Some(address) = one.address else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        let Some(address) = v4.or_else(v6) else {
            continue;
        };
        let name = one.interface_name;
        let is_up = one.flags.contains(InterfaceFlags::IFF_UP);
        let is_loopback = one.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let usable =
            is_up && !is_loopback && !NOT_THE_HOSTS.iter().any(|start| name.starts_with(start));
        let interface = interfaces.entry(name.clone()).or_insert(Interface {
            name,
            addresses: Vec::new(),
            usable,
        });
        interface.addresses.push(address);
    }
    interfaces.into_values().collect()
}

/// The address from which this host would speak to `remote`.
pub(crate) fn towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if remote.is_ipv4() {
        SocketAddr::from(([0, 0, 0, 0], 0))
    } else {
        SocketAddr::from(([0u16; 8], 0))
    };
    // Connecting a datagram socket sends nothing; it only asks the routes.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified()).then_some(local)
}
