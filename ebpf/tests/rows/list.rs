//! The rows themselves.

use std::net::IpAddr;

use weft_abi::*;
use weft_ebpf::packet::Tunnel;
use weft_ebpf::parse::tcp_flag::{ACK, FIN, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::frames::{Frame, L4};
use super::town::*;
use super::world::World;
use super::{Row, Step};

const SYN_ACK: u8 = SYN | ACK;

impl Step {
    fn new(name: &str, program: Program, link: u32, frame: &Frame, verdict: Verdict) -> Self {
        Self::raw(name, program, link, frame.bytes(), verdict)
    }
    fn raw(name: &str, program: Program, link: u32, bytes: Vec<u8>, verdict: Verdict) -> Self {
        Self {
            name: name.to_owned(),
            program,
            link,
            for_host: true,
            received: true,
            tunnel: None,
            bytes,
            verdict,
            out: None,
            exact: None,
        }
    }
    fn out(mut self, frame: Frame) -> Self {
        self.out = Some(frame);
        self
    }
    fn exact(mut self, bytes: Vec<u8>) -> Self {
        self.exact = Some(bytes);
        self
    }
    fn through(mut self, vni: u32, node: u32) -> Self {
        self.tunnel = Some(to_node(vni, node));
        self
    }
}

fn uplink(name: &str, frame: &Frame, verdict: Verdict) -> Step {
    Step::new(name, Program::UplinkIn, UPLINK, frame, verdict)
}

fn task(name: &str, id: u32, frame: &Frame, verdict: Verdict) -> Step {
    Step::new(name, Program::TaskIn, link_of(id), frame, verdict)
}

fn overlay(name: &str, vni: u32, node: u32, frame: &Frame, verdict: Verdict) -> Step {
    Step::new(name, Program::OverlayIn, OVERLAY, frame, verdict).through(vni, node)
}

fn to_node(vni: u32, node: u32) -> Tunnel {
    Tunnel {
        vni,
        remote: Family { v6: false }.node(node).into(),
    }
}

fn row(name: &str, f: Family, world: World, steps: Vec<Step>) -> Row {
    Row {
        name: format!("{name}, {}", if f.v6 { "IPv6" } else { "IPv4" }),
        world,
        steps,
    }
}

/// The frame as a local task gets it.
fn delivered(id: u32, src: IpAddr, dst: IpAddr, l4: L4) -> Frame {
    Frame {
        dst_mac: task_mac(id),
        src_mac: GATEWAY_MAC,
        ..frame(src, dst, l4)
    }
}

fn peer(id: u32, done: Done) -> Verdict {
    Verdict::Peer(link_of(id), done)
}

fn next(done: Done) -> Verdict {
    Verdict::Next(done)
}

/// Every row, for both families.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for f in [Family { v6: false }, Family { v6: true }] {
        rows.extend(north_south(f));
        rows.extend(uplink_refusals(f));
        rows.extend(east_west(f));
        rows.extend(by_vip(f));
        rows.extend(arriving(f));
        rows.extend(answers_arriving(f));
        rows.extend(from_host(f));
        rows.extend(errors(f));
        rows.extend(neighbours(f));
    }
    rows
}

