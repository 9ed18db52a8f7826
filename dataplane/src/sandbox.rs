//! One task's interfaces: names, addresses, routes.

use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use ipnetwork::IpNetwork;
use weft_types::{BackendId, NetworkId, TaskId, netstate::NetState};

/// What a task's sandbox must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Whose.
    pub task: TaskId,
    /// Its interfaces `eth0`, `eth1`, … in this order: the ingress network first. Empty gives one
    /// `eth0` from the node's egress pool.
    pub attachments: Vec<Attachment>,
}

/// One interface of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Cluster-wide number; makes the hardware address.
    pub backend: BackendId,
    /// On which network.
    pub network: NetworkId,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Addresses with the subnet's prefix length, v4 first.
    pub addresses: Vec<IpNetwork>,
    /// MTU asked for by the network's option; `None` takes the node's.
    pub mtu_bytes: Option<u16>,
    /// No way to the world.
    pub internal: bool,
    /// Packets to other nodes are encrypted.
    pub encrypted: bool,
    /// The network of published ports: the last choice for the default route.
    pub ingress: bool,
}

impl SandboxSpec {
    /// Whether it has an interface on an encrypted network.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.attachments
            .iter()
            .any(|attachment| attachment.encrypted)
    }

    /// The spec of `task` as the network state has it: ingress first, then by backend number.
    /// Empty attachments when the state does not know the task.
    #[must_use]
    pub fn of(state: &NetState, task: TaskId) -> Self {
        let mut attachments: Vec<Attachment> = state
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.task == task)
            .filter_map(|(backend, endpoint)| {
                let network = state.networks.get(&endpoint.network)?;
                Some(Attachment {
                    backend: *backend,
                    network: endpoint.network,
                    vni: network.vni,
                    addresses: endpoint.addresses.clone(),
                    mtu_bytes: network.mtu_bytes,
                    internal: network.internal,
                    encrypted: network.encrypted,
                    ingress: network.ingress,
                })
            })
            .collect();
        attachments.sort_by_key(|attachment| (!attachment.ingress, attachment.backend));
        Self { task, attachments }
    }
}

/// How a network namespace is named.
#[derive(Debug)]
pub enum NetnsRef {
    /// The namespace of this process.
    Pid(u32),
    /// A file that is a namespace (`/run/netns/x`, `/proc/1/ns/net`).
    Path(PathBuf),
    /// An open one.
    Fd(OwnedFd),
}

/// A sandbox that is up. Cheap to clone; dropping it removes nothing.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Whose.
    pub task: TaskId,
    /// Its addresses: for a task without network the one from the egress pool.
    pub addresses: Vec<IpAddr>,
    /// Cookie of the namespace.
    pub cookie: u64,
    pub(crate) netns: Arc<OwnedFd>,
}

/// Sockets at `127.0.0.11:53` inside a sandbox, non-blocking. They stay there for ever: poll them
/// from anywhere.
#[derive(Debug)]
pub struct ResolverSockets {
    /// Turn it into tokio's with `UdpSocket::from_std` on a runtime.
    pub udp: UdpSocket,
    /// Turn it into tokio's with `TcpListener::from_std` on a runtime.
    pub tcp: TcpListener,
}
