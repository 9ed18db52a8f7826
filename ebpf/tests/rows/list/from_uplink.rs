//! What comes in from the world.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, FIN, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

fn bytes(name: &str, bytes: &[u8], verdict: Verdict) -> Step {
    Step::raw(name, Program::UplinkIn, UPLINK, bytes.to_vec(), verdict)
}

pub(super) fn north_south(f: Family) -> Vec<Row> {
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
                uplink("SYN again", &syn, peer(1, Done::ToTaskTranslated)).out(deliver(SYN)),
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
                    drop(Drop::NoBackend),
                ),
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
                task("SYN+ACK", 1, &reply(SYN_ACK), drop(Drop::DeadIngress)),
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
                bytes("first", &fragments[0], peer(1, Done::ToTaskTranslated)),
                bytes("second", &fragments[1], peer(1, Done::ToTaskTranslated)),
            ],
        ),
        row(
            "a fragment without its first is the stack's",
            f,
            town(),
            vec![bytes("second alone", &fragments[1], next(Done::NotOurs))],
        ),
    ]
}

pub(super) fn uplink_refusals(f: Family) -> Vec<Row> {
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
                bytes("cut short", &cut, next(Done::NotOurs)),
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
                    drop(Drop::OverlaySource),
                ),
                uplink(
                    "to inside an overlay",
                    &frame(c, f.task(1), L4::Tcp(4000, 80, SYN)),
                    drop(Drop::OverlayDestination),
                ),
                uplink(
                    "for another node's tunnel, by a container of this host",
                    &frame(f.host(77), f.node(2), L4::Udp(5555, 4789)),
                    drop(Drop::TunnelForged),
                ),
                uplink(
                    "tunnelled by no node",
                    &frame(c, n, L4::Udp(5555, 4789)),
                    drop(Drop::NotANode),
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
                    drop(Drop::NoConfig),
                ),
            ],
        ),
    ]
}
