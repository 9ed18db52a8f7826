//! Packets on their real ways: programs attached, kernels' own stacks at both ends. Needs root.

#![expect(
    unsafe_code,
    reason = "the namespace cookie is a socket option that no safe wrapper reads"
)]

#[expect(dead_code, reason = "the other walks use the rest")]
mod walks;

use std::net::SocketAddr;

use anyhow::Result;
use walks::lab::Lab;
use walks::report::Report;
use walks::talk::{Held, Said, ask, ask_udp, at};
use weft_abi::{Addr, Be16, Done, Front, FrontKey, Program};

// Of clients outside the address is compared, not the port: an ephemeral port that was used lately for
// another address may have to be shown to the task as another.

#[test]
fn every_walk() -> Result<()> {
    let mut lab = Lab::new()?;
    let mut r = Report::default();
    let both = |s: &Said| s.name == "t1" || s.name == "t2";
    let mut served = std::collections::BTreeSet::new();
    for round in 0..8 {
        for addr in ["192.0.2.11", "2001:db8::11", "192.0.2.12", "2001:db8::12"] {
            let to = at(addr, 8000);
            r.case(
                &format!("client to {to}, TCP, {round}"),
                ask(&lab.client, to),
                |s| {
                    served.insert(s.name.clone());
                    both(s) && s.saw.ip() == s.me.ip()
                },
            );
            r.case(
                &format!("client to {to}, UDP, {round}"),
                ask_udp(&lab.client, to, 1000),
                |s| both(s) && s.saw.ip() == s.me.ip(),
            );
        }
    }
    if served.len() != 2 {
        r.failures.push(format!("only {served:?} served"));
    }
    let t = &lab.tasks;
    for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        for ip in [t[to].ip4, t[to].ip6] {
            let name = format!("t{} to t{} at {ip}", from + 1, to + 1);
            r.case(&name, ask(&t[from].ns, SocketAddr::new(ip, 80)), |s| {
                s.name == format!("t{}", to + 1) && s.saw == s.me
            });
            r.case(
                &format!("{name}, UDP"),
                ask_udp(&t[from].ns, SocketAddr::new(ip, 80), 1000),
                |s| s.saw == s.me,
            );
        }
    }
    for round in 0..4 {
        for (from, vips) in [
            (0, ["10.0.0.200", "fd00::200"]),
            (2, ["10.0.1.200", "fd00:0:0:1::200"]),
        ] {
            for vip in vips {
                // From two tasks of the network, so that both the near and the far backend and the hairpin are met.
                for task in [from, from + 1] {
                    let name = format!("t{} to VIP {vip}, {round}", task + 1);
                    r.case(&name, ask(&t[task].ns, at(vip, 80)), |s| {
                        let own = s.name == format!("t{}", task + 1);
                        if own {
                            s.saw.ip() != s.me.ip()
                        } else {
                            s.saw.ip() == s.me.ip()
                        }
                    });
                    r.case(
                        &format!("{name}, UDP"),
                        ask_udp(&t[task].ns, at(vip, 80), 500),
                        |_| true,
                    );
                }
            }
        }
        for addr in ["192.0.2.11", "2001:db8::11", "192.0.2.12", "2001:db8::12"] {
            for task in t {
                let name = format!("t{} to published {addr}, {round}", task.id);
                r.case(&name, ask(&task.ns, at(addr, 8000)), both);
            }
        }
    }
    for node in &lab.nodes {
        for task in t {
            for ip in [task.ip4, task.ip6] {
                let name = format!("host n{} to t{} at {ip}", node.id, task.id);
                r.case(&name, ask(&node.ns, SocketAddr::new(ip, 80)), |s| {
                    s.name == format!("t{}", task.id) && s.saw == s.me
                });
            }
        }
    }
    for (from, to) in [(0, 2), (0, 3), (3, 0)] {
        if let Ok(said) = ask(&t[from].ns, SocketAddr::new(t[to].ip4, 80)) {
            r.failures.push(format!(
                "t{} reached t{} of another network: {said:?}",
                from + 1,
                to + 1
            ));
        }
    }
    r.done(&mut lab)
}

