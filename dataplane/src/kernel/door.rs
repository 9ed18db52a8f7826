//! What the data plane asks of a kernel. [`super::linux::Linux`] is the real one;
//! `super::fake::Fake` keeps everything in memory and fails where a test wants it to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::BorrowedFd,
};

use weft_abi::{Backend, Counter, Flow, FlowKey, Front, FrontKey, Pick, RangeKey};

use super::{
    bpf::Hook,
    error::DataplaneError,
    firewall::Firewall,
    netlink::{Link, LinkAddress, Neighbour, Route},
    prober::Prober,
    surveyor::Surveyor,
};
use crate::{
    cipher,
    collector::Collector,
    explain::{Rehearsal, Rehearsed},
    interfaces::Interface,
    led::{Connected, Led},
    mesh::Slots,
    tables::{Plan, Row, Tables},
};

type Result<T> = std::result::Result<T, DataplaneError>;

/// What became of each row of a [`Plan`], in the plan's order.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) put: Vec<Result<()>>,
    pub(crate) remove: Vec<Result<()>>,
}

/// What the programs remember of a tuple.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Accepted by the task.
    pub(crate) flow: Option<Flow>,
    /// Not yet accepted.
    pub(crate) embryo: Option<Flow>,
    /// The ingress node's choice.
    pub(crate) pick: Option<Pick>,
}

/// A kernel, seen from one network namespace. Everything may block.
pub(crate) trait Kernel: Send {
    /// Whether it speaks IPv6 at all.
    fn has_ipv6(&self) -> bool;
    /// Whether `bpf_l4_csum_replace` takes `BPF_F_IPV6`.
    fn takes_csum_ipv6(&self) -> bool;
    /// Cookie of the namespace.
    fn cookie(&self) -> u64;

    /// All links.
    fn links(&mut self) -> Result<Vec<Link>>;
    /// All addresses.
    fn addresses(&mut self) -> Result<Vec<LinkAddress>>;
    /// Lets packets of tasks through the host's stack.
    fn enable_forwarding(&mut self, links: &BTreeMap<u32, Link>) -> Result<()>;
    /// Makes or mends the overlay device; its index, and whether it had to be made.
    fn ensure_overlay(&mut self, mtu: u32, port: u16) -> Result<(u32, bool)>;
    /// Makes, changes or removes the WireGuard devices. True when something was done.
    fn ensure_cipher(&mut self, plans: &[cipher::Plan]) -> Result<bool>;
    /// Names of the WireGuard devices that are as they were planned.
    fn cipher_devices(&self) -> Vec<&'static str>;
    /// Public keys of the nodes with which there is a session now.
    fn cipher_sessions(&mut self) -> Result<BTreeSet<[u8; 32]>>;
    /// Sends something of no meaning, so that a session comes about.
    fn knock(&mut self, way: cipher::Way) -> Result<()>;
    /// Takes a link up.
    fn take_up(&mut self, link: u32) -> Result<()>;
    /// Removes a link; one that is gone is fine.
    fn remove_link(&mut self, name: &str) -> Result<()>;
    /// Routes of ours.
    fn routes(&mut self) -> Result<Vec<Route>>;
    /// Adds or replaces a route.
    fn put_route(&mut self, route: &Route) -> Result<()>;
    /// Removes a route; one that is gone is fine.
    fn remove_route(&mut self, route: &Route) -> Result<()>;
    /// Permanent neighbours.
    fn neighbours(&mut self) -> Result<Vec<Neighbour>>;
    /// Adds or replaces a permanent neighbour.
    fn put_neighbour(&mut self, neighbour: &Neighbour) -> Result<()>;
    /// Removes a permanent neighbour; one that is gone is fine.
    fn remove_neighbour(&mut self, neighbour: &Neighbour) -> Result<()>;

