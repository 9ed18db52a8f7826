//! A small network of namespaces: a switch, hosts with a data plane each, a client. Everything is
//! named after this process and goes when the value is dropped.
#![allow(dead_code, reason = "each test target uses another part of it")]

pub(crate) mod steady;
mod talk;
mod wish;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};
#[allow(unused_imports, reason = "each test target uses another part of it")]
pub(crate) use talk::{PATIENCE, asking, echo, greeted, hear};
use weft_dataplane::{Config, Dataplane, Desired, WIREGUARD_PORT, WireGuard, WireGuardKey};
use weft_types::{
    NetworkId, NodeId,
    netstate::{NetNode, NetState},
};

static SERIES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Lan {
    tag: String,
    pub(crate) dir: tempfile::TempDir,
    namespaces: Vec<String>,
    pub(crate) hosts: BTreeMap<u32, Dataplane>,
    pub(crate) state: NetState,
    /// The keys that hosts have for encrypted networks.
    pub(crate) keys: BTreeMap<u32, Vec<WireGuard>>,
}

pub(crate) fn run(command: &str) -> Result<String> {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .context("run sh")?;
    if !output.status.success() {
        bail!("{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `work` in the namespace at this path, on a thread of its own.
pub(crate) fn within<T: Send + 'static>(
    namespace: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let file =
        File::open(namespace).with_context(|| format!("open namespace {}", namespace.display()))?;
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        work()
    });
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("thread panicked"))?
}

pub(crate) fn host4(index: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 10 + index as u8)
}

pub(crate) fn host6(index: u32) -> Ipv6Addr {
    format!("2001:db8::{}", 10 + index)
        .parse()
        .expect("a test's address")
}

pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
pub(crate) const CLIENT6: &str = "2001:db8::100";
pub(crate) const INGRESS_VNI: u32 = 4096;

/// The first key of a host for encrypted networks.
pub(crate) fn wireguard_of(index: u32) -> WireGuard {
    wireguard_at(index, 0)
}

/// The key of a host for encrypted networks, of this generation.
pub(crate) fn wireguard_at(index: u32, generation: u64) -> WireGuard {
    WireGuard {
        generation,
        key: WireGuardKey::from_bytes([index as u8 + 16 * generation as u8; 32]),
        port: WireGuard::port_of(WIREGUARD_PORT, generation),
    }
}

pub(crate) fn ingress() -> NetworkId {
    NetworkId::numbered(1)
}

fn port_of(host: &str) -> String {
    format!("p{}", host.rsplit_once('-').map_or(host, |(_, end)| end))
}

impl Lan {
    /// A switch, `hosts` hosts and a client, with nothing of ours on them.
    pub(crate) fn new(hosts: u32) -> Result<Self> {
        let tag = format!(
            "wdp{}-{}",
            std::process::id(),
            SERIES.fetch_add(1, Ordering::Relaxed)
        );
        let dir = tempfile::tempdir()?;
        let mut lan = Self {
            tag,
            dir,
            namespaces: Vec::new(),
            hosts: BTreeMap::new(),
            state: NetState::default(),
            keys: BTreeMap::new(),
        };
        run(&format!("mount -t bpf bpf {}", lan.dir.path().display()))?;
        let switch = lan.add_namespace("s")?;
        run(&format!(
            "ip -n {switch} link add br0 type bridge && ip -n {switch} link set br0 up"
        ))?;
        for index in 1..=hosts {
            let (v4, v6) = (host4(index), host6(index));
            lan.add_host(
                &format!("n{index}"),
                &format!("{v4}/24"),
                &format!("{v6}/64"),
            )?;
            lan.state.nodes.insert(
                NodeId::numbered(u128::from(index)),
                NetNode {
                    index,
                    hostname: format!("n{index}"),
                    addr: host4(index).into(),
                    addresses: BTreeSet::from([host6(index).into()]),
                    alive: true,
                    wireguard: None,
                    zone: String::new(),
                },
            );
        }
        lan.add_host("c", &format!("{CLIENT4}/24"), &format!("{CLIENT6}/64"))?;
        lan.state.revision = 1;
        lan.state.ring_seed = 42;
        lan.state.data_path_port = 4789;
        lan.add_network(
            ingress(),
            INGRESS_VNI,
            &["10.0.0.0/24", "fd00:1::/64"],
            true,
        );
        Ok(lan)
    }

