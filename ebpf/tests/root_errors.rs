//! What senders hear when a packet goes nowhere, by the kernels' own stacks at both ends. Needs root.

#![expect(
    unsafe_code,
    reason = "the path's usable size is a socket option that no safe wrapper reads"
)]

#[expect(dead_code, reason = "the other walks use the rest")]
mod walks;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use walks::lab::Lab;
use walks::netns::Netns;
use walks::talk::{Held, ask_udp, at};
use weft_abi::{Done, Program};

/// What fits between the nodes in these tests.
const FITS: u32 = 1300;
const PATIENCE: Duration = Duration::from_secs(30);

/// A lab whose tunnel is narrower than its links say, every service's backend on node 2.
fn narrow() -> Result<Lab> {
    let mut lab = Lab::new()?;
    for node in &mut lab.nodes {
        node.fits(FITS)?;
        node.ring("rings", 1, &[2])?;
        node.ring("rings", 2, &[4])?;
    }
    Ok(lab)
}

/// The usable size that a connected socket knows.
fn path_mtu(socket: &UdpSocket, v6: bool) -> Result<u32> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU)
    };
    let (mut mtu, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: room for one integer, of the length given.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut mtu).cast(),
            &raw mut len,
        )
    };
    ensure!(
        got == 0,
        "read the path's size: {}",
        std::io::Error::last_os_error()
    );
    Ok(mtu as u32)
}

/// Sends a datagram that is too long, waits until the sender knows what fits, and sends it again.
fn learns(ns: &Netns, to: SocketAddr) -> Result<()> {
    ns.inside(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        // Refused at once where an earlier one was told.
        let _ = socket.send(&[7; 1372]);
        let until = Instant::now() + PATIENCE;
        while path_mtu(&socket, to.is_ipv6())? != FITS {
            if Instant::now() > until {
                bail!(
                    "waited in vain for {FITS} bytes to fit, not {}",
                    path_mtu(&socket, to.is_ipv6())?
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // A connected socket is told once that its datagram was too long; the next is cut by its sender.
        let _ = socket.take_error()?;
        let mut buffer = [0; 2000];
        loop {
            socket.send(&[7; 1372])?;
            match socket.recv(&mut buffer) {
                Ok(n) if n >= 1372 => return Ok(()),
                Ok(n) => bail!("{n} bytes"),
                // The answer is too long as well, and its sender has to hear of it first.
                Err(_) if Instant::now() < until => {}
                Err(error) => return Err(error).context("answer once it fits"),
            }
        }
    })
}

/// Sends and fetches much over TCP.
fn transfers(ns: &Netns, to: SocketAddr) -> Result<()> {
    const MUCH: usize = 300_000;
    ns.inside(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("send {MUCH}\n").as_bytes())?;
        let mut got = vec![0; MUCH];
        stream.read_exact(&mut got).context("download")?;
        stream.write_all(&vec![7; MUCH])?;
        let until = Instant::now() + PATIENCE;
        let mut heard = String::new();
        // Each piece that arrives is answered with the total so far.
        while !heard.contains(&format!(" {}\n", MUCH)) {
            ensure!(Instant::now() < until, "upload: heard {heard:?}");
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).context("upload")?;
            heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        Ok(())
    })
}

