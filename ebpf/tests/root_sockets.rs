//! Sockets that hooks lead: of hosts' own processes and of tasks. Needs root.

#![expect(
    unsafe_code,
    reason = "the namespace cookie is a socket option that no safe wrapper reads"
)]

#[expect(dead_code, reason = "the other walks use the rest")]
mod walks;

use std::collections::BTreeSet;

use anyhow::Result;
use walks::lab::Lab;
use walks::report::Report;
use walks::talk::{Held, Loose, Said, ask, ask_loose, ask_udp, at, peer};
use weft_abi::Program;

/// Everybody's sockets led, as agents do it.
fn helped() -> Result<Lab> {
    let mut lab = Lab::new()?;
    let Lab { nodes, tasks, .. } = &mut lab;
    nodes[0].attach_sockets(&[&tasks[0], &tasks[2]])?;
    nodes[1].attach_sockets(&[&tasks[1], &tasks[3]])?;
    Ok(lab)
}

#[test]
fn every_socket() -> Result<()> {
    let mut lab = helped()?;
    let mut r = Report::default();
    for node in &lab.nodes {
        let own = [
            format!("192.0.2.{}", 10 + node.id),
            format!("2001:db8::{}", 10 + node.id),
        ];
        for addr in ["127.0.0.1", "::1", "::ffff:127.0.0.1", &own[0], &own[1]] {
            for round in 0..4 {
                let to = at(addr, 8000);
                let name = format!("n{} to {to}, {round}", node.id);
                r.case(&name, ask(&node.ns, to), |s| {
                    s.name == "t1" || s.name == "t2"
                });
                r.case(&format!("{name}, UDP"), ask_udp(&node.ns, to, 500), |s| {
                    s.name == "t1" || s.name == "t2"
                });
                match peer(&node.ns, to) {
                    Ok(shown) if shown == to => {}
                    other => r.failures.push(format!("{name}: peer shown as {other:?}")),
                }
                match ask_loose(&node.ns, to) {
                    Ok((_, from)) if from == to => {}
                    other => r.failures.push(format!("{name}, loose: {other:?}")),
                }
            }
        }
    }
    for node in &lab.nodes {
        for (vip, behind) in [
            ("10.0.0.200", ["t1", "t2"]),
            ("fd00::200", ["t1", "t2"]),
            ("10.0.1.200", ["t3", "t4"]),
            ("fd00:0:0:1::200", ["t3", "t4"]),
        ] {
            let to = at(vip, 80);
            for round in 0..4 {
                let name = format!("n{} to {to}, {round}", node.id);
                let served = |s: &Said| behind.contains(&s.name.as_str());
                r.case(&name, ask(&node.ns, to), served);
                r.case(&format!("{name}, UDP"), ask_udp(&node.ns, to, 500), served);
                match peer(&node.ns, to) {
                    Ok(shown) if shown == to => {}
                    other => r.failures.push(format!("{name}: peer shown as {other:?}")),
                }
            }
        }
    }
    for (task, vips) in [
        (0, ["10.0.0.200", "fd00::200"]),
        (3, ["10.0.1.200", "fd00:0:0:1::200"]),
    ] {
        for vip in vips {
            let to = at(vip, 80);
            for round in 0..4 {
                let name = format!("t{} to {to}, {round}", task + 1);
                r.case(&name, ask(&lab.tasks[task].ns, to), |s| s.saw == s.me);
                match peer(&lab.tasks[task].ns, to) {
                    Ok(shown) if shown == to => {}
                    other => r.failures.push(format!("{name}: peer shown as {other:?}")),
                }
                match ask_loose(&lab.tasks[task].ns, to) {
                    Ok((_, from)) if from == to => {}
                    other => r.failures.push(format!("{name}, loose: {other:?}")),
                }
            }
        }
    }
    // A published port is the service's: processes of the host may not bind it, those in a sandbox may.
    for addr in ["0.0.0.0", "[::]", "127.0.0.1", "[::1]", "192.0.2.11"] {
        let tried = lab.nodes[0].ns.inside(|| {
            Ok((
                std::net::TcpListener::bind(format!("{addr}:8000")),
                std::net::UdpSocket::bind(format!("{addr}:8000")),
                std::net::TcpListener::bind(format!("{addr}:8009")),
            ))
        })?;
        let taken = |error: Option<std::io::Error>| {
            error.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        };
        if !taken(tried.0.err()) || !taken(tried.1.err()) || tried.2.is_err() {
            r.failures
                .push(format!("{addr}:8000 could be bound on the host"));
        }
    }
    let bound = lab.tasks[0]
        .ns
        .inside(|| Ok(std::net::TcpListener::bind("[::]:8000")?));
    if let Err(error) = bound {
        r.failures
            .push(format!("a task's own port 8000: {error:#}"));
    }
    if lab.nodes[0].count(Program::Sock, weft_abi::Drop::PortTaken as u8)? != 10 {
        r.failures.push("refused binds are not counted".to_owned());
    }
    // A service without backends refuses at once, and a port that is not published is the host's own affair.
    lab.nodes[0].ring("rings", 1, &[0])?;
    for addr in ["127.0.0.1", "::1"] {
        match ask(&lab.nodes[0].ns, at(addr, 8000)) {
            Err(e) if format!("{e:#}").contains("refused") => {}
            other => r.failures.push(format!("no backend at {addr}: {other:?}")),
        }
    }
    r.done(&mut lab)
}

