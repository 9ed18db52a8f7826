//! What is not told, not believed and not taken for something else, though it looks much like what is.

use std::net::IpAddr;

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::refused::numbered;
use super::told::told_of;
use super::*;
use crate::rows::frames::{add, fold};

/// Inner size towards node 2 in these rows.
const FITS: u32 = 1300;

/// Makes the length in the network header that of the packet, and its sum follow.
fn settle(bytes: &mut [u8]) {
    let v6 = bytes[14] >> 4 == 6;
    let length = (bytes.len() - if v6 { 54 } else { 14 }) as u16;
    if v6 {
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
        return;
    }
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes[24..26].fill(0);
    let header = usize::from(bytes[14] & 15) * 4;
    let check = !fold(add(&bytes[14..14 + header]));
    bytes[24..26].copy_from_slice(&check.to_be_bytes());
}

/// The frame with `header`, of this kind, between its network header and its transport's; over IPv4, with options.
fn behind(frame: &Frame, kind: u8, header: &[u8]) -> Vec<u8> {
    let mut bytes = frame.bytes();
    if frame.src.is_ipv6() {
        let next = std::mem::replace(&mut bytes[20], kind);
        bytes.splice(54..54, [&[next], &header[1..]].concat());
    } else {
        bytes[14] = 0x46;
        bytes.splice(34..34, [1, 1, 1, 0]);
    }
    settle(&mut bytes);
    bytes
}

/// Destination options that say nothing.
const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

fn with_options(frame: &Frame) -> Vec<u8> {
    behind(frame, 60, &OPTIONS)
}

fn narrow() -> World {
    let mut world = town();
    if let Some(node) = world.nodes.get_mut(&2) {
        (node.mtu, node.mtu_encrypted) = (FITS, FITS);
    }
    world
}

fn filled(frame: Frame, len: u32) -> Frame {
    let transport = if matches!(frame.l4, L4::Tcp(..)) {
        20
    } else {
        8
    };
    let header = if frame.src.is_ipv6() { 40 } else { 20 };
    let payload = vec![7; (len - header - transport) as usize];
    Frame { payload, ..frame }
}

fn at_uplink(name: &str, bytes: Vec<u8>, verdict: Verdict) -> Step {
    Step::raw(name, Program::UplinkIn, UPLINK, bytes, verdict)
}

/// Headers between the network's and the transport's move everything that is written.
pub(super) fn between(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let here = peer(1, Done::ToTaskTranslated);
    let asked = |l4| frame(c, n, l4);
    let got = |l4| delivered(1, c, t1, l4);
    let l3 = if f.v6 { 48 } else { 24 };
    let head = if f.v6 { [2, 0] } else { [3, 4] };
    let told = |about: Frame, kept, sum_at| {
        let bytes = with_options(&about);
        let exact = told_of(&about, &bytes[14..], l3, kept, sum_at, head, FITS);
        let verdict = Verdict::Neighbour(UPLINK, Done::TooBigTold);
        at_uplink("too long", bytes, verdict).exact(exact)
    };
    let mut steps = Vec::new();
    for (proto, from, to) in [
        ("TCP", L4::Tcp(4000, 8000, SYN), L4::Tcp(4000, 80, SYN)),
        ("UDP", L4::Udp(4000, 8000), L4::Udp(4000, 80)),
    ] {
        steps
            .push(at_uplink(proto, with_options(&asked(from)), here).exact(with_options(&got(to))));
    }
    let refused = Verdict::Neighbour(UPLINK, Done::Refused);
    let reset = frame(n, c, L4::Tcp(8002, 4000, RST | ACK));
    let mut answer = numbered(&reset, 0, 2, 0);
    let transport = answer.split_off(if f.v6 { 54 } else { 34 });
    let mut exact = with_options(&reset);
    exact.truncate(14 + l3);
    exact.extend(transport);
    steps.push(
        at_uplink(
            "to nobody",
            with_options(&asked(L4::Tcp(4000, 8002, SYN))),
            refused,
        )
        .exact(exact),
    );
    steps.push(told(filled(asked(L4::Udp(4000, 8001)), 1400), 8, 6));
    steps.push(told(filled(asked(L4::Tcp(4000, 8001, ACK)), 1400), 20, 16));
    if f.v6 {
        // Its length is in words of four, and two less than it has.
        let checked = [0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 1, 1];
        let longer = [&checked[..], &[1; 4]].concat();
        for (name, header) in [
            ("authenticated", [&[0, 3][..], &checked[2..]].concat()),
            ("authenticated at length", longer),
        ] {
            let bytes = behind(&asked(L4::Tcp(4001, 8000, SYN)), 51, &header);
            let exact = behind(&got(L4::Tcp(4001, 80, SYN)), 51, &header);
            steps.push(at_uplink(name, bytes, here).exact(exact));
        }
        // RFC 6946: a whole packet with a fragment header is in one piece, and refused like one.
        let atomic = [0, 0, 0, 0, 0, 0, 0x12, 0x34];
        let bytes = behind(&asked(L4::Tcp(4002, 8002, SYN)), 44, &atomic);
        steps.push(at_uplink("a fragment that is all of it", bytes, refused));
    }
    vec![row("headers between headers", f, narrow(), steps)]
}