fn north_south(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let syn = frame(c, n, L4::Tcp(4000, 8000, SYN));
    let data = frame(c, n, L4::Tcp(4000, 8000, ACK));
    let deliver = |flags| delivered(1, c, t1, L4::Tcp(4000, 80, flags));
    let reply = |flags| from_task(1, t1, c, L4::Tcp(80, 4000, flags));
    let answer = |flags| from_task(1, n, c, L4::Tcp(8000, 4000, flags));
    let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    let mut dead = town();
    dead.owners.insert(n.into(), 2);
    let ingress3 = |name: &str| {
        overlay(
            name,
            MESH,
            3,
            &carried(Leg::Mesh, 0, 1, c, n, L4::Tcp(4000, 8000, SYN)),
            peer(1, Done::ToTaskTranslated),
        )
        .out(deliver(SYN))
    };
    let ask = |port| frame(c, n, L4::Udp(4000, port));
    let fragments = frame(c, n, L4::Udp(4000, 8000)).fragments(16);
    vec![
        row(
            "local backend, and its answers",
            f,
            town(),
            vec![
                uplink("SYN", &syn, peer(1, Done::ToTaskTranslated)).out(deliver(SYN)),
                task("SYN+ACK", 1, &reply(SYN_ACK), to_client).out(answer(SYN_ACK)),
                uplink("data", &data, peer(1, Done::ToTaskTranslated)).out(deliver(ACK)),
                task("the task's own segment", 1, &reply(ACK), to_client).out(answer(ACK)),
                uplink(
                    "FIN",
                    &frame(c, n, L4::Tcp(4000, 8000, FIN | ACK)),
                    peer(1, Done::ToTaskTranslated),
                ),
            ],
        ),
        row(
            "local backend, datagrams",
            f,
            town(),
            vec![
                uplink("question", &ask(8000), peer(1, Done::ToTaskTranslated)).out(delivered(
                    1,
                    c,
                    t1,
                    L4::Udp(4000, 80),
                )),
                task(
                    "answer",
                    1,
                    &from_task(1, t1, c, L4::Udp(80, 4000)),
                    to_client,
                )
                .out(from_task(1, n, c, L4::Udp(8000, 4000))),
                task(
                    "second answer",
                    1,
                    &from_task(1, t1, c, L4::Udp(80, 4000)),
                    to_client,
                ),
                task(
                    "third answer",
                    1,
                    &from_task(1, t1, c, L4::Udp(80, 4000)),
                    to_client,
                ),
            ],
        ),
        row(
            "remote backend: the packet itself is not touched",
            f,
            town(),
            vec![
                uplink(
                    "SYN",
                    &frame(c, n, L4::Tcp(4000, 8001, SYN)),
                    Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
                )
                .out(carried(Leg::Mesh, 0, 2, c, n, L4::Tcp(4000, 8001, SYN))),
                uplink(
                    "datagram",
                    &ask(8001),
                    Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
                )
                .out(carried(Leg::Mesh, 0, 2, c, n, L4::Udp(4000, 8001))),
            ],
        ),
        row(
            "no backend",
            f,
            town(),
            vec![
                uplink(
                    "empty service",
                    &frame(c, n, L4::Tcp(4000, 8002, SYN)),
                    Verdict::Neighbour(UPLINK, Done::Refused),
                )
                .out(frame(n, c, L4::Tcp(8002, 4000, RST | ACK))),
                uplink(
                    "only on a dead node",
                    &frame(c, n, L4::Tcp(4000, 8003, ACK)),
                    Verdict::Neighbour(UPLINK, Done::Refused),
                )
                .out(frame(n, c, L4::Tcp(8003, 4000, RST))),
                uplink(
                    "a reset is not answered",
                    &frame(c, n, L4::Tcp(4000, 8002, RST)),
                    Verdict::Drop(Drop::NoBackend),
                ),
                uplink("a datagram", &ask(8002), Verdict::Drop(Drop::NoBackend)),
                task(
                    "from a task",
                    3,
                    &from_task(3, f.task(3), n, L4::Tcp(4000, 8002, SYN)),
                    peer(3, Done::Refused),
                )
                .out(delivered(3, n, f.task(3), L4::Tcp(8002, 4000, RST | ACK))),
                overlay(
                    "for a task that is gone",
                    MESH,
                    2,
                    &carried(Leg::Mesh, 0, 99, c, f.node(2), L4::Tcp(4000, 8000, ACK)),
                    Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
                )
                .out(carried(
                    Leg::Answer,
                    0,
                    0,
                    f.node(2),
                    c,
                    L4::Tcp(8000, 4000, RST),
                )),
                overlay(
                    "for a VIP's task that is gone",
                    WEB,
                    2,
                    &carried(Leg::Vip, 0, 99, f.task(4), f.vip(), L4::Tcp(4000, 80, SYN)),
                    Verdict::Tunnel(to_node(WEB, 2), Done::AnswerToNode),
                )
                .out(carried(
                    Leg::Answer,
                    0,
                    4,
                    f.vip(),
                    f.task(4),
                    L4::Tcp(80, 4000, RST | ACK),
                )),
            ],
        ),
        row(
            "a dead ingress node's flows go to the heir of its address",
            f,
            dead,
            vec![
                ingress3("SYN through node 3"),
                task(
                    "SYN+ACK",
                    1,
                    &reply(SYN_ACK),
                    Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
                )
                .out(carried(
                    Leg::Answer,
                    1,
                    0,
                    n,
                    c,
                    L4::Tcp(8000, 4000, SYN_ACK),
                )),
            ],
        ),
        row(
            "a dead ingress node without heir",
            f,
            town(),
            vec![
                ingress3("SYN through node 3"),
                task(
                    "SYN+ACK",
                    1,
                    &reply(SYN_ACK),
                    Verdict::Drop(Drop::DeadIngress),
                ),
            ],
        ),
        row(
            "answers follow a client that comes in elsewhere",
            f,
            town(),
            vec![
                uplink("SYN here", &syn, peer(1, Done::ToTaskTranslated)),
                overlay(
                    "data through node 2",
                    MESH,
                    2,
                    &carried(Leg::Mesh, 0, 1, c, n, L4::Tcp(4000, 8000, ACK)),
                    peer(1, Done::ToTaskTranslated),
                ),
                task(
                    "answer",
                    1,
                    &reply(ACK),
                    Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
                ),
                uplink("data here again", &data, peer(1, Done::ToTaskTranslated)),
                task("answer", 1, &reply(ACK), to_client).out(answer(ACK)),
            ],
        ),
        row(
            "fragments follow the first",
            f,
            town(),
            vec![
                Step::raw(
                    "first",
                    Program::UplinkIn,
                    UPLINK,
                    fragments[0].clone(),
                    peer(1, Done::ToTaskTranslated),
                ),
                Step::raw(
                    "second",
                    Program::UplinkIn,
                    UPLINK,
                    fragments[1].clone(),
                    peer(1, Done::ToTaskTranslated),
                ),
            ],
        ),
        row(
            "a fragment without its first is the stack's",
            f,
            town(),
            vec![Step::raw(
                "second alone",
                Program::UplinkIn,
                UPLINK,
                fragments[1].clone(),
                next(Done::NotOurs),
            )],
        ),
    ]
}

