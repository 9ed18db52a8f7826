//! The one who keeps the kernel as it should be: knows desire and sandboxes, reads back, repairs.
//!
//! Lives on a thread of its own, because that thread may stand in another namespace and because
//! every call here may block.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use ipnetwork::IpNetwork;
use weft_abi::{Endpoint, config, netns as netns_bits};
use weft_types::TaskId;

use crate::{
    Applied, Config, DataplaneError, Desired, Repairs, Sandbox, SandboxSpec, Status,
    collector::Collector,
    interfaces::{self, Interface},
    kernel::{
        bpf::{self, Hook, Programs},
        firewall::{self, Firewall},
        netlink::{Netlink, Route},
        netns, sysctl,
    },
    links::{self, OVERLAY, Surroundings},
    mesh::{Rings, Slots},
    tables::{Gone, Host, Row, Tables},
};

/// A sandbox of this node.
struct Local {
    cookie: u64,
    interfaces: Vec<(Interface, Endpoint)>,
}

pub(crate) struct Keeper {
    config: Config,
    cgroup: Option<PathBuf>,
    netlink: Netlink,
    pub(crate) programs: Programs,
    cookie: u64,
    overlay: u32,
    flags: u32,
    surroundings: Surroundings,
    desired: Option<Desired>,
    rings: Rings,
    /// What the tables held when last looked at; `None` before the first look.
    held: Option<Tables>,
    /// Inner map ids of rings written or read here.
    ring_ids: BTreeMap<(RingTable, u32), u32>,
    sandboxes: BTreeMap<TaskId, Local>,
    /// Interfaces and namespaces found at start that no task has claimed yet.
    adopted: Vec<Endpoint>,
    adopted_namespaces: BTreeMap<u64, BTreeSet<u32>>,
    hooks: BTreeSet<Hook>,
    firewall: Option<Firewall>,
    routes: BTreeSet<Route>,
    pub(crate) collector: Option<Collector>,
    repairs: Repairs,
    ticks: u64,
    has_ipv6: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RingTable {
    Now,
    Before,
}

/// The first error of many steps, none of which keeps the others from being tried.
#[derive(Default)]
struct FirstError(Option<DataplaneError>);

impl FirstError {
    fn note<T>(&mut self, result: Result<T, DataplaneError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(%error, "data plane");
                self.0.get_or_insert(error);
                None
            }
        }
    }

    fn finish(self) -> Result<(), DataplaneError> {
        self.0.map_or(Ok(()), Err)
    }
}

/// How many looks at links there are for one look at everything.
const TICKS_PER_READ_BACK: u64 = 5;

/// Threads for writes that wait: swapping a ring waits until no program reads the old one, and such
/// waits run side by side.
const WRITERS: usize = 16;

/// Does `work` for each item in order; neighbours that are both `slow` may be done side by side.
/// Results are in the items' order.
fn in_runs<T: Sync>(
    items: &[T],
    slow: impl Fn(&T) -> Option<u8>,
    work: impl Fn(&T) -> Result<(), DataplaneError> + Sync,
) -> Vec<Result<(), DataplaneError>> {
    let mut results = Vec::with_capacity(items.len());
    for run in items.chunk_by(|a, b| slow(a) == slow(b)) {
        if run.first().and_then(&slow).is_none() || run.len() == 1 {
            results.extend(run.iter().map(&work));
            continue;
        }
        let share = run.len().div_ceil(WRITERS);
        let work = &work;
        results.extend(std::thread::scope(|scope| {
            let start = |part| scope.spawn(move || Vec::from_iter(<[T]>::iter(part).map(work)));
            let threads: Vec<_> = run.chunks(share).map(|part| (part.len(), start(part))).collect();
            let failed = || DataplaneError::Refused("a writing thread panicked".to_owned());
            let finish = |(size, thread): (usize, std::thread::ScopedJoinHandle<'_, Vec<_>>)| {
                thread.join().unwrap_or_else(|_| (0..size).map(|_| Err(failed())).collect())
            };
            Vec::from_iter(threads.into_iter().flat_map(finish))
        }));
    }
    results
}