    pub(crate) fn add_namespace(&mut self, name: &str) -> Result<String> {
        let name = format!("{}{name}", self.tag);
        run(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ))?;
        self.namespaces.push(name.clone());
        Ok(name)
    }

    /// A host at the switch with nothing of ours on it.
    pub(crate) fn add_host(&mut self, name: &str, v4: &str, v6: &str) -> Result<String> {
        let host = self.add_namespace(name)?;
        let switch = self.namespace("s");
        self.plug(&switch, &host, v4, v6)?;
        Ok(host)
    }

    fn plug(&self, switch: &str, host: &str, v4: &str, v6: &str) -> Result<()> {
        let port = port_of(host);
        run(&format!(
            "ip -n {switch} link add {port} mtu 1500 type veth peer name eth0 netns {host} && \
             ip -n {switch} link set {port} master br0 up && \
             ip -n {host} addr add {v4} dev eth0 && ip -n {host} addr add {v6} dev eth0 nodad && \
             ip -n {host} link set eth0 up"
        ))
        .map(drop)
    }

    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// The switch's side of a host's cable.
    pub(crate) fn switch_port(&self, name: &str) -> String {
        port_of(&self.namespace(name))
    }

    pub(crate) fn netns_path(&self, name: &str) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(name))
    }

    pub(crate) fn pin_dir(&self, index: u32) -> PathBuf {
        self.dir.path().join(format!("n{index}"))
    }

    pub(crate) fn config(&self, index: u32) -> Config {
        let mut config = Config::new(self.pin_dir(index), host4(index).into());
        config.netns = Some(self.netns_path(&format!("n{index}")));
        config
    }

    pub(crate) async fn start(&mut self, index: u32) -> Result<()> {
        self.start_with(index, |_| {}).await
    }

    /// Starts a host with other settings than the usual.
    pub(crate) async fn start_with(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut Config),
    ) -> Result<()> {
        let mut config = self.config(index);
        change(&mut config);
        let dataplane = Dataplane::start(config)
            .await
            .with_context(|| format!("start n{index}"))?;
        self.hosts.insert(index, dataplane);
        Ok(())
    }

    pub(crate) async fn start_all(&mut self) -> Result<()> {
        let indices: Vec<u32> = self.state.nodes.values().map(|node| node.index).collect();
        for index in indices {
            self.start(index).await?;
        }
        self.apply().await
    }

    /// Starts all hosts, each with a key for encrypted networks that the others know.
    pub(crate) async fn start_all_with_keys(&mut self) -> Result<()> {
        let indices: Vec<u32> = self.state.nodes.values().map(|node| node.index).collect();
        for index in indices {
            self.start(index).await?;
            self.give_keys(index, vec![wireguard_of(index)])?;
        }
        self.apply().await
    }

    /// Gives a host keys for encrypted networks, oldest first, and tells of them with the next state.
    pub(crate) fn give_keys(&mut self, index: u32, keys: Vec<WireGuard>) -> Result<()> {
        let node = self.state.nodes.get_mut(&NodeId::numbered(index.into()));
        node.context("a host of the state")?.wireguard = WireGuard::told(&keys, None);
        self.keys.insert(index, keys);
        Ok(())
    }

    /// Gives every host the state as it is now.
    pub(crate) async fn apply(&mut self) -> Result<()> {
        self.state.revision += 1;
        for index in self.hosts.keys() {
            self.apply_on(*index).await?;
        }
        Ok(())
    }

    /// Gives one host the state as it is now.
    pub(crate) async fn apply_on(&self, index: u32) -> Result<()> {
        let node = NodeId::numbered(index.into());
        let mut desired = Desired::of(&self.state, node, &BTreeSet::new())?;
        desired.keys = self.keys.get(&index).cloned().unwrap_or_default();
        let host = self.hosts.get(&index).context("a host that runs")?;
        let applied = host.apply(desired).await;
        let applied = applied.with_context(|| format!("apply on n{index}"))?;
        assert_eq!(applied.revision, self.state.revision);
        Ok(())
    }

    /// Runs `work` in a namespace, on a thread of its own.
    pub(crate) fn within<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        within(&self.netns_path(name), work)
    }

    /// Closes or opens a host's UDP port of the tunnel, as a firewall before it would.
    pub(crate) fn close_tunnel(&self, host: &str, closed: bool) -> Result<()> {
        let nft = format!("ip netns exec {} nft", self.namespace(host));
        let line = if closed {
            format!(
                "{nft} add table inet closed && \
                 {nft} 'add chain inet closed input {{ type filter hook prerouting priority -300 ; }}' && \
                 {nft} add rule inet closed input udp dport 4789 drop"
            )
        } else {
            format!("{nft} delete table inet closed")
        };
        run(&line).map(drop)
    }

    /// Drop counters of all hosts, for failures.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        for (index, host) in &self.hosts {
            let drops = futures_block(host.drops());
            text += &format!("n{index}: {drops:?}\n");
        }
        text
    }
}

/// How long anything may take here, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `holds` is true, or says what was waited for.
pub(crate) async fn eventually(
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds().await? {
        if Instant::now() > deadline {
            bail!("waited {LIMIT:?} for: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits for an answer outside of any runtime's worker.
fn futures_block<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime")
                .block_on(future)
        };
        scope.spawn(run).join().expect("a thread")
    })
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in std::mem::take(&mut self.hosts).into_values() {
            if let Err(error) = futures_block(host.uninstall()) {
                eprintln!("uninstall: {error}");
            }
        }
        for name in &self.namespaces {
            if let Err(error) = run(&format!("ip netns del {name}")) {
                eprintln!("{error}");
            }
        }
        if let Err(error) = run(&format!("umount {}", self.dir.path().display())) {
            eprintln!("{error}");
        }
    }
}
