//! Choice and limits per service: ranges of ports, listen addresses, allow lists, affinity, caps.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::SYN;
use weft_ebpf::verdict::Verdict;

use super::*;

fn with(flags: u32) -> World {
    let mut world = town();
    if let Some(config) = &mut world.config {
        config.flags |= flags;
    }
    world
}

fn on_task_1(flags: u32) -> Front {
    Front {
        service: 1,
        flags,
        port: Be16::new(80),
        ..Default::default()
    }
}

pub(super) fn ranges(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let mut world = with(config::RANGES);
    let ours = Front {
        service: 1,
        port: Be16::new(100),
        base: Be16::new(9000),
        ..Default::default()
    };
    let kept = Front {
        port: Be16::new(0),
        base: Be16::new(0),
        ..ours
    };
    for (first, last, front) in [(9000, 9009, ours), (20_000, 29_999, kept)] {
        for (port, bits) in range_pieces(first, last) {
            let key = RangeKey {
                addr: Addr::ANY,
                proto: 6,
                pad: 0,
                port: Be16::new(port),
            };
            world.ranges.push((RangeKey::WHOLE - bits, key, front));
        }
    }
    let syn = |port| frame(c, n, L4::Tcp(4000, port, SYN));
    let to = |port| delivered(1, c, t1, L4::Tcp(4000, port, SYN));
    let here = peer(1, Done::ToTaskTranslated);
    vec![row(
        "ranges of ports",
        f,
        world,
        vec![
            uplink("the first", &syn(9000), here).out(to(100)),
            uplink("the last", &syn(9009), here).out(to(109)),
            task(
                "an answer",
                1,
                &from_task(1, t1, c, L4::Tcp(109, 4000, SYN_ACK)),
                Verdict::Neighbour(UPLINK, Done::AnswerToClient),
            )
            .out(from_task(1, n, c, L4::Tcp(9009, 4000, SYN_ACK))),
            uplink("beside it", &syn(9010), next(Done::NotOurs)),
            uplink("before it", &syn(8999), next(Done::NotOurs)),
            uplink(
                "another protocol",
                &frame(c, n, L4::Udp(4000, 9000)),
                next(Done::NotOurs),
            ),
            uplink("one of ten thousand", &syn(25_007), here).out(to(25_007)),
            uplink("a single port beside ranges", &syn(8000), here).out(to(80)),
        ],
    )]
}

pub(super) fn listen(f: Family) -> Vec<Row> {
    let (c, n, other, t1) = (f.client(), f.node(1), f.host(21), f.task(1));
    let mut world = with(config::LISTEN | config::RANGES);
    world.locals.push(other.into());
    // An address of this node, and one of node 2: a packet that came in there is served here.
    for addr in [n, f.node(2)] {
        publish(&mut world, addr.into(), 8100, on_task_1(0));
        let key = RangeKey {
            addr: addr.into(),
            proto: 6,
            pad: 0,
            port: Be16::new(9000),
        };
        world.ranges.push((RangeKey::WHOLE - 3, key, on_task_1(0)));
    }
    let syn = |to, port| frame(c, to, L4::Tcp(4000, port, SYN));
    let here = peer(1, Done::ToTaskTranslated);
    let mesh = |to, port| carried(Leg::Mesh, 0, 1, c, to, L4::Tcp(4001, port, SYN));
    let got = delivered(1, c, t1, L4::Tcp(4000, 80, SYN));
    vec![row(
        "a port at some addresses only",
        f,
        world,
        vec![
            uplink("its own address", &syn(n, 8100), here).out(got),
            uplink(
                "another of this node",
                &syn(other, 8100),
                next(Done::NotOurs),
            ),
            uplink("a range at its address", &syn(n, 9005), here),
            uplink("a range elsewhere", &syn(other, 9005), next(Done::NotOurs)),
            uplink("a port at every address", &syn(other, 8000), here),
            overlay("asked at node 2", MESH, 2, &mesh(f.node(2), 8100), here),
            overlay(
                "asked at an address that is not listed",
                MESH,
                3,
                &mesh(f.node(3), 8100),
                Verdict::Drop(Drop::NoFront),
            ),
        ],
    )]
}

/// Which of another node's addresses are meant, that node alone knows.
pub(super) fn listen_elsewhere(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let mut world = with(config::LISTEN | config::RANGES | config::CARRIED);
    publish(&mut world, FrontKey::CARRIED, 8100, on_task_1(0));
    let key = RangeKey {
        addr: FrontKey::CARRIED,
        proto: 6,
        pad: 0,
        port: Be16::new(9000),
    };
    world.ranges.push((RangeKey::WHOLE - 3, key, on_task_1(0)));
    let mesh = |to, port| carried(Leg::Mesh, 0, 1, c, to, L4::Tcp(4000, port, SYN));
    let here = peer(1, Done::ToTaskTranslated);
    let syn = |port| frame(c, n, L4::Tcp(4000, port, SYN));
    let got = delivered(1, c, t1, L4::Tcp(4000, 80, SYN));
    let asked = |name, port, verdict| overlay(name, MESH, 3, &mesh(f.node(3), port), verdict);
    vec![row(
        "a port at another node's interface",
        f,
        world,
        vec![
            asked("asked there", 8100, here).out(got),
            asked("a range asked there", 9005, here),
            asked("a port at every address", 8000, here),
            asked("beside the range", 9008, Verdict::Drop(Drop::NoFront)),
            uplink("asked here", &syn(8100), next(Done::NotOurs)),
            uplink("a range asked here", &syn(9005), next(Done::NotOurs)),
        ],
    )]
}