fn uplink_refusals(f: Family) -> Vec<Row> {
    let (c, n) = (f.client(), f.node(1));
    let mut cut = frame(c, n, L4::Tcp(4000, 8000, SYN)).bytes();
    cut.truncate(cut.len() - 25);
    let mut flooded = uplink(
        "flooded",
        &frame(c, n, L4::Tcp(4000, 8000, SYN)),
        next(Done::NotOurs),
    );
    flooded.for_host = false;
    flooded.bytes[0] = 2;
    vec![
        row(
            "what is not ours",
            f,
            town(),
            vec![
                uplink(
                    "other port",
                    &frame(c, n, L4::Tcp(4000, 22, SYN)),
                    next(Done::NotOurs),
                ),
                uplink(
                    "other address",
                    &frame(c, f.host(77), L4::Tcp(4000, 8000, SYN)),
                    next(Done::NotOurs),
                ),
                uplink(
                    "echo",
                    &frame(c, n, L4::Icmp(if f.v6 { 128 } else { 8 }, 0)),
                    next(Done::NotOurs),
                ),
                Step::raw(
                    "cut short",
                    Program::UplinkIn,
                    UPLINK,
                    cut,
                    next(Done::NotOurs),
                ),
                flooded,
            ],
        ),
        row(
            "forged",
            f,
            town(),
            vec![
                uplink(
                    "from inside an overlay",
                    &frame(f.task(2), n, L4::Tcp(4000, 8000, SYN)),
                    Verdict::Drop(Drop::OverlaySource),
                ),
                uplink(
                    "to inside an overlay",
                    &frame(c, f.task(1), L4::Tcp(4000, 80, SYN)),
                    Verdict::Drop(Drop::OverlayDestination),
                ),
                uplink(
                    "tunnelled by no node",
                    &frame(c, n, L4::Udp(5555, 4789)),
                    Verdict::Drop(Drop::NotANode),
                ),
            ],
        ),
        row(
            "tunnelled by a node",
            f,
            town(),
            if f.v6 {
                vec![]
            } else {
                vec![uplink(
                    "VXLAN",
                    &frame(f.node(2), n, L4::Udp(5555, 4789)),
                    next(Done::NotOurs),
                )]
            },
        ),
        row(
            "nothing is ours before the node is configured",
            f,
            World {
                config: None,
                ..town()
            },
            vec![
                uplink(
                    "SYN",
                    &frame(c, n, L4::Tcp(4000, 8000, SYN)),
                    next(Done::NotOurs),
                ),
                task(
                    "task",
                    1,
                    &from_task(1, f.task(1), f.task(2), L4::Tcp(4000, 80, SYN)),
                    Verdict::Drop(Drop::NoConfig),
                ),
            ],
        ),
    ]
}

