//! What comes through the tunnel, and what this host sends into it.

use weft_abi::*;
use weft_ebpf::packet::Tunnel;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

pub(super) fn arriving(f: Family) -> Vec<Row> {
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
                overlay(
                    "from this node itself",
                    WEB,
                    1,
                    &plain,
                    Verdict::Drop(Drop::NotANode),
                ),
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

pub(super) fn answers_arriving(f: Family) -> Vec<Row> {
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

pub(super) fn from_host(f: Family) -> Vec<Row> {
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
                out(
                    "a probe of another node, by the way that tasks' packets take",
                    &frame(n1, n2, L4::Udp(4000, 9)),
                    if f.v6 {
                        Verdict::Drop(Drop::NoSuchTask)
                    } else {
                        Verdict::Encap(to_node(MESH, 2), Done::ToNode)
                    },
                ),
                out(
                    "a probe of nobody",
                    &frame(n1, f.client(), L4::Udp(4000, 9)),
                    Verdict::Drop(Drop::NoSuchTask),
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
                    "its probe of this host",
                    MESH,
                    2,
                    &carried(Leg::Host, 0, 0, n2, n1, L4::Udp(4000, 9)),
                    next(Done::ToHost),
                ),
                overlay(
                    "a probe in another's name",
                    MESH,
                    2,
                    &carried(Leg::Host, 0, 0, f.node(3), n1, L4::Udp(4000, 9)),
                    Verdict::Drop(Drop::ForgedSource),
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
