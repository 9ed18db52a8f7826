//! A node: its namespace, its loaded programs, its maps.

use std::fs::File;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap as Hash, HashOfMaps, LpmTrie, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, Pod};
use weft_abi::Netns as HelpedNetns;
use weft_abi::*;

use super::netns::Netns;

/// VNI of the ingress network.
pub(crate) const MESH: u32 = 4096;
/// VNI of a user network.
pub(crate) const OTHER: u32 = 4097;

/// A node: its namespace and its loaded programs.
pub(crate) struct Node {
    pub(crate) ns: Netns,
    pub(crate) ebpf: Ebpf,
    pub(crate) id: u32,
}

/// A task's sandbox.
pub(crate) struct Sandbox {
    pub(crate) ns: Netns,
    pub(crate) id: u32,
    pub(crate) net: u32,
    pub(crate) ip4: IpAddr,
    pub(crate) ip6: IpAddr,
}

fn object() -> Result<Vec<u8>> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/weft.bpf.o");
    let path = std::env::var("WEFT_OBJECT").unwrap_or_else(|_| built.to_owned());
    std::fs::read(&path).with_context(|| format!("read {path}; run `cargo xtask build-ebpf`"))
}

impl Node {
    /// Node `id`: on the switch as `192.0.2.(10+id)`, tunnel up, programs attached.
    ///
    /// Its tables of flows have room for this many entries.
    pub(crate) fn new(switch: &Netns, id: u32, flows: u32) -> Result<Self> {
        let ns = Netns::new(&format!("n{id}"))?;
        wire(switch, &ns, &format!("p{id}"), 10 + id)?;
        ns.ip("link add weft0 type vxlan external dstport 4789 nolearning udp6zerocsumrx")?;
        ns.ip("link set weft0 mtu 1450 arp off up")?;
        for net in ["10.0.0.0/24", "10.0.1.0/24"] {
            ns.ip(&format!(
                "route add {net} dev weft0 src 192.0.2.{}",
                10 + id
            ))?;
        }
        for net in ["fd00:0::/64", "fd00:0:0:1::/64"] {
            ns.ip(&format!(
                "-6 route add {net} dev weft0 src 2001:db8::{}",
                10 + id
            ))?;
        }
        let mut loader = EbpfLoader::new();
        for map in ["flow_new", "flow", "pick", "sk_rev"] {
            loader.map_max_entries(map, flows);
        }
        let ebpf = loader.load(&object()?)?;
        let mut node = Self { ns, ebpf, id };
        node.attach("uplink_in", "eth0", TcAttachType::Ingress)?;
        node.attach("overlay_in", "weft0", TcAttachType::Ingress)?;
        node.attach("host_out", "weft0", TcAttachType::Egress)?;
        node.attach_none("task_in")?;
        let config = Config {
            seed: 42,
            node: id,
            mesh: MESH,
            overlay: node.ns.index("weft0")?,
            uplink: node.ns.index("eth0")?,
            flags: config::CSUM_IPV6,
            vxlan_port: Be16::new(4789),
            pad: 0,
            underlay: ip(&format!("192.0.2.{}", 10 + id)),
        };
        Array::<_, Config>::try_from(node.map("config")?)?.set(0, config, 0)?;
        for own in [
            format!("192.0.2.{}", 10 + id),
            format!("2001:db8::{}", 10 + id),
        ] {
            node.put("local_addrs", ip(&own), 1u32)?;
        }
        for other in [1, 2] {
            let four = ip(&format!("192.0.2.{}", 10 + other));
            node.put(
                "nodes",
                other,
                weft_abi::Node {
                    underlay: four,
                    ..Default::default()
                },
            )?;
            let both = node_addr::HOST | node_addr::UNDERLAY;
            node.put(
                "node_by_addr",
                four,
                NodeAddr {
                    node: other,
                    flags: both,
                },
            )?;
            let six = ip(&format!("2001:db8::{}", 10 + other));
            node.put(
                "node_by_addr",
                six,
                NodeAddr {
                    node: other,
                    flags: node_addr::HOST,
                },
            )?;
        }
        let mut subnets = LpmTrie::<_, Addr, u32>::try_from(node.map("subnets")?)?;
        for (net, addr, len) in [
            (MESH, "10.0.0.0", 120),
            (MESH, "fd00::", 64),
            (OTHER, "10.0.1.0", 120),
            (OTHER, "fd00:0:0:1::", 64),
        ] {
            subnets.insert(&Key::new(len, ip(addr)), net, 0)?;
        }
        Ok(node)
    }

    fn attach_none(&mut self, program: &str) -> Result<()> {
        let program: &mut SchedClassifier = self
            .ebpf
            .program_mut(program)
            .context("no such program")?
            .try_into()?;
        program.load()?;
        Ok(())
    }

