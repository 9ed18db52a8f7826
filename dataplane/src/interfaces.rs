//! Making a task's interfaces: the host's side and the sandbox's.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::BorrowedFd,
};

use ipnetwork::{IpNetwork, Ipv4Network};
use weft_abi::{Addr, Endpoint, GATEWAY_MAC, GATEWAY4, GATEWAY6, Mac, endpoint};

use crate::{
    DataplaneError, SandboxSpec,
    kernel::{
        netlink::{Link, Netlink},
        netns, sysctl,
    },
};

/// One interface to make: everything but the index, which the kernel gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Name on the host's side: `wv` and the backend's number, or `we` and the egress address.
    pub(crate) name: String,
    /// Name in the sandbox.
    pub(crate) inner_name: String,
    /// Backend number, or 0.
    pub(crate) id: u32,
    /// VNI, or 0.
    pub(crate) vni: u32,
    /// [`endpoint`] bits.
    pub(crate) flags: u32,
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<IpNetwork>,
    pub(crate) mtu: u32,
    /// Whether it leads to the world.
    pub(crate) leads_out: bool,
}

impl Interface {
    /// The row for the programs, once the index is known.
    pub(crate) fn endpoint(&self, ifindex: u32) -> Endpoint {
        let addr = |v4: bool| {
            let found = self.addresses.iter().find(|addr| addr.is_ipv4() == v4);
            found.map_or(Addr::ANY, |addr| addr.ip().into())
        };
        Endpoint {
            id: self.id,
            ifindex,
            net: self.vni,
            flags: self.flags,
            addr4: addr(true),
            addr6: addr(false),
            mac: self.mac,
            pad: [0; 2],
        }
    }
}

/// The interfaces of a sandbox; `mtu` and for encrypted networks `ciphered` are for those that ask for
/// none, `egress` the address of a task without networks.
pub(crate) fn plan(
    spec: &SandboxSpec,
    mtu: u32,
    ciphered: u32,
    egress: Option<Ipv4Addr>,
) -> Vec<Interface> {
    if let (true, Some(addr)) = (spec.attachments.is_empty(), egress) {
        let [a, b, c, d] = addr.octets();
        return vec![Interface {
            name: format!("we{:08x}", u32::from(addr)),
            inner_name: "eth0".to_owned(),
            id: 0,
            vni: 0,
            flags: 0,
            mac: [0x02, 0xfe, a, b, c, d],
            addresses: vec![IpNetwork::from(IpAddr::V4(addr))],
            mtu,
            leads_out: true,
        }];
    }
    let each = spec
        .attachments
        .iter()
        .enumerate()
        .map(|(number, attachment)| Interface {
            name: format!("wv{:08x}", attachment.backend.0),
            inner_name: format!("eth{number}"),
            id: attachment.backend.0,
            vni: attachment.vni,
            flags: if attachment.internal {
                endpoint::INTERNAL
            } else {
                0
            },
            mac: attachment.backend.mac(),
            addresses: attachment.addresses.clone(),
            mtu: match attachment.mtu_bytes {
                Some(wished) => u32::from(wished),
                None if attachment.encrypted => ciphered,
                None => mtu,
            },
            leads_out: !attachment.internal,
        });
    each.collect()
}

/// Gives each interface its name in the sandbox: one that is there keeps the name it has, a new one
/// takes the first `eth` that nobody has. So interfaces come to and go from a running container
/// without the others noticing.
pub(crate) fn settle_names(wanted: &mut [Interface], inner: &[Link]) {
    let mut taken: BTreeSet<String> = inner.iter().map(|link| link.name.clone()).collect();
    for interface in wanted {
        let held = inner.iter().find(|link| link.mac == interface.mac);
        interface.inner_name = match held {
            Some(link) => link.name.clone(),
            None => {
                let mut names = (0..).map(|number| format!("eth{number}"));
                names.find(|name| !taken.contains(name)).unwrap_or_default()
            }
        };
        taken.insert(interface.inner_name.clone());
    }
}

/// The first address of the pool that nobody has; the first two are left out by custom.
pub(crate) fn free_egress(pool: Ipv4Network, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let last = pool.broadcast();
    pool.iter()
        .skip(2)
        .take_while(|addr| *addr != last)
        .find(|addr| !taken(*addr))
}

