//! A client, a switch, two nodes and their tasks, as namespaces of this machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap as Hash, HashOfMaps, LpmTrie, Map, MapData, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, Pod};
use weft_abi::Netns as HelpedNetns;
use weft_abi::*;

/// VNI of the ingress network.
pub(crate) const MESH: u32 = 4096;
/// VNI of a user network.
pub(crate) const OTHER: u32 = 4097;
/// Nothing here is slow; a packet that is not there after this is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs a command line, split at spaces.
pub(crate) fn sh(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().context("empty command")?)
        .args(words)
        .output()?;
    if !out.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Labs of one process run beside each other, one per thread: each has its own names.
fn prefix() -> String {
    format!("weft-w{}-{}-", std::process::id(), LAB.with(|n| *n))
}

static LABS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static LAB: u32 = LABS.fetch_add(1, Ordering::Relaxed);
}

/// A namespace that goes when this goes.
pub(crate) struct Netns(pub(crate) String);

impl Netns {
    /// Makes it, loopback up.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let name = format!("{}{name}", prefix());
        sh(&format!("ip netns add {name}"))?;
        let ns = Self(name);
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, args: &str) -> Result<()> {
        sh(&format!("ip -n {} {args}", self.0))
    }

    /// Runs `f` on a thread inside.
    pub(crate) fn inside<R: Send>(&self, f: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(format!("/run/netns/{}", self.0))?;
                    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
                    f()
                })
                .join()
                .map_err(|_| anyhow::anyhow!("a thread inside {} panicked", self.0))?
        })
    }

    /// Its cookie, by which socket hooks know it.
    pub(crate) fn cookie(&self) -> Result<u64> {
        self.inside(|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            let mut cookie = 0u64;
            let mut len = size_of::<u64>() as libc::socklen_t;
            // SAFETY: a live socket, and room for the eight bytes that the option has.
            let code = unsafe {
                libc::getsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    71, // SO_NETNS_COOKIE
                    (&raw mut cookie).cast(),
                    &mut len,
                )
            };
            if code != 0 {
                bail!("SO_NETNS_COOKIE: {}", std::io::Error::last_os_error());
            }
            Ok(cookie)
        })
    }

    /// Index of one of its interfaces.
    pub(crate) fn index(&self, name: &str) -> Result<u32> {
        self.inside(|| Ok(nix::net::if_::if_nametoindex(name)?))
    }
}

impl std::ops::Drop for Netns {
    fn drop(&mut self) {
        let _ = sh(&format!("ip netns del {}", self.0));
    }
}

/// Answers on port 80 of both families, TCP and UDP, with its name and the address it sees.
pub(crate) fn serve(ns: &Netns, name: &'static str) -> Result<()> {
    let (tcp, udp) =
        ns.inside(|| Ok((TcpListener::bind("[::]:80")?, UdpSocket::bind("[::]:80")?)))?;
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || answer(stream, name));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 9000];
        while let Ok((n, peer)) = udp.recv_from(&mut buffer) {
            // As long as what was asked, so that answers are fragmented too.
            let mut text = format!("{name} {} {n} ", plain(peer)).into_bytes();
            text.resize(n.max(text.len()), b'.');
            let _ = udp.send_to(&text, peer);
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut buffer = [0; 65536];
    let mut total = 0;
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        total += n;
        if stream
            .write_all(format!("{name} {} {total}\n", plain(peer)).as_bytes())
            .is_err()
        {
            break;
        }
    }
}

fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// What a server said: its name, and the client it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) name: String,
    pub(crate) saw: SocketAddr,
    pub(crate) me: SocketAddr,
}

fn said(text: &str, me: SocketAddr) -> Result<Said> {
    let mut words = text.split_whitespace();
    let name = words.next().context("no name")?.to_owned();
    Ok(Said {
        name,
        saw: words.next().context("no address")?.parse()?,
        me,
    })
}

/// Asks over TCP.
pub(crate) fn ask(ns: &Netns, to: SocketAddr) -> Result<Said> {
    ns.inside(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)
            .with_context(|| format!("connect to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        let mut buffer = [0; 256];
        let n = stream
            .read(&mut buffer)
            .with_context(|| format!("answer of {to}"))?;
        said(&String::from_utf8_lossy(&buffer[..n]), stream.local_addr()?)
    })
}

/// A connection that is kept.
pub(crate) struct Held {
    stream: TcpStream,
}

