//! What the data plane says about itself: plain counts for the agent to print.

use std::{net::IpAddr, time::Duration};

/// Packets dropped for one reason in one program, since the maps were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropCount {
    /// Why, in words.
    pub reason: &'static str,
    /// Which program decided.
    pub program: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
    /// The last packet that was sampled, if any was since the agent started.
    pub sample: Option<DropSample>,
}

/// One dropped packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropSample {
    /// How long ago.
    pub age: Duration,
    /// Source address and port (0 where the protocol has none).
    pub source: (IpAddr, u16),
    /// Destination address and port.
    pub destination: (IpAddr, u16),
    /// IP protocol number.
    pub protocol: u8,
    /// VXLAN network identifier, or 0.
    pub vni: u32,
}

/// Differences found and mended that no change of desire explains: something else changed the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repairs {
    /// Links, addresses, routes, neighbours.
    pub links: u64,
    /// Map entries.
    pub entries: u64,
    /// Programs that were no longer attached.
    pub programs: u64,
    /// Firewall tables.
    pub firewall: u64,
}

impl Repairs {
    pub(crate) fn add(&mut self, more: Self) {
        self.links += more.links;
        self.entries += more.entries;
        self.programs += more.programs;
        self.firewall += more.firewall;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.links + self.entries + self.programs + self.firewall
    }
}

/// The state of the data plane at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Revision that the kernel holds.
    pub revision: u64,
    /// Names of the links where published ports answer.
    pub uplinks: Vec<String>,
    /// Sandboxes here.
    pub sandboxes: usize,
    /// Flows that tasks of this node have accepted.
    pub flows: usize,
    /// What was mended since start.
    pub repairs: Repairs,
    /// Container MTU in bytes.
    pub mtu_bytes: u16,
    /// What is wrong with the underlay, or with what the kernel could not be given: each with its reason.
    pub faults: Vec<String>,
}
