//! A kernel in memory that fails where a test wants it to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::BorrowedFd,
};

use weft_abi::{Backend, Counter, Flow, FlowKey, Front, FrontKey, RangeKey};

use super::{
    bpf::Hook,
    door::{Kernel, Track, Written},
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
    links::OVERLAY,
    mesh::Slots,
    tables::{Plan, Row, Tables},
};

type Result<T> = std::result::Result<T, DataplaneError>;

/// What a kernel would hold.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) links: BTreeMap<u32, Link>,
    pub(crate) addresses: Vec<LinkAddress>,
    pub(crate) routes: BTreeSet<Route>,
    pub(crate) neighbours: BTreeSet<Neighbour>,
    pub(crate) hooks: BTreeSet<Hook>,
    pub(crate) sockets: bool,
    pub(crate) tables: Tables,
    pub(crate) firewall: Option<Firewall>,
    pub(crate) cipher: Vec<cipher::Plan>,
    /// Public keys with which there is a session.
    pub(crate) sessions: BTreeSet<[u8; 32]>,
    /// Nodes that were knocked at.
    pub(crate) knocks: Vec<cipher::Way>,
    /// Writes of any kind since it was last set to zero.
    pub(crate) writes: u64,
    /// Operations that fail, by name, until taken out.
    pub(crate) faults: BTreeSet<&'static str>,
    /// Sockets that hooks led.
    pub(crate) led: Vec<Led>,
    /// UDP sockets that are connected: the host's own, and those in any sandbox.
    pub(crate) connected: [Vec<Connected>; 2],
    /// Whether an older layout's programs are attached.
    pub(crate) succeeds: bool,
    next: u32,
}

impl Fake {
    /// A host with one uplink at this address.
    pub(crate) fn host(addr: &str) -> Self {
        let mut fake = Self {
            next: 10,
            ..Self::default()
        };
        fake.add_link(1, "lo", "", true);
        fake.add_link(2, "eth0", "", true);
        fake.add_address(2, addr);
        fake
    }

    pub(crate) fn add_link(&mut self, index: u32, name: &str, kind: &str, up: bool) {
        let link = Link {
            index,
            name: name.to_owned(),
            mac: Vec::new(),
            mtu: 1500,
            up,
            loopback: name == "lo",
            is_port: false,
            kind: kind.to_owned(),
            vxlan: None,
        };
        self.links.insert(index, link);
    }

    pub(crate) fn add_address(&mut self, link: u32, addr: &str) {
        let addr = addr.parse().expect("a test's address");
        self.addresses.push(LinkAddress {
            link,
            addr,
            unusable: false,
        });
    }

    fn maybe(&mut self, operation: &'static str) -> Result<()> {
        self.writes += 1;
        self.check(operation)
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        if self.faults.contains(operation) {
            let source = io::Error::from(io::ErrorKind::OutOfMemory);
            return Err(DataplaneError::Link {
                operation,
                object: "fake".to_owned(),
                source,
            });
        }
        Ok(())
    }
}

impl Kernel for Fake {
    fn has_ipv6(&self) -> bool {
        true
    }

    fn takes_csum_ipv6(&self) -> bool {
        true
    }

    fn cookie(&self) -> u64 {
        1
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        self.check("links")?;
        Ok(self.links.values().cloned().collect())
    }

    fn addresses(&mut self) -> Result<Vec<LinkAddress>> {
        Ok(self.addresses.clone())
    }

    fn enable_forwarding(&mut self, _: &BTreeMap<u32, Link>) -> Result<()> {
        Ok(())
    }

    fn ensure_overlay(&mut self, mtu: u32, port: u16) -> Result<(u32, bool)> {
        self.check("overlay")?;
        if let Some(link) = self.links.values().find(|link| link.name == OVERLAY) {
            return Ok((link.index, false));
        }
        self.next += 1;
        let index = self.next;
        self.add_link(index, OVERLAY, "vxlan", true);
        if let Some(link) = self.links.get_mut(&index) {
            link.mtu = mtu;
            link.vxlan = Some((port, true));
        }
        Ok((index, true))
    }

