//! ICMP errors of every kind, with every way to quote a packet: translated both ways, near and between nodes.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::verdict::Verdict;

use super::super::frames::{add, fold};
use super::*;

/// An error: its type, its code, and the four bytes after the checksum.
#[derive(Clone, Copy)]
struct Kind(&'static str, u8, u8, [u8; 4]);

/// What is to be translated: unreachable, too big, time exceeded, parameter problem.
fn kinds(f: Family) -> Vec<Kind> {
    if f.v6 {
        return vec![
            Kind("no route", 1, 0, [0; 4]),
            Kind("prohibited", 1, 1, [0; 4]),
            Kind("no such port", 1, 4, [0; 4]),
            Kind("too big", 2, 0, [0, 0, 5, 0]),
            Kind("hops exceeded", 3, 0, [0; 4]),
            Kind("reassembly took too long", 3, 1, [0; 4]),
            Kind("a wrong field", 4, 0, [0, 0, 0, 40]),
            Kind("an unknown header", 4, 1, [0, 0, 0, 6]),
            Kind("an unknown option", 4, 2, [0, 0, 0, 42]),
        ];
    }
    vec![
        Kind("no such net", 3, 0, [0; 4]),
        Kind("no such host", 3, 1, [0; 4]),
        Kind("no such port", 3, 3, [0; 4]),
        Kind("too big", 3, 4, [0, 0, 5, 0]),
        Kind("prohibited", 3, 13, [0; 4]),
        Kind("hops exceeded", 11, 0, [0; 4]),
        Kind("reassembly took too long", 11, 1, [0; 4]),
        Kind("a wrong field", 12, 0, [20, 0, 0, 0]),
        Kind("a missing option", 12, 1, [0; 4]),
    ]
}

/// How much of a packet is quoted, or what stands between its headers.
#[derive(Clone, Copy)]
enum Quote {
    Whole,
    /// As little as is allowed: eight bytes of the transport header.
    Least,
    /// The first fragment.
    First,
    /// With options between the headers.
    Options,
}

/// The network header's length and, for IPv4, its checksum, as they should be.
fn settle(packet: &mut [u8]) {
    let length = packet.len() as u16;
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
        return;
    }
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 15) * 4;
    let check = !fold(add(&packet[..header]));
    packet[10..12].copy_from_slice(&check.to_be_bytes());
}

impl Quote {
    fn of(self, frame: &[u8]) -> Vec<u8> {
        let mut packet = frame[14..].to_vec();
        let v6 = packet[0] >> 4 == 6;
        match self {
            Self::Whole => {}
            Self::Least => packet.truncate(if v6 { 48 } else { 28 }),
            Self::First if v6 => {
                let next = std::mem::replace(&mut packet[6], 44);
                packet.splice(40..40, [next, 0, 0, 1, 0, 0, 0x12, 0x34]);
                settle(&mut packet);
            }
            Self::First => {
                packet[6] = 0x20;
                settle(&mut packet);
            }
            Self::Options if v6 => {
                let next = std::mem::replace(&mut packet[6], 60);
                packet.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
                settle(&mut packet);
            }
            Self::Options => {
                packet[0] = 0x46;
                packet.splice(20..20, [1, 1, 1, 0]);
                settle(&mut packet);
            }
        }
        packet
    }
}

