//! Many flows: colliding ones, and more than there is room for. Needs root.
//!
//! `WEFT_COLLISIONS` sets how many connections collide; an ordinary run takes few.

#![expect(
    unsafe_code,
    reason = "the namespace cookie is a socket option that no safe wrapper reads"
)]

#[expect(dead_code, reason = "the other walks use the rest")]
mod walks;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::HashMap as Hash;
use nix::sys::socket::{self, SockaddrStorage, sockopt};
use walks::lab::Lab;
use walks::report::Report;
use walks::talk::{Held, Loose, ask, at};
use weft_abi::{Addr, Flow, FlowKey, flow, tcp};

/// Connections of an ordinary run.
const COLLISIONS: usize = 20_000;
/// Pairs of connections in a round.
const PAIRS: usize = 2_000;
/// How many clients connect at once.
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects from a port that other connections use too.
fn connect(from: u16, to: SocketAddr) -> Result<TcpStream> {
    let (domain, any) = if to.is_ipv4() {
        (libc::AF_INET, IpAddr::from([0; 4]))
    } else {
        (libc::AF_INET6, IpAddr::from([0; 16]))
    };
    // SAFETY: takes plain numbers; the new descriptor belongs to the stream alone.
    let stream = unsafe { TcpStream::from_raw_fd(libc::socket(domain, libc::SOCK_STREAM, 0)) };
    socket::setsockopt(&stream, sockopt::ReuseAddr, &true)?;
    // Ended by a reset: no port rests after its connection.
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    socket::setsockopt(&stream, sockopt::Linger, &linger)?;
    let patience = nix::sys::time::TimeVal::new(PATIENCE.as_secs() as i64, 0);
    socket::setsockopt(&stream, sockopt::SendTimeout, &patience)?;
    socket::setsockopt(&stream, sockopt::ReceiveTimeout, &patience)?;
    let own = SockaddrStorage::from(SocketAddr::new(any, from));
    socket::bind(stream.as_raw_fd(), &own)?;
    socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(stream)
}

/// Says something that nobody else says, and hears it back.
fn says(stream: &mut TcpStream, what: &str) -> Result<()> {
    let text = format!("echo {what}");
    stream.write_all(text.as_bytes())?;
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard)?;
    ensure!(
        heard == text.as_bytes(),
        "heard {:?} instead of {text:?}",
        String::from_utf8_lossy(&heard)
    );
    Ok(())
}

/// One client port to both nodes' addresses, both open at once, then again.
fn collide(port: u16, to: [SocketAddr; 2], token: usize) -> Result<()> {
    let mut held = Vec::new();
    for to in to {
        held.push(connect(port, to).with_context(|| format!("port {port} to {to}"))?);
    }
    for (n, stream) in held.iter_mut().enumerate() {
        says(stream, &format!("{token} {n}"))
            .with_context(|| format!("port {port} to {}", to[n]))?;
    }
    // The first again, after the second spoke.
    says(&mut held[0], &format!("{token} again"))
        .with_context(|| format!("port {port} to {}", to[0]))
}

/// What a run has seen.
#[derive(Default)]
struct Seen {
    pairs: AtomicUsize,
    wrong: AtomicUsize,
    some: Mutex<Vec<String>>,
}

impl Seen {
    fn note(&self, outcome: Result<()>) {
        self.pairs.fetch_add(1, Ordering::Relaxed);
        let Err(error) = outcome else { return };
        self.wrong.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut some) = self.some.lock() {
            some.push(format!("{error:#}"));
            some.truncate(10);
        }
    }
}

/// Each client has ports of its own, and uses each of them once in a round, by one family or the other.
fn round(lab: &Lab, turn: usize, pairs: usize, seen: &Seen) {
    let to = [
        [at("192.0.2.11", 8000), at("192.0.2.12", 8000)],
        [at("2001:db8::11", 8000), at("2001:db8::12", 8000)],
    ];
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let inside = lab.client.inside(|| {
                    for n in 0..pairs / CLIENTS {
                        let port = (10_000 + client * 10_000 + n) as u16;
                        let token = (turn * pairs + n) * CLIENTS + client;
                        seen.note(collide(port, to[(n + turn) % 2], token));
                    }
                    Ok(())
                });
                if inside.is_err() {
                    seen.note(inside);
                }
            });
        }
    });
}

