//! What this host's own processes send into the tunnel, and those of other hosts.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

pub(super) fn rows(f: Family) -> Vec<Row> {
    let syn = L4::Tcp(4000, 80, SYN);
    let (n1, n2, t2, t3, t4) = (f.node(1), f.node(2), f.task(2), f.task(3), f.task(4));
    let out = |name: &str, frame: &Frame, verdict| {
        let mut step = Step::new(name, Program::HostOut, OVERLAY, frame, verdict);
        step.received = false;
        step
    };
    let answered = |src, dst, l4| Frame {
        dst_mac: GATEWAY_MAC,
        src_mac: GATEWAY_MAC,
        ..frame(src, dst, l4)
    };
    let through_none =
        |name, frame: &_, verdict| Step::new(name, Program::OverlayIn, OVERLAY, frame, verdict);
    let gone = f.on(WEB, 99);
    let mut forwarded = out(
        "routed from elsewhere",
        &frame(f.client(), t2, syn),
        drop(Drop::Forwarded),
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
                out("to nobody", &frame(n1, gone, syn), drop(Drop::NoSuchTask)),
                out(
                    "to a task that is gone",
                    &frame(n1, gone, L4::Tcp(4000, 80, ACK)),
                    Verdict::In(OVERLAY, Done::Refused),
                )
                .out(answered(gone, n1, L4::Tcp(80, 4000, RST))),
                out(
                    "a reset to nobody is not answered",
                    &frame(n1, gone, L4::Tcp(4000, 80, RST)),
                    drop(Drop::NoSuchTask),
                ),
                through_none(
                    "the answer comes in, through no tunnel",
                    &answered(gone, n1, L4::Tcp(80, 4000, RST)),
                    next(Done::ToHost),
                ),
                through_none(
                    "nothing else does",
                    &carried(Leg::Plain, 4, 3, t4, t3, syn),
                    drop(Drop::NotANode),
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
                        drop(Drop::NoSuchTask)
                    } else {
                        Verdict::Encap(to_node(MESH, 2), Done::ToNode)
                    },
                ),
                out(
                    "a probe of nobody",
                    &frame(n1, f.client(), L4::Udp(4000, 9)),
                    drop(Drop::NoSuchTask),
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
                    drop(Drop::ForgedSource),
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
                    drop(Drop::ForgedSource),
                ),
                overlay(
                    "a forged one",
                    WEB,
                    2,
                    &carried(Leg::Host, 4, 0, f.client(), n1, L4::Tcp(80, 4000, SYN_ACK)),
                    drop(Drop::ForgedSource),
                ),
            ],
        ),
    ]
}