/// An error as `outer` says that quotes `quoted`.
fn error(outer: &Frame, kind: Kind, quoted: Vec<u8>) -> Vec<u8> {
    let frame = Frame {
        l4: L4::Icmp(kind.1, kind.2),
        payload: quoted,
        ..outer.clone()
    };
    let mut bytes = frame.bytes();
    let at = if frame.src.is_ipv6() { 54 } else { 34 };
    bytes[at + 4..at + 8].copy_from_slice(&kind.3);
    let check = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
    let check = !fold(u32::from(!check) + add(&kind.3));
    bytes[at + 2..at + 4].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// What `frame` becomes when it speaks of `sent`'s checksum: nobody translates that one in a quotation.
fn with_the_checksum_of(frame: &Frame, sent: &Frame) -> Vec<u8> {
    let at = if frame.src.is_ipv6() { 54 } else { 34 };
    let at = at + if frame.proto() == 6 { 16 } else { 6 };
    let mut bytes = frame.bytes();
    bytes[at..at + 2].copy_from_slice(&sent.bytes()[at..at + 2]);
    bytes
}

/// The four packets that errors can be about: what the client sent and the task saw, what the task sent and the
/// client got.
struct Talk {
    /// The task, which is here.
    task: u32,
    asked: Frame,
    seen: Frame,
    said: Frame,
    answered: Frame,
}

fn ports(tcp: bool, from: u16, to: u16) -> L4 {
    if tcp {
        L4::Tcp(from, to, ACK)
    } else {
        L4::Udp(from, to)
    }
}

impl Talk {
    fn at(f: Family, node: u32, tcp: bool) -> Self {
        let (c, n, t1) = (f.client(), f.node(node), f.task(1));
        let l4 = |from, to| ports(tcp, from, to);
        Self {
            task: 1,
            asked: frame(c, n, l4(4000, 8000)),
            seen: frame(c, t1, l4(4000, 80)),
            said: frame(t1, c, l4(80, 4000)),
            answered: frame(n, c, l4(8000, 4000)),
        }
    }

    /// Task 3 at its VIP, asked by a task of its network; itself it sees as the VIP.
    fn by_vip(f: Family, asker: u32, tcp: bool) -> Self {
        let (c, v, t3) = (f.task(asker), f.vip(), f.task(3));
        let client = if asker == 3 { v } else { c };
        let l4 = |from, to| ports(tcp, from, to);
        Self {
            task: 3,
            asked: frame(c, v, l4(4000, 80)),
            seen: frame(client, t3, l4(4000, 80)),
            said: frame(t3, client, l4(80, 4000)),
            answered: frame(v, c, l4(80, 4000)),
        }
    }
}

const QUOTES: [Quote; 4] = [Quote::Whole, Quote::Least, Quote::First, Quote::Options];

/// Every kind with every quotation, about both directions of a flow that begins with `first`.
fn both_ways(
    talk: &Talk,
    f: Family,
    first: Step,
    of_task: (&Frame, &Frame, Verdict),
    of_router: (&Frame, &Frame),
    way_in: &dyn Fn(&str, Vec<u8>) -> Step,
) -> Vec<Step> {
    let mut steps = vec![first];
    for kind in kinds(f) {
        for quote in QUOTES {
            let (by_task, to_client, back) = of_task;
            let sent = error(by_task, kind, quote.of(&talk.seen.bytes()));
            let got = quote.of(&with_the_checksum_of(&talk.asked, &talk.seen));
            let name = format!("a task says: {}", kind.0);
            steps.push(
                Step::raw(&name, Program::TaskIn, link_of(talk.task), sent, back)
                    .exact(error(to_client, kind, got)),
            );
            let (by_router, to_task) = of_router;
            let sent = error(by_router, kind, quote.of(&talk.answered.bytes()));
            let got = quote.of(&with_the_checksum_of(&talk.said, &talk.answered));
            steps.push(
                way_in(&format!("a router says: {}", kind.0), sent)
                    .exact(error(to_task, kind, got)),
            );
        }
    }
    steps
}

/// Errors about a VIP that is asked by packet: of the task, and of the task that asked.
pub(super) fn by_vip(f: Family) -> Vec<Row> {
    let (v, t3, t4) = (f.vip(), f.task(3), f.task(4));
    let none = L4::Udp(0, 0);
    let mut rows = Vec::new();
    for tcp in [false, true] {
        let proto = if tcp { "TCP" } else { "UDP" };
        let begin = if tcp {
            L4::Tcp(4000, 80, SYN)
        } else {
            L4::Udp(4000, 80)
        };
        let here = peer(3, Done::ToTaskTranslated);
        let translated = peer(3, Done::IcmpTranslated);
        for (asker, name) in [(6, "a VIP"), (3, "its own VIP")] {
            let t = f.task(asker);
            let client = if asker == 3 { v } else { t };
            let near = both_ways(
                &Talk::by_vip(f, asker, tcp),
                f,
                task("a question", asker, &from_task(asker, t, v, begin), here),
                (
                    &from_task(3, t3, client, none),
                    &delivered(asker, v, t, none),
                    peer(asker, Done::AnswerToTask),
                ),
                (
                    &from_task(asker, t, v, none),
                    &delivered(3, client, t3, none),
                ),
                &|name, bytes| Step::raw(name, Program::TaskIn, link_of(asker), bytes, translated),
            );
            rows.push(row(
                &format!("every ICMP error about {proto} at {name}"),
                f,
                town(),
                near,
            ));
        }
        let asked = carried(Leg::Vip, 0, 3, t4, v, begin);
        let far = both_ways(
            &Talk::by_vip(f, 4, tcp),
            f,
            overlay("a question", WEB, 2, &asked, here),
            (
                &from_task(3, t3, t4, none),
                &carried(Leg::Answer, 3, 4, v, t4, none),
                Verdict::Tunnel(to_node(WEB, 2), Done::AnswerToNode),
            ),
            (
                &carried(Leg::Vip, 0, 3, t4, v, none),
                &delivered(3, t4, t3, none),
            ),
            &|name, bytes| {
                Step::raw(name, Program::OverlayIn, OVERLAY, bytes, translated).through(WEB, 2)
            },
        );
        rows.push(row(
            &format!("every ICMP error about {proto} at a VIP between nodes"),
            f,
            town(),
            far,
        ));
        let mut elsewhere = town();
        elsewhere.rings.insert(5, vec![4]);
        rows.push(row(
            &format!("every ICMP error about {proto} at a VIP of a far task"),
            f,
            elsewhere,
            to_far_vip(f, tcp),
        ));
    }
    rows
}

/// Of a task that asked a VIP whose task is elsewhere, and of that one to it; nobody speaks of others' packets.
fn to_far_vip(f: Family, tcp: bool) -> Vec<Step> {
    let (v, t3, t6) = (f.vip(), f.task(3), f.task(6));
    let none = L4::Udp(0, 0);
    let talk = Talk::by_vip(f, 6, tcp);
    let mut steps = Vec::new();
    for kind in kinds(f) {
        for quote in QUOTES {
            let quoted = quote.of(&talk.answered.bytes());
            let sent = error(&from_task(6, t6, v, none), kind, quoted.clone());
            let got = error(&carried(Leg::Vip, 0, 4, t6, v, none), kind, quoted.clone());
            let there = Verdict::Tunnel(to_node(WEB, 2), Done::ToBackendNode);
            let name = format!("a task that asked says: {}", kind.0);
            steps.push(Step::raw(&name, Program::TaskIn, link_of(6), sent, there).exact(got));
            let forged = error(&from_task(3, t3, v, none), kind, quoted);
            let name = format!("another says: {}", kind.0);
            steps.push(Step::raw(
                &name,
                Program::TaskIn,
                link_of(3),
                forged,
                drop(Drop::UnsupportedIcmp),
            ));
            let quoted = quote.of(&talk.asked.bytes());
            let sent = error(
                &carried(Leg::Answer, 4, 6, v, t6, none),
                kind,
                quoted.clone(),
            );
            let got = error(&delivered(6, v, t6, none), kind, quoted);
            let name = format!("the far task says: {}", kind.0);
            steps.push(
                Step::raw(
                    &name,
                    Program::OverlayIn,
                    OVERLAY,
                    sent,
                    peer(6, Done::AnswerToTask),
                )
                .through(WEB, 2)
                .exact(got),
            );
        }
    }
    steps
}

pub(super) fn of_every_kind(f: Family) -> Vec<Row> {
    let (c, n1, n2, t1, router) = (f.client(), f.node(1), f.node(2), f.task(1), f.host(254));
    let none = L4::Udp(0, 0);
    let by_task = from_task(1, t1, c, none);
    let to_task = delivered(1, router, t1, none);
    let mut rows = Vec::new();
    for tcp in [false, true] {
        let proto = if tcp { "TCP" } else { "UDP" };
        let begin = if tcp {
            L4::Tcp(4000, 8000, SYN)
        } else {
            L4::Udp(4000, 8000)
        };
        let here = peer(1, Done::ToTaskTranslated);
        let near = both_ways(
            &Talk::at(f, 1, tcp),
            f,
            uplink("a question", &frame(c, n1, begin), here),
            (
                &by_task,
                &from_task(1, n1, c, none),
                Verdict::Neighbour(UPLINK, Done::AnswerToClient),
            ),
            (&frame(router, n1, none), &to_task),
            &|name, bytes| {
                let verdict = peer(1, Done::IcmpTranslated);
                Step::raw(name, Program::UplinkIn, UPLINK, bytes, verdict)
            },
        );
        rows.push(row(
            &format!("every ICMP error about {proto}"),
            f,
            town(),
            near,
        ));
        let far = both_ways(
            &Talk::at(f, 2, tcp),
            f,
            overlay(
                "a question",
                MESH,
                2,
                &carried(Leg::Mesh, 0, 1, c, n2, begin),
                here,
            ),
            (
                &by_task,
                &carried(Leg::Answer, 1, 0, n2, c, none),
                Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
            ),
            (&carried(Leg::Mesh, 0, 1, router, n2, none), &to_task),
            &|name, bytes| {
                let verdict = peer(1, Done::IcmpTranslated);
                Step::raw(name, Program::OverlayIn, OVERLAY, bytes, verdict).through(MESH, 2)
            },
        );
        rows.push(row(
            &format!("every ICMP error about {proto} between nodes"),
            f,
            town(),
            far,
        ));
        rows.push(row(
            &format!("every ICMP error about {proto} on its way through"),
            f,
            town(),
            through(f, tcp),
        ));
    }
    rows.push(row("ICMP errors about echo", f, town(), about_echo(f)));
    rows
}

/// At the client's node, whose backend is elsewhere: both ways as they are.
fn through(f: Family, tcp: bool) -> Vec<Step> {
    let (c, n1, router) = (f.client(), f.node(1), f.host(254));
    let none = L4::Udp(0, 0);
    let l4 = |from, to| {
        if tcp {
            L4::Tcp(from, to, ACK)
        } else {
            L4::Udp(from, to)
        }
    };
    let (asked, answered) = (
        frame(c, n1, l4(4000, 8001)).bytes(),
        frame(n1, c, l4(8001, 4000)).bytes(),
    );
    let mut steps = Vec::new();
    for kind in kinds(f) {
        for quote in QUOTES {
            let of_task = error(
                &carried(Leg::Answer, 2, 0, n1, c, none),
                kind,
                quote.of(&asked),
            );
            let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
            let name = format!("a far task says: {}", kind.0);
            steps.push(
                Step::raw(
                    &name,
                    Program::OverlayIn,
                    OVERLAY,
                    of_task.clone(),
                    to_client,
                )
                .through(MESH, 2)
                .exact(of_task),
            );
            let sent = error(&frame(router, n1, none), kind, quote.of(&answered));
            let got = error(
                &carried(Leg::Mesh, 0, 2, router, n1, none),
                kind,
                quote.of(&answered),
            );
            let to_backend = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
            let name = format!("a router says to the far task: {}", kind.0);
            steps.push(Step::raw(&name, Program::UplinkIn, UPLINK, sent, to_backend).exact(got));
        }
    }
    steps
}

/// Echo is nobody's flow: the host's stack and its masquerading hear of their own, tasks of each other's as it is.
fn about_echo(f: Family) -> Vec<Step> {
    let (c, n1, n2, router) = (f.client(), f.node(1), f.node(2), f.host(254));
    let (t1, t3, t4, t6) = (f.task(1), f.task(3), f.task(4), f.task(6));
    let none = L4::Udp(0, 0);
    let (ask, answer) = if f.v6 {
        (L4::Icmp(128, 0), L4::Icmp(129, 0))
    } else {
        (L4::Icmp(8, 0), L4::Icmp(0, 0))
    };
    let mut steps = Vec::new();
    for kind in kinds(f) {
        let about = |src, dst, l4| Quote::Whole.of(&frame(src, dst, l4).bytes());
        let said = |what: &str| format!("{what}: {}", kind.0);
        for (what, quoted) in [
            ("this host asked", about(n1, c, ask)),
            ("this host answered", about(n1, c, answer)),
        ] {
            let sent = error(&frame(router, n1, none), kind, quoted);
            let verdict = next(Done::NotOurs);
            steps.push(Step::raw(
                &said(what),
                Program::UplinkIn,
                UPLINK,
                sent,
                verdict,
            ));
        }
        let sent = error(&from_task(3, t3, t6, none), kind, about(t6, t3, ask));
        let got = error(&delivered(6, t3, t6, none), kind, about(t6, t3, ask));
        let verdict = peer(6, Done::ToTask);
        steps.push(
            Step::raw(
                &said("a task asked another"),
                Program::TaskIn,
                link_of(3),
                sent,
                verdict,
            )
            .exact(got),
        );
        let sent = error(&from_task(3, t3, t4, none), kind, about(t4, t3, ask));
        let got = error(
            &carried(Leg::Plain, 3, 4, t3, t4, none),
            kind,
            about(t4, t3, ask),
        );
        let verdict = Verdict::Tunnel(to_node(WEB, 2), Done::ToNode);
        steps.push(
            Step::raw(
                &said("a far task asked"),
                Program::TaskIn,
                link_of(3),
                sent,
                verdict,
            )
            .exact(got),
        );
        let sent = error(
            &carried(Leg::Plain, 4, 3, t4, t3, none),
            kind,
            about(t3, t4, ask),
        );
        let got = error(&delivered(3, t4, t3, none), kind, about(t3, t4, ask));
        steps.push(
            Step::raw(
                &said("of a far task"),
                Program::OverlayIn,
                OVERLAY,
                sent,
                peer(3, Done::ToTask),
            )
            .through(WEB, 2)
            .exact(got),
        );
        let sent = error(
            &from_task(1, t1, router, none),
            kind,
            about(router, t1, ask),
        );
        steps.push(Step::raw(
            &said("somebody outside asked"),
            Program::TaskIn,
            link_of(1),
            sent,
            next(Done::ToWorld),
        ));
        let forged = carried(Leg::Mesh, 0, 1, router, n2, none);
        steps.push(
            Step::raw(
                &said("for a service"),
                Program::OverlayIn,
                OVERLAY,
                error(&forged, kind, about(n2, c, answer)),
                drop(Drop::UnsupportedIcmp),
            )
            .through(MESH, 2),
        );
    }
    steps
}