impl Held {
    /// Opens one, from this port if it is not 0.
    pub(crate) fn open(ns: &Netns, from: u16, to: SocketAddr) -> Result<Self> {
        ns.inside(|| {
            let domain = if to.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            // SAFETY: takes plain numbers; the new descriptor belongs to the stream alone.
            let mut stream =
                unsafe { TcpStream::from_raw_fd(libc::socket(domain, libc::SOCK_STREAM, 0)) };
            use nix::sys::socket::{self, SockaddrStorage, sockopt};
            socket::setsockopt(&stream, sockopt::ReuseAddr, &true)?;
            let any = if to.is_ipv4() {
                IpAddr::from([0; 4])
            } else {
                IpAddr::from([0; 16])
            };
            socket::bind(
                stream.as_raw_fd(),
                &SockaddrStorage::from(SocketAddr::new(any, from)),
            )?;
            socket::setsockopt(
                &stream,
                sockopt::SendTimeout,
                &nix::sys::time::TimeVal::new(2, 0),
            )?;
            socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(to))
                .with_context(|| format!("connect to {to}"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.flush()?;
            Ok(Self { stream })
        })
    }

    /// One question, one answer.
    pub(crate) fn ask(&mut self) -> Result<Said> {
        self.stream.write_all(b"more")?;
        let mut buffer = [0; 256];
        let n = self
            .stream
            .read(&mut buffer)
            .context("answer on a held connection")?;
        said(
            &String::from_utf8_lossy(&buffer[..n]),
            self.stream.local_addr()?,
        )
    }
}

/// Asks over UDP by an unconnected socket; also tells who answered.
pub(crate) fn ask_loose(ns: &Netns, to: SocketAddr) -> Result<(Said, SocketAddr)> {
    ns.inside(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"hello", to)?;
        let mut buffer = [0; 256];
        let (n, from) = socket
            .recv_from(&mut buffer)
            .with_context(|| format!("datagram from {to}"))?;
        Ok((
            said(&String::from_utf8_lossy(&buffer[..n]), socket.local_addr()?)?,
            from,
        ))
    })
}

/// The peer that a connected socket is told.
pub(crate) fn peer(ns: &Netns, to: SocketAddr) -> Result<SocketAddr> {
    ns.inside(|| {
        Ok(TcpStream::connect_timeout(&to, PATIENCE)
            .with_context(|| format!("connect to {to}"))?
            .peer_addr()?)
    })
}

/// Asks over UDP with a datagram of this size.
pub(crate) fn ask_udp(ns: &Netns, to: SocketAddr, size: usize) -> Result<Said> {
    ns.inside(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&vec![7; size])?;
        let mut buffer = [0; 256];
        let n = socket
            .recv(&mut buffer)
            .with_context(|| format!("datagram from {to}"))?;
        said(&String::from_utf8_lossy(&buffer[..n]), socket.local_addr()?)
    })
}

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
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/weft.bpf.o");
    std::fs::read(path).with_context(|| format!("read {path}; run `cargo xtask build-ebpf`"))
}