impl Keeper {
    /// Takes over what is there and makes what is missing.
    pub(crate) fn start(config: Config) -> Result<Self, DataplaneError> {
        if let Some(path) = config.netns.clone() {
            netns::enter(netns::open(crate::NetnsRef::Path(path))?.as_fd())?;
        }
        let cgroup = config.cgroup.clone().or_else(bpf::find_cgroup);
        let mut netlink = Netlink::open()?;
        let cookie = netns::cookie()?;
        let surroundings = Surroundings::new(netlink.links()?, netlink.addresses()?);
        if surroundings.link_of(config.data_path_addr).is_none() {
            return Err(DataplaneError::Refused(format!(
                "data path address {} is on no link of this host",
                config.data_path_addr
            )));
        }
        enable_forwarding(&surroundings)?;
        let programs = Programs::load(&config.pin_dir)?;
        let mut keeper = Self {
            cgroup,
            netlink,
            programs,
            cookie,
            overlay: 0,
            flags: if takes_csum_ipv6() { config::CSUM_IPV6 } else { 0 },
            surroundings,
            desired: None,
            rings: Rings::default(),
            held: None,
            ring_ids: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            adopted: Vec::new(),
            adopted_namespaces: BTreeMap::new(),
            hooks: BTreeSet::new(),
            firewall: None,
            routes: BTreeSet::new(),
            collector: None,
            repairs: Repairs::default(),
            ticks: 0,
            has_ipv6: sysctl::get("ipv6/conf/all/disable_ipv6").is_some(),
            config,
        };
        keeper.ensure_overlay()?;
        keeper.look_around()?;
        keeper.adopt()?;
        keeper.attach_hooks()?;
        keeper.try_sockets();
        // A table that is there knows more networks than this process does before its first desire.
        if !firewall::is_there().unwrap_or(false) {
            keeper.try_firewall(false);
        }
        keeper.programs.forget_other_layouts()?;
        tracing::info!(programs = ?keeper.programs.ids(), adopted = keeper.adopted.len(), "data plane is up");
        Ok(keeper)
    }

    /// Attaches the socket programs. Without them packets are translated instead, which is no reason
    /// to refuse everything else.
    fn try_sockets(&mut self) -> u64 {
        self.attach_sockets().unwrap_or_else(|error| {
            tracing::warn!(%error, "sockets are not helped, packets are translated instead");
            0
        })
    }

    /// Writes the firewall's part. Without it tasks may not reach the world, but services work.
    fn try_firewall(&mut self, look: bool) -> u64 {
        self.write_firewall(look).unwrap_or_else(|error| {
            tracing::warn!(%error, "tasks may not reach the world");
            0
        })
    }

    fn attach_sockets(&mut self) -> Result<u64, DataplaneError> {
        match self.cgroup.clone() {
            Some(cgroup) => self.programs.attach_sockets(&cgroup),
            None => Err(DataplaneError::Refused("no cgroup2 file system is mounted".to_owned())),
        }
    }

    /// Container MTU that the path allows.
    pub(crate) fn mtu(&self) -> u32 {
        if let Some(mtu) = self.config.mtu_bytes {
            return u32::from(mtu);
        }
        let link = self.surroundings.link_of(self.config.data_path_addr);
        let mtu = link.map_or(1500, |link| link.mtu);
        // Below 1280 there is no IPv6.
        mtu.saturating_sub(links::overhead(self.config.data_path_addr)).max(1280)
    }