fn east_west(f: Family) -> Vec<Row> {
    let syn = L4::Tcp(4000, 80, SYN);
    let (t3, t4, t6) = (f.task(3), f.task(4), f.task(6));
    let world = f.host(200);
    let mut mac = from_task(3, t3, t6, syn);
    mac.src_mac = task_mac(6);
    let multicast: IpAddr = if f.v6 { "ff02::fb" } else { "224.0.0.251" }
        .parse()
        .unwrap_or(world);
    vec![
        row(
            "task to task",
            f,
            town(),
            vec![
                task("near", 3, &from_task(3, t3, t6, syn), peer(6, Done::ToTask))
                    .out(delivered(6, t3, t6, syn)),
                task(
                    "far",
                    3,
                    &from_task(3, t3, t4, syn),
                    Verdict::Tunnel(to_node(WEB, 2), Done::ToNode),
                )
                .out(carried(Leg::Plain, 3, 4, t3, t4, syn)),
            ],
        ),
        row(
            "task to elsewhere",
            f,
            town(),
            vec![
                task(
                    "nobody at this address",
                    3,
                    &from_task(3, t3, f.on(WEB, 99), syn),
                    Verdict::Drop(Drop::NoSuchTask),
                ),
                task(
                    "another network",
                    3,
                    &from_task(3, t3, f.task(1), syn),
                    Verdict::Drop(Drop::Isolated),
                ),
                task(
                    "the world",
                    3,
                    &from_task(3, t3, world, syn),
                    next(Done::ToWorld),
                ),
                task(
                    "the world, from an internal network",
                    5,
                    &from_task(5, f.task(5), world, syn),
                    Verdict::Drop(Drop::Internal),
                ),
                task(
                    "its own host",
                    3,
                    &from_task(3, t3, f.node(1), syn),
                    next(Done::ToHost),
                ),
                task(
                    "many",
                    3,
                    &from_task(3, t3, multicast, L4::Udp(5353, 5353)),
                    Verdict::Drop(Drop::Multicast),
                ),
            ],
        ),
        row(
            "spoofing",
            f,
            town(),
            vec![
                task("hardware address", 3, &mac, Verdict::Drop(Drop::SpoofedMac)),
                task(
                    "address",
                    3,
                    &from_task(3, t6, t4, syn),
                    Verdict::Drop(Drop::SpoofedAddress),
                ),
                task(
                    "no such interface",
                    9,
                    &from_task(9, t3, t4, syn),
                    Verdict::Drop(Drop::UnknownEndpoint),
                ),
            ],
        ),
    ]
}