impl Node {
    /// Node `id`: on the switch as `192.0.2.(10+id)`, tunnel up, programs attached.
    pub(crate) fn new(switch: &Netns, id: u32) -> Result<Self> {
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
            loader.map_max_entries(map, 4096);
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
        for hook in ["connect", "sendmsg", "recvmsg", "getpeername"] {
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

fn wire(switch: &Netns, ns: &Netns, port: &str, host: u32) -> Result<()> {
    switch.ip(&format!(
        "link add {port} type veth peer name eth0 netns {}",
        ns.0
    ))?;
    switch.ip(&format!("link set {port} master br0 up"))?;
    ns.ip("link set eth0 up")?;
    ns.ip(&format!("addr add 192.0.2.{host}/24 dev eth0"))?;
    ns.ip(&format!("addr add 2001:db8::{host}/64 dev eth0 nodad"))
}

/// Everything, wired and filled in: tasks 1 (node 1), 2 (node 2) behind port 8000 and a VIP of the
/// mesh's network, and tasks 3 (node 1), 4 (node 2) of another network with a VIP.
pub(crate) struct Lab {
    pub(crate) client: Netns,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tasks: Vec<Sandbox>,
    _switch: Netns,
}

impl Lab {
    /// Builds it.
    pub(crate) fn new() -> Result<Self> {
        let switch = Netns::new("s")?;
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        let client = Netns::new("c")?;
        wire(&switch, &client, "pc", 100)?;
        let nodes = vec![Node::new(&switch, 1)?, Node::new(&switch, 2)?];
        let mut lab = Self {
            client,
            nodes,
            tasks: Vec::new(),
            _switch: switch,
        };
        for (id, node, net) in [(1, 1, MESH), (2, 2, MESH), (3, 1, OTHER), (4, 2, OTHER)] {
            lab.task(id, node, net)?;
        }
        serve(&lab.tasks[0].ns, "t1")?;
        serve(&lab.tasks[1].ns, "t2")?;
        serve(&lab.tasks[2].ns, "t3")?;
        serve(&lab.tasks[3].ns, "t4")?;
        for node in &mut lab.nodes {
            node.ring("rings", 1, &[1, 2])?;
            node.ring("rings", 2, &[3, 4])?;
            let published = Front {
                service: 1,
                port: Be16::new(80),
                ..Default::default()
            };
            for proto in [6, 17] {
                let key = FrontKey {
                    net: 0,
                    addr: Addr::ANY,
                    port: Be16::new(8000),
                    proto,
                    pad: 0,
                };
                node.put("front", key, published)?;
            }
            for (net, vip, service) in [
                (MESH, "10.0.0.200", 1),
                (MESH, "fd00::200", 1),
                (OTHER, "10.0.1.200", 2),
                (OTHER, "fd00:0:0:1::200", 2),
            ] {
                let key = FrontKey {
                    net,
                    addr: ip(vip),
                    ..Default::default()
                };
                node.put(
                    "front",
                    key,
                    Front {
                        service,
                        ..Default::default()
                    },
                )?;
            }
        }
        wait_for_links()?;
        Ok(lab)
    }

    fn task(&mut self, id: u32, on: u32, net: u32) -> Result<()> {
        let ns = Netns::new(&format!("t{id}"))?;
        let third = if net == MESH { 0 } else { 1 };
        let (four, six) = (
            format!("10.0.{third}.{}", 10 + id),
            format!("fd00:0:0:{third}::{}", 10 + id),
        );
        let mac = task_mac(id).map(|b| format!("{b:02x}")).join(":");
        let gate = GATEWAY_MAC.map(|b| format!("{b:02x}")).join(":");
        let node = &mut self.nodes[on as usize - 1];
        let veth = format!("v{id}");
        node.ns.ip(&format!("link add {veth} address {gate} type veth peer name eth0 address {mac} mtu 1450 netns {}", ns.0))?;
        node.ns.ip(&format!("link set {veth} mtu 1450 up"))?;
        ns.ip("link set eth0 up")?;
        ns.ip(&format!("addr add {four}/24 dev eth0"))?;
        ns.ip(&format!("addr add {six}/64 dev eth0"))?;
        ns.ip("route add default via 169.254.1.1 dev eth0 onlink")?;
        ns.ip("-6 route add default via fe80::1 dev eth0")?;
        node.ns.ip(&format!("route add {four}/32 dev {veth}"))?;
        node.ns.ip(&format!("-6 route add {six}/128 dev {veth}"))?;
        node.ns
            .ip(&format!("neigh add {four} lladdr {mac} dev {veth}"))?;
        node.ns
            .ip(&format!("neigh add {six} lladdr {mac} dev {veth}"))?;
        let link = node.ns.index(&veth)?;
        let endpoint = Endpoint {
            id,
            ifindex: link,
            net,
            addr4: ip(&four),
            addr6: ip(&six),
            mac: task_mac(id),
            ..Default::default()
        };
        node.put("endpoints", link, endpoint)?;
        node.put("local_tasks", id, endpoint)?;
        node.attach("task_in", &veth, TcAttachType::Ingress)?;
        for node in &mut self.nodes {
            let backend = Backend {
                addr4: ip(&four),
                addr6: ip(&six),
                node: on,
                net,
                flags: 0,
            };
            node.put("backends", id, backend)?;
            let task = Task {
                id,
                node: on,
                ifindex: if node.id == on { link } else { 0 },
            };
            node.put(
                "tasks",
                NetAddr {
                    net,
                    addr: ip(&four),
                },
                task,
            )?;
            node.put(
                "tasks",
                NetAddr {
                    net,
                    addr: ip(&six),
                },
                task,
            )?;
        }
        self.tasks.push(Sandbox {
            ns,
            id,
            net,
            ip4: four.parse()?,
            ip6: six.parse()?,
        });
        Ok(())
    }
}

/// Waits until no IPv6 address is tentative in any of our namespaces.
fn wait_for_links() -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let out = Command::new("ip")
            .args([
                "-all",
                "netns",
                "exec",
                "ip",
                "-6",
                "-o",
                "addr",
                "show",
                "tentative",
            ])
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let mine = prefix();
        let mut ours = false;
        let mut waiting = 0;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("netns: ") {
                ours = name.starts_with(&mine);
            } else if ours && !line.trim().is_empty() {
                waiting += 1;
            }
        }
        if waiting == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{waiting} IPv6 addresses are still tentative after 10 s");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