/// With a loopback source a led connection could not leave the host: the socket is left to the kernel, where nobody
/// listens, so that it is refused and not kept waiting.
#[test]
fn a_socket_bound_to_loopback_is_left_alone() -> Result<()> {
    let mut lab = helped()?;
    let mut r = Report::default();
    for node in &lab.nodes {
        let (four, six) = (
            format!("192.0.2.{}", 10 + node.id),
            format!("2001:db8::{}", 10 + node.id),
        );
        let refused = |outcome: Result<Said>| match outcome {
            Err(error) if format!("{error:#}").contains("refused") => None,
            other => Some(other),
        };
        for (bound, asked) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", &four),
            ("127.0.0.2", "127.0.0.1"),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
            ("::1", "::1"),
        ] {
            let (from, to) = (at(bound, 0), at(asked, 8000));
            let name = format!("n{} from {bound} to {to}", node.id);
            let tcp = Held::bound(&node.ns, from, to).and_then(|mut held| held.ask());
            if let Some(other) = refused(tcp) {
                r.failures.push(format!("{name}: {other:?}"));
            }
            let udp = Loose::bound(&node.ns, from)?;
            udp.connect(to)?;
            if let Some(other) = refused(udp.ask(to).map(|(said, _)| said)) {
                r.failures.push(format!("{name}, UDP: {other:?}"));
            }
        }
        // What the host itself listens on there is asked as ever. (Where nobody listens, the kernel leaves one from
        // `::1` to another address of its own waiting, with or without us.)
        let _own = node
            .ns
            .inside(|| Ok(std::net::TcpListener::bind("[::]:8009")?))?;
        for (bound, asked) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", &*four),
            ("::1", "::1"),
            ("::1", &*six),
        ] {
            if let Err(error) = Held::bound(&node.ns, at(bound, 0), at(asked, 8009)) {
                r.failures
                    .push(format!("a port of the host, from {bound}: {error:#}"));
            }
        }
        // The host's own address is as good a source as the one that the kernel would have chosen.
        for (bound, asked) in [
            (&four, "127.0.0.1"),
            (&four, &*four),
            (&four, "10.0.1.200"),
            (&six, "::1"),
            (&six, &*six),
            (&six, "fd00:0:0:1::200"),
        ] {
            let port = if asked.contains(":1::2") || asked.starts_with("10.") {
                80
            } else {
                8000
            };
            let (from, to) = (at(bound, 0), at(asked, port));
            let name = format!("n{} from {bound} to {to}", node.id);
            let saw = |said: &Said| said.saw.ip() == from.ip() && said.name.starts_with('t');
            for _ in 0..4 {
                let tcp = Held::bound(&node.ns, from, to).and_then(|mut held| held.ask());
                r.case(&name, tcp, saw);
                let udp = Loose::bound(&node.ns, from)?.ask(to);
                r.case(
                    &format!("{name}, UDP"),
                    udp.and_then(|(said, who)| {
                        anyhow::ensure!(who == to, "answered by {who}");
                        Ok(said)
                    }),
                    saw,
                );
            }
        }
    }
    r.done(&mut lab)
}

#[test]
fn the_datagrams_of_one_socket_go_to_one_task() -> Result<()> {
    let mut lab = helped()?;
    let mut r = Report::default();
    let [own, tasks, packets] = [&lab.nodes[0].ns, &lab.tasks[2].ns, &lab.client];
    // A host's process, led when it sends; a task that asks its own service, and a client outside, led packet by packet.
    for (who, ns, asked) in [
        (
            "n1",
            own,
            vec!["127.0.0.1", "::1", "192.0.2.11", "2001:db8::11"],
        ),
        ("t3", tasks, vec!["10.0.1.200", "fd00:0:0:1::200"]),
        ("the client", packets, vec!["192.0.2.11", "2001:db8::12"]),
    ] {
        for asked in asked {
            let port = if who == "t3" { 80 } else { 8000 };
            let to = at(asked, port);
            let mut all = BTreeSet::new();
            for connected in [false, true] {
                // Of so many sockets all find the same task by chance once in two hundred million times.
                for socket in 0..28 {
                    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
                    let loose = Loose::bound(ns, at(any, 0))?;
                    if connected {
                        loose.connect(to)?;
                    }
                    let mut names = BTreeSet::new();
                    for _ in 0..6 {
                        match loose.ask(to) {
                            Ok((said, from)) if from == to => drop(names.insert(said.name)),
                            other => r.failures.push(format!("{who} to {to}: {other:?}")),
                        }
                    }
                    if names.len() != 1 {
                        r.failures
                            .push(format!("{who} to {to}, socket {socket}: {names:?}"));
                    }
                    all.extend(names);
                }
            }
            if all.len() != 2 {
                r.failures
                    .push(format!("{who} to {to}: every socket to {all:?}"));
            }
        }
    }
    r.done(&mut lab)
}