fn by_vip(f: Family) -> Vec<Row> {
    let (t3, t6, vip) = (f.task(3), f.task(6), f.vip());
    let mut far = town();
    far.rings.insert(5, vec![4]);
    let mut own = town();
    own.rings.insert(5, vec![6]);
    let syn = L4::Tcp(4000, 80, SYN);
    let echo = Frame {
        payload: vec![1; 9],
        ..from_task(6, t6, vip, L4::Icmp(if f.v6 { 128 } else { 8 }, 0))
    };
    let echoed = Frame {
        dst_mac: task_mac(6),
        src_mac: GATEWAY_MAC,
        src: vip,
        dst: t6,
        l4: L4::Icmp(if f.v6 { 129 } else { 0 }, 0),
        payload: vec![1; 9],
    };
    vec![
        row(
            "VIP, near backend",
            f,
            town(),
            vec![
                task(
                    "SYN",
                    6,
                    &from_task(6, t6, vip, syn),
                    peer(3, Done::ToTaskTranslated),
                )
                .out(delivered(3, t6, t3, syn)),
                task(
                    "SYN+ACK",
                    3,
                    &from_task(3, t3, t6, L4::Tcp(80, 4000, SYN_ACK)),
                    peer(6, Done::AnswerToTask),
                )
                .out(delivered(6, vip, t6, L4::Tcp(80, 4000, SYN_ACK))),
            ],
        ),
        row(
            "VIP, far backend",
            f,
            far,
            vec![
                task(
                    "SYN",
                    6,
                    &from_task(6, t6, vip, syn),
                    Verdict::Tunnel(to_node(WEB, 2), Done::ToBackendNode),
                )
                .out(carried(Leg::Vip, 0, 4, t6, vip, syn)),
                overlay(
                    "answer",
                    WEB,
                    2,
                    &carried(Leg::Answer, 4, 6, vip, t6, L4::Tcp(80, 4000, SYN_ACK)),
                    peer(6, Done::AnswerToTask),
                )
                .out(delivered(6, vip, t6, L4::Tcp(80, 4000, SYN_ACK))),
            ],
        ),
        row(
            "VIP, itself",
            f,
            own,
            vec![
                task(
                    "SYN",
                    6,
                    &from_task(6, t6, vip, syn),
                    peer(6, Done::ToTaskTranslated),
                )
                .out(delivered(6, vip, t6, syn)),
                task(
                    "SYN+ACK",
                    6,
                    &from_task(6, t6, vip, L4::Tcp(80, 4000, SYN_ACK)),
                    peer(6, Done::AnswerToTask),
                )
                .out(delivered(6, vip, t6, L4::Tcp(80, 4000, SYN_ACK))),
            ],
        ),
        row(
            "VIP answers echo",
            f,
            town(),
            vec![task("echo", 6, &echo, Verdict::Out(link_of(6), Done::Answered)).out(echoed)],
        ),
        row(
            "published port from a task of another network",
            f,
            town(),
            vec![
                task(
                    "at its own node",
                    3,
                    &from_task(3, t3, f.node(1), L4::Tcp(4000, 8000, SYN)),
                    peer(1, Done::ToTaskTranslated),
                )
                .out(delivered(1, t3, f.task(1), L4::Tcp(4000, 80, SYN))),
                task(
                    "answer",
                    1,
                    &from_task(1, f.task(1), t3, L4::Tcp(80, 4000, SYN_ACK)),
                    peer(3, Done::AnswerToTask),
                )
                .out(delivered(3, f.node(1), t3, L4::Tcp(8000, 4000, SYN_ACK))),
                task(
                    "at another node",
                    3,
                    &from_task(3, t3, f.node(2), L4::Tcp(4001, 8001, SYN)),
                    Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
                )
                .out(carried(
                    Leg::Mesh,
                    0,
                    2,
                    t3,
                    f.node(2),
                    L4::Tcp(4001, 8001, SYN),
                )),
                overlay(
                    "its answer",
                    MESH,
                    2,
                    &carried(
                        Leg::Answer,
                        2,
                        0,
                        f.node(2),
                        t3,
                        L4::Tcp(8001, 4001, SYN_ACK),
                    ),
                    peer(3, Done::AnswerToTask),
                )
                .out(delivered(3, f.node(2), t3, L4::Tcp(8001, 4001, SYN_ACK))),
            ],
        ),
    ]
}