#[test]
fn colliding_connections_hear_their_own_answers() -> Result<()> {
    let wish = std::env::var("WEFT_COLLISIONS").ok();
    let all: usize = wish.map_or(Ok(COLLISIONS), |all| all.parse())?;
    let mut lab = Lab::with_room(65_536)?;
    for node in &mut lab.nodes {
        node.ring("rings", 1, &[1])?;
        node.counts_service(1)?;
    }
    lab.client
        .sysctl("net.ipv4.ip_local_port_range", "60000 60999")?;
    let seen = Seen::default();
    let begun = Instant::now();
    let mut turn = 0;
    while seen.pairs.load(Ordering::Relaxed) * 2 < all {
        round(&lab, turn, PAIRS, &seen);
        turn += 1;
        // By turns the next round meets what is left of this one, or nothing.
        if turn % 2 == 0 {
            for node in &mut lab.nodes {
                node.forget_flows()?;
            }
        }
    }
    let mut remapped = 0;
    for node in &mut lab.nodes {
        remapped += node.remapped(1)?;
    }
    let (pairs, wrong) = (seen.pairs.into_inner(), seen.wrong.into_inner());
    println!(
        "{} connections in {:?}, {remapped} shown under another port, {wrong} pairs wrong",
        pairs * 2,
        begun.elapsed()
    );
    let some = seen.some.into_inner().unwrap_or_default();
    if wrong != 0 {
        for node in &mut lab.nodes {
            let counts = node.counts()?;
            println!("node {}: {counts:#?}", node.id);
        }
    }
    ensure!(wrong == 0, "{wrong} of {pairs} pairs: {}", some.join("\n"));
    ensure!(
        remapped > 0,
        "no connection was shown under another port: nothing collided"
    );
    Ok(())
}

/// Waits until the node's entry of what this port asked there saw its client's reset.
fn until_reset(lab: &mut Lab, port: u16, to: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let flows = Hash::<_, FlowKey, Flow>::try_from(lab.nodes[0].map("flow")?)?;
        let key = flows.keys().flatten().find(|key| {
            key.side == flow::WIRE && key.sport.get() == port && key.dst == Addr::from(to.ip())
        });
        let seen = key.and_then(|key| flows.get(&key, 0).ok());
        if seen.is_some_and(|flow| flow.tcp & tcp::RST != 0) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "port {port} to {to}: no reset was seen in {PATIENCE:?}: {seen:?}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_port_that_its_client_reset_is_free() -> Result<()> {
    let mut lab = Lab::new()?;
    for node in &mut lab.nodes {
        node.ring("rings", 1, &[1])?;
        node.counts_service(1)?;
    }
    for to in [
        [at("192.0.2.11", 8000), at("192.0.2.12", 8000)],
        [at("2001:db8::11", 8000), at("2001:db8::12", 8000)],
    ] {
        for turn in 0..10 {
            let to = to[turn % 2];
            let opened = lab.client.inside(|| {
                let mut stream = connect(20_000, to)?;
                says(&mut stream, &format!("turn {turn}"))
            });
            opened.with_context(|| format!("turn {turn}, to {to}"))?;
            until_reset(&mut lab, 20_000, to)?;
        }
    }
    let mut remapped = 0;
    for node in &mut lab.nodes {
        remapped += node.remapped(1)?;
    }
    ensure!(
        remapped == 0,
        "{remapped} connections were shown under another port, though the one before was over"
    );
    Ok(())
}

#[test]
fn a_full_table_harms_no_flow() -> Result<()> {
    let mut lab = Lab::new()?;
    let mut r = Report::default();
    let to = [at("192.0.2.11", 8000), at("2001:db8::12", 8000)];
    let mut before = Vec::new();
    for n in 0..16 {
        let mut held = Held::open(&lab.client, 0, to[n % 2])?;
        held.ask()?;
        before.push(held);
    }
    for node in &mut lab.nodes {
        node.counts_service(1)?;
        let mut flows = Hash::<_, FlowKey, Flow>::try_from(node.map("flow")?)?;
        // Others' flows, until there is no room.
        let mut key = FlowKey {
            net: 1,
            ..FlowKey::default()
        };
        while flows.insert(key, Flow::default(), 0).is_ok() {
            key.net += 1;
            ensure!(key.net < 1_000_000, "the table has no end");
        }
    }
    for held in &mut before {
        r.case("a flow from before", held.ask(), |s| {
            s.saw.ip() == s.me.ip()
        });
    }
    let mut after = Vec::new();
    for n in 0..16 {
        r.case("a new one", ask(&lab.client, to[n % 2]), |s| {
            s.saw.ip() == s.me.ip()
        });
        let mut held = Held::open(&lab.client, 0, to[n % 2])?;
        for _ in 0..3 {
            r.case("one that stays", held.ask(), |s| s.saw.ip() == s.me.ip());
        }
        after.push(held);
    }
    for held in before.iter_mut().chain(&mut after) {
        r.case("all of them again", held.ask(), |s| s.saw.ip() == s.me.ip());
    }
    let mut unpromoted = 0;
    for node in &mut lab.nodes {
        unpromoted += node.unpromoted(1)?;
    }
    if unpromoted == 0 {
        r.failures
            .push("that the table is full was counted nowhere".to_owned());
    }
    r.done(&mut lab)
}

