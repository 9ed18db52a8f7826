//! Headers of every layer, cut short or inconsistent, by every way in; after each, an honest packet.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

/// Where the transport header begins.
fn transport_at(frame: &Frame) -> usize {
    if frame.src.is_ipv6() { 54 } else { 34 }
}

/// Makes the network header's length that of the packet.
fn settle(bytes: &mut [u8], v6: bool) {
    let (at, header) = if v6 { (18, 54) } else { (16, 14) };
    let length = (bytes.len() - header) as u16;
    bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

/// The frame with `kept` bytes of its transport header and nothing after.
fn shortened(frame: &Frame, kept: usize) -> Vec<u8> {
    let mut bytes = frame.bytes();
    bytes.truncate(transport_at(frame) + kept);
    settle(&mut bytes, frame.src.is_ipv6());
    bytes
}

/// What is wrong in the network header.
fn network(good: &Frame) -> Vec<(String, Vec<u8>)> {
    let mut list = Vec::new();
    let mut with = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.bytes();
        change(&mut bytes);
        list.push((name.to_owned(), bytes));
    };
    if good.src.is_ipv4() {
        with("the other family's version", &|b| b[14] = 0x65);
        with("a header of four words", &|b| b[14] = 0x44);
        with("a header longer than the packet", &|b| b[14] = 0x4f);
        with("a total shorter than the header", &|b| {
            b[16..18].copy_from_slice(&[0, 19]);
        });
        with("a total longer than the packet", &|b| b[16] = 9);
        return list;
    }
    with("the other family's version", &|b| b[14] = 0x45);
    for (end, name) in [(22, "source"), (38, "destination")] {
        with(&format!("an IPv4 address in an IPv6 {name}"), &|b| {
            b[end..end + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        });
    }
    for (kind, name) in [(0, "hop-by-hop"), (43, "routing"), (51, "authentication")] {
        with(&format!("{name} options beyond the end"), &|b| {
            b[20] = kind;
            b.splice(54..54, [6, 200, 0, 0, 0, 0, 0, 0]);
            settle(b, true);
        });
    }
    with("a fragment header cut short", &|b| {
        b[20] = 44;
        b.truncate(54);
        b.extend([6, 0, 0, 0, 0, 0, 0]);
        settle(b, true);
    });
    list
}

/// What is wrong in the transport header of what `make` makes.
fn transport(f: Family, make: &dyn Fn(L4) -> Frame) -> Vec<(String, Vec<u8>)> {
    let echo = L4::Icmp(if f.v6 { 128 } else { 8 }, 0);
    let mut list = Vec::new();
    for (name, l4, whole) in [
        ("TCP", L4::Tcp(4000, 8000, SYN), 20),
        ("UDP", L4::Udp(4000, 8000), 8),
        ("ICMP", echo, 8),
    ] {
        for kept in [0, 1, 7, 8, 19] {
            if kept < whole {
                let bytes = shortened(&make(l4), kept);
                list.push((format!("{kept} bytes of {name}"), bytes));
            }
        }
    }
    let frame = make(L4::Tcp(4000, 8000, SYN));
    let mut words = frame.bytes();
    words[transport_at(&frame) + 12] = 0x40;
    list.push(("a TCP header of four words".to_owned(), words));
    list
}

/// A way in, and what becomes of what is malformed there.
struct Way<'a> {
    name: &'a str,
    make: &'a dyn Fn(L4) -> Frame,
    /// The step of a frame.
    step: &'a dyn Fn(&str, Vec<u8>, Verdict) -> Step,
    malformed: Verdict,
    /// What becomes of an honest connection's first segment.
    honest: Verdict,
}