/// Errors are for one who can hear them, and about what shows its ports.
pub(super) fn nobody_to_tell(f: Family) -> Vec<Row> {
    let (c, n) = (f.client(), f.node(1));
    let many: IpAddr = if f.v6 { "ff02::9" } else { "224.0.0.9" }
        .parse()
        .unwrap_or(c);
    let none: IpAddr = if f.v6 { "::" } else { "0.0.0.0" }.parse().unwrap_or(c);
    let ask = |src| frame(src, n, L4::Udp(4000, 8002));
    let [first, later] = Frame {
        payload: vec![7; 64],
        ..ask(c)
    }
    .fragments(32);
    let [head, _] = frame(c, n, L4::Tcp(4000, 8002, SYN)).fragments(24);
    let [short, long] = filled(frame(c, n, L4::Udp(4000, 8001)), 2000).fragments(16);
    let l3 = if f.v6 { 48 } else { 20 };
    let unheard = drop(Drop::NoBackend);
    let on = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
    let about = frame(c, n, L4::Udp(0, 0));
    let mut piece = at_uplink("a later piece that is too long", long.clone(), on);
    if f.v6 {
        piece.verdict = Verdict::Neighbour(UPLINK, Done::TooBigTold);
        piece = piece.exact(told_of(&about, &long[14..], l3, 8, 0, [2, 0], FITS));
    }
    let astray = carried(Leg::Mesh, 0, 99, c, many, L4::Udp(4000, 8000));
    vec![row(
        "nobody to tell",
        f,
        narrow(),
        vec![
            uplink("of many", &ask(many), unheard),
            uplink("of nobody", &ask(none), unheard),
            overlay("for many", MESH, 2, &astray, drop(Drop::NoSuchTask)),
            at_uplink(
                "of the first piece",
                first,
                Verdict::Neighbour(UPLINK, Done::Refused),
            ),
            at_uplink("not of the others", later, unheard),
            at_uplink("a connection in pieces is not reset", head, unheard),
            at_uplink("the first of a long one", short, on),
            piece,
        ],
    )]
}

/// An error's frame that quotes a packet.
fn quoting(f: Family, outer: Frame, packet: &[u8]) -> Frame {
    Frame {
        l4: if f.v6 { L4::Icmp(1, 4) } else { L4::Icmp(3, 3) },
        payload: packet.to_vec(),
        ..outer
    }
}

/// Errors that speak of what this node, or this asker, did not send.
pub(super) fn not_about_us(f: Family) -> Vec<Row> {
    let (c, n1, n2, router) = (f.client(), f.node(1), f.node(2), f.host(254));
    let (t4, t6, v) = (f.task(4), f.task(6), f.vip());
    let none = L4::Udp(0, 0);
    let of_world = |name, dst, about: Frame| {
        let error = quoting(f, frame(router, dst, none), &about.bytes()[14..]);
        uplink(name, &error, next(Done::NotOurs))
    };
    let unsupported = drop(Drop::UnsupportedIcmp);
    let of_asker = |name, packet: &[u8], verdict| {
        let error = quoting(f, from_task(6, t6, v, none), &packet[14..]);
        task(name, 6, &error, verdict)
    };
    let mut far = town();
    far.rings.insert(5, vec![4]);
    let on = Verdict::Tunnel(to_node(WEB, 2), Done::ToBackendNode);
    let said = |src, dst| {
        Frame {
            payload: vec![7; 64],
            ..frame(src, dst, L4::Udp(80, 4000))
        }
        .fragments(32)
    };
    let [first, later] = said(v, t6);
    let [of_other, _] = said(t4, t6);
    vec![
        row(
            "an error about nothing of this node's",
            f,
            town(),
            vec![
                of_world(
                    "of a backend here, and of no flow",
                    n1,
                    frame(n1, c, L4::Udp(8000, 4000)),
                ),
                of_world(
                    "to another node, which this one only forwards",
                    n2,
                    frame(n2, c, L4::Udp(8001, 4000)),
                ),
            ],
        ),
        row(
            "an asker's error about nothing that it got",
            f,
            far,
            vec![
                of_asker("of its answer", &first, on),
                of_asker("of a piece without ports", &later, unsupported),
                of_asker("of another's answer", &of_other, unsupported),
            ],
        ),
        row(
            "an asker's error about a flow that is none",
            f,
            town(),
            vec![of_asker("of a backend here", &first, unsupported)],
        ),
    ]
}

