//! The WireGuard device: the kernel's own where it has one, else one in this process over a TAP.
//!
//! Either is told its peers through [`Control`]. The one in this process ends with it: its packets
//! stop until the next start, and none leaves in clear meanwhile, since the range it leads to is
//! closed behind it.

mod datagrams;
mod protocol;
mod pump;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use ipnetwork::Ipv4Network;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use self::pump::Pump;
use super::{error::DataplaneError, netlink::Netlink};
use crate::cipher::{self, Changes, DEVICES, Peer, Plan, RANGE};

/// Peers by public key, with how long ago the last handshake with each was.
pub(crate) type Peers = BTreeMap<[u8; 32], Option<Duration>>;

/// How a WireGuard device is told what to be.
pub(crate) trait Control: Send + Sync {
    /// Sets key and port when `plan` is given, then removes and adds peers.
    fn set(&mut self, plan: Option<&Plan>, changes: &Changes) -> io::Result<()>;
    /// Its peers.
    fn peers(&mut self) -> io::Result<Peers>;
    /// Whether somebody is at work behind the device.
    fn is_running(&self) -> bool {
        true
    }
}

/// The device in this process was given key and port when it began.
impl Control for Pump {
    fn set(&mut self, _: Option<&Plan>, changes: &Changes) -> io::Result<()> {
        self.change(changes);
        Ok(())
    }

    fn peers(&mut self) -> io::Result<Peers> {
        Ok(Pump::peers(self).into_iter().collect())
    }

    fn is_running(&self) -> bool {
        Pump::is_running(self)
    }
}

/// The control of a device of the kernel's.
#[cfg(feature = "wireguard-control")]
fn kernels(device: &str) -> io::Result<Box<dyn Control>> {
    Ok(Box::new(package::Package::of(device)?))
}

/// Without the package it cannot be configured.
#[cfg(not(feature = "wireguard-control"))]
fn kernels(_: &str) -> io::Result<Box<dyn Control>> {
    Err(io::Error::other(
        "this build has no WireGuard control (feature wireguard-control)",
    ))
}

#[cfg(feature = "wireguard-control")]
mod package {
    use std::{io, time::SystemTime};

    use wireguard_control::{Backend, Device, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder};

    use super::{Changes, Control, Peers, Plan};

    /// Control by the package of the same name.
    pub(super) struct Package {
        device: InterfaceName,
    }

    impl Package {
        pub(super) fn of(device: &str) -> io::Result<Self> {
            Ok(Self {
                device: device.parse()?,
            })
        }
    }

    impl Control for Package {
        fn set(&mut self, plan: Option<&Plan>, changes: &Changes) -> io::Result<()> {
            let mut update = DeviceUpdate::new();
            if let Some(plan) = plan {
                update = update
                    .set_private_key(Key(plan.own.key.to_bytes()))
                    .set_listen_port(plan.own.port);
            }
            for key in &changes.remove {
                update = update.remove_peer_by_key(&Key(*key));
            }
            for (key, peer) in &changes.put {
                let peer = PeerConfigBuilder::new(&Key(*key))
                    .set_endpoint(peer.endpoint)
                    .replace_allowed_ips()
                    .add_allowed_ip(peer.address.into(), 32);
                update = update.add_peer(peer);
            }
            update.apply(&self.device, Backend::Kernel)
        }

        fn peers(&mut self) -> io::Result<Peers> {
            let device = Device::get(&self.device, Backend::Kernel)?;
            let now = SystemTime::now();
            // A clock that was set back makes sessions young, which they are not by much.
            let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
            let peers = device.peers.iter();
            let aged = peers.map(|peer| {
                let handshake = peer.stats.last_handshake_time.map(age);
                (peer.config.public_key.0, handshake)
            });
            Ok(aged.collect())
        }
    }
}

impl Netlink {
    /// Makes a WireGuard device of the kernel's, where it has such.
    fn add_wireguard(&mut self, name: &str) -> Result<(), DataplaneError> {
        let mut message = LinkMessage::default();
        message.attributes.extend([
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
        ]);
        let request = RouteNetlinkMessage::NewLink(message);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(request, flags, "make WireGuard device", name)
            .map(drop)
    }

    /// Tells the kernel that nobody on a link answers questions for addresses: packets go as they are.
    fn ask_nobody(&mut self, link: u32) -> Result<(), DataplaneError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
        let request = RouteNetlinkMessage::SetLink(message);
        self.ask(request, NLM_F_ACK, "silence link", &link.to_string())
            .map(drop)
    }

    fn closed_range(range: Ipv4Network) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = range.prefix();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::BlackHole;
        message.attributes.extend([
            RouteAttribute::Destination(RouteAddress::Inet(range.network())),
            RouteAttribute::Priority(u32::MAX - 1),
        ]);
        message
    }

    /// Sees to it that packets to this range go nowhere when no better route leads there.
    fn close_range(&mut self, range: Ipv4Network) -> Result<(), DataplaneError> {
        let request = RouteNetlinkMessage::NewRoute(Self::closed_range(range));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(request, flags, "close range", &range.to_string())
            .map(drop)
    }

    /// Undoes [`Self::close_range`]; a range that is open is fine.
    fn open_range(&mut self, range: Ipv4Network) -> Result<(), DataplaneError> {
        let request = RouteNetlinkMessage::DelRoute(Self::closed_range(range));
        match self.ask(request, NLM_F_ACK, "open range", &range.to_string()) {
            Err(DataplaneError::Link { source, .. })
                if source.raw_os_error() == Some(libc::ESRCH) =>
            {
                Ok(())
            }
            result => result.map(drop),
        }
    }
}