pub(super) fn short(f: Family) -> Vec<Row> {
    let (c, n1, n2) = (f.client(), f.node(1), f.node(2));
    let (t1, t2, t3, t6) = (f.task(1), f.task(2), f.task(3), f.task(6));
    let step = |program, link, tunnel: Option<Tunnel>| {
        move |name: &str, bytes, verdict| Step {
            received: program != Program::HostOut,
            tunnel,
            ..Step::raw(name, program, link, bytes, verdict)
        }
    };
    let dropped = Verdict::Drop(Drop::Malformed);
    let here = peer(1, Done::ToTaskTranslated);
    let ways = [
        Way {
            name: "malformed, from the world",
            make: &|l4| frame(c, n1, l4),
            step: &step(Program::UplinkIn, UPLINK, None),
            // Nobody can say whose it is: the host's stack drops it, and counts it its own way.
            malformed: next(Done::NotOurs),
            honest: here,
        },
        Way {
            name: "malformed, from a task",
            make: &|l4| from_task(3, t3, t6, l4),
            step: &step(Program::TaskIn, link_of(3), None),
            malformed: dropped,
            honest: peer(6, Done::ToTask),
        },
        Way {
            name: "malformed, through the tunnel, for a service",
            make: &|l4| carried(Leg::Mesh, 0, 1, c, n2, l4),
            step: &step(Program::OverlayIn, OVERLAY, Some(to_node(MESH, 2))),
            malformed: dropped,
            honest: here,
        },
        Way {
            name: "malformed, through the tunnel, for a task",
            make: &|l4| carried(Leg::Plain, 2, 1, t2, t1, l4),
            step: &step(Program::OverlayIn, OVERLAY, Some(to_node(MESH, 2))),
            malformed: dropped,
            honest: peer(1, Done::ToTask),
        },
        Way {
            name: "malformed, by this host",
            make: &|l4| frame(n1, t2, l4),
            step: &step(Program::HostOut, OVERLAY, None),
            malformed: dropped,
            honest: Verdict::Encap(to_node(MESH, 2), Done::ToNode),
        },
    ];
    ways.iter()
        .map(|way| {
            let good = (way.make)(L4::Tcp(4000, 8000, SYN));
            let bad = network(&good)
                .into_iter()
                .chain(transport(f, way.make))
                .flat_map(|(name, bytes)| {
                    [
                        (way.step)(&name, bytes, way.malformed),
                        (way.step)("an honest one", good.bytes(), way.honest),
                    ]
                });
            row(way.name, f, town(), bad.collect())
        })
        .collect()
}

/// An error about what went from one end to the other, its quotation cut after `kept` bytes.
fn error(f: Family, outer: Frame, about: &Frame, kept: usize) -> Frame {
    let quoted = &about.bytes()[14..];
    Frame {
        l4: if f.v6 { L4::Icmp(1, 4) } else { L4::Icmp(3, 3) },
        payload: quoted[..kept.min(quoted.len())].to_vec(),
        ..outer
    }
}

/// Errors both ways between nodes, and such that quote too little or what is not theirs.
pub(super) fn errors_between_nodes(f: Family) -> Vec<Row> {
    let (c, n1, n2, t1) = (f.client(), f.node(1), f.node(2), f.task(1));
    let udp = |src, dst| L4::Udp(src, dst);
    let question = carried(Leg::Mesh, 0, 1, c, n2, udp(4000, 8000));
    let seen = frame(c, t1, udp(4000, 80));
    let answer = frame(n2, c, udp(8000, 4000));
    let router = carried(Leg::Mesh, 0, 1, f.host(254), n2, udp(0, 0));
    let of_task = from_task(1, t1, c, udp(0, 0));
    let to_client = carried(Leg::Answer, 2, 0, n1, c, udp(0, 0));
    let far = frame(c, n1, udp(4000, 8001));
    let whole = usize::MAX;
    let header = if f.v6 { 40 } else { 20 };
    let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
    let unsupported = Verdict::Drop(Drop::UnsupportedIcmp);
    let mut steps = vec![
        overlay(
            "a question",
            MESH,
            2,
            &question,
            peer(1, Done::ToTaskTranslated),
        ),
        task("nobody listens", 1, &error(f, of_task, &seen, whole), back),
        overlay(
            "a router refuses the answer",
            MESH,
            2,
            &error(f, router.clone(), &answer, whole),
            peer(1, Done::IcmpTranslated),
        ),
        overlay(
            "quoting as little as is allowed",
            MESH,
            2,
            &error(f, router.clone(), &answer, header + 8),
            peer(1, Done::IcmpTranslated),
        ),
        overlay(
            "a far backend refuses a client of this node",
            MESH,
            2,
            &error(f, to_client, &far, whole),
            Verdict::Neighbour(UPLINK, Done::AnswerToClient),
        ),
    ];
    for kept in [0, 1, header - 1, header, header + 7] {
        steps.push(overlay(
            &format!("quoting {kept} bytes"),
            MESH,
            2,
            &error(f, router.clone(), &answer, kept),
            unsupported,
        ));
        steps.push(uplink(
            &format!("quoting {kept} bytes, from the world"),
            &error(f, frame(f.host(254), n1, udp(0, 0)), &answer, kept),
            next(Done::NotOurs),
        ));
    }
    let astray = carried(Leg::Mesh, 0, 1, f.host(254), n1, udp(0, 0));
    steps.push(overlay(
        "to another than it quotes",
        MESH,
        2,
        &error(f, astray, &answer, whole),
        unsupported,
    ));
    let other = frame(n2, c, udp(8000, 4001));
    steps.push(overlay(
        "about a flow that is none",
        MESH,
        2,
        &error(f, router.clone(), &other, whole),
        unsupported,
    ));
    steps.push(overlay(
        "after all of that",
        MESH,
        2,
        &error(f, router, &answer, whole),
        peer(1, Done::IcmpTranslated),
    ));
    vec![row("ICMP errors between nodes", f, town(), steps)]
}

