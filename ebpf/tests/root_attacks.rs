//! Hostile packets, in the kernels' own way. Needs root.

#![expect(
    unsafe_code,
    reason = "the namespace cookie is a socket option that no safe wrapper reads"
)]

#[expect(dead_code, reason = "the rows use the rest")]
#[path = "rows/frames.rs"]
mod frames;
#[expect(dead_code, reason = "the other walks use the rest")]
mod walks;

use std::net::IpAddr;

use anyhow::Result;
use frames::{Frame, L4};
use walks::lab::Lab;
use walks::report::Report;
use walks::talk::{Held, ask, at, send_raw};
use weft_abi::{Addr, Leg, Program, task_mac, wire_mac};

#[test]
fn every_attack() -> Result<()> {
    let mut lab = Lab::new()?;
    let mut r = Report::default();
    // The ways are known before the flood, and the flows live through it.
    let mut held = Vec::new();
    for addr in ["192.0.2.11", "2001:db8::11"] {
        for _ in 0..12 {
            let mut one = Held::open(&lab.client, 0, at(addr, 8000))?;
            r.case("before", one.ask(), |s| s.saw.ip() == s.me.ip());
            held.push(one);
        }
    }
    let mac = lab.nodes[0].ns.mac("eth0")?;
    let own = lab.client.mac("eth0")?;
    let link = lab.client.index("eth0")?;
    let frame = |src: IpAddr, l4, payload: Vec<u8>| Frame {
        dst_mac: mac,
        src_mac: own,
        src,
        dst: at(
            if src.is_ipv4() {
                "192.0.2.11"
            } else {
                "2001:db8::11"
            },
            0,
        )
        .ip(),
        l4,
        payload,
    };

    // A stranger's tunnelled packet: dropped, counted, and the sample names the stranger.
    let inner = Frame {
        dst_mac: task_mac(1),
        src_mac: wire_mac(Leg::Plain, 2),
        src: lab.tasks[1].ip4,
        dst: lab.tasks[0].ip4,
        l4: L4::Udp(7, 80),
        payload: b"forged".to_vec(),
    };
    let mut vxlan = vec![8, 0, 0, 0, 0, 0x10, 0, 0];
    vxlan.extend(inner.bytes());
    let forged = frame([192, 0, 2, 100].into(), L4::Udp(5555, 4789), vxlan);
    send_raw(&lab.client, link, std::iter::once(forged.bytes()))?;
    let reason = weft_abi::Drop::NotANode as u8;
    wait_until("the forged packet is counted", || {
        Ok(lab.nodes[0].count(Program::UplinkIn, reason)? == 1)
    })?;
    let events = lab.nodes[0].events()?;
    let stranger = Addr::v4([192, 0, 2, 100]);
    if !events
        .iter()
        .any(|e| e.reason == reason && e.src == stranger && e.dport.get() == 4789)
    {
        r.failures
            .push(format!("no sample of the forged packet: {events:?}"));
    }

    // More connections than the table of new flows holds, from addresses that do not exist, and after
    // each a blind acknowledgement, as if it knew the answer, and an answer to what nobody asked.
    let flood = (0..20_000u32).flat_map(|n| {
        let (high, low) = (113 + (n >> 14) as u8, (n >> 6) as u8);
        let src: IpAddr = if n % 2 == 0 {
            [203, 0, high, low].into()
        } else {
            [0x2001, 0xdb8, 0xdead, 0, 0, 0, high.into(), low.into()].into()
        };
        let port = 1024 + (n as u16 & 0x3fff);
        [2, 16, 18].map(|flags| frame(src, L4::Tcp(port, 8000, flags), vec![]).bytes())
    });
    send_raw(&lab.client, link, flood)?;
    for one in &mut held {
        r.case("after the flood", one.ask(), |s| s.saw.ip() == s.me.ip());
    }
    for round in 0..8 {
        for addr in ["192.0.2.11", "2001:db8::11"] {
            r.case(
                &format!("new after the flood, {addr}, {round}"),
                ask(&lab.client, at(addr, 8000)),
                |s| s.saw.ip() == s.me.ip(),
            );
        }
    }
    for node in &mut lab.nodes {
        let flows = node.flows("flow")?;
        // Two entries each for the 24 held and the 16 new ones, on whichever node serves them.
        if flows > 80 {
            r.failures.push(format!(
                "node {}: the flood made {flows} permanent entries",
                node.id
            ));
        }
    }
    r.done(&mut lab)
}

/// Waits for a condition, and says which when it does not come.
fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition()? {
        anyhow::ensure!(
            std::time::Instant::now() < until,
            "waited 30 s in vain until {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}