#[test]
fn a_hosts_own_connections_from_published_ports() -> Result<()> {
    let mut lab = Lab::new()?;
    walks::talk::serve(&lab.client, "client")?;
    let mut r = Report::default();
    for to in ["192.0.2.100", "2001:db8::100"] {
        let mut one = Held::open(&lab.nodes[0].ns, 8000, at(to, 80))?;
        for _ in 0..3 {
            r.case(&format!("from port 8000 to {to}"), one.ask(), |s| {
                s.name == "client" && s.saw.port() == 8000
            });
        }
        // Others are served at the same port meanwhile.
        let own = if to.contains(':') {
            "2001:db8::11"
        } else {
            "192.0.2.11"
        };
        for _ in 0..4 {
            r.case("beside it", ask(&lab.client, at(own, 8000)), |s| {
                s.name.starts_with('t')
            });
        }
    }
    let task = SocketAddr::new(lab.tasks[2].ip4, 80);
    let mut one = Held::open(&lab.nodes[0].ns, 8000, task)?;
    r.case("from port 8000 to a task", one.ask(), |s| s.name == "t3");
    r.done(&mut lab)
}

#[test]
fn a_hosts_process_hears_that_its_task_is_gone() -> Result<()> {
    let mut lab = Lab::new()?;
    let mut r = Report::default();
    let mut held = Vec::new();
    // One here, one on the other node.
    for task in [2, 3] {
        for ip in [lab.tasks[task].ip4, lab.tasks[task].ip6] {
            let mut one = Held::open(&lab.nodes[0].ns, 0, SocketAddr::new(ip, 80))?;
            r.case(&format!("before, {ip}"), one.ask(), |s| s.saw == s.me);
            held.push((ip, one));
        }
    }
    lab.nodes[0].ns.ip("link del v3")?;
    let net = lab.tasks[2].net;
    for (ip, one) in &mut held {
        lab.nodes[0].drop_task(net, *ip)?;
        match one.ask() {
            Err(error) if format!("{error:#}").contains("reset by peer") => {}
            other => r
                .failures
                .push(format!("no reset from {ip}, which is gone: {other:?}")),
        }
        for size in [0, 1, 1200] {
            match ask_udp(&lab.nodes[0].ns, SocketAddr::new(*ip, 80), size) {
                Err(error) if format!("{error:#}").contains("refused") => {}
                other => r.failures.push(format!(
                    "{size} bytes to {ip}, which is gone, were not refused: {other:?}"
                )),
            }
        }
    }
    r.done(&mut lab)
}

#[test]
fn every_corner() -> Result<()> {
    let mut lab = Lab::new()?;
    let mut r = Report::default();
    let all = ["192.0.2.11", "2001:db8::11", "192.0.2.12", "2001:db8::12"];

    // Datagrams longer than one packet, both ways, to near and far backends.
    for addr in all {
        for size in [1, 1372, 1393, 1430, 1472, 1473, 3000, 8000] {
            for round in 0..3 {
                let name = format!("{size} bytes to {addr}, {round}");
                r.case(&name, ask_udp(&lab.client, at(addr, 8000), size), |s| {
                    s.name.starts_with('t')
                });
            }
        }
    }
    for (from, vip) in [
        (0, "10.0.0.200"),
        (0, "fd00::200"),
        (2, "10.0.1.14"),
        (2, "fd00:0:0:1::14"),
    ] {
        for size in [1300, 1430, 3000, 8000] {
            for round in 0..3 {
                let name = format!("t{} sends {size} bytes to {vip}, {round}", from + 1);
                r.case(
                    &name,
                    ask_udp(&lab.tasks[from].ns, at(vip, 80), size),
                    |s| s.name.starts_with('t'),
                );
            }
        }
    }

    // Nobody listens behind port 8001: the task's stack says so, and the client hears it.
    for node in &mut lab.nodes {
        let key = FrontKey::published(Addr::ANY, Be16::new(8001), 17);
        node.put(
            "front",
            key,
            Front {
                service: 1,
                port: Be16::new(81),
                ..Default::default()
            },
        )?;
    }
    for addr in all {
        for round in 0..4 {
            match ask_udp(&lab.client, at(addr, 8001), 10) {
                Err(e) if format!("{e:#}").contains("refused") => {}
                other => r
                    .failures
                    .push(format!("closed port at {addr}, {round}: {other:?}")),
            }
        }
    }

    // One client port to every address: the task must tell the connections apart.
    for port in 40_000..40_010 {
        let mut held = Vec::new();
        for addr in ["192.0.2.11", "192.0.2.12"] {
            held.push((addr, Held::open(&lab.client, port, at(addr, 8000))));
        }
        for addr in ["2001:db8::11", "2001:db8::12"] {
            held.push((addr, Held::open(&lab.client, port, at(addr, 8000))));
        }
        for (addr, held) in &mut held {
            for _ in 0..2 {
                match held {
                    Ok(held) => r.case(&format!("port {port} to {addr}"), held.ask(), |s| {
                        s.saw.ip() == s.me.ip()
                    }),
                    Err(error) => {
                        r.failures.push(format!("port {port} to {addr}: {error:#}"));
                        break;
                    }
                }
            }
        }
    }

    // Backend 2 leaves the ring, and the ingress node forgets its choices: held connections stay.
    let mut held = Vec::new();
    for addr in all {
        for _ in 0..8 {
            let mut one = Held::open(&lab.client, 0, at(addr, 8000))?;
            let name = one.ask()?.name;
            held.push((addr, name, one));
        }
    }
    for node in &mut lab.nodes {
        node.ring("rings_before", 1, &[1, 2])?;
        node.ring("rings", 1, &[1])?;
        node.forget_picks()?;
    }
    for round in 0..2 {
        for (addr, name, one) in &mut held {
            r.case(
                &format!("held to {addr} on {name}, {round}"),
                one.ask(),
                |s| s.name == *name,
            );
        }
    }
    let mut second = 0;
    for node in &mut lab.nodes {
        second += node.count(Program::OverlayIn, Done::SecondChance as u8)?;
        second += node.count(Program::UplinkIn, Done::SecondChance as u8)?;
    }
    if second == 0 || second > 16 {
        r.failures.push(format!(
            "{second} second chances for about 8 flows: once each is the rule"
        ));
    }
    for _ in 0..8 {
        r.case(
            "after the change",
            ask(&lab.client, at("192.0.2.12", 8000)),
            |s| s.name == "t1",
        );
    }
    r.done(&mut lab)
}

