//! What a task sends.

use std::net::IpAddr;

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

pub(super) fn east_west(f: Family) -> Vec<Row> {
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
                    "a connection to one that is gone",
                    3,
                    &from_task(3, t3, f.on(WEB, 99), L4::Tcp(4000, 80, ACK)),
                    peer(3, Done::Refused),
                )
                .out(delivered(3, f.on(WEB, 99), t3, L4::Tcp(80, 4000, RST))),
                task(
                    "datagrams to one that is gone",
                    3,
                    &from_task(3, t3, f.on(WEB, 99), L4::Udp(4000, 80)),
                    Verdict::Out(link_of(3), Done::Refused),
                ),
                task(
                    "another network",
                    3,
                    &from_task(3, t3, f.task(1), syn),
                    Verdict::Drop(Drop::Isolated),
                ),
                task(
                    "a node's tunnel port",
                    3,
                    &from_task(3, t3, f.node(2), L4::Udp(4789, 4789)),
                    Verdict::Drop(Drop::TunnelForged),
                ),
                task(
                    "its own node's tunnel port",
                    3,
                    &from_task(3, t3, f.node(1), L4::Udp(4789, 4789)),
                    Verdict::Drop(Drop::TunnelForged),
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

pub(super) fn by_vip(f: Family) -> Vec<Row> {
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
