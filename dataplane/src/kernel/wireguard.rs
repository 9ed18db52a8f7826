//! The WireGuard device: the kernel's own where it has one, else one in this process over a TUN.
//!
//! Either is told its key and peers through [`Control`]. The one in this process ends with it: its
//! packets stop until the next start, and none leaves in clear meanwhile, since the range it leads
//! to is closed behind it.

use std::io;

use gotatun::{
    device::{Device, DeviceBuilder, uapi::UapiServer},
    udp::socket::UdpSocketFactory,
};
use ipnetwork::Ipv4Network;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use super::{
    error::DataplaneError,
    netlink::Netlink,
    tun::{self, Reader, Sockets, Writer},
};
use crate::cipher::{self, Changes, DEVICE, Peer, Plan, RANGE};

/// How a WireGuard device is told what to be.
pub(crate) trait Control: Send + Sync {
    /// Sets key and port when `plan` is given, then removes and adds peers.
    fn set(&mut self, name: &str, plan: Option<&Plan>, changes: &Changes) -> io::Result<()>;
    /// The public keys of its peers.
    fn peers(&mut self, name: &str) -> io::Result<Vec<[u8; 32]>>;
}

/// The control of the machine's devices; `kernel` says of which kind.
#[cfg(feature = "wireguard-control")]
pub(crate) fn control(kernel: bool) -> Box<dyn Control> {
    Box::new(package::Package { kernel })
}

/// Without the package nothing can be configured.
#[cfg(not(feature = "wireguard-control"))]
pub(crate) fn control(_: bool) -> Box<dyn Control> {
    Box::new(Missing)
}

#[cfg(not(feature = "wireguard-control"))]
struct Missing;

#[cfg(not(feature = "wireguard-control"))]
impl Control for Missing {
    fn set(&mut self, _: &str, _: Option<&Plan>, _: &Changes) -> io::Result<()> {
        Err(io::Error::other(
            "this build has no WireGuard control (feature wireguard-control)",
        ))
    }

    fn peers(&mut self, _: &str) -> io::Result<Vec<[u8; 32]>> {
        Ok(Vec::new())
    }
}

#[cfg(feature = "wireguard-control")]
mod package {
    use std::{io, os::unix::net::UnixStream};

    use wireguard_control::{Backend, Device, DeviceUpdate, InterfaceName, Key, PeerConfigBuilder};

    use super::{Changes, Control, Plan, socket};

    /// Control by the package of the same name.
    pub(super) struct Package {
        pub(super) kernel: bool,
    }

    impl Package {
        /// The package starts a program of its own choice when nobody listens: never let it.
        fn open(&self, name: &str) -> io::Result<(InterfaceName, Backend)> {
            if self.kernel {
                return Ok((name.parse()?, Backend::Kernel));
            }
            UnixStream::connect(socket(name))?;
            Ok((name.parse()?, Backend::Userspace))
        }
    }

    impl Control for Package {
        fn set(&mut self, name: &str, plan: Option<&Plan>, changes: &Changes) -> io::Result<()> {
            let (name, backend) = self.open(name)?;
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
            update.apply(&name, backend)
        }

        fn peers(&mut self, name: &str) -> io::Result<Vec<[u8; 32]>> {
            let (name, backend) = self.open(name)?;
            let device = Device::get(&name, backend)?;
            Ok(device
                .peers
                .iter()
                .map(|peer| peer.config.public_key.0)
                .collect())
        }
    }
}

/// Where a device in a process is configured.
fn socket(name: &str) -> String {
    format!("/var/run/wireguard/{name}.sock")
}

/// A device in this process.
struct InProcess {
    runtime: Option<tokio::runtime::Runtime>,
    device: Option<Device<(Sockets, Writer, Reader)>>,
    name: String,
}

