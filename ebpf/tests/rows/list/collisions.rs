//! Client ports that several connections use, at once or one after the other.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, FIN, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

/// The port under which a task sees the client's port 4000, asked at `at`, after so many collisions.
pub(super) fn way(f: Family, at: IpAddr, attempt: u32) -> Be16 {
    let (client, at) = (f.client().into(), at.into());
    let hash = ring_hash(
        0,
        &client,
        Be16::new(4000),
        &at,
        Be16::new(8000),
        6,
        attempt,
    );
    Be16::new(1024 + (hash % 64_512) as u16)
}

/// A collision whose first two ways out are taken as well.
pub(super) fn crowded(f: Family) -> Vec<Row> {
    let (c, t1, first, second) = (f.client(), f.task(1), f.node(2), f.node(1));
    let ask = |at, flags| carried(Leg::Mesh, 0, 1, c, at, L4::Tcp(4000, 8000, flags));
    let world = town();
    let ways: Vec<Be16> = (1..=3).map(|attempt| way(f, second, attempt)).collect();
    for port in &ways[..2] {
        let key = FlowKey {
            src: t1.into(),
            dst: c.into(),
            net: MESH,
            sport: Be16::new(80),
            dport: *port,
            proto: 6,
            side: flow::REPLY,
            pad: [0; 2],
        };
        let other = Flow {
            client: c.into(),
            service: f.host(21).into(),
            last: u64::MAX,
            tcp: tcp::DATA,
            proto: 6,
            cport: *port,
            ..Flow::default()
        };
        world.flow.borrow_mut().insert(key, other);
    }
    let third = ways[2].get();
    let here = peer(1, Done::ToTaskTranslated);
    let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
    let answer = |flags| carried(Leg::Answer, 1, 0, second, c, L4::Tcp(8000, 4000, flags));
    let said = |flags| from_task(1, t1, c, L4::Tcp(80, third, flags));
    let got = |flags| delivered(1, c, t1, L4::Tcp(third, 80, flags));
    vec![row(
        "a collision in a crowd",
        f,
        world,
        vec![
            overlay("the first", MESH, 2, &ask(first, SYN), here),
            overlay("the second", MESH, 2, &ask(second, SYN), here).out(got(SYN)),
            task("SYN+ACK", 1, &said(SYN_ACK), back).out(answer(SYN_ACK)),
            overlay("its SYN again", MESH, 2, &ask(second, SYN), here).out(got(SYN)),
            overlay("ACK", MESH, 2, &ask(second, ACK), here).out(got(ACK)),
            task("data", 1, &said(ACK), back).out(answer(ACK)),
            overlay("its data", MESH, 2, &ask(second, ACK), here).out(got(ACK)),
        ],
    )]
}