fn arriving(f: Family) -> Vec<Row> {
    let (c, n2, t1, t3, t4) = (f.client(), f.node(2), f.task(1), f.task(3), f.task(4));
    let syn = L4::Tcp(4000, 80, SYN);
    let mesh = |said, flags| carried(Leg::Mesh, said, 1, c, n2, L4::Tcp(4000, 8000, flags));
    let plain = carried(Leg::Plain, 4, 3, t4, t3, syn);
    let mut stranger = overlay(
        "from no node",
        WEB,
        2,
        &plain,
        Verdict::Drop(Drop::NotANode),
    );
    stranger.tunnel = Some(Tunnel {
        vni: WEB,
        remote: Family { v6: false }.client().into(),
    });
    let mut bad = plain.clone();
    bad.src_mac = [0xfc, 0, 0, 0, 0, 4];
    let two = |digit| carried(Leg::Mesh, 0, 1, c, f.node(digit), L4::Tcp(4000, 8000, SYN));
    let mut collision = vec![
        overlay(
            "asked at node 2",
            MESH,
            2,
            &two(2),
            peer(1, Done::ToTaskTranslated),
        )
        .out(delivered(1, c, t1, L4::Tcp(4000, 80, SYN))),
        overlay(
            "asked at node 1, same client port",
            MESH,
            2,
            &two(1),
            peer(1, Done::ToTaskTranslated),
        ),
    ];
    collision.push(
        overlay(
            "the first again",
            MESH,
            2,
            &mesh(0, ACK),
            peer(1, Done::ToTaskTranslated),
        )
        .out(delivered(1, c, t1, L4::Tcp(4000, 80, ACK))),
    );
    vec![
        row(
            "tunnelled to a task",
            f,
            town(),
            vec![
                overlay("by address", WEB, 2, &plain, peer(3, Done::ToTask))
                    .out(delivered(3, t4, t3, syn)),
                overlay(
                    "for a client's service",
                    MESH,
                    2,
                    &mesh(0, SYN),
                    peer(1, Done::ToTaskTranslated),
                )
                .out(delivered(1, c, t1, L4::Tcp(4000, 80, SYN))),
                overlay(
                    "for a VIP",
                    WEB,
                    2,
                    &carried(Leg::Vip, 0, 3, t4, f.vip(), syn),
                    peer(3, Done::ToTaskTranslated),
                )
                .out(delivered(3, t4, t3, syn)),
                task(
                    "the VIP's answer",
                    3,
                    &from_task(3, t3, t4, L4::Tcp(80, 4000, SYN_ACK)),
                    Verdict::Tunnel(to_node(WEB, 2), Done::AnswerToNode),
                )
                .out(carried(
                    Leg::Answer,
                    3,
                    4,
                    f.vip(),
                    t4,
                    L4::Tcp(80, 4000, SYN_ACK),
                )),
            ],
        ),
        row(
            "tunnelled and refused",
            f,
            town(),
            vec![
                stranger,
                overlay("no leg", WEB, 2, &bad, Verdict::Drop(Drop::BadLeg)),
                overlay(
                    "no such task",
                    WEB,
                    2,
                    &carried(Leg::Plain, 4, 99, t4, t3, syn),
                    Verdict::Drop(Drop::NoSuchTask),
                ),
                overlay(
                    "on another network",
                    MESH,
                    2,
                    &plain,
                    Verdict::Drop(Drop::WrongNetwork),
                ),
                overlay(
                    "not the task's address",
                    WEB,
                    2,
                    &carried(Leg::Plain, 4, 3, t4, f.task(6), syn),
                    Verdict::Drop(Drop::NoSuchTask),
                ),
                overlay(
                    "source outside the network",
                    WEB,
                    2,
                    &carried(Leg::Plain, 4, 3, c, t3, syn),
                    Verdict::Drop(Drop::ForgedSource),
                ),
                overlay(
                    "not published",
                    MESH,
                    2,
                    &carried(Leg::Mesh, 0, 1, c, n2, L4::Tcp(4000, 22, SYN)),
                    Verdict::Drop(Drop::NoFront),
                ),
                overlay(
                    "a client on a user network",
                    WEB,
                    2,
                    &carried(Leg::Mesh, 0, 3, c, n2, L4::Tcp(4000, 8000, SYN)),
                    Verdict::Drop(Drop::WrongNetwork),
                ),
                overlay(
                    "VIP from outside",
                    WEB,
                    2,
                    &carried(Leg::Vip, 0, 3, c, f.vip(), syn),
                    Verdict::Drop(Drop::ForgedSource),
                ),
            ],
        ),
        row(
            "second chance",
            f,
            town(),
            vec![
                overlay(
                    "a SYN takes none",
                    MESH,
                    3,
                    &mesh(2, SYN),
                    peer(1, Done::ToTaskTranslated),
                ),
                overlay(
                    "another flow's data does, and names the ingress node",
                    MESH,
                    3,
                    &carried(Leg::Mesh, 2, 1, c, n2, L4::Tcp(4009, 8000, ACK)),
                    Verdict::Tunnel(to_node(MESH, 2), Done::SecondChance),
                )
                .out(carried(
                    Leg::MeshAgain,
                    3,
                    2,
                    c,
                    n2,
                    L4::Tcp(4009, 8000, ACK),
                )),
                overlay(
                    "the second hop is the last",
                    MESH,
                    3,
                    &carried(Leg::MeshAgain, 2, 1, c, n2, L4::Tcp(4010, 8000, ACK)),
                    peer(1, Done::ToTaskTranslated),
                ),
                task(
                    "its answer goes to the ingress node that was named",
                    1,
                    &from_task(1, t1, c, L4::Tcp(80, 4010, ACK)),
                    Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
                ),
            ],
        ),
        row("collision", f, town(), collision),
    ]
}