/// Forgets the answers' entries of new flows on every node, as when there was no room for them.
fn evict_answers(lab: &mut Lab) -> Result<usize> {
    let mut evicted = 0;
    for node in &mut lab.nodes {
        let mut flows = Hash::<_, FlowKey, Flow>::try_from(node.map("flow_new")?)?;
        let keys = flows.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys.iter().filter(|key| key.side == flow::REPLY) {
            flows.remove(key)?;
            evicted += 1;
        }
    }
    Ok(evicted)
}

#[test]
fn answers_come_though_their_entry_was_evicted() -> Result<()> {
    let mut lab = Lab::new()?;
    let mut r = Report::default();
    for addr in ["192.0.2.11", "2001:db8::11", "192.0.2.12", "2001:db8::12"] {
        // Near and far tasks, by chance.
        for turn in 0..6 {
            let to = at(addr, 8000);
            let mut tcp = Held::open(&lab.client, 0, to)?;
            let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
            let udp = Loose::bound(&lab.client, at(any, 0))?;
            r.case(
                "a first datagram",
                udp.ask(to).map(|(said, _)| said),
                |_| true,
            );
            // A connection whose task has said nothing but that it is open, and a datagram's answer.
            let evicted = evict_answers(&mut lab)?;
            ensure!(evicted >= 2, "{evicted} entries evicted of two flows");
            r.case(&format!("{to}, {turn}"), tcp.ask(), |said| {
                said.me.port() != 0
            });
            let answered = udp.ask(to).map(|(said, _)| said);
            r.case(&format!("{to}, UDP, {turn}"), answered, |_| true);
        }
    }
    r.done(&mut lab)
}

/// Takes one entry of the client port's flow away, and lets the other say that its task alone ended it, or that
/// nobody did.
fn halve(lab: &mut Lab, port: u16, gone: u8, ended: bool) -> Result<()> {
    let mut flows = Hash::<_, FlowKey, Flow>::try_from(lab.nodes[0].map("flow")?)?;
    let keys = flows.keys().collect::<Result<Vec<_>, _>>()?;
    let of_port = |key: &&FlowKey| {
        let own = if key.side == flow::WIRE {
            key.sport
        } else {
            key.dport
        };
        own.get() == port
    };
    let mut sides = 0;
    for key in keys.iter().filter(of_port) {
        sides += 1;
        if key.side == gone {
            flows.remove(key)?;
            continue;
        }
        let mut left = flows.get(key, 0)?;
        left.tcp = tcp::SYN | tcp::DATA | if ended { tcp::FIN } else { 0 };
        flows.insert(*key, left, 0)?;
    }
    ensure!(sides == 2, "port {port} has {sides} entries");
    Ok(())
}

#[test]
fn a_port_is_served_though_half_of_its_last_flow_is_left() -> Result<()> {
    let mut lab = Lab::new()?;
    for node in &mut lab.nodes {
        node.ring("rings", 1, &[1])?;
    }
    let mut port = 20_000;
    for to in [at("192.0.2.11", 8000), at("2001:db8::12", 8000)] {
        for (gone, ended) in [
            (flow::REPLY, false),
            (flow::REPLY, true),
            (flow::WIRE, false),
            (flow::WIRE, true),
        ] {
            port += 1;
            let serves = |lab: &Lab, turn: &str| {
                let opened = lab.client.inside(|| {
                    let mut stream = connect(port, to)?;
                    says(&mut stream, turn)
                });
                opened.with_context(|| {
                    format!("{turn} side {gone} of port {port} to {to} went, ended: {ended}")
                })
            };
            serves(&lab, "before")?;
            until_reset(&mut lab, port, to)?;
            halve(&mut lab, port, gone, ended)?;
            serves(&lab, "after")?;
        }
    }
    Ok(())
}