    /// Attaches a program to an interface.
    pub(crate) fn attach(&mut self, program: &str, link: &str, at: TcAttachType) -> Result<()> {
        let Self { ns, ebpf, .. } = self;
        let program: &mut SchedClassifier = ebpf
            .program_mut(program)
            .context("no such program")?
            .try_into()?;
        if program.fd().is_err() {
            program.load()?;
        }
        ns.inside(|| {
            program.attach_with_options(link, at, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
            Ok(())
        })?;
        Ok(())
    }

    /// Sends tunnelled packets over IPv6 from now on.
    pub(crate) fn tunnel_over_ipv6(&mut self) -> Result<()> {
        let mut configs = Array::<_, Config>::try_from(self.map("config")?)?;
        let mut config = configs.get(&0, 0)?;
        config.underlay = ip(&format!("2001:db8::{}", 10 + config.node));
        configs.set(0, config, 0)?;
        for other in [1, 2] {
            let six = ip(&format!("2001:db8::{}", 10 + other));
            self.put(
                "nodes",
                other,
                weft_abi::Node {
                    underlay: six,
                    ..Default::default()
                },
            )?;
            let both = node_addr::HOST | node_addr::UNDERLAY;
            self.put(
                "node_by_addr",
                six,
                NodeAddr {
                    node: other,
                    flags: both,
                },
            )?;
            let four = ip(&format!("192.0.2.{}", 10 + other));
            self.put(
                "node_by_addr",
                four,
                NodeAddr {
                    node: other,
                    flags: node_addr::HOST,
                },
            )?;
        }
        Ok(())
    }

    /// Lets the programs count what happens to a service.
    pub(crate) fn counts_service(&mut self, service: u32) -> Result<()> {
        let cpus =
            aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        let none = aya::maps::PerCpuValues::try_from(vec![ServiceCount::default(); cpus])?;
        aya::maps::PerCpuHashMap::<_, u32, ServiceCount>::try_from(self.map("services")?)?
            .insert(service, none, 0)?;
        Ok(())
    }

    fn service_counts(&mut self, service: u32) -> Result<Vec<ServiceCount>> {
        let counts =
            aya::maps::PerCpuHashMap::<_, u32, ServiceCount>::try_from(self.map("services")?)?;
        Ok(counts.get(&service, 0)?.to_vec())
    }

    /// Flows of a service whose client is shown under another port.
    pub(crate) fn remapped(&mut self, service: u32) -> Result<u64> {
        Ok(self
            .service_counts(service)?
            .iter()
            .map(|c| c.remapped)
            .sum())
    }

    /// Segments after which a flow of a service found no room in the table that never evicts.
    pub(crate) fn unpromoted(&mut self, service: u32) -> Result<u64> {
        Ok(self
            .service_counts(service)?
            .iter()
            .map(|c| c.unpromoted)
            .sum())
    }

    /// Makes the tunnel carry packets of this length at most.
    pub(crate) fn fits(&mut self, mtu: u32) -> Result<()> {
        let mut nodes = Hash::<_, u32, weft_abi::Node>::try_from(self.map("nodes")?)?;
        for id in [1, 2] {
            let mut node = nodes.get(&id, 0)?;
            node.mtu = mtu;
            nodes.insert(id, node, 0)?;
        }
        Ok(())
    }

    /// Sets a backend's flags.
    pub(crate) fn flag_backend(&mut self, id: u32, flags: u32) -> Result<()> {
        let mut backends = Hash::<_, u32, Backend>::try_from(self.map("backends")?)?;
        let mut backend = backends.get(&id, 0)?;
        backend.flags = flags;
        backends.insert(id, backend, 0)?;
        Ok(())
    }

    /// Forgets a backend, as when its task is gone.
    pub(crate) fn drop_backend(&mut self, id: u32) -> Result<()> {
        Hash::<_, u32, Backend>::try_from(self.map("backends")?)?.remove(&id)?;
        let mut local = Hash::<_, u32, Endpoint>::try_from(self.map("local_tasks")?)?;
        // Not here on the other node.
        let _ = local.remove(&id);
        Ok(())
    }

    /// Forgets which task has an address, as when that is gone.
    pub(crate) fn drop_task(&mut self, net: u32, addr: IpAddr) -> Result<()> {
        let addr = addr.into();
        Hash::<_, NetAddr, Task>::try_from(self.map("tasks")?)?.remove(&NetAddr { net, addr })?;
        Ok(())
    }

    /// The samples of dropped packets so far.
    pub(crate) fn events(&mut self) -> Result<Vec<Event>> {
        let mut ring = RingBuf::try_from(self.map("events")?)?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            let Some(bytes) = item.first_chunk::<64>() else {
                bail!("an event of {} bytes", item.len())
            };
            // SAFETY: an event is integers alone, of this size, and any bits are a valid one.
            events.push(unsafe { std::mem::transmute::<[u8; 64], Event>(*bytes) });
        }
        Ok(events)
    }

    /// Entries of a flow table.
    pub(crate) fn flows(&mut self, map: &str) -> Result<usize> {
        let flows = Hash::<_, FlowKey, Flow>::try_from(self.map(map)?)?;
        Ok(flows.keys().count())
    }