    /// Makes or mends the overlay device. True when it had to be made.
    fn ensure_overlay(&mut self) -> Result<bool, DataplaneError> {
        let wanted = Some((self.config.vxlan_port, true));
        let mtu = self.mtu();
        let mut made = false;
        let link = match self.netlink.link(OVERLAY)? {
            Some(link) if link.vxlan == wanted => link,
            other => {
                if other.is_some() {
                    self.netlink.remove_link(OVERLAY)?;
                }
                // The host's part of every address on it; differs from every task's and gateway's.
                let mac = [0x02, 0xfd, 0, 0, 0, 1];
                self.netlink.add_overlay(OVERLAY, mac, self.config.vxlan_port)?;
                made = true;
                let link = self.netlink.link(OVERLAY)?;
                link.ok_or_else(|| DataplaneError::Refused(format!("link {OVERLAY} vanished while it was made")))?
            }
        };
        if !link.up || link.mtu != mtu {
            sysctl::set(&format!("ipv6/conf/{OVERLAY}/addr_gen_mode"), "1")?;
            sysctl::set(&format!("ipv6/conf/{OVERLAY}/accept_ra"), "0")?;
            sysctl::set(&format!("ipv6/conf/{OVERLAY}/disable_ipv6"), "0")?;
            self.netlink.take_up(link.index, Some(mtu))?;
        }
        self.overlay = link.index;
        Ok(made)
    }

    /// Reads links and addresses again. True when something changed.
    fn look_around(&mut self) -> Result<bool, DataplaneError> {
        let now = Surroundings::new(self.netlink.links()?, self.netlink.addresses()?);
        let changed = now != self.surroundings;
        self.surroundings = now;
        Ok(changed)
    }

    /// Takes over the interfaces and namespaces that the tables know and that still exist.
    fn adopt(&mut self) -> Result<(), DataplaneError> {
        for (index, endpoint) in self.programs.maps.endpoints.entries()? {
            if self.surroundings.links.get(&index).is_some_and(|link| links::is_ours(&link.name)) {
                self.adopted.push(endpoint);
            }
        }
        for (cookie, row) in self.programs.maps.netns.entries()? {
            if row.flags & netns_bits::HOST == 0 && !self.adopted.is_empty() {
                let nets = row.nets.iter().take(row.count as usize).copied().collect();
                self.adopted_namespaces.insert(cookie, nets);
            }
        }
        Ok(())
    }

    /// Interfaces of tasks that exist now.
    fn interfaces(&self) -> Vec<Endpoint> {
        let known = self.sandboxes.values().flat_map(|local| local.interfaces.iter().map(|(_, endpoint)| *endpoint));
        let all = known.chain(self.adopted.iter().copied());
        all.filter(|endpoint| self.surroundings.links.contains_key(&endpoint.ifindex)).collect()
    }

    fn wanted_hooks(&self) -> BTreeSet<Hook> {
        let mut hooks = BTreeSet::from([Hook::OverlayIn(self.overlay), Hook::HostOut(self.overlay)]);
        hooks.extend(self.surroundings.uplinks(&self.config.uplinks).into_keys().map(Hook::UplinkIn));
        hooks.extend(self.interfaces().iter().map(|endpoint| Hook::TaskIn(endpoint.ifindex)));
        hooks
    }

    /// Attaches what is missing, detaches what is not wanted. How many were missing that had been there.
    fn attach_hooks(&mut self) -> Result<u64, DataplaneError> {
        let wanted = self.wanted_hooks();
        let mut repaired = 0;
        let mut errors = FirstError::default();
        for hook in &wanted {
            let known = self.hooks.contains(hook);
            if known && self.programs.is_attached(*hook) {
                continue;
            }
            if errors.note(self.programs.attach(*hook)).is_some() {
                repaired += u64::from(known);
            }
        }
        errors.note(self.programs.retain(&wanted));
        self.hooks = wanted;
        errors.finish().map(|()| repaired)
    }

    fn write_firewall(&mut self, look: bool) -> Result<u64, DataplaneError> {
        let mut sources: Vec<IpNetwork> = vec![self.config.egress_pool.into()];
        sources.extend(self.desired.iter().flat_map(|desired| desired.subnets.keys().copied()));
        let wanted = Firewall { sources, vxlan_port: self.config.vxlan_port };
        let same = self.firewall.as_ref() == Some(&wanted);
        let mut repaired = 0;
        if !same || (look && !firewall::is_there()?) {
            repaired = u64::from(same);
            wanted.write()?;
        }
        if !same || look {
            let added = firewall::open_forward()?;
            repaired += u64::from(added && same);
        }
        self.firewall = Some(wanted);
        Ok(repaired)
    }

