//! What must be known before the first packet.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnetwork::Ipv4Network;

/// What [`crate::Dataplane::start`] needs. All of it is fixed for the life of the data plane: a
/// change means `uninstall` and `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory on a bpf file system where programs, links and maps are pinned; one per node.
    pub pin_dir: PathBuf,
    /// Root of the cgroup2 tree for the socket hooks; `None` looks for the cgroup2 mount.
    pub cgroup: Option<PathBuf>,
    /// This node's underlay address for task traffic. An address of this host.
    pub data_path_addr: IpAddr,
    /// UDP port of VXLAN, host order.
    pub vxlan_port: u16,
    /// Links at which published ports answer.
    pub uplinks: Uplinks,
    /// Addresses for tasks without a network; node-local, seen by nobody else.
    pub egress_pool: Ipv4Network,
    /// Container MTU in bytes; `None` computes it from the data path link.
    pub mtu_bytes: Option<u16>,
    /// How often links and addresses are looked at, besides being followed as they change, and every
    /// fifth time everything is read back.
    pub look_every: Duration,
    /// Network namespace to work in; `None` is the caller's. Tests put several nodes into one process.
    pub netns: Option<PathBuf>,
}

impl Config {
    /// Defaults for everything but the two that have none.
    #[must_use]
    pub fn new(pin_dir: PathBuf, data_path_addr: IpAddr) -> Self {
        Self {
            pin_dir,
            cgroup: None,
            data_path_addr,
            vxlan_port: 4789,
            uplinks: Uplinks::Auto,
            egress_pool: EGRESS_POOL,
            mtu_bytes: None,
            look_every: Duration::from_secs(2),
            netns: None,
        }
    }
}

/// Default of [`Config::egress_pool`]: 172.29.0.0/16.
pub const EGRESS_POOL: Ipv4Network =
    match Ipv4Network::new_checked(std::net::Ipv4Addr::new(172, 29, 0, 0), 16) {
        Some(pool) => pool,
        None => unreachable!(),
    };

/// Links at which published ports answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplinks {
    /// Every link that is up and neither loopback, nor one end of a veth made by an engine or by us,
    /// nor our own; followed as links come and go. A veth that carries the data path address, and
    /// bridges such as `docker0`, count.
    Auto,
    /// These names only.
    Named(Vec<String>),
}
