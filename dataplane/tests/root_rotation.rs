//! Keys of encrypted networks are changed while connections speak, and nothing is lost. Needs root.

mod lan;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lan::{Lan, PATIENCE, eventually, wireguard_at};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use weft_types::NetworkId;

fn red() -> NetworkId {
    NetworkId::numbered(2)
}

const HOSTS: [u32; 3] = [1, 2, 3];
/// Who speaks to the task on host 2, and where: a client of each family.
const SPEAKERS: [(&str, &str, &str); 2] = [
    ("t1", "10.0.1.2:80", "10.0.1.2:81"),
    ("t3", "[fd00:2::2]:80", "[fd00:2::2]:81"),
];
/// Room for what waits while two cores do something else, beyond what the machine grants everybody.
const BUFFER: usize = 4 << 20;

/// Three hosts with a task each on an encrypted network, by keys of generation 0.
async fn three_hosts() -> Result<Lan> {
    let mut lan = Lan::new(3)?;
    lan.start_all_with_keys().await?;
    lan.add_network(red(), 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.state.networks.get_mut(&red()).context("red")?.encrypted = true;
    lan.apply().await?;
    for number in HOSTS {
        lan.add_numbered(number, number, red()).await?;
    }
    lan.apply().await?;
    lan.serve("t2", 80)?;
    lan.within("t2", || {
        let socket = UdpSocket::bind(("::", 81))?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((count, from)) = socket.recv_from(&mut bytes) {
                if socket.send_to(&bytes[..count], from).is_err() {
                    return;
                }
            }
        });
        Ok(())
    })?;
    Ok(lan)
}

/// Those who speak until they are told to stop.
struct Load {
    ends: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    speakers: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// TCP connections and streams of numbered datagrams from two tasks to the third.
    fn start(lan: &Lan) -> Result<Self> {
        let mut load = Self {
            ends: Arc::default(),
            rounds: Arc::default(),
            speakers: Vec::new(),
        };
        for (client, server, echo) in SPEAKERS {
            for _ in 0..3 {
                let stream = lan.within(client, move || Ok(TcpStream::connect(server)?))?;
                load.speak(move |goes_on| talk(stream, goes_on));
            }
            let socket = lan.within(client, move || {
                let any = if echo.starts_with('[') {
                    "[::]:0"
                } else {
                    "0.0.0.0:0"
                };
                let socket = UdpSocket::bind(any)?;
                setsockopt(&socket, RcvBufForce, &BUFFER)?;
                socket.connect(echo)?;
                Ok(socket)
            })?;
            load.speak(move |goes_on| count(&socket, goes_on));
        }
        Ok(load)
    }

    fn speak(&mut self, work: impl FnOnce(&dyn Fn() -> bool) -> Result<()> + Send + 'static) {
        let (ends, rounds) = (Arc::clone(&self.ends), Arc::clone(&self.rounds));
        self.speakers.push(std::thread::spawn(move || {
            work(&|| {
                rounds.fetch_add(1, Ordering::Relaxed);
                !ends.load(Ordering::Relaxed)
            })
        }));
    }

    /// Waits until much has been said since now.
    async fn go_on(&self) -> Result<()> {
        let said = || self.rounds.load(Ordering::Relaxed);
        let enough = said() + 2000;
        eventually("much to be said", async || Ok(said() > enough)).await
    }

    fn stop(self) -> Result<()> {
        self.ends.store(true, Ordering::Relaxed);
        for speaker in self.speakers {
            let spoke = speaker.join();
            spoke.map_err(|_| anyhow::anyhow!("a speaker panicked"))??;
        }
        Ok(())
    }
}

/// Says something long again and again, and wants to hear it back.
fn talk(mut stream: TcpStream, goes_on: &dyn Fn() -> bool) -> Result<()> {
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    let mut greeting = [0];
    while greeting[0] != b'\n' {
        stream.read_exact(&mut greeting)?;
    }
    let sent: Vec<u8> = (0..8000_u32).map(|at| at as u8).collect();
    let mut back = vec![0; sent.len()];
    while goes_on() {
        stream.write_all(&sent)?;
        stream.read_exact(&mut back).context("a connection broke")?;
        ensure!(back == sent, "the echo differs");
    }
    Ok(())
}

