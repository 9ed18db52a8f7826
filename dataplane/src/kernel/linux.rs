//! The kernel this process runs on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
};

use weft_abi::{Backend, Counter, Flow, FlowKey, Front, FrontKey, Prefixed, RangeKey};

use super::{
    advice,
    bpf::{self, Hook, Programs},
    door::{Kernel, Track, Written},
    error::DataplaneError,
    firewall::{self, Firewall},
    map::Map,
    netlink::{Link, LinkAddress, Neighbour, Netlink, Route},
    netns,
    prober::{Prober, Wake},
    surveyor::Surveyor,
    switches::{self, Switches, reserved},
    sysctl, wireguard,
};
use crate::{
    cipher,
    collector::Collector,
    config::Config,
    explain::{Rehearsal, Rehearsed},
    interfaces::{self, Interface},
    links::OVERLAY,
    mesh::Slots,
    sandbox::NetnsRef,
    tables::{Gone, Plan, Row, Tables},
};

type Result<T> = std::result::Result<T, DataplaneError>;

/// Where what is sent there means nothing (RFC 863).
const DISCARD: u16 = 9;

/// The real kernel, seen from the namespace in which it was opened.
pub(crate) struct Linux {
    netlink: Netlink,
    programs: Programs,
    pin_dir: PathBuf,
    switches: Switches,
    cgroup: Option<PathBuf>,
    /// Called when a node stops or begins to answer.
    wake: Wake,
    cookie: u64,
    has_ipv6: bool,
    /// The WireGuard devices, while a network is encrypted.
    tunnels: wireguard::Tunnels,
    /// Inner map ids of rings written or read here.
    ring_ids: BTreeMap<(RingTable, u32), u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RingTable {
    Now,
    Before,
}

impl Linux {
    /// Moves the calling thread into the wished namespace and loads the programs there.
    pub(crate) fn open(config: &Config, wake: Wake) -> Result<Self> {
        if let Some(path) = config.netns.clone() {
            netns::enter(netns::open(NetnsRef::Path(path))?.as_fd())?;
        }
        let kernel = Self {
            netlink: Netlink::open()?,
            programs: Programs::load(&config.pin_dir).map_err(advice::on_old_kernel)?,
            switches: Switches::open(&config.pin_dir)?,
            pin_dir: config.pin_dir.clone(),
            cgroup: config.cgroup.clone().or_else(bpf::find_cgroup),
            wake,
            cookie: netns::cookie()?,
            has_ipv6: sysctl::get("ipv6/conf/all/disable_ipv6").is_some(),
            tunnels: wireguard::Tunnels::new(),
            ring_ids: BTreeMap::new(),
        };
        tracing::info!(programs = ?kernel.programs.ids(), "programs are loaded");
        Ok(kernel)
    }

