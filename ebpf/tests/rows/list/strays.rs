//! What comes through the tunnel by another leg than it should, late, in pieces, or when its way is forgotten.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

/// Each leg carries its own kind of packet.
pub(super) fn legs(f: Family) -> Vec<Row> {
    let (c, n1, n2) = (f.client(), f.node(1), f.node(2));
    let (t3, t4, t6) = (f.task(3), f.task(4), f.task(6));
    let l4 = L4::Tcp(80, 4000, ACK);
    let forged = drop(Drop::ForgedSource);
    let inner = f.host(23);
    let mut world = town();
    world.node_by_addr.insert(
        inner.into(),
        NodeAddr {
            node: 2,
            flags: node_addr::CIPHERED,
        },
    );
    let step = |name, net, frame: &_, verdict| overlay(name, net, 2, frame, verdict);
    let echo = L4::Icmp(if f.v6 { 129 } else { 0 }, 0);
    vec![row(
        "a leg that is another's",
        f,
        world,
        vec![
            step(
                "an answer that is no VIP's",
                WEB,
                &carried(Leg::Answer, 4, 6, t4, t6, l4),
                forged,
            ),
            step(
                "a host's packet from an address inside the encrypted underlay",
                WEB,
                &carried(Leg::Host, 0, 3, inner, t3, l4),
                forged,
            ),
            step(
                "a VIP's packet for a task of another network",
                WEB,
                &carried(Leg::Vip, 0, 1, t4, f.vip(), L4::Udp(4000, 80)),
                drop(Drop::WrongNetwork),
            ),
            step(
                "a datagram with a second choice takes the first",
                MESH,
                &carried(Leg::Mesh, 2, 1, c, n1, L4::Udp(4000, 8000)),
                peer(1, Done::ToTaskTranslated),
            ),
            step(
                "a segment whose second choice is on a dead node takes the first",
                MESH,
                &carried(Leg::Mesh, 7, 1, c, n1, L4::Tcp(4001, 8000, ACK)),
                peer(1, Done::ToTaskTranslated),
            ),
            step(
                "a probe on a user network",
                WEB,
                &carried(Leg::Host, 0, 0, n2, n1, l4),
                forged,
            ),
            step(
                "a task's to a host that is elsewhere",
                WEB,
                &carried(Leg::Host, 4, 0, t4, n2, l4),
                drop(Drop::NoSuchTask),
            ),
            step(
                "an answer that is neither of a port nor an error",
                MESH,
                &carried(Leg::Answer, 2, 0, n1, c, echo),
                drop(Drop::NotPublished),
            ),
        ],
    )]
}

/// Answers and refusals whose way nobody remembers, or that come in pieces.
pub(super) fn ways_back(f: Family) -> Vec<Row> {
    let (c, n1, n2, t1, t3) = (f.client(), f.node(1), f.node(2), f.task(1), f.task(3));
    let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    let mut inherited = town();
    inherited.owners.insert(n1.into(), 1);
    let mut other = town();
    if let Some(config) = &mut other.config {
        config.uplink = OVERLAY + 1;
    }
    let answered = L4::Tcp(8001, 4000, SYN_ACK);
    let [first, later] = Frame {
        payload: vec![7; 64],
        ..carried(Leg::Answer, 2, 0, n1, c, L4::Udp(8001, 4000))
    }
    .fragments(32);
    let piece = |name: &str, bytes: &[u8], verdict| {
        Step::raw(name, Program::OverlayIn, OVERLAY, bytes.to_vec(), verdict).through(MESH, 2)
    };
    let unknown = f.on(WEB, 99);
    let again = |to, flags| carried(Leg::MeshAgain, 2, to, c, n2, L4::Tcp(4000, 8000, flags));
    vec![
        row(
            "answers in pieces",
            f,
            town(),
            vec![
                piece("later, alone", &later, drop(Drop::FragmentLost)),
                piece("first", &first, to_client),
                piece("later", &later, to_client),
            ],
        ),
        row(
            "an answer to a task's question that nobody remembers",
            f,
            town(),
            vec![overlay(
                "finds the task",
                MESH,
                2,
                &carried(Leg::Answer, 2, 0, n2, t3, L4::Tcp(8001, 4001, SYN_ACK)),
                peer(3, Done::AnswerToTask),
            )],
        ),
        row(
            "answers leave where their client came in",
            f,
            other,
            vec![
                uplink(
                    "SYN for a far task",
                    &frame(c, n1, L4::Tcp(4000, 8001, SYN)),
                    Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
                ),
                overlay(
                    "its answer",
                    MESH,
                    2,
                    &carried(Leg::Answer, 2, 0, n1, c, answered),
                    to_client,
                ),
                overlay(
                    "and the next",
                    MESH,
                    2,
                    &carried(Leg::Answer, 2, 0, n1, c, answered),
                    to_client,
                ),
                uplink(
                    "SYN for a near task",
                    &frame(c, n1, L4::Tcp(4000, 8000, SYN)),
                    peer(1, Done::ToTaskTranslated),
                ),
                task(
                    "its answer",
                    1,
                    &from_task(1, t1, c, L4::Tcp(80, 4000, SYN_ACK)),
                    to_client,
                ),
            ],
        ),
        row(
            "a dead ingress node whose address is here now",
            f,
            inherited,
            vec![
                overlay(
                    "SYN through node 3",
                    MESH,
                    3,
                    &carried(Leg::Mesh, 0, 1, c, n1, L4::Tcp(4000, 8000, SYN)),
                    peer(1, Done::ToTaskTranslated),
                ),
                task(
                    "its answer leaves here",
                    1,
                    &from_task(1, t1, c, L4::Tcp(80, 4000, SYN_ACK)),
                    to_client,
                ),
            ],
        ),
        row(
            "refused after a second chance",
            f,
            town(),
            vec![
                overlay(
                    "by the way that its client came",
                    MESH,
                    3,
                    &again(99, ACK),
                    Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
                )
                .out(carried(Leg::Answer, 0, 0, n2, c, L4::Tcp(8000, 4000, RST))),
            ],
        ),
        row(
            "an asker that is gone",
            f,
            town(),
            vec![
                overlay(
                    "its question",
                    WEB,
                    2,
                    &carried(Leg::Vip, 0, 3, unknown, f.vip(), L4::Udp(4000, 80)),
                    peer(3, Done::ToTaskTranslated),
                ),
                task(
                    "the answer",
                    3,
                    &from_task(3, t3, unknown, L4::Udp(80, 4000)),
                    drop(Drop::NoSuchTask),
                ),
            ],
        ),
    ]
}