/// One client port, used for one address after the other.
pub(super) fn used_again(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let (first, second) = (f.node(2), n);
    let here = peer(1, Done::ToTaskTranslated);
    let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
    let ask = |name: &str, at, flags| {
        let frame = carried(Leg::Mesh, 0, 1, c, at, L4::Tcp(4000, 8000, flags));
        overlay(name, MESH, 2, &frame, here)
    };
    let seen = |step: Step, flags| step.out(delivered(1, c, t1, L4::Tcp(4000, 80, flags)));
    let other = |name: &str, at, flags| {
        let port = way(f, at, 1).get();
        ask(name, at, flags).out(delivered(1, c, t1, L4::Tcp(port, 80, flags)))
    };
    let answer = |name: &str, at, flags| {
        let frame = from_task(1, t1, c, L4::Tcp(80, 4000, flags));
        let out = carried(Leg::Answer, 1, 0, at, c, L4::Tcp(8000, 4000, flags));
        task(name, 1, &frame, back).out(out)
    };
    let opens = |at| {
        vec![
            seen(ask("SYN", at, SYN), SYN),
            answer("SYN+ACK", at, SYN_ACK),
            seen(ask("ACK", at, ACK), ACK),
            answer("data", at, ACK),
        ]
    };
    let closes = |at| {
        vec![
            seen(ask("FIN", at, FIN | ACK), FIN | ACK),
            answer("its FIN", at, FIN | ACK),
        ]
    };
    let reset = |at| vec![answer("refused", at, RST | ACK)];
    let syn = |at| vec![seen(ask("SYN", at, SYN), SYN)];
    let left = |at| vec![seen(ask("its client's reset", at, RST), RST)];
    let line = |name: &str, parts: Vec<Vec<Step>>| {
        let steps: Vec<Step> = parts.into_iter().flatten().collect();
        row(name, f, town(), steps)
    };
    vec![
        line(
            "a port used again, by turns",
            vec![
                opens(first),
                closes(first),
                opens(second),
                closes(second),
                opens(first),
                closes(first),
                opens(first),
            ],
        ),
        line(
            "a port used again after a reset",
            vec![
                opens(first),
                reset(first),
                opens(second),
                reset(second),
                syn(first),
                reset(first),
                opens(first),
                // Nothing of the resets is left that would let another take the place of this one.
                vec![
                    ask("SYN to the other", second, SYN),
                    answer("data", first, ACK),
                ],
            ],
        ),
        line(
            "a port used again while the other connection is open",
            vec![
                opens(first),
                closes(first),
                opens(second),
                vec![
                    ask("SYN", first, SYN),
                    answer("the open one's data", second, ACK),
                ],
            ],
        ),
        line(
            "a port used again after its client's reset",
            vec![
                opens(first),
                left(first),
                opens(second),
                left(second),
                syn(first),
                left(first),
                opens(second),
            ],
        ),
        line(
            "a port used again by the same way",
            vec![
                opens(first),
                closes(first),
                opens(first),
                // Nothing of the old one is left that would let another take the place of this one.
                vec![
                    other("SYN to the other", second, SYN),
                    answer("data", first, ACK),
                ],
            ],
        ),
        line(
            "a stray segment by another way",
            vec![
                opens(first),
                left(first),
                vec![other("opens nothing", second, ACK)],
            ],
        ),
        line(
            "a port used again after a reset of what was open",
            vec![
                opens(first),
                reset(first),
                opens(first),
                vec![
                    other("SYN to the other", second, SYN),
                    answer("data", first, ACK),
                ],
            ],
        ),
        line(
            "a port of a connection that its client ended on one side",
            vec![
                opens(first),
                vec![
                    seen(ask("the client's FIN", first, FIN | ACK), FIN | ACK),
                    other("SYN to the other", second, SYN),
                    answer("the half's data", first, ACK),
                    answer("its FIN", first, FIN | ACK),
                    seen(ask("SYN to the other once more", second, SYN), SYN),
                ],
            ],
        ),
        line(
            "a port of a connection that its task ended on one side",
            vec![
                opens(first),
                vec![
                    answer("the task's FIN", first, FIN | ACK),
                    other("SYN to the other", second, SYN),
                    seen(ask("the half's data", first, ACK), ACK),
                ],
            ],
        ),
        row(
            "a SYN sent again, whose answers' entry was evicted and is another's now",
            f,
            evicted(f),
            vec![
                other("SYN", first, SYN),
                other("ACK", first, ACK),
                answer("data of the one that took it", second, ACK),
            ],
        ),
        row(
            "a SYN sent again that comes in elsewhere",
            f,
            town(),
            vec![
                uplink("SYN", &frame(c, n, L4::Tcp(4000, 8000, SYN)), here),
                ask("SYN", n, SYN),
                answer("SYN+ACK", n, SYN_ACK),
            ],
        ),
        row(
            "a port of a flow whose client's entry is new again",
            f,
            halves(f),
            vec![
                seen(ask("SYN to the other", second, SYN), SYN),
                // Nothing of the old one leads into the task's new connection.
                ask("a late segment", first, ACK).out(delivered(
                    1,
                    c,
                    t1,
                    L4::Tcp(way(f, first, 1).get(), 80, ACK),
                )),
            ],
        ),
    ]
}

/// The two keys and what both entries say of a flow to task 1 that the client began from port 4000, at `at`.
pub(super) fn flow_of(f: Family, at: IpAddr) -> (FlowKey, FlowKey, Flow) {
    let (c, t1) = (f.client(), f.task(1));
    let (from, to) = (Be16::new(4000), Be16::new(8000));
    let wire = FlowKey {
        src: c.into(),
        dst: at.into(),
        net: MESH,
        sport: from,
        dport: to,
        proto: 6,
        side: flow::WIRE,
        pad: [0; 2],
    };
    let reply = FlowKey {
        src: t1.into(),
        dst: c.into(),
        net: MESH,
        sport: Be16::new(80),
        dport: from,
        proto: 6,
        side: flow::REPLY,
        pad: [0; 2],
    };
    let entry = Flow {
        client: c.into(),
        service: at.into(),
        seen: c.into(),
        task: t1.into(),
        last: u64::MAX,
        net: MESH,
        backend: 1,
        ingress: 2,
        front: 1,
        cport: from,
        port: to,
        seen_port: from,
        task_port: Be16::new(80),
        tcp: tcp::SYN | tcp::DATA,
        proto: 6,
        ..Flow::default()
    };
    (wire, reply, entry)
}

/// A flow that its client reset, whose own entry was evicted before its task accepted it, and made anew after.
fn halves(f: Family) -> World {
    let world = town();
    let (wire, reply, entry) = flow_of(f, f.node(2));
    world.flow.borrow_mut().insert(reply, entry);
    let reset = Flow {
        tcp: tcp::RST,
        ..entry
    };
    world.flow_new.borrow_mut().insert(wire, reset);
    world
}

/// A flow of which the client's entry alone is left; another, which is open, has the task's port for it.
fn evicted(f: Family) -> World {
    let world = town();
    let (wire, _, entry) = flow_of(f, f.node(2));
    world.flow_new.borrow_mut().insert(wire, entry);
    let (wire, reply, entry) = flow_of(f, f.node(1));
    world.flow.borrow_mut().insert(wire, entry);
    world.flow.borrow_mut().insert(reply, entry);
    world
}
