//! Client ports that several connections use, at once or one after the other.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, FIN, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

/// A collision whose first two ways out are taken as well.
pub(super) fn crowded(f: Family) -> Vec<Row> {
    let (c, t1, first, second) = (f.client(), f.task(1), f.node(2), f.node(1));
    let ask = |at, flags| carried(Leg::Mesh, 0, 1, c, at, L4::Tcp(4000, 8000, flags));
    let world = town();
    let ways: Vec<Be16> = (1..=3)
        .map(|attempt| {
            let (client, at) = (c.into(), second.into());
            let (from, to) = (Be16::new(4000), Be16::new(8000));
            let hash = ring_hash(0, &client, from, &at, to, 6, attempt);
            Be16::new(1024 + (hash % 64_512) as u16)
        })
        .collect();
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
    let way = ways[2].get();
    let here = peer(1, Done::ToTaskTranslated);
    let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
    let answer = |flags| carried(Leg::Answer, 1, 0, second, c, L4::Tcp(8000, 4000, flags));
    let said = |flags| from_task(1, t1, c, L4::Tcp(80, way, flags));
    let got = |flags| delivered(1, c, t1, L4::Tcp(way, 80, flags));
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
    let (c, t1, first, second) = (f.client(), f.task(1), f.node(2), f.node(1));
    let here = peer(1, Done::ToTaskTranslated);
    let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
    let ask = |name: &str, at, flags| {
        let frame = carried(Leg::Mesh, 0, 1, c, at, L4::Tcp(4000, 8000, flags));
        overlay(name, MESH, 2, &frame, here)
    };
    let seen = |step: Step, flags| step.out(delivered(1, c, t1, L4::Tcp(4000, 80, flags)));
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
    ]
}