/// One device of this node.
pub(crate) struct Tunnel {
    control: Box<dyn Control>,
    /// What it was told last.
    plan: Plan,
    link: u32,
}

impl Tunnel {
    /// Makes the device.
    fn start(netlink: &mut Netlink, plan: &Plan) -> Result<Self, DataplaneError> {
        netlink.close_range(RANGE)?;
        let device = plan.device;
        netlink.remove_link(device)?;
        let configured = |source| DataplaneError::Link {
            operation: "make WireGuard device",
            object: device.to_owned(),
            source,
        };
        let kernel = netlink.add_wireguard(device);
        let control: Box<dyn Control> = match &kernel {
            Ok(()) => kernels(device).map_err(configured)?,
            Err(error) => {
                tracing::info!(%error, "the kernel has no WireGuard: this process does it");
                Box::new(Pump::start(device, plan).map_err(configured)?)
            }
        };
        let link = netlink.link(device)?.ok_or_else(|| {
            DataplaneError::Refused(format!("link {device} vanished while it was made"))
        })?;
        if kernel.is_err() {
            netlink.ask_nobody(link.index)?;
        }
        let mut tunnel = Self {
            control,
            plan: plan.clone(),
            link: link.index,
        };
        tunnel.tell(
            Some(plan),
            &Changes {
                put: peers(plan),
                remove: Vec::new(),
            },
        )?;
        netlink.add_address(link.index, plan.network(), true)?;
        netlink.take_up(link.index, Some(plan.mtu))?;
        tracing::info!(device, generation = plan.own.generation, address = %plan.address, port = plan.own.port, mtu = plan.mtu, "WireGuard is up");
        Ok(tunnel)
    }

    fn tell(&mut self, plan: Option<&Plan>, changes: &Changes) -> Result<(), DataplaneError> {
        self.control
            .set(plan, changes)
            .map_err(|source| DataplaneError::Link {
                operation: "configure WireGuard device",
                object: self.plan.device.to_owned(),
                source,
            })
    }

    /// Whether the device is as it was made, and only its peers may differ from `plan`.
    fn fits(&self, netlink: &mut Netlink, plan: &Plan) -> Result<bool, DataplaneError> {
        let link = netlink.link(self.plan.device)?;
        let same_link = link.is_some_and(|link| link.index == self.link && link.up);
        let own = |plan: &Plan| (plan.own.clone(), plan.address, plan.mtu, plan.vxlan_port);
        Ok(same_link && self.control.is_running() && own(&self.plan) == own(plan))
    }

    fn peers(&mut self) -> Result<Peers, DataplaneError> {
        let peers = self.control.peers();
        peers.map_err(|source| DataplaneError::Link {
            operation: "read WireGuard device",
            object: self.plan.device.to_owned(),
            source,
        })
    }

    fn update(&mut self, plan: &Plan) -> Result<bool, DataplaneError> {
        let there = self.peers()?;
        let changes = cipher::changes(&self.plan.peers, &plan.peers, |key| there.contains_key(key));
        if changes.put.is_empty() && changes.remove.is_empty() {
            return Ok(false);
        }
        self.tell(None, &changes)?;
        self.plan.peers.clone_from(&plan.peers);
        Ok(true)
    }
}

fn peers(plan: &Plan) -> Vec<([u8; 32], Peer)> {
    plan.peers.iter().map(|(key, peer)| (*key, *peer)).collect()
}

/// Devices of this node, by name.
pub(crate) type Tunnels = BTreeMap<&'static str, Tunnel>;

/// Makes, changes or removes devices so that they are as planned. True when something was done.
pub(crate) fn ensure(
    held: &mut Tunnels,
    netlink: &mut Netlink,
    plans: &[Plan],
) -> Result<bool, DataplaneError> {
    let mut changed = false;
    let mut failed = None;
    for device in DEVICES {
        if !plans.iter().any(|plan| plan.device == device) {
            changed |= remove_device(held, netlink, device)?;
        }
    }
    for plan in plans {
        if let Some(tunnel) = held.get_mut(plan.device)
            && tunnel.fits(netlink, plan)?
        {
            changed |= tunnel.update(plan)?;
            continue;
        }
        // The old one first: it holds the device's name and port.
        drop(held.remove(plan.device));
        match Tunnel::start(netlink, plan) {
            Ok(tunnel) => {
                held.insert(plan.device, tunnel);
                changed = true;
            }
            // The other device works without this one.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(changed), Err)
}

/// The public keys of all peers with which there is a session now.
pub(crate) fn sessions(held: &mut Tunnels) -> Result<BTreeSet<[u8; 32]>, DataplaneError> {
    let mut live = BTreeSet::new();
    for tunnel in held.values_mut() {
        let peers = tunnel.peers()?.into_iter();
        let alive = peers.filter(|(_, handshake)| cipher::is_live(*handshake));
        live.extend(alive.map(|(key, _)| key));
    }
    Ok(live)
}

/// Removes a device, one of an earlier life too. True when there was one.
fn remove_device(
    held: &mut Tunnels,
    netlink: &mut Netlink,
    device: &str,
) -> Result<bool, DataplaneError> {
    let was_held = held.remove(device).is_some();
    let is_there = netlink.link(device)?.is_some();
    netlink.remove_link(device)?;
    Ok(was_held || is_there)
}

/// Removes devices and range for good.
pub(crate) fn remove(held: &mut Tunnels, netlink: &mut Netlink) -> Result<(), DataplaneError> {
    for device in DEVICES {
        remove_device(held, netlink, device)?;
    }
    netlink.open_range(RANGE)
}
