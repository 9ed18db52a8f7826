//! The encrypted underlay beside an independent WireGuard (Debian's `wireguard-go` with `wg`), and
//! connections that live through a network's being encrypted. Needs root.

mod lan;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use lan::{Lan, PATIENCE, eventually, run, wireguard_at, wireguard_of};
use weft_types::{
    NetworkId, NodeId,
    netstate::{FormerKey, WireGuardPeer},
};

fn red() -> NetworkId {
    NetworkId::numbered(2)
}

/// An encrypted network, so that the device is wanted.
async fn encrypt_red(lan: &mut Lan) -> Result<()> {
    lan.add_network(red(), 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.state.networks.get_mut(&red()).context("red")?.encrypted = true;
    lan.apply().await
}

static DEVICES: AtomicU32 = AtomicU32::new(0);

/// Somebody else's WireGuard in the place of host 2.
struct Other {
    program: Child,
    device: String,
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
        let _ = std::fs::remove_file(format!("/var/run/wireguard/{}.sock", self.device));
    }
}

impl Other {
    /// With a key of this generation, to speak with the one of ours.
    async fn start(lan: &mut Lan, generation: u64) -> Result<Self> {
        let host = lan.namespace("n2");
        let ours = wireguard_at(1, generation);
        // Names of control sockets are the machine's.
        let number = DEVICES.fetch_add(1, Ordering::Relaxed);
        let device = format!("wo{}-{number}", std::process::id());
        let program = Command::new("ip")
            .args(["netns", "exec", &host, "wireguard-go", "-f", &device])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start wireguard-go (package wireguard-go)")?;
        let other = Self { program, device };
        let device = &other.device;
        let (key, peer) = (
            lan.dir.path().with_extension("key"),
            lan.dir.path().with_extension("peer"),
        );
        let public = run(&format!(
            "umask 077; wg genkey > {} && wg pubkey < {} | base64 -d | od -An -v -tx1 | tr -d ' \\n'",
            key.display(),
            key.display()
        ))?;
        let bytes: Vec<u8> = (0..public.len() / 2)
            .map(|at| u8::from_str_radix(&public[2 * at..2 * at + 2], 16))
            .collect::<Result<_, _>>()?;
        let node = lan.state.nodes.get_mut(&NodeId::numbered(2));
        let node = node.context("host 2")?;
        let port = 50_000 + generation as u16;
        node.wireguard = Some(WireGuardPeer {
            key: bytes
                .try_into()
                .map_err(|_| anyhow::anyhow!("a key of 32 bytes"))?,
            port,
            generation,
            before: node.wireguard.map(|former| FormerKey {
                key: former.key,
                port: former.port,
            }),
            settled: false,
        });
        std::fs::write(&peer, ours.peer().key)?;
        let theirs = run(&format!("base64 < {}", peer.display()))?;
        let half = ["198.18", "198.19"][generation as usize % 2];
        let set = format!(
            "ip netns exec {host} wg set {device} listen-port {port} private-key {} peer {} allowed-ips {half}.0.1/32 \
             endpoint 192.0.2.11:{} && \
             ip -n {host} addr add {half}.0.2/16 dev {device} && ip -n {host} link set {device} mtu 1440 up",
            key.display(),
            theirs.trim(),
            ours.port,
        );
        eventually("wireguard-go to be configured", async || {
            Ok(run(&set).is_ok())
        })
        .await?;
        std::fs::remove_file(&key)?;
        std::fs::remove_file(&peer)?;
        Ok(other)
    }
}

/// Host 1 ours, host 2 another's.
async fn two_kinds() -> Result<(Lan, Other)> {
    let mut lan = Lan::new(2)?;
    lan.start(1).await?;
    lan.give_keys(1, vec![wireguard_of(1)])?;
    let other = Other::start(&mut lan, 0).await?;
    encrypt_red(&mut lan).await?;
    lan.serve("n1", 7000)?;
    lan.serve("n2", 7000)?;
    Ok((lan, other))
}

const OURS: &str = "198.18.0.1:7000";
const THEIRS: &str = "198.18.0.2:7000";