    fn read_rings(
        &mut self,
        table: RingTable,
        held: Option<&BTreeMap<u32, Slots>>,
    ) -> Result<BTreeMap<u32, Slots>> {
        let map = match table {
            RingTable::Now => &self.programs.maps.rings,
            RingTable::Before => &self.programs.maps.rings_before,
        };
        let mut rings = BTreeMap::new();
        for ring in map.keys()? {
            let Some(id) = map.ring_id(ring)? else {
                continue;
            };
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

    /// Remembers which inner maps were just written, so that they need not be read back.
    fn note_ring_ids(&mut self, rows: &[Row]) -> Result<()> {
        let maps = &self.programs.maps;
        for row in rows {
            let (table, ring, id) = match row {
                Row::Rings(ring, _) => (RingTable::Now, *ring, maps.rings.ring_id(*ring)?),
                Row::RingsBefore(ring, _) => {
                    (RingTable::Before, *ring, maps.rings_before.ring_id(*ring)?)
                }
                _ => continue,
            };
            self.ring_ids.extend(id.map(|id| ((table, ring), id)));
        }
        Ok(())
    }

    /// A map of rings by the number that rows give: see [`Row::ring_table`].
    fn rings(&self, table: u8) -> &Map<u32, u32> {
        let maps = &self.programs.maps;
        if table == 0 {
            &maps.rings_before
        } else {
            &maps.rings
        }
    }

    fn put_rings(&self, table: u8, rows: &[Row]) -> Result<()> {
        let rings = rows.iter().filter_map(|row| match row {
            Row::Rings(ring, slots) | Row::RingsBefore(ring, slots) => Some((*ring, &slots[..])),
            _ => None,
        });
        self.rings(table).put_rings(&Vec::from_iter(rings))
    }

    fn remove_rings(&self, table: u8, gone: &[Gone]) -> Result<()> {
        let rings = gone.iter().filter_map(|gone| match gone {
            Gone::Rings(ring) | Gone::RingsBefore(ring) => Some(*ring),
            _ => None,
        });
        self.rings(table).remove_rings(&Vec::from_iter(rings))
    }

    fn put_row(&self, row: &Row) -> Result<()> {
        let maps = &self.programs.maps;
        match row {
            Row::Nodes(key, value) => maps.nodes.put(key, value),
            Row::NodeByAddr(key, value) => maps.node_by_addr.put(key, value),
            Row::Owner(key, value) => maps.owner.put(key, value),
            Row::LocalAddrs(key, value) => maps.local_addrs.put(key, value),
            Row::Subnets(key, value) => maps.subnets.put(key, value),
            Row::Ciphered(key, value) => maps.ciphered.put(key, value),
            Row::Backends(key, value) => maps.backends.put(key, value),
            Row::LocalTasks(key, value) => maps.local_tasks.put(key, value),
            Row::Endpoints(key, value) => maps.endpoints.put(key, value),
            Row::Tasks(key, value) => maps.tasks.put(key, value),
            Row::Services(key, ()) => maps.services.put_zero_per_cpu(key),
            Row::Front(key, value) => maps.front.put(key, value),
            Row::FrontRanges(key, value) => maps.front_ranges.put(key, value),
            Row::Allowed(key, value) => maps.allowed.put(key, value),
            Row::Caps(key, value) => maps.caps.put(key, value),
            Row::Netns(key, value) => maps.netns.put(key, value),
            Row::Config(key, value) => maps.config.put(key, value),
            Row::Rings(ring, slots) => maps.rings.put_ring(*ring, slots),
            Row::RingsBefore(ring, slots) => maps.rings_before.put_ring(*ring, slots),
        }
    }

    fn remove_row(&self, gone: &Gone) -> Result<()> {
        let maps = &self.programs.maps;
        match gone {
            Gone::Nodes(key) => maps.nodes.remove(key),
            Gone::NodeByAddr(key) => maps.node_by_addr.remove(key),
            Gone::Owner(key) => maps.owner.remove(key),
            Gone::LocalAddrs(key) => maps.local_addrs.remove(key),
            Gone::Subnets(key) => maps.subnets.remove(key),
            Gone::Ciphered(key) => maps.ciphered.remove(key),
            Gone::Backends(key) => maps.backends.remove(key),
            Gone::LocalTasks(key) => maps.local_tasks.remove(key),
            Gone::Endpoints(key) => maps.endpoints.remove(key),
            Gone::Tasks(key) => maps.tasks.remove(key),
            Gone::Services(key) => maps.services.remove(key),
            Gone::Front(key) => maps.front.remove(key),
            Gone::FrontRanges(key) => maps.front_ranges.remove(key),
            Gone::Allowed(key) => maps.allowed.remove(key),
            Gone::Caps(key) => maps.caps.remove(key),
            Gone::Netns(key) => maps.netns.remove(key),
            // An array's entry cannot be removed, and there is one at all times.
            Gone::Config(_) => Ok(()),
            Gone::Rings(ring) => maps.rings.remove(ring),
            Gone::RingsBefore(ring) => maps.rings_before.remove(ring),
        }
    }
}

/// Rings written together: to swap one waits until no program reads the old one, and so many wait once.
const RINGS_AT_ONCE: usize = 256;

/// Does `work` for each item in order, and `together` for neighbours of the same `kind`. Where that fails each is
/// done by itself, which tells whose fault it was. Results are in the items' order.
fn in_runs<T>(
    items: &[T],
    kind: impl Fn(&T) -> Option<u8>,
    together: impl Fn(u8, &[T]) -> Result<()>,
    work: impl Fn(&T) -> Result<()>,
) -> Vec<Result<()>> {
    let mut results = Vec::with_capacity(items.len());
    for run in items.chunk_by(|a, b| kind(a) == kind(b)) {
        let kind = run.first().and_then(&kind);
        for part in run.chunks(RINGS_AT_ONCE) {
            match kind {
                Some(kind) if part.len() > 1 && together(kind, part).is_ok() => {
                    results.extend(part.iter().map(|_| Ok(())));
                }
                _ => results.extend(part.iter().map(&work)),
            }
        }
    }
    results
}

impl Kernel for Linux {
    fn has_ipv6(&self) -> bool {
        self.has_ipv6
    }

    /// Since Linux 6.16.
    fn takes_csum_ipv6(&self) -> bool {
        advice::release() >= (6, 16)
    }

    fn cookie(&self) -> u64 {
        self.cookie
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        self.netlink.links()
    }

    fn addresses(&mut self) -> Result<Vec<LinkAddress>> {
        self.netlink.addresses()
    }

    /// With forwarding on, a link stops taking router advertisements unless told otherwise, and the
    /// host would lose its default route.
    fn enable_forwarding(&mut self, links: &BTreeMap<u32, Link>) -> Result<()> {
        self.switches.set("ipv4/ip_forward", "1")?;
        if sysctl::get("ipv6/conf/all/forwarding").as_deref() != Some("0") {
            return Ok(());
        }
        for link in links.values() {
            let key = format!("ipv6/conf/{}/accept_ra", link.name);
            if sysctl::get(&key).as_deref() == Some("1") {
                self.switches.set(&key, "2")?;
            }
        }
        self.switches.set("ipv6/conf/all/forwarding", "1")?;
        Ok(())
    }

    fn ensure_overlay(&mut self, mtu: u32, port: u16) -> Result<(u32, bool)> {
        let mut made = false;
        let link = match self.netlink.link(OVERLAY)? {
            Some(link) if link.vxlan == Some((port, true)) => link,
            other => {
                if other.is_some() {
                    self.netlink.remove_link(OVERLAY)?;
                }
                // Differs from every task's and from the gateway's.
                self.netlink
                    .add_overlay(OVERLAY, [0x02, 0xfd, 0, 0, 0, 1], port)
                    .map_err(|error| advice::no_overlay(error, port))?;
                made = true;
                let link = self.netlink.link(OVERLAY)?;
                link.ok_or_else(|| {
                    DataplaneError::Refused(format!("link {OVERLAY} vanished while it was made"))
                })?
            }
        };
        if !link.up || link.mtu != mtu {
            sysctl::set(&format!("ipv6/conf/{OVERLAY}/addr_gen_mode"), "1")?;
            sysctl::set(&format!("ipv6/conf/{OVERLAY}/accept_ra"), "0")?;
            sysctl::set(&format!("ipv6/conf/{OVERLAY}/disable_ipv6"), "0")?;
            let up = self.netlink.take_up(link.index, Some(mtu));
            up.map_err(|error| advice::no_overlay(error, port))?;
        }
        Ok((link.index, made))
    }

    fn ensure_cipher(&mut self, plans: &[cipher::Plan]) -> Result<bool> {
        wireguard::ensure(&mut self.tunnels, &mut self.netlink, plans)
    }

    fn cipher_devices(&self) -> Vec<&'static str> {
        self.tunnels.keys().copied().collect()
    }

    fn cipher_sessions(&mut self) -> Result<BTreeSet<[u8; 32]>> {
        wireguard::sessions(&mut self.tunnels)
    }

    fn knock(&mut self, way: cipher::Way) -> Result<()> {
        let knocked = UdpSocket::bind((way.from, 0))
            .and_then(|socket| socket.send_to(&[0], (way.to, DISCARD)));
        let knocked = knocked.map_err(|source| DataplaneError::Link {
            operation: "send through WireGuard to",
            object: way.to.to_string(),
            source,
        });
        knocked.map(drop)
    }

    fn take_up(&mut self, link: u32) -> Result<()> {
        self.netlink.take_up(link, None)
    }

    fn remove_link(&mut self, name: &str) -> Result<()> {
        self.netlink.remove_link(name)
    }

    fn routes(&mut self) -> Result<Vec<Route>> {
        self.netlink.routes()
    }

    fn put_route(&mut self, route: &Route) -> Result<()> {
        self.netlink.put_route(route)
    }

    fn remove_route(&mut self, route: &Route) -> Result<()> {
        self.netlink.remove_route(route)
    }

    fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        self.netlink.neighbours()
    }