    fn host(&self) -> Host {
        let mut namespaces = self.adopted_namespaces.clone();
        for local in self.sandboxes.values() {
            let nets = local.interfaces.iter().map(|(_, endpoint)| endpoint.net).filter(|net| *net != 0);
            namespaces.insert(local.cookie, nets.collect());
        }
        Host {
            underlay: self.config.data_path_addr,
            vxlan_port: self.config.vxlan_port,
            overlay: self.overlay,
            uplink: self.surroundings.link_of(self.config.data_path_addr).map_or(0, |link| link.index),
            flags: self.flags,
            cookie: self.cookie,
            addresses: self.surroundings.addresses.keys().copied().collect(),
            interfaces: self.interfaces(),
            namespaces,
        }
    }

    /// Makes the kernel hold `desired`.
    pub(crate) fn apply(&mut self, desired: Desired) -> Result<Applied, DataplaneError> {
        self.rings.update(&desired.rings, Instant::now());
        self.desired = Some(desired);
        self.reconcile(true)
    }

    /// Looks whether links or addresses changed, and follows; from time to time reads everything back.
    pub(crate) fn tick(&mut self) {
        self.ticks += 1;
        let read_back = self.ticks % TICKS_PER_READ_BACK == 0 && self.desired.is_some();
        let result = match self.look_around() {
            Ok(changed) if changed || read_back => self.reconcile(read_back).map(drop),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot keep the data plane as it should be; tried again soon");
        }
    }

    /// Writes the difference between what should be and what is. With `read_back`, what is comes from
    /// the kernel; else from memory.
    fn reconcile(&mut self, read_back: bool) -> Result<Applied, DataplaneError> {
        let mut errors = FirstError::default();
        let mut repairs = Repairs::default();
        let mut changes = 0;
        if errors.note(self.ensure_overlay()) == Some(true) {
            repairs.links += 1;
        }
        errors.note(self.look_around());
        if let Some(repaired) = errors.note(self.attach_hooks()) {
            repairs.programs += repaired;
        }
        if read_back {
            repairs.programs += self.try_sockets();
        }
        if let Some((written, repaired)) = errors.note(self.write_tables(read_back)) {
            changes += written;
            repairs.entries += repaired;
        }
        if let Some((written, repaired)) = errors.note(self.write_routes()) {
            changes += written;
            repairs.links += repaired;
        }
        if self.desired.is_some() {
            repairs.firewall += self.try_firewall(read_back);
        }
        if repairs.total() > 0 {
            tracing::warn!(?repairs, "the kernel had drifted: mended");
        }
        self.repairs.links += repairs.links;
        self.repairs.entries += repairs.entries;
        self.repairs.programs += repairs.programs;
        self.repairs.firewall += repairs.firewall;
        errors.finish()?;
        let revision = self.desired.as_ref().map_or(0, |desired| desired.revision);
        Ok(Applied { revision, changes, repairs })
    }

