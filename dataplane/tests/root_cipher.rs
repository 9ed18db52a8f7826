//! Encrypted networks: what a wire shows of them, and what is refused. Needs root.

mod lan;

use std::{
    net::UdpSocket,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lan::{Lan, eventually, host4, ingress};
use weft_dataplane::{WIREGUARD_PORT, WireGuard, WireGuardKey};
use weft_types::NetworkId;

const SECRET_VNI: u32 = 4097;
const OPEN_VNI: u32 = 4098;

fn secret() -> NetworkId {
    NetworkId::numbered(2)
}

fn open() -> NetworkId {
    NetworkId::numbered(3)
}

/// Two hosts with a task each, on one encrypted and one clear network.
async fn two_hosts() -> Result<Lan> {
    let mut lan = Lan::new(2)?;
    lan.start_all_with_keys().await?;
    lan.add_network(secret(), SECRET_VNI, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.add_network(open(), OPEN_VNI, &["10.0.2.0/24"], false);
    if let Some(network) = lan.state.networks.get_mut(&secret()) {
        network.encrypted = true;
    }
    lan.apply().await?;
    for (number, node) in [(1, 1), (2, 2)] {
        let (v4, v6) = (
            format!("10.0.1.{number}/24"),
            format!("fd00:2::{number}/64"),
        );
        let other = format!("10.0.2.{number}/24");
        let networks: &[(NetworkId, &[&str])] = &[(secret(), &[&v4, &v6]), (open(), &[&other])];
        lan.add_task(number, None, node, networks).await?;
    }
    lan.apply().await?;
    lan.serve("t2", 80)?;
    Ok(lan)
}

/// Writes down what the switch carries until it is asked for.
struct Tap {
    tcpdump: Child,
    file: std::path::PathBuf,
}

impl Tap {
    fn start(lan: &Lan) -> Result<Self> {
        let file = lan.dir.path().with_extension("pcap");
        let switch = lan.namespace("s");
        let mut tcpdump = Command::new("ip")
            .args([
                "netns", "exec", &switch, "tcpdump", "-i", "br0", "-U", "-n", "-w",
            ])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .context("start tcpdump (package tcpdump)")?;
        // It says so once it listens.
        let mut said = std::io::BufReader::new(tcpdump.stderr.take().context("its output")?);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            if std::io::BufRead::read_line(&mut said, &mut line)? == 0 {
                bail!("tcpdump ended before it listened");
            }
        }
        Ok(Self { tcpdump, file })
    }

    /// How many packets so far match.
    fn count(&self, filter: &str) -> Result<usize> {
        let file = self.file.display();
        let text = lan::run(&format!("tcpdump -n -r {file} '{filter}' 2>/dev/null"))?;
        Ok(text.lines().count())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // They may be gone already.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// VXLAN with this network's number: it stands three words into the datagram.
fn clear(vni: u32) -> String {
    format!("udp port 4789 and udp[12:4] = {}", vni << 8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_shows_nothing_but_wireguard() -> Result<()> {
    let lan = two_hosts().await?;
    let tap = Tap::start(&lan)?;
    let wireguard = format!("udp port {WIREGUARD_PORT}");
    assert_eq!(
        lan.ask_tcp("t1", "10.0.1.2:80".parse::<std::net::SocketAddr>()?)?,
        "t2 10.0.1.1"
    );
    assert_eq!(
        lan.ask_udp("t1", "10.0.1.2:80".parse::<std::net::SocketAddr>()?)?,
        "t2 10.0.1.1"
    );
    assert_eq!(
        lan.ask_tcp("t1", "[fd00:2::2]:80".parse::<std::net::SocketAddr>()?)?,
        "t2 fd00:2::1"
    );
    eventually("the switch to have seen encrypted packets", async || {
        // Datagrams of one burst pass the switch as one.
        Ok(tap.count(&wireguard)? > 15)
    })
    .await?;
    assert_eq!(
        tap.count(&clear(SECRET_VNI))?,
        0,
        "clear packets of the encrypted network"
    );
    assert_eq!(
        tap.count(&clear(OPEN_VNI))?,
        0,
        "clear packets of a network nobody used"
    );
    assert_eq!(
        tap.count("net 198.18.0.0/15")?,
        0,
        "addresses of the inside on the wire"
    );
    // Another network goes on as before.
    assert_eq!(
        lan.ask_tcp("t1", "10.0.2.2:80".parse::<std::net::SocketAddr>()?)?,
        "t2 10.0.2.1"
    );
    eventually(
        "the switch to have seen clear packets of the other network",
        async || Ok(tap.count(&clear(OPEN_VNI))? > 5),
    )
    .await?;
    let mtu = |name: &str, link: &str| {
        let text = lan::run(&format!(
            "ip -n {} -o link show {link}",
            lan.namespace(name)
        ))?;
        let number = text
            .split("mtu ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        number
            .and_then(|number| number.parse::<u32>().ok())
            .context("a link's MTU")
    };
    assert_eq!((mtu("t1", "eth0")?, mtu("t1", "eth1")?), (1390, 1450));
    Ok(())
}

/// A frame to task 2 from task 1, as the tunnel carries it.
fn forged(vni: u32) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend((vni << 8).to_be_bytes());
    // To backend 20, from backend 10, on the plain leg.
    packet.extend([0x02, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 10, 8, 0]);
    packet.extend([
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x64, 0xcd, 10, 0, 1, 1, 10, 0, 1, 2,
    ]);
    packet.extend([0, 99, 0, 80, 0, 8, 0, 0]);
    packet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_packets_of_an_encrypted_network_are_refused() -> Result<()> {
    let lan = two_hosts().await?;
    // From the very address of the host that the task runs on: as true as a forgery can be. Another
    // machine sends it, since a host's own sockets may not write to a tunnel port.
    lan.within("c", || {
        lan::run(
            "sysctl -qw net.ipv4.conf.all.arp_announce=2 net.ipv4.conf.all.arp_ignore=8 && \
             ip addr add 192.0.2.11/32 dev eth0",
        )?;
        let socket = UdpSocket::bind((host4(1), 0))?;
        socket.send_to(&forged(SECRET_VNI), (host4(2), 4789))?;
        lan::run("ip addr del 192.0.2.11/32 dev eth0").map(drop)
    })?;
    let host = lan.hosts[&2].clone();
    eventually("the clear packet to be refused and counted", async || {
        let drops = host.drops().await?;
        Ok(drops
            .iter()
            .any(|drop| drop.reason.contains("came in clear")))
    })
    .await?;
    // As if it came from inside: the address is known, the link is not.
    lan.within("c", || {
        lan::run("ip addr add 198.18.0.1/15 dev eth0 && ip route add 198.18.0.2/32 via 192.0.2.12 dev eth0 src 198.18.0.1")?;
        let socket = UdpSocket::bind("198.18.0.1:0")?;
        socket.send_to(&forged(SECRET_VNI), "198.18.0.2:4789")?;
        Ok(())
    })?;
    eventually("the packet from a wrong link to be refused", async || {
        let drops = host.drops().await?;
        Ok(drops.iter().any(|drop| drop.reason.contains("no node")))
    })
    .await?;
    assert_eq!(
        lan.ask_tcp("t1", "10.0.1.2:80".parse::<std::net::SocketAddr>()?)?,
        "t2 10.0.1.1"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_is_switched_and_a_key_changes_under_traffic() -> Result<()> {
    let mut lan = two_hosts().await?;
    let address: std::net::SocketAddr = "10.0.1.2:80".parse()?;
    for encrypted in [false, true] {
        if let Some(network) = lan.state.networks.get_mut(&secret()) {
            network.encrypted = encrypted;
        }
        lan.apply().await?;
        assert_eq!(
            lan.ask_tcp("t1", address)?,
            "t2 10.0.1.1",
            "encrypted: {encrypted}"
        );
    }
    // A host that comes back with another key is believed once the cluster says so.
    let host = lan.hosts.remove(&2).context("host 2")?;
    drop(host);
    let key = WireGuardKey::from_bytes([9; 32]);
    let renewed = WireGuard {
        generation: 0,
        key,
        port: WIREGUARD_PORT + 1,
    };
    lan.give_keys(2, vec![renewed])?;
    lan.start(2).await?;
    lan.apply().await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match lan.ask_tcp("t1", address) {
            Ok(said) => break assert_eq!(said, "t2 10.0.1.1"),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_nothing_goes_in_clear() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.start_all().await?;
    lan.add_network(secret(), SECRET_VNI, &["10.0.1.0/24"], false);
    if let Some(network) = lan.state.networks.get_mut(&secret()) {
        network.encrypted = true;
    }
    lan.apply().await?;
    let refused = lan
        .add_task(1, None, 1, &[(secret(), &["10.0.1.1/24"])])
        .await;
    let error = format!(
        "{:#}",
        refused.err().context("a sandbox that cannot be had")?
    );
    assert!(error.contains("no encrypted network can be had"), "{error}");
    // Clear networks are not its business.
    lan.add_task(2, None, 2, &[(ingress(), &["10.0.0.2/24"])])
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_taken_away_is_made_again() -> Result<()> {
    let mut lan = two_hosts().await?;
    let address: std::net::SocketAddr = "10.0.1.2:80".parse()?;
    assert_eq!(lan.ask_tcp("t1", address)?, "t2 10.0.1.1");
    let host = lan.namespace("n1");
    lan::run(&format!("ip -n {host} link del weft-wg"))?;
    eventually("encrypted packets to pass again", async || {
        lan.apply().await?;
        Ok(lan
            .ask_tcp("t1", address)
            .is_ok_and(|said| said == "t2 10.0.1.1"))
    })
    .await
}