    fn put_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        self.netlink.put_neighbour(neighbour)
    }

    fn remove_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        self.netlink.remove_neighbour(neighbour)
    }

    fn attach(&mut self, hook: Hook) -> Result<bool> {
        self.programs.attach(hook)
    }

    fn is_attached(&self, hook: Hook) -> bool {
        self.programs.is_attached(hook)
    }

    fn detach(&mut self, hook: Hook) -> Result<()> {
        self.programs.detach(hook)
    }

    fn retain_hooks(&mut self, hooks: &BTreeSet<Hook>) -> Result<()> {
        self.programs.retain(hooks)
    }

    fn attach_sockets(&mut self) -> Result<u64> {
        match &self.cgroup {
            Some(cgroup) => self.programs.attach_sockets(cgroup),
            None => Err(DataplaneError::Refused(
                "no cgroup2 file system is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`), or name it with --cgroup".to_owned(),
            )),
        }
    }

    fn succeeds_older(&self) -> bool {
        self.programs.succeeds()
    }

    fn forget_older(&mut self) -> Result<()> {
        self.programs.forget_other_layouts()
    }

    fn read_tables(&mut self, held: Option<&Tables>) -> Result<Tables> {
        let maps = &self.programs.maps;
        let mut tables = Tables {
            nodes: maps.nodes.entries()?.into_iter().collect(),
            node_by_addr: maps.node_by_addr.entries()?.into_iter().collect(),
            owner: maps.owner.entries()?.into_iter().collect(),
            local_addrs: maps.local_addrs.entries()?.into_iter().collect(),
            subnets: maps.subnets.entries()?.into_iter().collect(),
            ciphered: maps.ciphered.entries()?.into_iter().collect(),
            backends: maps.backends.entries()?.into_iter().collect(),
            local_tasks: maps.local_tasks.entries()?.into_iter().collect(),
            endpoints: maps.endpoints.entries()?.into_iter().collect(),
            tasks: maps.tasks.entries()?.into_iter().collect(),
            services: maps
                .services
                .keys()?
                .into_iter()
                .map(|ring| (ring, ()))
                .collect(),
            front: maps.front.entries()?.into_iter().collect(),
            front_ranges: maps.front_ranges.entries()?.into_iter().collect(),
            allowed: maps.allowed.entries()?.into_iter().collect(),
            caps: maps.caps.entries()?.into_iter().collect(),
            netns: maps.netns.entries()?.into_iter().collect(),
            config: maps.config.entries()?.into_iter().collect(),
            ..Tables::default()
        };
        tables.rings = self.read_rings(RingTable::Now, held.map(|held| &held.rings))?;
        tables.rings_before =
            self.read_rings(RingTable::Before, held.map(|held| &held.rings_before))?;
        Ok(tables)
    }

    fn write(&mut self, plan: &Plan) -> Written {
        let put = in_runs(
            &plan.put,
            Row::ring_table,
            |table, rows| self.put_rings(table, rows),
            |row| self.put_row(row),
        );
        let remove = in_runs(
            &plan.remove,
            Gone::ring_table,
            |table, gone| self.remove_rings(table, gone),
            |gone| self.remove_row(gone),
        );
        if let Err(error) = self.note_ring_ids(&plan.put) {
            tracing::debug!(%error, "rings will be read back whole");
        }
        Written { put, remove }
    }

    fn put(&mut self, row: &Row) -> Result<()> {
        self.put_row(row)
    }

    fn flows(&self) -> Result<Vec<(FlowKey, Flow)>> {
        self.programs.maps.flow.entries()
    }

    fn embryos(&self) -> Result<Vec<(FlowKey, Flow)>> {
        self.programs.maps.flow_new.entries()
    }

    fn track(&self, key: &FlowKey) -> Result<Track> {
        let maps = &self.programs.maps;
        Ok(Track {
            flow: maps.flow.get(key)?,
            embryo: maps.flow_new.get(key)?,
            pick: maps.pick.get(key)?,
        })
    }

    fn front(&self, key: &FrontKey) -> Result<Option<Front>> {
        self.programs.maps.front.get(key)
    }

    fn front_range(&self, key: RangeKey) -> Result<Option<Front>> {
        let prefix = RangeKey::WHOLE;
        let ranges = &self.programs.maps.front_ranges;
        ranges.get(&Prefixed { prefix, data: key })
    }

    fn ring(&self, ring: u32) -> Result<Slots> {
        let map = &self.programs.maps.rings;
        let slots = map
            .ring_id(ring)?
            .map(|id| map.ring_slots(id))
            .transpose()?;
        Ok(slots.unwrap_or_default().into())
    }

    fn backend(&self, id: u32) -> Result<Option<Backend>> {
        self.programs.maps.backends.get(&id)
    }

    fn rehearse(&self, rehearsal: &Rehearsal) -> Result<Rehearsed> {
        self.programs.rehearse(rehearsal)
    }

    fn counter(&self, index: u32) -> Result<Counter> {
        let each = self.programs.maps.counters.get_per_cpu(&index)?;
        Ok(each
            .iter()
            .fold(Counter::default(), |sum, counter| Counter {
                packets: sum.packets + counter.packets,
                bytes: sum.bytes + counter.bytes,
            }))
    }

    fn start_collector(&self) -> Result<Option<Collector>> {
        Collector::start(&self.programs).map(Some)
    }

    fn start_prober(&self, own: IpAddr) -> Result<Option<Prober>> {
        Prober::start(own, self.wake.clone()).map(Some)
    }

    fn start_surveyor(&self) -> Result<Option<Surveyor>> {
        Surveyor::start(self.wake.clone()).map(Some)
    }

    fn has_firewall(&mut self) -> Result<bool> {
        firewall::is_there()
    }

    fn write_firewall(&mut self, firewall: &Firewall) -> Result<()> {
        firewall.write()?;
        reserved::set(&self.pin_dir, &firewall.published)
    }

    fn open_forward(&mut self) -> Result<bool> {
        firewall::open_forward()
    }

    fn look_inside(&mut self, sandbox: BorrowedFd<'_>) -> Result<(u64, Vec<Link>)> {
        interfaces::inner_links(sandbox)
    }

    fn make_pair(
        &mut self,
        inner: &[Link],
        sandbox: BorrowedFd<'_>,
        interface: &Interface,
    ) -> Result<Link> {
        interfaces::make_pair(&mut self.netlink, inner, sandbox, interface)
    }

    fn configure_inside(
        &mut self,
        sandbox: BorrowedFd<'_>,
        interfaces: &[Interface],
    ) -> Result<()> {
        interfaces::configure_inside(sandbox, interfaces)
    }

    fn uninstall(&mut self) -> Result<()> {
        let tunnels = wireguard::remove(&mut self.tunnels, &mut self.netlink);
        let pins = bpf::remove_pins(&self.pin_dir);
        let firewall = firewall::remove();
        let switches = self.switches.restore();
        let ports = reserved::restore(&self.pin_dir);
        let memory = switches::forget(&self.pin_dir);
        let all = [tunnels, pins, firewall, switches, ports, memory];
        all.into_iter().collect()
    }
}