    /// How many rows were written, and how many of them mend what others changed.
    fn write_tables(&mut self, read_back: bool) -> Result<(u64, u64), DataplaneError> {
        let Some(desired) = self.desired.clone() else {
            return self.write_sandboxes();
        };
        let before = self.held.take();
        let first = before.is_none();
        let mut repaired = 0;
        let mut have = match before {
            Some(held) if !read_back => held,
            held => {
                let found = self.read_tables(held.as_ref())?;
                if let Some(held) = &held {
                    repaired = held.plan(&found).len() as u64;
                }
                found
            }
        };
        if first {
            let now = Instant::now();
            for (ring, slots) in &have.rings {
                self.rings.adopt(*ring, slots, now);
            }
        }
        self.rings.update(&desired.rings, Instant::now());
        let plan = Tables::of(&desired, &self.host(), &self.rings).plan(&have);
        let written = (plan.len() as u64).saturating_sub(repaired);
        let mut errors = FirstError::default();
        for (row, result) in plan.put.iter().zip(in_runs(&plan.put, Row::ring_table, |row| self.put(row))) {
            if errors.note(result).is_some() {
                have.put(row.clone());
            }
        }
        let removed = in_runs(&plan.remove, Gone::ring_table, |gone| self.remove(gone));
        for (gone, result) in plan.remove.iter().zip(removed) {
            if errors.note(result).is_some() {
                have.remove(gone);
            }
        }
        errors.note(self.note_ring_ids(&plan.put));
        self.held = Some(have);
        match &self.collector {
            Some(collector) if written > 0 => collector.wake(),
            Some(_) => {}
            None => self.collector = errors.note(Collector::start(&self.programs)),
        }
        errors.finish()?;
        Ok((written, repaired))
    }

    /// Before the first desire: only the rows of sandboxes, so that they work with what is there.
    fn write_sandboxes(&mut self) -> Result<(u64, u64), DataplaneError> {
        let host = self.host();
        let rows = Tables::of(&Desired::default(), &host, &self.rings);
        let mut written = 0;
        for (index, endpoint) in rows.endpoints {
            self.put(&Row::Endpoints(index, endpoint))?;
            written += 1;
        }
        for (id, endpoint) in rows.local_tasks {
            self.put(&Row::LocalTasks(id, endpoint))?;
        }
        for (cookie, row) in rows.netns {
            self.put(&Row::Netns(cookie, row))?;
        }
        Ok((written, 0))
    }

    fn read_tables(&mut self, held: Option<&Tables>) -> Result<Tables, DataplaneError> {
        let maps = &self.programs.maps;
        let mut tables = Tables {
            nodes: maps.nodes.entries()?.into_iter().collect(),
            node_by_addr: maps.node_by_addr.entries()?.into_iter().collect(),
            local_addrs: maps.local_addrs.entries()?.into_iter().collect(),
            subnets: maps.subnets.entries()?.into_iter().collect(),
            backends: maps.backends.entries()?.into_iter().collect(),
            local_tasks: maps.local_tasks.entries()?.into_iter().collect(),
            endpoints: maps.endpoints.entries()?.into_iter().collect(),
            tasks: maps.tasks.entries()?.into_iter().collect(),
            services: maps.services.keys()?.into_iter().map(|ring| (ring, ())).collect(),
            front: maps.front.entries()?.into_iter().collect(),
            netns: maps.netns.entries()?.into_iter().collect(),
            config: maps.config.entries()?.into_iter().collect(),
            ..Tables::default()
        };
        tables.rings = self.read_rings(RingTable::Now, held.map(|held| &held.rings))?;
        tables.rings_before = self.read_rings(RingTable::Before, held.map(|held| &held.rings_before))?;
        Ok(tables)
    }

    fn read_rings(
        &mut self,
        table: RingTable,
        held: Option<&BTreeMap<u32, Slots>>,
    ) -> Result<BTreeMap<u32, Slots>, DataplaneError> {
        let map = match table {
            RingTable::Now => &self.programs.maps.rings,
            RingTable::Before => &self.programs.maps.rings_before,
        };
        let mut rings = BTreeMap::new();
        for ring in map.keys()? {
            let Some(id) = map.ring_id(ring)? else { continue };
            let known = held.and_then(|held| held.get(&ring));
            let slots = match known {
                // Inner maps are never edited: the same map has the same slots.
                Some(slots) if self.ring_ids.get(&(table, ring)) == Some(&id) => slots.clone(),
                _ => map.ring_slots(id)?.into(),
            };
            self.ring_ids.insert((table, ring), id);
            rings.insert(ring, slots);
        }
        Ok(rings)
    }

