//! Fewest connections: two candidates by hash, and what answers tell of them.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::SYN;
use weft_ebpf::verdict::Verdict;

use super::*;

/// Task 1 (here) and task 2 (node 2) behind port 8400, in as many slots each.
fn least(loads: [(u32, u32); 2]) -> World {
    let mut world = town();
    let front = Front {
        service: 7,
        flags: front::LEAST,
        port: Be16::new(80),
        ..Default::default()
    };
    publish(&mut world, Addr::ANY, 8400, front);
    world
        .rings
        .insert(7, (0..250).map(|slot| 1 + slot % 2).collect());
    for (backend, open) in loads {
        // As if it had just been counted.
        let load = Load {
            open,
            pad: 0,
            at: u64::MAX,
        };
        world.loads.borrow_mut().insert(backend, load);
    }
    world
}

/// Which of two backends that take turns in the ring, 0 or 1, a connection finds at an attempt.
fn turn(from: IpAddr, to: IpAddr, ports: (u16, u16), proto: u8, attempt: u32) -> u32 {
    let (sport, dport) = (Be16::new(ports.0), Be16::new(ports.1));
    let hash = ring_hash(7, &from.into(), sport, &to.into(), dport, proto, attempt);
    ring_slot(hash, 250) % 2
}

/// Client ports whose first candidate is this one of the two, and whose second is the other.
fn ports(from: IpAddr, to: IpAddr, asked: u16, first: u32) -> Vec<u16> {
    let candidate = |port, attempt| turn(from, to, (port, asked), 6, attempt);
    (4000..5000)
        .filter(|port| candidate(*port, 0) == first && candidate(*port, 16) != first)
        .take(8)
        .collect()
}

fn told(load: u32, to: u32, src: IpAddr, dst: IpAddr, l4: L4) -> Frame {
    let mut frame = carried(Leg::Answer, 2, to, src, dst, l4);
    frame.src_mac[1] = Load::code(load);
    frame
}

pub(super) fn choice(f: Family) -> Vec<Row> {
    let (c, n, n2, t1) = (f.client(), f.node(1), f.node(2), f.task(1));
    let (here, there) = (ports(c, n, 8400, 0), ports(c, n, 8400, 1));
    let syn = |port| frame(c, n, L4::Tcp(port, 8400, SYN));
    let ack = |port| frame(c, n, L4::Tcp(port, 8400, ACK));
    let to_2 = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
    let to_1 = peer(1, Done::ToTaskTranslated);
    let hear = |name, load, port| {
        let answer = told(load, 0, n, c, L4::Tcp(8400, port, ACK));
        let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
        overlay(name, MESH, 2, &answer, to_client)
    };
    let mut rows = vec![row(
        "fewest connections",
        f,
        least([(1, 1), (2, 0)]),
        vec![
            uplink("the idle one, though second", &syn(here[0]), to_2),
            uplink(
                "the same SYN again, now that both have one",
                &syn(here[0]),
                to_2,
            ),
            uplink("as many: the first", &syn(here[1]), to_1),
            uplink("as many: the first, elsewhere", &syn(there[0]), to_2),
            hear("an answer tells that its backend has twenty", 20, here[0]),
            uplink("the other then", &syn(there[1]), to_1),
            hear("an answer tells that it has none any more", 0, there[0]),
            uplink("it is asked again", &syn(here[2]), to_2),
            uplink(
                "a datagram follows the ring",
                &frame(c, n, L4::Udp(4000, 8400)),
                udp(c, n),
            ),
        ],
    )];
    let mut again = carried(Leg::MeshAgain, 1, 2, c, n, L4::Tcp(here[0], 8400, ACK));
    let mut guess = carried(Leg::Mesh, 1, 2, c, n, L4::Tcp(there[0], 8400, ACK));
    (again.src_mac[1], guess.src_mac[1]) = (0, 0);
    rows.push(row(
        "fewest connections, of connections that another node began",
        f,
        least([(1, 0), (2, 9)]),
        vec![
            uplink(
                "not here: with the other candidate",
                &ack(here[0]),
                Verdict::Tunnel(to_node(MESH, 2), Done::SecondChance),
            )
            .out(again),
            uplink(
                "the first candidate hears of the other",
                &ack(there[0]),
                to_2,
            )
            .out(guess.clone()),
            uplink("a guess is not remembered", &ack(there[0]), to_2).out(guess),
            hear("an answer tells who has it", 9, there[0]),
            uplink("that is", &ack(there[0]), to_2).out(carried(
                Leg::Mesh,
                0,
                2,
                c,
                n,
                L4::Tcp(there[0], 8400, ACK),
            )),
        ],
    ));
    let tell = |name, load, flags| {
        let said = from_task(1, t1, c, L4::Tcp(80, 4000, flags));
        let mut answer = carried(Leg::Answer, 1, 0, n2, c, L4::Tcp(8400, 4000, flags));
        answer.src_mac[1] = Load::code(load);
        let back = Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode);
        task(name, 1, &said, back).out(answer)
    };
    rows.push(row(
        "fewest connections, counted where they end",
        f,
        least([(1, 40), (2, 0)]),
        vec![
            overlay(
                "one comes",
                MESH,
                2,
                &carried(Leg::Mesh, 0, 1, c, n2, L4::Tcp(4000, 8400, SYN)),
                to_1,
            ),
            tell("its answer tells how many there are", 40, SYN_ACK),
            tell("accepted, it is one of them", 41, ACK),
            tell("and counted once", 41, ACK),
            overlay(
                "of others nothing is told",
                MESH,
                2,
                &carried(Leg::Mesh, 0, 1, c, n2, L4::Tcp(4000, 8000, SYN)),
                to_1,
            ),
        ],
    ));
    rows
}

/// Where a datagram goes that follows the ring.
fn udp(c: IpAddr, n: IpAddr) -> Verdict {
    if turn(c, n, (4000, 8400), 17, 0) == 0 {
        peer(1, Done::ToTaskTranslated)
    } else {
        Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode)
    }
}

pub(super) fn by_vip(f: Family) -> Vec<Row> {
    let vip = f.vip();
    let mut world = least([(3, 5), (4, 0)]);
    for front in world.fronts.iter_mut().filter(|(key, _)| key.net == WEB) {
        front.1.flags = front::LEAST;
    }
    world
        .rings
        .insert(5, (0..250).map(|slot| 3 + slot % 2).collect());
    // Of three in a row that have both to choose from, all go to the idle one.
    let ports = ports(f.task(6), vip, 80, 0);
    let ask = |port| from_task(6, f.task(6), vip, L4::Tcp(port, 80, SYN));
    let mut answer = carried(
        Leg::Answer,
        4,
        6,
        vip,
        f.task(6),
        L4::Tcp(80, ports[0], SYN_ACK),
    );
    answer.src_mac[1] = Load::code(30);
    vec![row(
        "fewest connections behind a VIP",
        f,
        world,
        vec![
            task(
                "the idle one, far",
                6,
                &ask(ports[0]),
                Verdict::Tunnel(to_node(WEB, 2), Done::ToBackendNode),
            ),
            overlay(
                "its answer tells of thirty",
                WEB,
                2,
                &answer,
                peer(6, Done::AnswerToTask),
            ),
            task(
                "the near one, which has five",
                6,
                &ask(ports[1]),
                peer(3, Done::ToTaskTranslated),
            ),
        ],
    )]
}