pub(super) fn allowed(f: Family) -> Vec<Row> {
    let (c, n) = (f.client(), f.node(1));
    let mut world = town();
    publish(&mut world, Addr::ANY, 8200, on_task_1(front::ALLOWED));
    let second = Front {
        service: 2,
        ..on_task_1(front::ALLOWED)
    };
    publish(&mut world, Addr::ANY, 8201, second);
    for (len, from) in [(128, c), (if f.v6 { 64 } else { 120 }, f.task(3))] {
        let key = AllowKey {
            service: 1,
            addr: from.into(),
        };
        world.allowed.push((len, key));
    }
    let here = peer(1, Done::ToTaskTranslated);
    let drop = Verdict::Drop(Drop::NotAllowed);
    let (t3, t1) = (f.task(3), f.task(1));
    let ask = L4::Tcp(4000, 8200, SYN);
    let other = L4::Tcp(4000, 8201, SYN);
    vec![row(
        "an allow list",
        f,
        world,
        vec![
            uplink("who is on it", &frame(c, n, ask), here),
            uplink("who is not", &frame(f.host(101), n, ask), drop),
            uplink(
                "not even by datagram",
                &frame(f.host(101), n, L4::Udp(4000, 8200)),
                drop,
            ),
            uplink(
                "a port of it without a list",
                &frame(f.host(101), n, L4::Tcp(4000, 8000, SYN)),
                here,
            ),
            task(
                "a task of a listed network",
                3,
                &from_task(3, t3, n, ask),
                here,
            ),
            task("a task of another", 1, &from_task(1, t1, n, ask), drop),
            uplink("by another service's list", &frame(c, n, other), drop),
        ],
    )]
}

pub(super) fn affinity(f: Family) -> Vec<Row> {
    let (c, n) = (f.client(), f.node(1));
    let mut world = town();
    let sticks = Front {
        service: 6,
        port: Be16::new(80),
        affinity: 30,
        ..Default::default()
    };
    publish(&mut world, Addr::ANY, 8300, sticks);
    world.rings.insert(6, vec![1]);
    // As if it had just asked.
    let stays = Sticky {
        backend: 2,
        pad: 0,
        last: u64::MAX,
    };
    let key = StickyKey {
        client: c.into(),
        service: 6,
    };
    world.sticky.borrow_mut().insert(key, stays);
    let gone = Sticky {
        backend: 99,
        ..stays
    };
    let key = StickyKey {
        client: f.host(101).into(),
        service: 6,
    };
    world.sticky.borrow_mut().insert(key, gone);
    let ask = |from, port| frame(from, n, L4::Tcp(port, 8300, SYN));
    let far = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
    let here = peer(1, Done::ToTaskTranslated);
    vec![row(
        "a client stays with its backend",
        f,
        world,
        vec![
            uplink("though the ring changed", &ask(c, 4000), far),
            uplink("from any port", &ask(c, 4001), far),
            uplink(
                "another client follows the ring",
                &ask(f.host(102), 4000),
                here,
            ),
            uplink("unless the backend is gone", &ask(f.host(101), 4000), here),
            uplink("by datagrams too", &frame(c, n, L4::Udp(4000, 8300)), far),
        ],
    )]
}

pub(super) fn caps(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let mut world = with(config::CAPS);
    // Slower than any test: the first packet takes seconds.
    world.caps.insert(
        1,
        Cap {
            rate: 10,
            burst: 10,
        },
    );
    let ask = uplink(
        "the first datagram",
        &frame(c, n, L4::Udp(4000, 8000)),
        peer(1, Done::ToTaskTranslated),
    );
    let drop = Verdict::Drop(Drop::OverCap);
    vec![row(
        "a bandwidth cap",
        f,
        world,
        vec![
            ask,
            uplink("the second", &frame(c, n, L4::Udp(4000, 8000)), drop),
            uplink("another client's", &frame(c, n, L4::Udp(4001, 8000)), drop),
            task(
                "the answer, which has its own",
                1,
                &from_task(1, t1, c, L4::Udp(80, 4000)),
                Verdict::Neighbour(UPLINK, Done::AnswerToClient),
            ),
            task(
                "the second answer",
                1,
                &from_task(1, t1, c, L4::Udp(80, 4000)),
                drop,
            ),
            uplink(
                "another service",
                &frame(c, n, L4::Udp(4000, 8001)),
                Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
            ),
        ],
    )]
}