    fn put(&self, row: &Row) -> Result<(), DataplaneError> {
        let maps = &self.programs.maps;
        match row {
            Row::Nodes(key, value) => maps.nodes.put(key, value),
            Row::NodeByAddr(key, value) => maps.node_by_addr.put(key, value),
            Row::LocalAddrs(key, value) => maps.local_addrs.put(key, value),
            Row::Subnets(key, value) => maps.subnets.put(key, value),
            Row::Backends(key, value) => maps.backends.put(key, value),
            Row::LocalTasks(key, value) => maps.local_tasks.put(key, value),
            Row::Endpoints(key, value) => maps.endpoints.put(key, value),
            Row::Tasks(key, value) => maps.tasks.put(key, value),
            Row::Services(key, ()) => maps.services.put_zero_per_cpu(key),
            Row::Front(key, value) => maps.front.put(key, value),
            Row::Netns(key, value) => maps.netns.put(key, value),
            Row::Config(key, value) => maps.config.put(key, value),
            Row::Rings(ring, slots) => maps.rings.put_ring(*ring, slots),
            Row::RingsBefore(ring, slots) => maps.rings_before.put_ring(*ring, slots),
        }
    }

    /// Remembers which inner maps were just written, so that they need not be read back.
    fn note_ring_ids(&mut self, rows: &[Row]) -> Result<(), DataplaneError> {
        let maps = &self.programs.maps;
        for row in rows {
            let (table, ring, id) = match row {
                Row::Rings(ring, _) => (RingTable::Now, *ring, maps.rings.ring_id(*ring)?),
                Row::RingsBefore(ring, _) => (RingTable::Before, *ring, maps.rings_before.ring_id(*ring)?),
                _ => continue,
            };
            self.ring_ids.extend(id.map(|id| ((table, ring), id)));
        }
        Ok(())
    }

    fn remove(&self, gone: &Gone) -> Result<(), DataplaneError> {
        let maps = &self.programs.maps;
        match gone {
            Gone::Nodes(key) => maps.nodes.remove(key),
            Gone::NodeByAddr(key) => maps.node_by_addr.remove(key),
            Gone::LocalAddrs(key) => maps.local_addrs.remove(key),
            Gone::Subnets(key) => maps.subnets.remove(key),
            Gone::Backends(key) => maps.backends.remove(key),
            Gone::LocalTasks(key) => maps.local_tasks.remove(key),
            Gone::Endpoints(key) => maps.endpoints.remove(key),
            Gone::Tasks(key) => maps.tasks.remove(key),
            Gone::Services(key) => maps.services.remove(key),
            Gone::Front(key) => maps.front.remove(key),
            Gone::Netns(key) => maps.netns.remove(key),
            // An array's entry cannot be removed, and there is one at all times.
            Gone::Config(_) => Ok(()),
            Gone::Rings(ring) => maps.rings.remove(ring),
            Gone::RingsBefore(ring) => maps.rings_before.remove(ring),
        }
    }

    /// How many routes and neighbours were written or removed, and how many routes had been there.
    fn write_routes(&mut self) -> Result<(u64, u64), DataplaneError> {
        let mut interfaces = self.interfaces();
        // The kernel takes no route through a link that is down.
        interfaces.retain(|endpoint| self.surroundings.links.get(&endpoint.ifindex).is_some_and(|link| link.up));
        let ours: BTreeSet<u32> =
            self.surroundings.links.values().filter(|link| links::is_ours(&link.name)).map(|link| link.index).collect();
        let routes = links::routes(
            self.desired.as_ref(),
            &interfaces,
            &self.surroundings,
            self.config.data_path_addr,
            self.overlay,
        );
        let works = |addr: IpAddr| self.has_ipv6 || addr.is_ipv4();
        let routes: BTreeSet<Route> = routes.into_iter().filter(|route| works(route.to.ip())).collect();
        let have: BTreeSet<_> = self.netlink.routes()?.into_iter().filter(|route| ours.contains(&route.link)).collect();
        let mut errors = FirstError::default();
        let mut written = 0;
        // Removal first: a changed source is another route to the same place, and the kernel would
        // remove the new one for the old.
        // Before the first desire, a route that is there has a reason that is not known yet.
        for route in have.difference(&routes).filter(|_| self.desired.is_some()) {
            errors.note(self.netlink.remove_route(route));
            written += 1;
        }
        let mut repaired = 0;
        for route in routes.difference(&have) {
            errors.note(self.netlink.put_route(route));
            if self.routes.contains(route) {
                repaired += 1;
            } else {
                written += 1;
            }
        }
        self.routes = routes;
        let mut neighbours = links::neighbours(&interfaces);
        neighbours.retain(|neighbour| works(neighbour.addr));
        let have: BTreeSet<_> =
            self.netlink.neighbours()?.into_iter().filter(|neighbour| ours.contains(&neighbour.link)).collect();
        for neighbour in neighbours.difference(&have) {
            errors.note(self.netlink.put_neighbour(neighbour));
            written += 1;
        }
        for neighbour in have.difference(&neighbours) {
            let replaced = neighbours.iter().any(|new| (new.link, new.addr) == (neighbour.link, neighbour.addr));
            if !replaced {
                errors.note(self.netlink.remove_neighbour(neighbour));
                written += 1;
            }
        }
        errors.finish().map(|()| (written, repaired))
    }

