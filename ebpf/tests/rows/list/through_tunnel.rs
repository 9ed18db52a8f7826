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
    let to_task = |to, src, dst| carried(Leg::Plain, 4, to, src, dst, syn);
    let plain = to_task(3, t4, t3);
    let refused = |name, net, frame: &_, reason| overlay(name, net, 2, frame, drop(reason));
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
                    drop(Drop::NotANode),
                ),
                refused("no leg", WEB, &bad, Drop::BadLeg),
                refused("no such task", WEB, &to_task(99, t4, t3), Drop::NoSuchTask),
                refused("on another network", MESH, &plain, Drop::WrongNetwork),
                refused(
                    "not the task's address",
                    WEB,
                    &to_task(3, t4, f.task(6)),
                    Drop::NoSuchTask,
                ),
                refused(
                    "source outside the network",
                    WEB,
                    &to_task(3, c, t3),
                    Drop::ForgedSource,
                ),
                refused(
                    "source of another network",
                    WEB,
                    &to_task(3, f.task(2), t3),
                    Drop::ForgedSource,
                ),
                refused(
                    "not published",
                    MESH,
                    &carried(Leg::Mesh, 0, 1, c, n2, L4::Tcp(4000, 22, SYN)),
                    Drop::NoFront,
                ),
                refused(
                    "a client on a user network",
                    WEB,
                    &carried(Leg::Mesh, 0, 3, c, n2, L4::Tcp(4000, 8000, SYN)),
                    Drop::WrongNetwork,
                ),
                refused(
                    "VIP from outside",
                    WEB,
                    &carried(Leg::Vip, 0, 3, c, f.vip(), syn),
                    Drop::ForgedSource,
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
