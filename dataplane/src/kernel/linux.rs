//! The kernel this process runs on.

mod rows;
mod sockets;

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
    led::{Connected, Led},
    links::OVERLAY,
    mesh::Slots,
    sandbox::NetnsRef,
    tables::{Plan, Row, Tables},
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
    ring_ids: BTreeMap<(rows::RingTable, u32), u32>,
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
        self.read_rows(held)
    }

    fn write(&mut self, plan: &Plan) -> Written {
        self.write_rows(plan)
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
        self.slots_of(ring)
    }

    fn backend(&self, id: u32) -> Result<Option<Backend>> {
        self.programs.maps.backends.get(&id)
    }

    fn rehearse(&self, rehearsal: &Rehearsal) -> Result<Rehearsed> {
        self.programs.rehearse(rehearsal)
    }

    fn led(&self) -> Result<Vec<Led>> {
        self.programs.maps.sk_rev.entries()
    }

    fn connected(&mut self, sandbox: Option<BorrowedFd<'_>>) -> Result<Vec<Connected>> {
        let v6 = self.has_ipv6;
        sockets::within(sandbox, move || sockets::connected(v6))
    }

    fn end(&mut self, sandbox: Option<BorrowedFd<'_>>, ending: &[Connected]) -> Result<usize> {
        if ending.is_empty() {
            return Ok(0);
        }
        sockets::within(sandbox, || sockets::end(ending))
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