/// An address of a node is not yet one that it tunnels from.
pub(super) fn other_addresses(f: Family) -> Vec<Row> {
    let second = Family { v6: false }.host(22);
    let mut world = town();
    for addr in [second, f.host(22)] {
        let known = NodeAddr {
            node: 2,
            flags: node_addr::HOST,
        };
        world.node_by_addr.insert(addr.into(), known);
    }
    let plain = carried(
        Leg::Plain,
        4,
        3,
        f.task(4),
        f.task(3),
        L4::Tcp(4000, 80, SYN),
    );
    let mut through = overlay("through the tunnel", WEB, 2, &plain, drop(Drop::NotANode));
    through.tunnel = Some(Tunnel {
        vni: WEB,
        remote: second.into(),
    });
    vec![row(
        "a node's other address",
        f,
        world,
        vec![
            through,
            uplink(
                "to the tunnel's port",
                &frame(f.host(22), f.node(1), L4::Udp(5555, 4789)),
                drop(Drop::NotANode),
            ),
        ],
    )]
}

/// What is measured against which size.
pub(super) fn measured(f: Family) -> Vec<Row> {
    let (c, n, t3, t4) = (f.client(), f.node(1), f.task(3), f.task(4));
    let on = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
    let told = Verdict::Neighbour(UPLINK, Done::TooBigTold);
    let header = if f.v6 { 40 } else { 20 };
    // Timestamps, as nearly every segment has them.
    let mut stamped = filled(frame(c, n, L4::Tcp(4000, 8001, ACK)), 3000).bytes();
    let at = 14 + header as usize;
    stamped[at + 12] = 0x80;
    stamped.splice(at + 20..at + 20, [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    settle(&mut stamped);
    let datagrams = filled(frame(c, n, L4::Udp(4000, 8001)), 3000).bytes();
    let large = |name: &str, bytes: &[u8], segment, verdict| Step {
        segment,
        ..at_uplink(name, bytes.to_vec(), verdict)
    };
    let tcp = FITS - header - 32;
    let udp = FITS - header - 8;
    let whole = filled(frame(c, n, L4::Udp(4000, 8001)), 1400);
    let mut ciphered = narrow();
    ciphered.ciphered.push(WEB);
    if let Some(config) = &mut ciphered.config {
        config.flags |= config::CIPHERED;
    }
    let inside: Addr = Family { v6: false }.host(222).into();
    if let Some(node) = ciphered.nodes.get_mut(&2) {
        (node.mtu, node.encrypted) = (1500, inside);
    }
    let east = |len| filled(from_task(3, t3, t4, L4::Udp(4000, 80)), len);
    let sealed = Tunnel {
        vni: WEB,
        remote: inside,
    };
    vec![
        row(
            "large segments and their headers",
            f,
            narrow(),
            vec![
                large("with options, that fit", &stamped, tcp, on),
                large("a byte more", &stamped, tcp + 1, told),
                large("datagrams that fit", &datagrams, udp, on),
                large("a byte more", &datagrams, udp + 1, told),
            ],
        ),
        row(
            "long, and nobody measured",
            f,
            town(),
            vec![uplink("goes on", &whole, on)],
        ),
        row(
            "long for the encrypted way alone",
            f,
            ciphered,
            vec![
                task(
                    "just right",
                    3,
                    &east(FITS),
                    Verdict::Tunnel(sealed, Done::ToNode),
                ),
                task(
                    "a byte more",
                    3,
                    &east(FITS + 1),
                    Verdict::Out(link_of(3), Done::TooBigTold),
                ),
            ],
        ),
    ]
}