/// Makes the pair for `interface` unless it is there and leads into the namespace; returns the host
/// side. It is down when it was made here.
pub(crate) fn make_pair(
    netlink: &mut Netlink,
    inner: &[Link],
    sandbox: BorrowedFd<'_>,
    interface: &Interface,
) -> Result<Link, DataplaneError> {
    let name = interface.name.as_str();
    let leads_in = inner
        .iter()
        .any(|link| link.name == interface.inner_name && link.mac == interface.mac);
    match netlink.link(name)? {
        Some(link) if leads_in => return Ok(link),
        // Left over from a sandbox that is gone.
        Some(_) => netlink.remove_link(name)?,
        None => {}
    }
    netlink.add_veth(
        name,
        GATEWAY_MAC,
        sandbox,
        &interface.inner_name,
        interface.mac,
        interface.mtu,
    )?;
    let made = netlink.link(name)?.ok_or_else(|| {
        DataplaneError::Refused(format!(
            "interface {name} vanished while it was made: is its sandbox gone?"
        ))
    })?;
    // Nobody on this link speaks for itself: no link-local address, nothing learnt.
    sysctl::set(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
    sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
    Ok(made)
}

/// What is inside the sandbox now.
pub(crate) fn inner_links(sandbox: BorrowedFd<'_>) -> Result<(u64, Vec<Link>), DataplaneError> {
    netns::within(sandbox, || {
        Ok((netns::cookie()?, Netlink::open()?.links()?))
    })
}

/// First routing table for packets that already have a source: one per interface.
const FIRST_TABLE: u8 = 100;

/// Sets up the sandbox's side: addresses, links up, ways out.
pub(crate) fn configure_inside(
    sandbox: BorrowedFd<'_>,
    interfaces: &[Interface],
) -> Result<(), DataplaneError> {
    netns::within(sandbox, || {
        let mut netlink = Netlink::open()?;
        if interfaces
            .iter()
            .any(|interface| interface.addresses.iter().any(IpNetwork::is_ipv6))
        {
            for which in ["all", "default", "lo"] {
                sysctl::set(&format!("ipv6/conf/{which}/disable_ipv6"), "0")?;
            }
        }
        if let Some(lo) = netlink.link("lo")? {
            netlink.take_up(lo.index, None)?;
        }
        for interface in interfaces {
            take_up_inside(&mut netlink, interface)?;
        }
        // Where the engine has given the container a way out, that one stays the first.
        let ours = |link: &Link| interfaces.iter().any(|one| link.mac == one.mac);
        let mut links = netlink.links()?.into_iter();
        let has_default = links.any(|link| link.up && !link.loopback && !ours(&link));
        for v4 in [true, false] {
            add_ways_out(&mut netlink, interfaces, v4, has_default)?;
        }
        Ok(())
    })
}

fn index_of(netlink: &mut Netlink, name: &str) -> Result<u32, DataplaneError> {
    let link = netlink.link(name)?;
    let link = link.ok_or_else(|| {
        DataplaneError::Refused(format!("interface {name} is not in the sandbox"))
    })?;
    Ok(link.index)
}

fn take_up_inside(netlink: &mut Netlink, interface: &Interface) -> Result<(), DataplaneError> {
    let name = interface.inner_name.as_str();
    let index = index_of(netlink, name)?;
    // The allocator said that the address is free, and nobody answers probes anyway.
    sysctl::set(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
    sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    if interface.addresses.iter().any(IpNetwork::is_ipv6) {
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
    }
    netlink.take_up(index, Some(interface.mtu))?;
    for addr in &interface.addresses {
        netlink.add_address(index, *addr, true)?;
    }
    Ok(())
}

/// The default route goes through the first interface that leads out. Besides, each interface has a
/// table of its own for packets that carry its address: an answer leaves where the question came in,
/// else the next program would take it for a spoofed one.
fn add_ways_out(
    netlink: &mut Netlink,
    interfaces: &[Interface],
    v4: bool,
    mut has_default: bool,
) -> Result<(), DataplaneError> {
    let gateway: IpAddr = if v4 {
        Ipv4Addr::from(GATEWAY4).into()
    } else {
        Ipv6Addr::from(GATEWAY6).into()
    };
    let alone = interfaces.len() == 1 && !has_default;
    for interface in interfaces {
        let Some(addr) = interface.addresses.iter().find(|addr| addr.is_ipv4() == v4) else {
            continue;
        };
        let index = index_of(netlink, &interface.inner_name)?;
        if interface.leads_out && !has_default {
            netlink.add_default_route(index, gateway, None, MAIN_TABLE)?;
            has_default = true;
        }
        if !alone {
            // Named after the interface, so that it stays the same while others come and go.
            let number = interface.inner_name.trim_start_matches("eth").parse();
            let table = FIRST_TABLE.saturating_add(number.unwrap_or(u8::MAX));
            netlink.add_default_route(index, gateway, None, table)?;
            netlink.add_source_rule(addr.ip(), table)?;
        }
    }
    Ok(())
}

const MAIN_TABLE: u8 = 254;