fn answers_arriving(f: Family) -> Vec<Row> {
    let (c, n1) = (f.client(), f.node(1));
    let answer = |port| carried(Leg::Answer, 2, 0, n1, c, L4::Tcp(port, 4000, SYN_ACK));
    let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    vec![
        row(
            "answer for a client",
            f,
            town(),
            vec![
                uplink(
                    "SYN",
                    &frame(c, n1, L4::Tcp(4000, 8001, SYN)),
                    Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
                ),
                overlay("SYN+ACK", MESH, 2, &answer(8001), to_client).out(answer(8001)),
                overlay(
                    "not published",
                    MESH,
                    2,
                    &answer(22),
                    Verdict::Drop(Drop::NotPublished),
                ),
                overlay(
                    "on a user network",
                    WEB,
                    2,
                    &answer(8001),
                    Verdict::Drop(Drop::WrongNetwork),
                ),
                overlay(
                    "from an address that is no node's",
                    MESH,
                    2,
                    &carried(Leg::Answer, 2, 0, f.host(77), c, L4::Tcp(8001, 4000, ACK)),
                    Verdict::Drop(Drop::ForgedSource),
                ),
            ],
        ),
        row(
            "an answer teaches who serves",
            f,
            town(),
            vec![
                overlay(
                    "task 1 answers",
                    MESH,
                    2,
                    &carried(Leg::Answer, 1, 0, n1, c, L4::Tcp(8001, 4000, ACK)),
                    to_client,
                ),
                uplink(
                    "the next packet goes to it",
                    &frame(c, n1, L4::Tcp(4000, 8001, ACK)),
                    peer(1, Done::ToTaskTranslated),
                ),
            ],
        ),
    ]
}

fn from_host(f: Family) -> Vec<Row> {
    let syn = L4::Tcp(4000, 80, SYN);
    let (n1, n2, t2, t3, t4) = (f.node(1), f.node(2), f.task(2), f.task(3), f.task(4));
    let out = |name: &str, frame: &Frame, verdict| {
        let mut step = Step::new(name, Program::HostOut, OVERLAY, frame, verdict);
        step.received = false;
        step
    };
    let mut forwarded = out(
        "routed from elsewhere",
        &frame(f.client(), t2, syn),
        Verdict::Drop(Drop::Forwarded),
    );
    forwarded.received = true;
    vec![
        row(
            "this host's processes",
            f,
            town(),
            vec![
                out(
                    "to a far task",
                    &frame(n1, t2, syn),
                    Verdict::Encap(to_node(MESH, 2), Done::ToNode),
                )
                .out(carried(Leg::Host, 0, 2, n1, t2, syn)),
                out(
                    "to a near task",
                    &frame(n1, t3, syn),
                    Verdict::Out(link_of(3), Done::ToTask),
                ),
                out(
                    "to nobody",
                    &frame(n1, f.on(WEB, 99), syn),
                    Verdict::Drop(Drop::NoSuchTask),
                ),
                out(
                    "redirected here by another program",
                    &carried(Leg::Plain, 3, 4, t3, t4, syn),
                    next(Done::NotOurs),
                ),
                forwarded,
            ],
        ),
        row(
            "another host's processes",
            f,
            town(),
            vec![
                overlay(
                    "to a task",
                    WEB,
                    2,
                    &carried(Leg::Host, 0, 3, n2, t3, syn),
                    peer(3, Done::ToTask),
                )
                .out(delivered(3, n2, t3, syn)),
                task(
                    "its answer is tunnelled",
                    3,
                    &from_task(3, t3, n2, L4::Tcp(80, 4000, SYN_ACK)),
                    Verdict::Tunnel(to_node(WEB, 2), Done::ToNode),
                )
                .out(carried(Leg::Host, 3, 0, t3, n2, L4::Tcp(80, 4000, SYN_ACK))),
                overlay(
                    "from an address that is not that host's",
                    WEB,
                    2,
                    &carried(Leg::Host, 0, 3, f.client(), t3, syn),
                    Verdict::Drop(Drop::ForgedSource),
                ),
                overlay(
                    "a task's answer to this host",
                    WEB,
                    2,
                    &carried(Leg::Host, 4, 0, t4, n1, L4::Tcp(80, 4000, SYN_ACK)),
                    next(Done::ToHost),
                ),
                overlay(
                    "a forged one",
                    WEB,
                    2,
                    &carried(Leg::Host, 4, 0, f.client(), n1, L4::Tcp(80, 4000, SYN_ACK)),
                    Verdict::Drop(Drop::ForgedSource),
                ),
            ],
        ),
    ]
}

/// An ICMP error that quotes a frame.
fn error(src: IpAddr, dst: IpAddr, f: Family, about: &Frame) -> Frame {
    let (kind, code) = if f.v6 { (1, 4) } else { (3, 3) };
    Frame {
        payload: about.bytes()[14..].to_vec(),
        ..frame(src, dst, L4::Icmp(kind, code))
    }
}