    /// Attaches the socket hooks to every process, and names the namespaces they are for.
    pub(crate) fn attach_sockets(&mut self, tasks: &[&Sandbox]) -> Result<()> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let root = mounts
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                let _ = words.next();
                let place = words.next()?;
                (words.next() == Some("cgroup2")).then(|| place.to_owned())
            })
            .next()
            .context("cgroup2 is not mounted")?;
        let cgroup = File::open(&root)?;
        for hook in ["bind", "connect", "sendmsg", "recvmsg", "getpeername"] {
            for family in ["4", "6"] {
                let name = format!("{hook}{family}");
                let program: &mut CgroupSockAddr = self
                    .ebpf
                    .program_mut(&name)
                    .context("no hook")?
                    .try_into()?;
                program.load()?;
                program
                    .attach(&cgroup, CgroupAttachMode::Single)
                    .with_context(|| format!("attach {name}"))?;
            }
        }
        let host = HelpedNetns {
            flags: netns::HOST,
            ..Default::default()
        };
        self.put("netns", self.ns.cookie()?, host)?;
        for task in tasks {
            let mut nets = [0; NETS_PER_TASK];
            nets[0] = task.net;
            self.put(
                "netns",
                task.ns.cookie()?,
                HelpedNetns {
                    flags: 0,
                    count: 1,
                    nets,
                },
            )?;
        }
        Ok(())
    }

    /// One of its maps.
    pub(crate) fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("no map {name}"))
    }

    /// Writes an entry of a hash.
    pub(crate) fn put<K: Pod, V: Pod>(&mut self, map: &str, key: K, value: V) -> Result<()> {
        Hash::<_, K, V>::try_from(self.map(map)?)?
            .insert(key, value, 0)
            .with_context(|| format!("write {map}"))
    }

    /// Publishes a ring of these backends.
    pub(crate) fn ring(&mut self, map: &str, service: u32, backends: &[u32]) -> Result<()> {
        let size = RING_SIZES[0];
        let mut ring = Array::<MapData, u32>::create(1 + size, 0x1000)?;
        ring.set(0, size, 0)?;
        for slot in 0..size {
            ring.set(1 + slot, backends[slot as usize % backends.len()], 0)?;
        }
        HashOfMaps::<_, u32, Array<MapData, u32>>::try_from(self.map(map)?)?
            .insert(service, &ring, 0)?;
        Ok(())
    }

    /// Forgets every flow, as the agent forgets those that are over.
    pub(crate) fn forget_flows(&mut self) -> Result<()> {
        for map in ["flow", "flow_new"] {
            let mut flows = Hash::<_, FlowKey, Flow>::try_from(self.map(map)?)?;
            let keys = flows.keys().collect::<Result<Vec<_>, _>>()?;
            for key in keys {
                // One that may be evicted may be gone.
                let _ = flows.remove(&key);
            }
        }
        Ok(())
    }

    /// Forgets every choice.
    pub(crate) fn forget_picks(&mut self) -> Result<()> {
        let mut picks = Hash::<_, FlowKey, Pick>::try_from(self.map("pick")?)?;
        let keys = picks.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys {
            picks.remove(&key)?;
        }
        Ok(())
    }

    /// What it has counted, by program and reason.
    pub(crate) fn counts(&mut self) -> Result<Vec<(String, u64)>> {
        let counters = PerCpuArray::<_, Counter>::try_from(self.map("counters")?)?;
        let mut rows = Vec::new();
        for program in Program::ALL {
            let texts = Done::ALL
                .iter()
                .map(|d| (*d as u8, d.text()))
                .chain(weft_abi::Drop::ALL.iter().map(|d| (*d as u8, d.text())));
            for (n, text) in texts {
                let sum: u64 = counters
                    .get(&counter_index(program, n), 0)?
                    .iter()
                    .map(|c| c.packets)
                    .sum();
                if sum > 0 {
                    rows.push((format!("{} {text}", program.name()), sum));
                }
            }
        }
        Ok(rows)
    }

    /// How often a reason was counted.
    pub(crate) fn count(&mut self, program: Program, reason: u8) -> Result<u64> {
        let counters = PerCpuArray::<_, Counter>::try_from(self.map("counters")?)?;
        Ok(counters
            .get(&counter_index(program, reason), 0)?
            .iter()
            .map(|c| c.packets)
            .sum())
    }
}

/// An address in the maps' form.
pub(crate) fn ip(text: &str) -> Addr {
    text.parse::<IpAddr>().map(Addr::from).unwrap_or_default()
}

pub(crate) fn wire(switch: &Netns, ns: &Netns, port: &str, host: u32) -> Result<()> {
    switch.ip(&format!(
        "link add {port} type veth peer name eth0 netns {}",
        ns.0
    ))?;
    switch.ip(&format!("link set {port} master br0 up"))?;
    ns.ip("link set eth0 up")?;
    ns.ip(&format!("addr add 192.0.2.{host}/24 dev eth0"))?;
    ns.ip(&format!("addr add 2001:db8::{host}/64 dev eth0 nodad"))
}