impl InProcess {
    /// Makes the TUN in the calling thread's namespace, and threads that stay in it.
    fn start(plan: &Plan) -> Result<Self, DataplaneError> {
        let fail = |what: &str, cause: &dyn std::fmt::Display| {
            DataplaneError::Refused(format!("WireGuard in process: {what}: {cause}"))
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("wireguard")
            .enable_all()
            .build()
            .map_err(|error| fail("start threads", &error))?;
        let name = control_name()?;
        let device = runtime.block_on(async {
            let mtu = u16::try_from(plan.mtu).unwrap_or(u16::MAX);
            let (writer, reader) = tun::open(DEVICE, mtu, plan.vxlan_port)
                .map_err(|error| fail("make the TUN weft-wg", &error))?;
            let uapi = UapiServer::default_unix_socket(&name, None, None)
                .map_err(|error| fail("open the control socket", &error))?;
            let builder = DeviceBuilder::new()
                .with_udp(Sockets(UdpSocketFactory {
                    recv_buffer_size: Some(BUFFER),
                    send_buffer_size: Some(BUFFER),
                }))
                .with_ip_pair(writer, reader)
                .with_uapi(uapi);
            builder.build().await.map_err(|error| fail("start", &error))
        })?;
        Ok(Self {
            runtime: Some(runtime),
            device: Some(device),
            name,
        })
    }
}

/// Room for bursts in the outer socket, in bytes.
const BUFFER: usize = 4 << 20;

impl Drop for InProcess {
    fn drop(&mut self) {
        if let (Some(runtime), Some(device)) = (self.runtime.take(), self.device.take()) {
            runtime.block_on(device.stop());
            runtime.shutdown_background();
        }
        // It may be gone already.
        let _ = std::fs::remove_file(socket(&self.name));
    }
}

/// Names of control sockets are the machine's, while devices are a namespace's: the namespace's
/// number makes the difference.
fn control_name() -> Result<String, DataplaneError> {
    use std::os::unix::fs::MetadataExt as _;
    let path = "/proc/thread-self/ns/net";
    let namespace = std::fs::metadata(path).map_err(|source| DataplaneError::File {
        operation: "look at",
        path: path.into(),
        source,
    })?;
    Ok(format!("weft-{:x}", namespace.ino()))
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

enum Engine {
    Kernel,
    InProcess(InProcess),
}

/// The device of this node.
pub(crate) struct Tunnel {
    engine: Engine,
    control: Box<dyn Control>,
    /// What it was told last.
    plan: Plan,
    link: u32,
}

impl Tunnel {
    /// Makes the device.
    fn start(netlink: &mut Netlink, plan: &Plan) -> Result<Self, DataplaneError> {
        netlink.close_range(RANGE)?;
        netlink.remove_link(DEVICE)?;
        let engine = match netlink.add_wireguard(DEVICE) {
            Ok(()) => Engine::Kernel,
            Err(error) => {
                tracing::info!(%error, "the kernel has no WireGuard: this process does it");
                Engine::InProcess(InProcess::start(plan)?)
            }
        };
        let link = netlink.link(DEVICE)?.ok_or_else(|| {
            DataplaneError::Refused(format!("link {DEVICE} vanished while it was made"))
        })?;
        let control = control(matches!(engine, Engine::Kernel));
        let mut tunnel = Self {
            engine,
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
        tracing::info!(address = %plan.address, port = plan.own.port, mtu = plan.mtu, "WireGuard is up");
        Ok(tunnel)
    }

    fn name(&self) -> &str {
        match &self.engine {
            Engine::Kernel => DEVICE,
            Engine::InProcess(device) => &device.name,
        }
    }

    fn tell(&mut self, plan: Option<&Plan>, changes: &Changes) -> Result<(), DataplaneError> {
        let name = self.name().to_owned();
        self.control
            .set(&name, plan, changes)
            .map_err(|source| DataplaneError::Link {
                operation: "configure WireGuard device",
                object: name,
                source,
            })
    }

    /// Whether the device is as it was made, and only its peers may differ from `plan`.
    fn fits(&self, netlink: &mut Netlink, plan: &Plan) -> Result<bool, DataplaneError> {
        let link = netlink.link(DEVICE)?;
        let same_link = link.is_some_and(|link| link.index == self.link && link.up);
        let own = |plan: &Plan| (plan.own.clone(), plan.address, plan.mtu, plan.vxlan_port);
        Ok(same_link && own(&self.plan) == own(plan))
    }

    fn update(&mut self, plan: &Plan) -> Result<bool, DataplaneError> {
        let name = self.name().to_owned();
        let there = self
            .control
            .peers(&name)
            .map_err(|source| DataplaneError::Link {
                operation: "read WireGuard device",
                object: name,
                source,
            })?;
        let changes = cipher::changes(&self.plan.peers, &plan.peers, |key| there.contains(key));
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

/// Makes, changes or removes the device so that it is as planned. True when something was done.
pub(crate) fn ensure(
    held: &mut Option<Tunnel>,
    netlink: &mut Netlink,
    plan: Option<&Plan>,
) -> Result<bool, DataplaneError> {
    let Some(plan) = plan else {
        if held.take().is_some() {
            netlink.remove_link(DEVICE)?;
            return Ok(true);
        }
        return Ok(false);
    };
    if let Some(tunnel) = held
        && tunnel.fits(netlink, plan)?
    {
        return tunnel.update(plan);
    }
    // The old one first: it holds the device's name and port.
    drop(held.take());
    *held = Some(Tunnel::start(netlink, plan)?);
    Ok(true)
}

/// Removes device and range for good.
pub(crate) fn remove(
    held: &mut Option<Tunnel>,
    netlink: &mut Netlink,
) -> Result<(), DataplaneError> {
    drop(held.take());
    netlink.remove_link(DEVICE)?;
    netlink.open_range(RANGE)
}