fn errors(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let router = f.host(254);
    let question = frame(c, n, L4::Udp(4000, 8000));
    let as_seen = frame(c, t1, L4::Udp(4000, 80));
    let answer = frame(n, c, L4::Udp(8000, 4000));
    let unreachable = Frame {
        dst_mac: GATEWAY_MAC,
        src_mac: task_mac(1),
        ..error(t1, c, f, &as_seen)
    };
    let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    let far = frame(n, c, L4::Udp(8001, 4000));
    vec![row(
        "ICMP errors",
        f,
        town(),
        vec![
            uplink("question", &question, peer(1, Done::ToTaskTranslated)),
            // The quoted checksum stays: what is checked is everything else.
            task("nobody listens", 1, &unreachable, to_client),
            uplink(
                "a router refuses the answer",
                &error(router, n, f, &answer),
                peer(1, Done::IcmpTranslated),
            ),
            uplink(
                "about a far backend's answer",
                &error(router, n, f, &far),
                Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
            ),
            uplink(
                "about something else",
                &error(router, n, f, &frame(n, c, L4::Udp(53, 4000))),
                next(Done::NotOurs),
            ),
        ],
    )]
}

fn neighbours(f: Family) -> Vec<Row> {
    let link = Verdict::Out(link_of(3), Done::Answered);
    if f.v6 {
        return vec![row(
            "neighbour discovery",
            f,
            town(),
            vec![
                Step::raw(
                    "question",
                    Program::TaskIn,
                    link_of(3),
                    solicitation(f.task(3), f.on(WEB, 1)),
                    link,
                )
                .exact(advertisement(f.task(3), f.on(WEB, 1))),
                Step::raw(
                    "probe",
                    Program::TaskIn,
                    link_of(3),
                    solicitation(IpAddr::from([0u8; 16]), f.task(3)),
                    Verdict::Drop(Drop::AddressProbe),
                ),
                Step::raw(
                    "in another's name",
                    Program::TaskIn,
                    link_of(3),
                    solicitation(f.task(4), f.on(WEB, 1)),
                    Verdict::Drop(Drop::SpoofedAddress),
                ),
            ],
        )];
    }
    vec![row(
        "ARP",
        f,
        town(),
        vec![
            Step::raw(
                "question",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), f.task(3), f.on(WEB, 1)),
                link,
            )
            .exact(arp_answer(3, f.on(WEB, 1), f.task(3))),
            Step::raw(
                "probe",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), IpAddr::from([0, 0, 0, 0]), f.task(3)),
                Verdict::Drop(Drop::AddressProbe),
            ),
            Step::raw(
                "announcement",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), f.task(3), f.task(3)),
                Verdict::Drop(Drop::AddressProbe),
            ),
            Step::raw(
                "in another's name",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), f.task(4), f.on(WEB, 1)),
                Verdict::Drop(Drop::SpoofedAddress),
            ),
            Step::raw(
                "answer to the host",
                Program::TaskIn,
                link_of(3),
                arp(2, task_mac(3), f.task(3), f.node(1)),
                next(Done::ToHost),
            ),
        ],
    )]
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn arp(op: u8, sender: Mac, from: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend(sender);
    f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, op]);
    f.extend(sender);
    f.extend(octets(from));
    f.extend([0; 6]);
    f.extend(octets(target));
    f
}

fn arp_answer(id: u32, asked: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut f = task_mac(id).to_vec();
    f.extend(GATEWAY_MAC);
    f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    f.extend(GATEWAY_MAC);
    f.extend(octets(asked));
    f.extend(task_mac(id));
    f.extend(octets(to));
    f
}

/// Without the link-layer option, as a unicast solicitation may be.
fn solicitation(src: IpAddr, target: IpAddr) -> Vec<u8> {
    let dst: IpAddr = "ff02::1:ff00:1".parse().unwrap_or(src);
    Frame {
        payload: octets(target),
        ..from_task(3, src, dst, L4::Icmp(135, 0))
    }
    .bytes()
}

fn advertisement(to: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut payload = octets(target);
    payload.extend([2, 1]);
    payload.extend(GATEWAY_MAC);
    let plain = Frame {
        payload,
        ..delivered(3, target, to, L4::Icmp(136, 0))
    };
    let mut bytes = plain.bytes();
    // Hop limit 255; solicited and override, which the checksum must follow.
    bytes[21] = 255;
    bytes[58] = 0x60;
    let check = u16::from_be_bytes([bytes[56], bytes[57]]);
    let sum = u32::from(!check) + 0x6000;
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[56..58].copy_from_slice(&check.to_be_bytes());
    bytes
}