    /// Makes or mends a task's interfaces.
    pub(crate) fn create_sandbox(&mut self, spec: &SandboxSpec, netns: OwnedFd) -> Result<Sandbox, DataplaneError> {
        let (cookie, inner) = interfaces::inner_links(netns.as_fd())?;
        let egress = if spec.attachments.is_empty() { Some(self.egress_address(spec.task, &inner)?) } else { None };
        let mut wanted = interfaces::plan(spec, self.mtu(), egress);
        if !self.has_ipv6 {
            wanted.iter_mut().for_each(|interface| interface.addresses.retain(IpNetwork::is_ipv4));
        }
        let mut made = Vec::new();
        for interface in wanted {
            let link = interfaces::make_pair(&mut self.netlink, &inner, netns.as_fd(), &interface)?;
            let endpoint = interface.endpoint(link.index);
            made.push((interface, endpoint));
        }
        let endpoints: BTreeSet<u32> = made.iter().map(|(_, endpoint)| endpoint.ifindex).collect();
        self.adopted.retain(|endpoint| !endpoints.contains(&endpoint.ifindex));
        self.adopted_namespaces.remove(&cookie);
        let addresses = made.iter().flat_map(|(interface, _)| interface.addresses.iter().map(IpNetwork::ip)).collect();
        let plan: Vec<Interface> = made.iter().map(|(interface, _)| interface.clone()).collect();
        let netns = Arc::new(netns);
        self.sandboxes.insert(spec.task, Local { cookie, interfaces: made });
        // Programs and rows first, links up last: no packet meets a half-made interface.
        self.look_around()?;
        self.reconcile(false)?;
        for index in endpoints {
            self.netlink.take_up(index, None)?;
        }
        interfaces::configure_inside(netns.as_fd(), &plan)?;
        self.look_around()?;
        self.write_routes()?;
        Ok(Sandbox { task: spec.task, addresses, cookie, netns })
    }

    /// The address a task without networks has already, or a free one.
    fn egress_address(
        &self,
        task: TaskId,
        inner: &[crate::kernel::netlink::Link],
    ) -> Result<Ipv4Addr, DataplaneError> {
        let address_of = |endpoint: &Endpoint| match (endpoint.id, IpAddr::from(endpoint.addr4)) {
            (0, IpAddr::V4(addr)) => Some((addr, endpoint.mac)),
            _ => None,
        };
        let mut taken = BTreeMap::new();
        for (owner, local) in &self.sandboxes {
            for (addr, _) in local.interfaces.iter().filter_map(|(_, endpoint)| address_of(endpoint)) {
                if *owner == task {
                    return Ok(addr);
                }
                taken.insert(addr, ());
            }
        }
        for (addr, mac) in self.adopted.iter().filter_map(address_of) {
            if inner.iter().any(|link| link.mac == mac) {
                return Ok(addr);
            }
            taken.insert(addr, ());
        }
        interfaces::free_egress(self.config.egress_pool, |addr| taken.contains_key(&addr)).ok_or_else(|| {
            DataplaneError::Refused(format!("egress pool {} has no free address", self.config.egress_pool))
        })
    }