fn ask(lan: &Lan, from: &str, to: &str) -> Result<String> {
    lan.ask_tcp(from, to.parse::<SocketAddr>()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_wireguard_is_understood_both_ways() -> Result<()> {
    let (lan, _other) = two_kinds().await?;
    assert_eq!(ask(&lan, "n1", THEIRS)?, "n2 198.18.0.1");
    assert_eq!(ask(&lan, "n2", OURS)?, "n1 198.18.0.2");
    assert_eq!(
        lan.ask_udp("n1", THEIRS.parse::<SocketAddr>()?)?,
        "n2 198.18.0.1"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_wireguard_is_followed_to_its_newer_key() -> Result<()> {
    let (mut lan, _other) = two_kinds().await?;
    assert_eq!(ask(&lan, "n1", THEIRS)?, "n2 198.18.0.1");
    let _newer = Other::start(&mut lan, 1).await?;
    lan.give_keys(1, vec![wireguard_at(1, 0), wireguard_at(1, 1)])?;
    lan.apply().await?;
    let host = lan.hosts[&1].clone();
    eventually("the newer key alone to be used", async || {
        Ok(host.key_state().await.settled == Some(1))
    })
    .await?;
    assert_eq!(ask(&lan, "n1", "198.19.0.2:7000")?, "n2 198.19.0.1");
    assert_eq!(ask(&lan, "n2", "198.19.0.1:7000")?, "n1 198.19.0.2");
    Ok(())
}

/// As behind a translator: it is found where its authenticated packets come from, not where it was told
/// to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_found_where_its_packets_come_from() -> Result<()> {
    let (mut lan, other) = two_kinds().await?;
    assert_eq!(ask(&lan, "n1", THEIRS)?, "n2 198.18.0.1");
    let host = lan.namespace("n2");
    run(&format!(
        "ip netns exec {host} wg set {} listen-port 51999",
        other.device
    ))?;
    assert_eq!(
        ask(&lan, "n2", OURS)?,
        "n1 198.18.0.2",
        "it speaks from another port"
    );
    assert_eq!(
        ask(&lan, "n1", THEIRS)?,
        "n2 198.18.0.1",
        "and is answered there"
    );
    // What is told again and again does not undo what was learnt.
    lan.apply().await?;
    assert_eq!(ask(&lan, "n1", THEIRS)?, "n2 198.18.0.1");
    Ok(())
}

/// What a translator before a host does: its packets leave from other ports, and nobody reaches it who was
/// not spoken to from there.
const TRANSLATOR: &str = "table ip translator {
    chain out {
        type nat hook postrouting priority srcnat
        oifname eth0 udp sport 51871-51872 masquerade to :40000-40009
    }
    chain in {
        type filter hook prerouting priority filter
        iifname eth0 udp dport 51871-51872 ct direction original drop
    }
}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_behind_a_translator_is_answered_and_changes_keys() -> Result<()> {
    let mut lan = Lan::new(2)?;
    let behind = lan.namespace("n2");
    run(&format!(
        "ip netns exec {behind} nft -f - <<'RULES'\n{TRANSLATOR}\nRULES"
    ))?;
    lan.start_all_with_keys().await?;
    encrypt_red(&mut lan).await?;
    for number in [1, 2] {
        lan.add_numbered(number, number, red()).await?;
        lan.serve(&format!("t{number}"), 80)?;
    }
    lan.apply().await?;
    let unasked = "10.0.1.2:80".parse::<SocketAddr>()?;
    ensure!(
        lan.is_shut("t1", unasked)?,
        "the translator lets t1 through"
    );
    let both_ways = |lan: &Lan| -> Result<()> {
        assert_eq!(ask(lan, "t2", "10.0.1.1:80")?, "t1 10.0.1.2");
        assert_eq!(ask(lan, "t1", "10.0.1.2:80")?, "t2 10.0.1.1");
        assert_eq!(ask(lan, "t2", "[fd00:2::1]:80")?, "t1 fd00:2::2");
        assert_eq!(ask(lan, "t1", "[fd00:2::2]:80")?, "t2 fd00:2::1");
        Ok(())
    };
    both_ways(&lan)?;
    for host in [1, 2] {
        lan.give_keys(host, vec![wireguard_at(host, 0), wireguard_at(host, 1)])?;
    }
    lan.apply().await?;
    for host in [1, 2] {
        let dataplane = lan.hosts[&host].clone();
        eventually("the newer keys alone to be used", async || {
            Ok(dataplane.key_state().await.settled == Some(1))
        })
        .await?;
        lan.give_keys(host, vec![wireguard_at(host, 1)])?;
    }
    lan.apply().await?;
    both_ways(&lan)
}

fn talk(stream: &mut TcpStream, bytes: usize) -> Result<()> {
    let sent: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    let mut writer = stream.try_clone()?;
    let copy = sent.clone();
    let write = std::thread::spawn(move || writer.write_all(&copy));
    let mut back = vec![0; bytes];
    stream.read_exact(&mut back)?;
    write
        .join()
        .map_err(|_| anyhow::anyhow!("writer panicked"))??;
    ensure!(back == sent, "the echo differs");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_live_through_their_networks_being_encrypted_and_back() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.start_all_with_keys().await?;
    lan.add_network(red(), 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.apply().await?;
    for number in [1, 2] {
        lan.add_numbered(number, number, red()).await?;
    }
    lan.apply().await?;
    lan.serve("t2", 80)?;
    let mut streams = Vec::new();
    for number in 0..20 {
        let to = ["10.0.1.2:80", "[fd00:2::2]:80"][number % 2];
        let (mut stream, _) = lan.within("t1", move || lan::greeted(to.parse()?))?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        talk(&mut stream, 20_000)?;
        streams.push(stream);
    }
    for encrypted in [true, false, true] {
        lan.state.networks.get_mut(&red()).context("red")?.encrypted = encrypted;
        // Some speak while it happens.
        let busy: Vec<_> = streams
            .iter()
            .take(6)
            .map(|stream| {
                let mut stream = stream.try_clone()?;
                Ok(std::thread::spawn(move || {
                    (0..40).try_for_each(|_| talk(&mut stream, 5_000))
                }))
            })
            .collect::<Result<_>>()?;
        lan.apply().await?;
        for thread in busy {
            let spoke = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a speaker panicked"))?;
            spoke.with_context(|| {
                format!("while it became encrypted: {encrypted}\n{}", lan.report())
            })?;
        }
        for stream in &mut streams {
            // Longer than what fits when it is encrypted: their segments were made for more room.
            talk(stream, 20_000)
                .with_context(|| format!("encrypted: {encrypted}\n{}", lan.report()))?;
        }
    }
    Ok(())
}