#[test]
fn too_long_for_the_tunnel() -> Result<()> {
    let mut lab = narrow()?;
    let mut failures = Vec::new();
    let mut case = |name: String, outcome: Result<()>| {
        if let Err(error) = outcome {
            failures.push(format!("{name}: {error:#}"));
        }
    };
    // A task of node 1 to a published port is a client as others are.
    for addr in ["192.0.2.11", "2001:db8::11"] {
        let to = at(addr, 8000);
        case(format!("client, TCP, {addr}"), transfers(&lab.client, to));
        case(format!("client, UDP, {addr}"), learns(&lab.client, to));
        case(
            format!("task, TCP, {addr}"),
            transfers(&lab.tasks[2].ns, to),
        );
    }
    for (from, to) in [
        (0, at("10.0.0.200", 80)),
        (0, at("fd00::200", 80)),
        (2, at("10.0.1.14", 80)),
        (2, at("fd00:0:0:1::14", 80)),
    ] {
        let ns = &lab.tasks[from].ns;
        case(format!("t{} to {to}, TCP", from + 1), transfers(ns, to));
        case(format!("t{} to {to}, UDP", from + 1), learns(ns, to));
    }
    let told = |lab: &mut Lab, node: usize, program| {
        lab.nodes[node].count(program, Done::TooBigTold as u8)
    };
    for (node, program) in [
        (0, Program::UplinkIn),
        (0, Program::TaskIn),
        (1, Program::TaskIn),
    ] {
        if told(&mut lab, node, program)? == 0 {
            failures.push(format!(
                "node {} told nobody by {}",
                node + 1,
                program.name()
            ));
        }
    }
    ensure!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

#[test]
fn too_long_without_checksum_offload() -> Result<()> {
    let lab = narrow()?;
    for (ns, links) in lab.links() {
        for link in links {
            ns.ethtool(&format!("-K {link} tx off rx off"))?;
        }
    }
    for addr in ["192.0.2.11", "2001:db8::11"] {
        learns(&lab.client, at(addr, 8000)).with_context(|| format!("client to {addr}"))?;
        transfers(&lab.client, at(addr, 8000)).with_context(|| format!("client to {addr}"))?;
    }
    for addr in ["10.0.0.200", "fd00::200"] {
        learns(&lab.tasks[0].ns, at(addr, 80)).with_context(|| format!("t1 to {addr}"))?;
    }
    Ok(())
}

#[test]
fn datagrams_that_nobody_takes() -> Result<()> {
    let mut lab = Lab::new()?;
    for node in &mut lab.nodes {
        node.ring("rings", 1, &[0])?;
    }
    let mut failures = Vec::new();
    for (ns, addr, port) in [
        (&lab.client, "192.0.2.11", 8000),
        (&lab.client, "2001:db8::11", 8000),
        (&lab.tasks[0].ns, "10.0.0.200", 80),
        (&lab.tasks[0].ns, "fd00::200", 80),
        (&lab.tasks[2].ns, "192.0.2.11", 8000),
        (&lab.tasks[2].ns, "2001:db8::12", 8000),
    ] {
        for size in [0, 1, 10, 1200] {
            match ask_udp(ns, at(addr, port), size) {
                Err(e) if format!("{e:#}").contains("refused") => {}
                other => failures.push(format!("{size} bytes to {addr}: {other:?}")),
            }
        }
    }
    ensure!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

#[test]
fn a_removed_backend() -> Result<()> {
    let mut lab = Lab::new()?;
    let to = [at("192.0.2.11", 8000), at("2001:db8::11", 8000)];
    // Held by one socket each, so that the tuple stays; enough that both backends serve some.
    let mut sockets = Vec::new();
    for n in 0..16 {
        let to = to[n % 2];
        sockets.push(lab.client.inside(|| {
            let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })?);
    }
    let ask = |socket: &UdpSocket| -> Result<String> {
        socket.send(b"who")?;
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).context("answer")?;
        Ok(String::from_utf8_lossy(&buffer[..n.min(2)]).into_owned())
    };
    let mut served = std::collections::BTreeSet::new();
    for socket in &sockets {
        // More than the three packets after which a flow of datagrams is permanent.
        for _ in 0..4 {
            served.insert(ask(socket)?);
        }
    }
    ensure!(served.len() == 2, "only {served:?} served");
    let mut connections = Vec::new();
    for to in to {
        for _ in 0..8 {
            let mut held = Held::open(&lab.client, 0, to)?;
            let name = held.ask()?.name;
            connections.push((name, held));
        }
    }
    // Draining: connections stay, datagrams choose again with the next packet, though no ring changed yet.
    for node in &mut lab.nodes {
        node.flag_backend(2, weft_abi::backend::DRAINING)?;
    }
    for socket in &sockets {
        let name = ask(socket)?;
        ensure!(name == "t1", "datagrams still go to {name}");
    }
    for (name, held) in &mut connections {
        let now = held.ask()?.name;
        ensure!(now == *name, "a connection to {name} is answered by {now}");
    }
    // Gone: what is left of its connections is reset at once, not left in silence.
    for node in &mut lab.nodes {
        node.ring("rings", 1, &[1])?;
        node.drop_backend(2)?;
        node.forget_picks()?;
    }
    for (name, held) in &mut connections {
        match held.ask() {
            Ok(said) if *name == "t1" && said.name == "t1" => {}
            Err(e) if *name == "t2" && format!("{e:#}").contains("reset") => {}
            other => bail!("a connection to {name}: {other:?}"),
        }
    }
    Ok(())
}