    fn ensure_cipher(&mut self, plans: &[cipher::Plan]) -> Result<bool> {
        self.check("cipher")?;
        let changed = self.cipher != plans;
        self.cipher = plans.to_vec();
        Ok(changed)
    }

    fn cipher_devices(&self) -> Vec<&'static str> {
        self.cipher.iter().map(|plan| plan.device).collect()
    }

    fn cipher_sessions(&mut self) -> Result<BTreeSet<[u8; 32]>> {
        self.check("sessions")?;
        Ok(self.sessions.clone())
    }

    fn knock(&mut self, way: cipher::Way) -> Result<()> {
        self.knocks.push(way);
        self.check("knock")
    }

    fn take_up(&mut self, link: u32) -> Result<()> {
        self.check("take up")?;
        if let Some(link) = self.links.get_mut(&link) {
            link.up = true;
        }
        Ok(())
    }

    fn remove_link(&mut self, name: &str) -> Result<()> {
        self.maybe("remove link")?;
        let Some(index) = self
            .links
            .values()
            .find(|link| link.name == name)
            .map(|link| link.index)
        else {
            return Ok(());
        };
        self.links.remove(&index);
        self.routes.retain(|route| route.link != index);
        self.neighbours.retain(|neighbour| neighbour.link != index);
        self.hooks.retain(|hook| hook.ifindex() != index);
        Ok(())
    }

    fn routes(&mut self) -> Result<Vec<Route>> {
        Ok(self.routes.iter().cloned().collect())
    }

    fn put_route(&mut self, route: &Route) -> Result<()> {
        self.maybe("put route")?;
        assert!(
            self.links.get(&route.link).is_some_and(|link| link.up),
            "route through a link that is down"
        );
        self.routes.retain(|old| old.to != route.to);
        self.routes.insert(route.clone());
        Ok(())
    }

    fn remove_route(&mut self, route: &Route) -> Result<()> {
        self.maybe("remove route")?;
        self.routes.remove(route);
        Ok(())
    }

    fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        Ok(self.neighbours.iter().cloned().collect())
    }

    fn put_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        self.maybe("put neighbour")?;
        self.neighbours.insert(neighbour.clone());
        Ok(())
    }

    fn remove_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        self.maybe("remove neighbour")?;
        self.neighbours.remove(neighbour);
        Ok(())
    }

    fn attach(&mut self, hook: Hook) -> Result<bool> {
        self.maybe("attach")?;
        assert!(
            self.links.contains_key(&hook.ifindex()),
            "attached to a link that is not there"
        );
        Ok(self.hooks.insert(hook))
    }

    fn is_attached(&self, hook: Hook) -> bool {
        self.hooks.contains(&hook)
    }

    fn detach(&mut self, hook: Hook) -> Result<()> {
        self.hooks.remove(&hook);
        Ok(())
    }

    fn retain_hooks(&mut self, hooks: &BTreeSet<Hook>) -> Result<()> {
        self.hooks.retain(|hook| hooks.contains(hook));
        Ok(())
    }

    fn attach_sockets(&mut self) -> Result<u64> {
        self.check("sockets")?;
        Ok(u64::from(!std::mem::replace(&mut self.sockets, true)))
    }

    fn succeeds_older(&self) -> bool {
        self.succeeds
    }

    fn forget_older(&mut self) -> Result<()> {
        Ok(())
    }

    fn read_tables(&mut self, _: Option<&Tables>) -> Result<Tables> {
        self.check("read tables")?;
        Ok(self.tables.clone())
    }

    fn write(&mut self, plan: &Plan) -> Written {
        let mut written = Written::default();
        for row in &plan.put {
            written.put.push(self.put(row));
        }
        for gone in &plan.remove {
            let result = self.maybe("remove row");
            if result.is_ok() {
                self.tables.remove(gone);
            }
            written.remove.push(result);
        }
        written
    }

    fn put(&mut self, row: &Row) -> Result<()> {
        self.maybe(if row.ring_table().is_some() {
            "put ring"
        } else {
            "put row"
        })?;
        self.tables.put(row.clone());
        Ok(())
    }

    fn flows(&self) -> Result<Vec<(FlowKey, Flow)>> {
        Ok(Vec::new())
    }

    fn embryos(&self) -> Result<Vec<(FlowKey, Flow)>> {
        Ok(Vec::new())
    }

    fn track(&self, _: &FlowKey) -> Result<Track> {
        Ok(Track::default())
    }

    fn front(&self, key: &FrontKey) -> Result<Option<Front>> {
        Ok(self.tables.front.get(key).copied())
    }

    fn front_range(&self, _: RangeKey) -> Result<Option<Front>> {
        Ok(None)
    }

    fn ring(&self, ring: u32) -> Result<Slots> {
        Ok(self.tables.rings.get(&ring).cloned().unwrap_or_default())
    }

    fn backend(&self, id: u32) -> Result<Option<Backend>> {
        Ok(self.tables.backends.get(&id).copied())
    }

    /// There are no programs here: everything is somebody else's.
    fn rehearse(&self, rehearsal: &Rehearsal) -> Result<Rehearsed> {
        Ok(Rehearsed {
            reason: weft_abi::Done::NotOurs as u32,
            place: 0,
            frame: rehearsal.frame.clone(),
        })
    }

    fn led(&self) -> Result<Vec<Led>> {
        self.check("led")?;
        Ok(self.led.clone())
    }

    fn connected(&mut self, sandbox: Option<BorrowedFd<'_>>) -> Result<Vec<Connected>> {
        self.check("connected")?;
        Ok(self.connected[usize::from(sandbox.is_some())].clone())
    }

    fn end(&mut self, sandbox: Option<BorrowedFd<'_>>, sockets: &[Connected]) -> Result<usize> {
        self.maybe("end")?;
        let there = &mut self.connected[usize::from(sandbox.is_some())];
        let before = there.len();
        there.retain(|socket| !sockets.contains(socket));
        Ok(before - there.len())
    }

    fn counter(&self, _: u32) -> Result<Counter> {
        Ok(Counter::default())
    }

    fn start_collector(&self) -> Result<Option<Collector>> {
        Ok(None)
    }

    fn start_prober(&self, _: IpAddr) -> Result<Option<Prober>> {
        Ok(None)
    }

    fn start_surveyor(&self) -> Result<Option<Surveyor>> {
        Ok(None)
    }

    fn has_firewall(&mut self) -> Result<bool> {
        Ok(self.firewall.is_some())
    }

    fn write_firewall(&mut self, firewall: &Firewall) -> Result<()> {
        self.maybe("write firewall")?;
        self.firewall = Some(firewall.clone());
        Ok(())
    }

    fn open_forward(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn look_inside(&mut self, _: BorrowedFd<'_>) -> Result<(u64, Vec<Link>)> {
        self.check("look inside")?;
        Ok((2, Vec::new()))
    }

    fn make_pair(&mut self, _: &[Link], _: BorrowedFd<'_>, interface: &Interface) -> Result<Link> {
        self.maybe("make pair")?;
        let there = self
            .links
            .values()
            .find(|link| link.name == interface.name)
            .map(|link| link.index);
        let index = there.unwrap_or_else(|| {
            self.next += 1;
            self.add_link(self.next, &interface.name, "veth", false);
            self.next
        });
        Ok(self.links[&index].clone())
    }

    fn configure_inside(&mut self, _: BorrowedFd<'_>, _: &[Interface]) -> Result<()> {
        self.check("configure inside")
    }

    fn uninstall(&mut self) -> Result<()> {
        self.hooks.clear();
        self.sockets = false;
        self.tables = Tables::default();
        self.firewall = None;
        Ok(())
    }
}