#[test]
fn the_tunnel_over_ipv6() -> Result<()> {
    let mut lab = Lab::new()?;
    for node in &mut lab.nodes {
        node.tunnel_over_ipv6()?;
    }
    let mut r = Report::default();
    let mut served = std::collections::BTreeSet::new();
    for round in 0..6 {
        for addr in ["192.0.2.11", "2001:db8::11", "192.0.2.12", "2001:db8::12"] {
            let to = at(addr, 8000);
            r.case(
                &format!("client to {to}, {round}"),
                ask(&lab.client, to),
                |s| {
                    served.insert(s.name.clone());
                    s.saw.ip() == s.me.ip()
                },
            );
            for size in [1, 700, 1350] {
                let name = format!("client to {to}, {size} bytes of UDP, {round}");
                r.case(&name, ask_udp(&lab.client, to, size), |s| {
                    s.saw.ip() == s.me.ip()
                });
            }
        }
    }
    if served.len() != 2 {
        r.failures.push(format!("only {served:?} served"));
    }
    for (from, to) in [(0, 1), (3, 2)] {
        for ip in [lab.tasks[to].ip4, lab.tasks[to].ip6] {
            let name = format!("t{} to t{} at {ip}", from + 1, to + 1);
            r.case(
                &name,
                ask(&lab.tasks[from].ns, SocketAddr::new(ip, 80)),
                |s| s.saw == s.me,
            );
            r.case(
                &name,
                ask_udp(&lab.tasks[from].ns, SocketAddr::new(ip, 80), 1300),
                |s| s.saw == s.me,
            );
        }
    }
    r.done(&mut lab)
}

#[test]
fn without_checksum_offload() -> Result<()> {
    // Where sums are made in software the kernel keeps a sum of the whole packet beside it, which a change
    // of IPv6 addresses must keep right.
    let mut lab = Lab::new()?;
    for (ns, links) in lab.links() {
        for link in links {
            ns.ethtool(&format!("-K {link} tx off rx off"))?;
        }
    }
    let mut r = Report::default();
    for round in 0..4 {
        for addr in ["192.0.2.11", "2001:db8::11", "192.0.2.12", "2001:db8::12"] {
            let to = at(addr, 8000);
            r.case(
                &format!("client to {to}, {round}"),
                ask(&lab.client, to),
                |s| s.saw.ip() == s.me.ip(),
            );
            for size in [1, 2, 100, 700, 1350, 3000] {
                let name = format!("client to {to}, {size} bytes of UDP, {round}");
                r.case(&name, ask_udp(&lab.client, to, size), |s| {
                    s.saw.ip() == s.me.ip()
                });
            }
        }
    }
    for (from, vip) in [
        (0, "10.0.0.200"),
        (0, "fd00::200"),
        (3, "10.0.1.200"),
        (3, "fd00:0:0:1::200"),
    ] {
        for round in 0..3 {
            r.case(
                &format!("t{} to {vip}, {round}", from + 1),
                ask(&lab.tasks[from].ns, at(vip, 80)),
                |_| true,
            );
            r.case(
                &format!("t{} to {vip}, {round}, UDP", from + 1),
                ask_udp(&lab.tasks[from].ns, at(vip, 80), 900),
                |_| true,
            );
        }
    }
    r.done(&mut lab)
}