    /// Removes a task's interfaces.
    pub(crate) fn remove_sandbox(&mut self, task: TaskId) -> Result<(), DataplaneError> {
        let Some(local) = self.sandboxes.remove(&task) else { return Ok(()) };
        let mut errors = FirstError::default();
        for (interface, endpoint) in &local.interfaces {
            errors.note(self.netlink.remove_link(&interface.name));
            errors.note(self.programs.detach(Hook::TaskIn(endpoint.ifindex)));
        }
        errors.note(self.look_around());
        errors.note(self.reconcile(false));
        errors.finish()
    }

    /// Removes sandboxes of other tasks than these. What was found at start and nobody claimed goes
    /// when all of `tasks` have claimed theirs.
    pub(crate) fn retain_sandboxes(&mut self, tasks: &BTreeSet<TaskId>) -> Result<(), DataplaneError> {
        let mut errors = FirstError::default();
        let gone: Vec<TaskId> = self.sandboxes.keys().filter(|task| !tasks.contains(task)).copied().collect();
        for task in gone {
            errors.note(self.remove_sandbox(task));
        }
        let all_claimed = tasks.iter().all(|task| self.sandboxes.contains_key(task));
        let unclaimed = !self.adopted.is_empty() || !self.adopted_namespaces.is_empty();
        if all_claimed && unclaimed {
            self.adopted_namespaces.clear();
            for endpoint in std::mem::take(&mut self.adopted) {
                if let Some(link) = self.surroundings.links.get(&endpoint.ifindex).cloned() {
                    errors.note(self.netlink.remove_link(&link.name));
                }
                errors.note(self.programs.detach(Hook::TaskIn(endpoint.ifindex)));
            }
            errors.note(self.reconcile(false));
        }
        errors.finish()
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            revision: self.desired.as_ref().map_or(0, |desired| desired.revision),
            uplinks: self.surroundings.uplinks(&self.config.uplinks).into_values().collect(),
            sandboxes: self.sandboxes.len(),
            flows: self.programs.maps.flow.keys().map_or(0, |keys| keys.len() / 2),
            repairs: self.repairs,
            mtu_bytes: u16::try_from(self.mtu()).unwrap_or(u16::MAX),
        }
    }

    /// Removes everything.
    pub(crate) fn uninstall(mut self) -> Result<(), DataplaneError> {
        let mut errors = FirstError::default();
        errors.note(bpf::remove_pins(&self.config.pin_dir));
        let links = errors.note(self.netlink.links()).unwrap_or_default();
        for link in links.iter().filter(|link| links::is_ours(&link.name)) {
            errors.note(self.netlink.remove_link(&link.name));
        }
        errors.note(firewall::remove());
        errors.finish()
    }
}

/// Packets of tasks to the world go through the host's stack, which must be willing. With forwarding
/// on, a link stops taking router advertisements unless told otherwise, and the host would lose its
/// default route.
fn enable_forwarding(surroundings: &Surroundings) -> Result<(), DataplaneError> {
    sysctl::set("ipv4/ip_forward", "1")?;
    if sysctl::get("ipv6/conf/all/forwarding").as_deref() != Some("0") {
        return Ok(());
    }
    for link in surroundings.links.values() {
        let key = format!("ipv6/conf/{}/accept_ra", link.name);
        if sysctl::get(&key).as_deref() == Some("1") {
            sysctl::set(&key, "2")?;
        }
    }
    sysctl::set("ipv6/conf/all/forwarding", "1")?;
    Ok(())
}

/// Whether `bpf_l4_csum_replace` takes `BPF_F_IPV6`: since Linux 6.16.
fn takes_csum_ipv6() -> bool {
    let Ok(name) = nix::sys::utsname::uname() else { return false };
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (6, 16)
}