/// A task without an address of a family has none to send from.
pub(super) fn no_address(f: Family) -> Vec<Row> {
    let mut world = town();
    if let Some(three) = world.endpoints.get_mut(&link_of(3)) {
        (three.addr4, three.addr6) = (Addr::ANY, Addr::ANY);
    }
    let none = if f.v6 { [0; 16].into() } else { f.task(3) };
    vec![row(
        "a task without an address of this family",
        f,
        world,
        vec![task(
            "sends none the less",
            3,
            &from_task(3, none, f.node(1), L4::Udp(4000, 8000)),
            drop(Drop::SpoofedAddress),
        )],
    )]
}

/// What this host sends into the tunnel without meaning it, and what comes out of it as if this host had.
pub(super) fn of_this_host(f: Family) -> Vec<Row> {
    let (n1, n2, t2, t3) = (f.node(1), f.node(2), f.task(2), f.task(3));
    let many = if f.v6 { "ff02::fb" } else { "224.0.0.251" };
    let many = many.parse().unwrap_or(n1);
    let syn = L4::Tcp(4000, 80, SYN);
    let out = |name: &str, bytes, verdict| Step {
        received: false,
        ..Step::raw(name, Program::HostOut, OVERLAY, bytes, verdict)
    };
    let [_, over] = frame(n1, t2, syn).fragments(16);
    let probe = |to| frame(n1, to, L4::Udp(4000, 9)).bytes();
    let mut unmeshed = town();
    if let Some(config) = &mut unmeshed.config {
        config.mesh = 0;
    }
    let half = Frame {
        dst_mac: GATEWAY_MAC,
        ..carried(Leg::Plain, 4, 3, f.task(4), t3, syn)
    };
    let none = drop(Drop::NoSuchTask);
    vec![
        row(
            "this host, astray",
            f,
            town(),
            vec![
                out(
                    "to many",
                    frame(n1, many, L4::Udp(5353, 5353)).bytes(),
                    drop(Drop::Multicast),
                ),
                out("what would overwrite", over, drop(Drop::TinyFragment)),
                out("to itself", probe(n1), none),
                Step::new(
                    "half of an answer, through no tunnel",
                    Program::OverlayIn,
                    OVERLAY,
                    &half,
                    drop(Drop::NotANode),
                ),
            ],
        ),
        row(
            "a probe before there is an ingress network",
            f,
            unmeshed,
            vec![out("goes nowhere", probe(n2), none)],
        ),
    ]
}

/// What a task asks of hosts, and hears.
pub(super) fn of_tasks(f: Family) -> Vec<Row> {
    let (c, n1, n2, t3, t5, t6) = (
        f.client(),
        f.node(1),
        f.node(2),
        f.task(3),
        f.task(5),
        f.task(6),
    );
    let mut narrow = town();
    narrow.rings.insert(5, vec![4]);
    if let Some(node) = narrow.nodes.get_mut(&2) {
        node.mtu = 1300;
    }
    let long = |id, src, dst, port| Frame {
        payload: vec![7; 1400],
        ..from_task(id, src, dst, L4::Udp(4000, port))
    };
    let told = |id| Verdict::Out(link_of(id), Done::TooBigTold);
    let [tiny, _] = frame(c, f.host(77), L4::Tcp(4000, 8000, SYN)).fragments(8);
    let syn = L4::Tcp(4000, 8000, SYN);
    vec![
        row(
            "an internal network's task",
            f,
            town(),
            vec![
                task(
                    "gets no service of its host",
                    5,
                    &from_task(5, t5, n1, syn),
                    next(Done::ToHost),
                ),
                task(
                    "nor of another",
                    5,
                    &from_task(5, t5, n2, syn),
                    drop(Drop::Internal),
                ),
            ],
        ),
        row(
            "too long a question of a task",
            f,
            narrow,
            vec![
                task("to a port", 3, &long(3, t3, n1, 8001), told(3)),
                task("to a VIP", 6, &long(6, t6, f.vip(), 80), told(6)),
            ],
        ),
        row(
            "a tiny fragment",
            f,
            town(),
            vec![Step::raw(
                "for a host behind this one",
                Program::UplinkIn,
                UPLINK,
                tiny.to_vec(),
                next(Done::NotOurs),
            )],
        ),
    ]
}
