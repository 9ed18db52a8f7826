//! Flows of which one entry is left, or one that another flow has for its own.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, FIN, SYN};
use weft_ebpf::verdict::Verdict;

use super::collisions::{flow_of, way};
use super::*;

/// What a flow's two entries look like when a SYN of its client comes, and what becomes of it.
pub(super) fn left(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let (first, second) = (f.node(2), n);
    let here = peer(1, Done::ToTaskTranslated);
    let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
    let out = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    let ask = |name: &str, at, flags, seen| {
        let frame = carried(Leg::Mesh, 0, 1, c, at, L4::Tcp(4000, 8000, flags));
        let step = overlay(name, MESH, 2, &frame, here);
        step.out(delivered(1, c, t1, L4::Tcp(seen, 80, flags)))
    };
    let answer = |name: &str, at, flags| {
        let frame = from_task(1, t1, c, L4::Tcp(80, 4000, flags));
        let there = carried(Leg::Answer, 1, 0, at, c, L4::Tcp(8000, 4000, flags));
        task(name, 1, &frame, back).out(there)
    };
    let opens = || {
        vec![
            ask("SYN", first, SYN, 4000),
            answer("SYN+ACK", first, SYN_ACK),
            ask("ACK", first, ACK, 4000),
            answer("data", first, ACK),
        ]
    };
    // A place that another may not take: what is left of the old connection is not the new one's.
    let half_closed = || {
        vec![
            ask("the client's FIN", first, FIN | ACK, 4000),
            ask("SYN to the other", second, SYN, way(f, second, 1).get()),
            answer("the half's data", first, ACK),
        ]
    };
    let line = |name: &str, world, parts: Vec<Vec<Step>>| {
        let steps = parts.into_iter().flatten().collect();
        row(name, f, world, steps)
    };
    let (wire, reply, entry) = flow_of(f, first);
    let with = |key, entry| {
        let world = town();
        world.flow.borrow_mut().insert(key, entry);
        world
    };
    let ended = Flow {
        tcp: entry.tcp | tcp::FIN,
        ..entry
    };
    let elsewhere = Flow {
        ingress: 1,
        link: UPLINK,
        ..entry
    };
    let (_, others, other) = flow_of(f, second);
    let taken = |is_new| {
        let world = town();
        let other = Flow {
            ingress: 1,
            link: UPLINK,
            ..other
        };
        world.flow_new.borrow_mut().insert(wire, entry);
        let table = if is_new { &world.flow_new } else { &world.flow };
        table.borrow_mut().insert(others, other);
        world
    };
    let crossed = with(wire, entry);
    crossed.flow.borrow_mut().insert(others, other);
    let mut rows = vec![
        line(
            "a SYN of a flow that has no answers' entry",
            with(wire, entry),
            vec![opens(), half_closed()],
        ),
        line(
            "a SYN of a flow that its task ended and of which the answers' entry is left",
            with(reply, ended),
            vec![opens(), half_closed()],
        ),
        line(
            "a SYN of an open flow of which the answers' entry is left, by another way in",
            with(reply, elsewhere),
            vec![opens()],
        ),
        line(
            "a SYN of a flow whose answers' entry is another's now",
            crossed,
            vec![vec![
                ask("SYN", first, SYN, way(f, first, 1).get()),
                answer("data of the one that has it", second, ACK),
            ]],
        ),
    ];
    for (is_new, age) in [(true, "new"), (false, "established")] {
        let said = from_task(1, t1, c, L4::Tcp(80, 4000, ACK));
        let there = from_task(1, second, c, L4::Tcp(8000, 4000, ACK));
        rows.push(line(
            &format!("data of a flow whose answers' entry is another's, {age}"),
            taken(is_new),
            vec![vec![
                ask("data", first, ACK, 4000),
                task("the other's answer", 1, &said, out).out(there),
            ]],
        ));
    }
    rows
}