    /// Attaches the program of a hook, first in its chain. True when it was not attached.
    fn attach(&mut self, hook: Hook) -> Result<bool>;
    /// Whether the program of a hook is attached.
    fn is_attached(&self, hook: Hook) -> bool;
    /// Detaches the program of a hook, if it is attached.
    fn detach(&mut self, hook: Hook) -> Result<()>;
    /// Detaches the programs of all other hooks.
    fn retain_hooks(&mut self, hooks: &BTreeSet<Hook>) -> Result<()>;
    /// Attaches the socket programs. How many were not attached.
    fn attach_sockets(&mut self) -> Result<u64>;
    /// Whether programs of an older layout are attached, over tables of their own: ours must be filled
    /// before a packet sees them.
    fn succeeds_older(&self) -> bool;
    /// Removes what older versions left, when nothing uses it any more.
    fn forget_older(&mut self) -> Result<()>;

    /// What the tables hold; `held` is what they held at the last look, which saves reading rings.
    fn read_tables(&mut self, held: Option<&Tables>) -> Result<Tables>;
    /// Writes and removes rows in the plan's order.
    fn write(&mut self, plan: &Plan) -> Written;
    /// Writes one row.
    fn put(&mut self, row: &Row) -> Result<()>;
    /// Both entries of every accepted flow.
    fn flows(&self) -> Result<Vec<(FlowKey, Flow)>>;
    /// The same of flows that no task has accepted yet.
    fn embryos(&self) -> Result<Vec<(FlowKey, Flow)>>;
    /// What is remembered of one tuple.
    fn track(&self, key: &FlowKey) -> Result<Track>;
    /// The service at an address.
    fn front(&self, key: &FrontKey) -> Result<Option<Front>>;
    /// The service that publishes a range with this port.
    fn front_range(&self, key: RangeKey) -> Result<Option<Front>>;
    /// The slots of a ring; empty when there is none.
    fn ring(&self, ring: u32) -> Result<Slots>;
    /// A backend.
    fn backend(&self, id: u32) -> Result<Option<Backend>>;
    /// Runs a loaded program on a packet, over the live maps, changing none.
    fn rehearse(&self, rehearsal: &Rehearsal) -> Result<Rehearsed>;
    /// Every socket that a hook led.
    fn led(&self) -> Result<Vec<Led>>;
    /// The UDP sockets that are connected, in a sandbox or in the namespace itself.
    fn connected(&mut self, sandbox: Option<BorrowedFd<'_>>) -> Result<Vec<Connected>>;
    /// Ends these sockets in there; how many it found.
    fn end(&mut self, sandbox: Option<BorrowedFd<'_>>, sockets: &[Connected]) -> Result<usize>;
    /// Sum over all CPUs of a counter.
    fn counter(&self, index: u32) -> Result<Counter>;
    /// Begins to forget dead flows, where there are any to forget.
    fn start_collector(&self) -> Result<Option<Collector>>;

    /// Begins to probe other hosts from this address, where there are any.
    fn start_prober(&self, own: IpAddr) -> Result<Option<Prober>>;

    /// Begins to look at paths, where there are any.
    fn start_surveyor(&self) -> Result<Option<Surveyor>>;

    /// Whether our firewall table is there.
    fn has_firewall(&mut self) -> Result<bool>;
    /// Writes our firewall table.
    fn write_firewall(&mut self, firewall: &Firewall) -> Result<()>;
    /// Lets task packets pass others' filters. True when a rule had to be added.
    fn open_forward(&mut self) -> Result<bool>;

    /// Cookie and links of a sandbox.
    fn look_inside(&mut self, sandbox: BorrowedFd<'_>) -> Result<(u64, Vec<Link>)>;
    /// Makes the pair of an interface unless it is there; the host's side. `inner` is what
    /// [`Self::look_inside`] saw.
    fn make_pair(
        &mut self,
        inner: &[Link],
        sandbox: BorrowedFd<'_>,
        interface: &Interface,
    ) -> Result<Link>;
    /// Sets up the sandbox's side.
    fn configure_inside(&mut self, sandbox: BorrowedFd<'_>, interfaces: &[Interface])
    -> Result<()>;

    /// Removes pins and firewall; links and what hangs on them are removed by name before.
    fn uninstall(&mut self) -> Result<()>;
}