/// Fragments by every way but the uplink, and in another's name.
pub(super) fn in_pieces(f: Family) -> Vec<Row> {
    let (c, n2, t1, t3, t4, t6) = (
        f.client(),
        f.node(2),
        f.task(1),
        f.task(3),
        f.task(4),
        f.task(6),
    );
    let pieces = |frame: Frame| {
        let payload = vec![7; 64];
        Frame { payload, ..frame }.fragments(32)
    };
    let from = |id, name: &str, bytes: &[u8], verdict| {
        Step::raw(name, Program::TaskIn, link_of(id), bytes.to_vec(), verdict)
    };
    let through = |vni, name: &str, bytes: &[u8], verdict| {
        Step::raw(name, Program::OverlayIn, OVERLAY, bytes.to_vec(), verdict).through(vni, 2)
    };
    let lost = Verdict::Drop(Drop::FragmentLost);
    let spoofed = Verdict::Drop(Drop::SpoofedAddress);
    let here = peer(1, Done::ToTaskTranslated);
    let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
    let [first, later] = pieces(carried(Leg::Mesh, 0, 1, c, n2, L4::Udp(4000, 8000)));
    let [said, said_later] = pieces(from_task(1, t1, c, L4::Udp(80, 4000)));
    let [asked, asked_later] = pieces(from_task(6, t6, f.vip(), L4::Udp(4000, 80)));
    let [near, near_later] = pieces(from_task(3, t3, t6, L4::Udp(4000, 80)));
    let [far, far_later] = pieces(carried(Leg::Plain, 4, 3, t4, t3, L4::Udp(4000, 80)));
    let [forged, forged_later] = pieces(from_task(3, t6, t4, L4::Udp(4000, 80)));
    vec![
        row(
            "fragments through the tunnel",
            f,
            town(),
            vec![
                through(MESH, "later, alone", &later, lost),
                through(MESH, "first", &first, here),
                through(MESH, "later", &later, here),
                from(1, "an answer's first", &said, back),
                from(1, "and later", &said_later, back),
                through(WEB, "by address, first", &far, peer(3, Done::ToTask)),
                through(WEB, "by address, later", &far_later, peer(3, Done::ToTask)),
            ],
        ),
        row(
            "fragments of a task",
            f,
            town(),
            vec![
                from(6, "to a VIP, later, alone", &asked_later, lost),
                from(6, "first", &asked, peer(3, Done::ToTaskTranslated)),
                from(6, "later", &asked_later, peer(3, Done::ToTaskTranslated)),
                from(3, "by address, first", &near, peer(6, Done::ToTask)),
                from(3, "by address, later", &near_later, peer(6, Done::ToTask)),
                from(3, "in another's name", &forged, spoofed),
                from(3, "in another's name, later", &forged_later, spoofed),
            ],
        ),
        row(
            "in another's name",
            f,
            town(),
            vec![
                task(
                    "to a VIP",
                    3,
                    &from_task(3, t6, f.vip(), L4::Tcp(1, 80, SYN)),
                    spoofed,
                ),
                task(
                    "to a host",
                    3,
                    &from_task(3, t6, f.node(1), L4::Udp(1, 8000)),
                    spoofed,
                ),
                task(
                    "to the world",
                    3,
                    &from_task(3, c, f.host(50), L4::Udp(1, 53)),
                    spoofed,
                ),
                task(
                    "as its node",
                    3,
                    &from_task(3, f.node(1), t4, L4::Udp(1, 80)),
                    spoofed,
                ),
                task(
                    "an error",
                    3,
                    &error(
                        f,
                        from_task(3, t6, t4, L4::Udp(0, 0)),
                        &frame(t4, t6, L4::Udp(1, 2)),
                        usize::MAX,
                    ),
                    spoofed,
                ),
                task(
                    "an honest one",
                    3,
                    &from_task(3, t3, t6, L4::Tcp(4000, 80, ACK)),
                    peer(6, Done::ToTask),
                ),
            ],
        ),
    ]
}