/// Sends a numbered datagram every millisecond; all must come back.
fn count(socket: &UdpSocket, goes_on: &dyn Fn() -> bool) -> Result<()> {
    let mut sent = 0_u64;
    let mut missing = BTreeSet::new();
    let take = |missing: &mut BTreeSet<u64>, wait: Duration| -> Result<bool> {
        socket.set_read_timeout(Some(wait))?;
        let mut bytes = [0; 8];
        let came = socket.recv(&mut bytes).is_ok();
        if came {
            missing.remove(&u64::from_be_bytes(bytes));
        }
        Ok(came)
    };
    while goes_on() {
        socket.send(&sent.to_be_bytes())?;
        missing.insert(sent);
        sent += 1;
        let next = Instant::now() + Duration::from_millis(1);
        while Instant::now() < next {
            take(&mut missing, Duration::from_millis(1))?;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() && Instant::now() < deadline {
        take(&mut missing, Duration::from_millis(100))?;
    }
    let lost = missing.len();
    ensure!(
        lost == 0,
        "{lost} of {sent} datagrams were lost: {missing:?}"
    );
    Ok(())
}

/// Which devices of WireGuard a host has.
fn devices(lan: &Lan, host: u32) -> Result<Vec<String>> {
    let host = lan.namespace(&format!("n{host}"));
    let links = lan::run(&format!("ip -n {host} -o link"))?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    let ours = names.filter(|name| name.starts_with("weft-wg"));
    Ok(ours.map(str::to_owned).collect())
}

/// Packets that a host sent through a device.
fn sent_by(lan: &Lan, host: u32, device: &str) -> Result<u64> {
    let host = lan.namespace(&format!("n{host}"));
    let path = format!("/sys/class/net/{device}/statistics/tx_packets");
    let text = lan::run(&format!("ip netns exec {host} cat {path}"))?;
    Ok(text.trim().parse()?)
}

/// From keys of one generation to the next as a cluster does it: hosts hear of it one after the other,
/// have both keys for a while, and lose the older ones when all use the newer alone.
async fn rotate(lan: &mut Lan, newest: u64, load: &Load) -> Result<()> {
    let former = newest - 1;
    for host in HOSTS {
        let keys = vec![wireguard_at(host, former), wireguard_at(host, newest)];
        lan.give_keys(host, keys)?;
        lan.apply().await?;
        load.go_on().await?;
    }
    for host in HOSTS {
        let dataplane = lan.hosts[&host].clone();
        eventually("every host to use its newest key alone", async || {
            Ok(dataplane.key_state().await.settled == Some(newest))
        })
        .await?;
    }
    let old = devices(lan, 1)?;
    assert_eq!(old.len(), 2, "{old:?}");
    load.go_on().await?;
    for host in HOSTS {
        lan.give_keys(host, vec![wireguard_at(host, newest)])?;
    }
    lan.state.revision += 1;
    for host in HOSTS {
        lan.apply_on(host).await?;
        load.go_on().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load_and_nothing_is_lost() -> Result<()> {
    let mut lan = three_hosts().await?;
    let load = Load::start(&lan)?;
    load.go_on().await?;
    // Twice: the first pair of devices is used again by then.
    for newest in [1, 2] {
        rotate(&mut lan, newest, &load)
            .await
            .with_context(|| format!("to generation {newest}\n{}", lan.report()))?;
        let device = ["weft-wg", "weft-wg1"][newest as usize % 2];
        for host in HOSTS {
            assert_eq!(devices(&lan, host)?, [device], "the older key is gone");
        }
        let before = sent_by(&lan, 1, device)?;
        load.go_on().await?;
        ensure!(
            sent_by(&lan, 1, device)? > before,
            "{device} carries nothing"
        );
    }
    load.stop()
}

/// A host that cannot make use of its newer key, since somebody has its port, goes on by the older one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_key_that_cannot_be_used_is_not() -> Result<()> {
    let mut lan = three_hosts().await?;
    let load = Load::start(&lan)?;
    load.go_on().await?;
    let taken = lan.within("n2", || {
        Ok(UdpSocket::bind(("::", wireguard_at(2, 1).port))?)
    })?;
    for host in HOSTS {
        // Host 2 does not tell what it cannot use.
        let keys = vec![wireguard_at(host, 0), wireguard_at(host, 1)];
        if host == 2 {
            lan.keys.insert(host, keys);
        } else {
            lan.give_keys(host, keys)?;
        }
    }
    lan.apply().await?;
    load.go_on().await?;
    let state = lan.hosts[&2].key_state().await;
    assert_eq!((state.usable, state.settled), (Some(0), None));
    drop(taken);
    lan.give_keys(2, vec![wireguard_at(2, 0), wireguard_at(2, 1)])?;
    lan.apply().await?;
    for host in HOSTS {
        let dataplane = lan.hosts[&host].clone();
        eventually("every host to use its newest key alone", async || {
            Ok(dataplane.key_state().await.settled == Some(1))
        })
        .await?;
    }
    load.stop()
}

/// After so long WireGuard wants a new session (section 6.2 of its paper), and this much grace.
const RENEWAL: Duration = Duration::from_secs(120 + 30);

/// Handshakes that a host began or was asked for. Nothing else has their length: 148 bytes and a UDP
/// header.
fn handshakes(lan: &Lan, host: u32) -> Result<u64> {
    let host = lan.namespace(&format!("n{host}"));
    let told = lan::run(&format!(
        "ip netns exec {host} nft -j list counter inet watch begun"
    ))?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let objects = told["nftables"].as_array().context("what nft tells")?;
    let counter = objects.iter().find_map(|object| object.get("counter"));
    counter
        .and_then(|counter| counter["packets"].as_u64())
        .context("the counter")
}

fn watch_handshakes(lan: &Lan, host: u32) -> Result<()> {
    let host = lan.namespace(&format!("n{host}"));
    let mut rules = "add table inet watch; add counter inet watch begun;".to_owned();
    for hook in ["input", "output"] {
        rules.push_str(&format!(
            "add chain inet watch {hook} {{ type filter hook {hook} priority 0; }};\
             add rule inet watch {hook} udp length 156 counter name begun;"
        ));
    }
    lan::run(&format!("ip netns exec {host} nft '{rules}'"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_renewed_under_load_and_nothing_is_lost() -> Result<()> {
    let lan = three_hosts().await?;
    watch_handshakes(&lan, 2)?;
    let load = Load::start(&lan)?;
    load.go_on().await?;
    let before = handshakes(&lan, 2)?;
    let deadline = Instant::now() + RENEWAL;
    // One for each of the two that speak to it.
    while handshakes(&lan, 2)? < before + 2 {
        ensure!(
            Instant::now() < deadline,
            "no new sessions after {RENEWAL:?}"
        );
        load.go_on().await?;
    }
    load.go_on().await?;
    load.stop()
}
