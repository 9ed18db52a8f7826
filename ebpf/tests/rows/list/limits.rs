//! Where there is no more room, no way on, and nobody to tell; after each, an honest packet goes its way.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

/// Tries of the programs to find a client port that is free, the client's own among them.
const TRIES: u32 = 8;
/// Inner size towards node 2 in these rows.
const FITS: u32 = 1300;

/// Within this node, on a user network: what every row ends with.
fn honest(f: Family) -> Step {
    task(
        "an honest one",
        3,
        &from_task(3, f.task(3), f.task(6), L4::Tcp(4000, 80, ACK)),
        peer(6, Done::ToTask),
    )
}

/// An answer of task 1 to `client` that is somebody else's.
fn taken(f: Family, port: u16) -> (FlowKey, Flow) {
    let c: Addr = f.client().into();
    let key = FlowKey {
        src: f.task(1).into(),
        dst: c,
        net: MESH,
        sport: Be16::new(80),
        dport: Be16::new(port),
        proto: 6,
        side: flow::REPLY,
        pad: [0; 2],
    };
    let theirs = Flow {
        client: c,
        service: f.host(21).into(),
        last: u64::MAX,
        tcp: tcp::DATA,
        proto: 6,
        cport: Be16::new(port),
        ..Flow::default()
    };
    (key, theirs)
}

/// Every port under which a second connection could reach the task is somebody's.
pub(super) fn no_free_port(f: Family) -> Vec<Row> {
    let (c, first, second) = (f.client(), f.node(2), f.node(1));
    let world = town();
    let ports = (1..TRIES).map(|attempt| {
        let (from, to) = (Be16::new(4000), Be16::new(8000));
        let hash = ring_hash(0, &c.into(), from, &second.into(), to, 6, attempt);
        1024 + (hash % 64_512) as u16
    });
    world
        .flow
        .borrow_mut()
        .extend(ports.map(|port| taken(f, port)));
    let ask = |at, port, flags| carried(Leg::Mesh, 0, 1, c, at, L4::Tcp(port, 8000, flags));
    let here = peer(1, Done::ToTaskTranslated);
    vec![row(
        "no free client port",
        f,
        world,
        vec![
            overlay("the first", MESH, 2, &ask(first, 4000, SYN), here),
            overlay(
                "the second",
                MESH,
                2,
                &ask(second, 4000, SYN),
                drop(Drop::NoFreePort),
            ),
            overlay("the first goes on", MESH, 2, &ask(first, 4000, ACK), here),
            overlay(
                "another port of the second",
                MESH,
                2,
                &ask(second, 4001, SYN),
                here,
            ),
            honest(f),
        ],
    )]
}

/// A node that does not know its own way to the world.
pub(super) fn no_uplink(f: Family) -> Vec<Row> {
    let (c, n1, t1) = (f.client(), f.node(1), f.task(1));
    let mut world = town();
    if let Some(config) = &mut world.config {
        config.uplink = 0;
    }
    world.owners.insert(n1.into(), 1);
    let answer = carried(Leg::Answer, 2, 0, n1, c, L4::Tcp(8001, 4000, SYN_ACK));
    vec![row(
        "no interface towards the client",
        f,
        world,
        vec![
            overlay(
                "an answer to a client that nobody remembers",
                MESH,
                2,
                &answer,
                drop(Drop::NoUplink),
            ),
            uplink(
                "the client's SYN",
                &frame(c, n1, L4::Tcp(4000, 8001, SYN)),
                Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
            ),
            overlay(
                "SYN through node 3, which is dead",
                MESH,
                3,
                &carried(Leg::Mesh, 0, 1, c, n1, L4::Tcp(4000, 8000, SYN)),
                peer(1, Done::ToTaskTranslated),
            ),
            task(
                "its answer, which this node inherits",
                1,
                &from_task(1, t1, c, L4::Tcp(80, 4000, SYN_ACK)),
                drop(Drop::NoUplink),
            ),
            honest(f),
        ],
    )]
}

fn filled(frame: Frame, len: usize) -> Frame {
    Frame {
        payload: vec![7; len],
        ..frame
    }
}

/// Too long, and no error about it: not about an error, and not when enough were told.
pub(super) fn untold(f: Family) -> Vec<Row> {
    let (c, n, t3, t4) = (f.client(), f.node(1), f.task(3), f.task(4));
    let mut world = town();
    if let Some(node) = world.nodes.get_mut(&2) {
        node.mtu = FITS;
    }
    let error = if f.v6 { L4::Icmp(1, 4) } else { L4::Icmp(3, 3) };
    let told = Verdict::Out(link_of(3), Done::TooBigTold);
    let long = filled(from_task(3, t3, t4, L4::Udp(4000, 80)), FITS as usize);
    let asked = filled(frame(c, n, L4::Udp(4000, 8001)), FITS as usize);
    let fits = frame(c, n, L4::Udp(4000, 8001));
    let on = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
    let enough = world.clone();
    *enough.told.borrow_mut() = u64::MAX / 2;
    vec![
        row(
            "too long an error",
            f,
            world,
            vec![
                task(
                    "is not answered by one",
                    3,
                    &filled(from_task(3, t3, t4, error), FITS as usize),
                    drop(Drop::TooBig),
                ),
                task("a datagram is", 3, &long, told),
                honest(f),
            ],
        ),
        row(
            "too long when enough were told",
            f,
            enough,
            vec![
                task("from a task", 3, &long, drop(Drop::TooBig)),
                honest(f),
                uplink("from the world", &asked, drop(Drop::TooBig)),
                uplink("what fits", &fits, on),
            ],
        ),
    ]
}

/// A table of new flows that refuses where the true one forgets its oldest: room for one connection, or for
/// one and a half.
pub(super) fn full(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let ask = |port, flags| frame(c, n, L4::Tcp(port, 8000, flags));
    let said = |flags| from_task(1, t1, c, L4::Tcp(80, 4000, flags));
    let here = peer(1, Done::ToTaskTranslated);
    let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    [2, 3]
        .map(|room| {
            let world = World {
                room: Some(room),
                ..town()
            };
            let steps = vec![
                uplink("the first", &ask(4000, SYN), here),
                uplink("the second", &ask(4001, SYN), drop(Drop::FlowTableFull)),
                uplink("and again", &ask(4001, SYN), drop(Drop::FlowTableFull)),
                honest(f),
                task("SYN+ACK of the first", 1, &said(SYN_ACK), to_client),
                uplink("its ACK", &ask(4000, ACK), here),
                task("its data, which makes room", 1, &said(ACK), to_client),
                uplink("the second once more", &ask(4001, SYN), here),
                uplink("the first goes on", &ask(4000, ACK), here),
            ];
            row(
                &format!("room for {room} new flow entries"),
                f,
                world,
                steps,
            )
        })
        .into()
}
