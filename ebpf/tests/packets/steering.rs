//! Who is led where when what is remembered and what is there disagree.

use std::net::IpAddr;

use weft_abi::{Be16, Done, Leg, Load, Sticky, StickyKey, backend, flow, front};
use weft_ebpf::packet::Tunnel;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::tables::Tables as _;
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::bytes::Bytes;
use crate::rows::frames::{Frame, L4};
use crate::rows::town::{
    Family, MESH, OVERLAY, UPLINK, WEB, carried, frame, from_task, link_of, town,
};
use crate::rows::world::World;

const FAMILIES: [Family; 2] = [Family { v6: false }, Family { v6: true }];
const SECOND: u64 = 1_000_000_000;

fn led(world: &World, frame: &Frame) -> u32 {
    led_at(world, frame, SECOND)
}

/// The backend, 1 here or 2 on node 2, that a client's frame at this node's uplink gets.
pub(crate) fn led_at(world: &World, frame: &Frame, now: u64) -> u32 {
    let mut work = Work::NONE;
    let mut p = Bytes::new(frame.bytes(), UPLINK);
    p.now = now;
    match weft_ebpf::uplink::judge(&mut p, world, &mut work) {
        Verdict::Peer(link, Done::ToTaskTranslated) if link == link_of(1) => 1,
        Verdict::Tunnel(_, Done::ToBackendNode) => 2,
        other => panic!("{other:?}"),
    }
}

/// Port 8000 leads to tasks 1 and 2, in as many slots each.
pub(crate) fn both(change: impl Fn(&mut weft_abi::Front)) -> World {
    let mut world = town();
    world
        .rings
        .insert(1, (0..250).map(|slot| 1 + slot % 2).collect());
    for (key, front) in &mut world.fronts {
        if key.port == Be16::new(8000) {
            change(front);
        }
    }
    world
}

fn asks(f: Family, port: u16, udp: bool) -> Frame {
    let l4 = if udp {
        L4::Udp(port, 8000)
    } else {
        L4::Tcp(port, 8000, SYN)
    };
    frame(f.client(), f.node(1), l4)
}

#[test]
fn a_client_stays_by_either_protocol_but_not_with_what_drains() {
    for f in FAMILIES {
        for udp in [false, true] {
            for (drains, expected) in [(false, 2), (true, 1)] {
                let mut world = both(|front| front.affinity = 30);
                world.rings.insert(1, vec![1]);
                let key = StickyKey {
                    client: f.client().into(),
                    service: 1,
                };
                let stays = Sticky {
                    backend: 2,
                    pad: 0,
                    last: SECOND,
                };
                world.set_sticky(&key, &stays);
                if drains && let Some(two) = world.backends.get_mut(&2) {
                    two.flags |= backend::DRAINING;
                }
                let got = led(&world, &asks(f, 4000, udp));
                assert_eq!(got, expected, "UDP: {udp}, drains: {drains}");
            }
        }
    }
}

#[test]
fn a_client_that_nobody_remembers_has_one_task_from_every_port_and_at_every_host() {
    for f in FAMILIES {
        let mut tasks = [0; 3];
        for digit in 100..132 {
            let mut first = None;
            for port in 4000..4008 {
                // As on another host, which has no memory of this client.
                let mut world = both(|front| front.affinity = 30);
                let at = if port % 2 == 0 { f.node(1) } else { f.host(21) };
                world.locals.push(at.into());
                let got = led(&world, &frame(f.host(digit), at, L4::Tcp(port, 8000, SYN)));
                assert_eq!(
                    *first.get_or_insert(got),
                    got,
                    "client {digit}, port {port}"
                );
            }
            tasks[first.unwrap_or(0) as usize] += 1;
        }
        assert!(
            tasks[1] > 4 && tasks[2] > 4,
            "clients are spread: {tasks:?}"
        );
    }
}

#[test]
fn the_second_of_two_is_none_that_drains_or_is_lost() {
    for f in FAMILIES {
        for lost in [false, true] {
            let mut world = both(|front| front.flags |= front::LEAST);
            let count = |open| Load {
                open,
                pad: 0,
                at: SECOND,
            };
            world.set_load(1, &count(1000));
            world.set_load(2, &count(0));
            if lost {
                if let Some(node) = world.nodes.get_mut(&2) {
                    node.flags |= weft_abi::node::DEAD;
                }
            } else if let Some(two) = world.backends.get_mut(&2) {
                two.flags |= backend::DRAINING;
            }
            for port in 4000..4064 {
                let got = led(&world, &asks(f, port, false));
                assert_eq!(got, 1, "port {port}, its node is lost: {lost}");
            }
        }
    }
}

#[test]
fn what_another_service_had_at_a_port_is_forgotten() {
    for f in FAMILIES {
        for udp in [false, true] {
            let mut world = both(|_| ());
            world.rings.insert(1, vec![2]);
            assert_eq!(led(&world, &asks(f, 4000, udp)), 2);
            // The port is another service's now, whose one task is here.
            world.rings.insert(6, vec![1]);
            for (key, front) in &mut world.fronts {
                if key.port == Be16::new(8000) {
                    front.service = 6;
                }
            }
            let mut next = asks(f, 4000, udp);
            if !udp {
                next.l4 = L4::Tcp(4000, 8000, ACK);
            }
            assert_eq!(led(&world, &next), 1, "UDP: {udp}");
        }
    }
}

#[test]
fn datagrams_of_a_flow_here_leave_a_service_that_lost_the_port() {
    for f in FAMILIES {
        let mut world = both(|_| ());
        world.rings.insert(1, vec![1]);
        assert_eq!(led(&world, &asks(f, 4000, true)), 1);
        world.rings.insert(6, vec![2]);
        for (key, front) in &mut world.fronts {
            if key.port == Be16::new(8000) {
                front.service = 6;
            }
        }
        assert_eq!(led(&world, &asks(f, 4000, true)), 2);
    }
}

#[test]
fn a_connection_anew_leaves_a_task_that_drains_here() {
    for f in FAMILIES {
        let mut world = both(|_| ());
        world.rings.insert(1, vec![1]);
        assert_eq!(led(&world, &asks(f, 4000, false)), 1);
        let said = from_task(1, f.task(1), f.client(), L4::Tcp(80, 4000, ACK));
        let mut p = Bytes::new(said.bytes(), link_of(1));
        let mut work = Work::NONE;
        let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
        assert_eq!(verdict, Verdict::Neighbour(UPLINK, Done::AnswerToClient));
        world.rings.insert(1, vec![2]);
        if let Some(one) = world.backends.get_mut(&1) {
            one.flags |= backend::DRAINING;
        }
        let mut goes_on = asks(f, 4000, false);
        goes_on.l4 = L4::Tcp(4000, 8000, ACK);
        assert_eq!(led(&world, &goes_on), 1, "the connection that it has");
        assert_eq!(led(&world, &asks(f, 4000, false)), 2, "another");
    }
}

#[test]
fn fragments_of_two_clients_or_to_two_addresses_are_kept_apart() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let mut world = town();
        let second = f.host(21);
        world.locals.push(second.into());
        let (c, d, n) = (f.client(), f.host(101), f.node(1));
        let mut judge = |bytes: &[u8]| {
            let mut p = Bytes::new(bytes.to_vec(), UPLINK);
            weft_ebpf::uplink::judge(&mut p, &world, &mut work)
        };
        // All have one identification.
        let pieces = |src: IpAddr, dst: IpAddr, port| {
            Frame {
                payload: vec![7; 64],
                ..frame(src, dst, L4::Udp(4000, port))
            }
            .fragments(32)
        };
        let talks = [
            (pieces(c, n, 8000), true),
            (pieces(d, n, 8001), false),
            (pieces(c, second, 8001), false),
        ];
        for later in [0, 1] {
            for (pieces, here) in &talks {
                let verdict = judge(&pieces[later]);
                let as_asked = match verdict {
                    Verdict::Peer(link, Done::ToTaskTranslated) => *here && link == link_of(1),
                    Verdict::Tunnel(_, Done::ToBackendNode) => !here,
                    _ => false,
                };
                assert!(as_asked, "piece {later}: {verdict:?}");
            }
        }
    }
}

fn through(vni: u32) -> Option<Tunnel> {
    Some(Tunnel {
        vni,
        remote: Family { v6: false }.node(2).into(),
    })
}

#[test]
fn an_answer_that_nobody_remembers_leaves_by_the_hosts_routes() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let world = town();
        let answer = carried(
            Leg::Answer,
            2,
            0,
            f.node(1),
            f.client(),
            L4::Tcp(8001, 4000, ACK),
        );
        // By another interface than the usual, and never back into the tunnel.
        for (route, expected) in [(Some(33), 33), (Some(OVERLAY), UPLINK), (None, UPLINK)] {
            let mut p = Bytes::new(answer.bytes(), OVERLAY);
            p.tunnel = through(MESH);
            p.routes.extend(route.map(|link| (f.client().into(), link)));
            let verdict = weft_ebpf::overlay::judge(&mut p, &world.clone(), &mut work);
            let to_client = Verdict::Neighbour(expected, Done::AnswerToClient);
            assert_eq!(verdict, to_client, "route: {route:?}");
        }
    }
}

#[test]
fn an_answer_leaves_by_the_interface_that_its_client_came_in_by() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let world = town();
        let mut p = Bytes::new(asks(f, 4000, false).bytes(), 33);
        let verdict = weft_ebpf::uplink::judge(&mut p, &world, &mut work);
        let here = Verdict::Peer(link_of(1), Done::ToTaskTranslated);
        assert_eq!(verdict, here);
        let answer = from_task(1, f.task(1), f.client(), L4::Tcp(80, 4000, SYN | ACK));
        let mut p = Bytes::new(answer.bytes(), link_of(1));
        let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
        assert_eq!(verdict, Verdict::Neighbour(33, Done::AnswerToClient));
    }
}

#[test]
fn a_flow_tells_whether_a_task_asks() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let world = town();
        let asks = carried(Leg::Vip, 0, 3, f.task(4), f.vip(), L4::Udp(4000, 80));
        let outside = carried(Leg::Mesh, 0, 1, f.client(), f.node(2), L4::Udp(4000, 8000));
        for (frame, vni, expected) in [(asks, WEB, flow::VIP | flow::FROM_TASK), (outside, MESH, 0)]
        {
            let mut p = Bytes::new(frame.bytes(), OVERLAY);
            p.tunnel = through(vni);
            let verdict = weft_ebpf::overlay::judge(&mut p, &world, &mut work);
            assert!(matches!(verdict, Verdict::Peer(..)), "{verdict:?}");
            let flows = world.flow_new.borrow();
            let of_net: Vec<u16> = flows
                .values()
                .filter(|flow| flow.net == vni)
                .map(|flow| flow.flags)
                .collect();
            assert_eq!(of_net, [expected; 2]);
        }
    }
}

#[test]
fn datagrams_take_no_second_chance() {
    for f in FAMILIES {
        let mut world = both(|_| ());
        world.rings.insert(1, vec![1]);
        world.rings_before.insert(1, vec![2]);
        assert_eq!(led(&world, &asks(f, 4000, true)), 1);
        let mut goes_on = asks(f, 4000, false);
        goes_on.l4 = L4::Tcp(4000, 8000, ACK);
        // A connection that nobody here knows was its ring's before.
        let mut p = Bytes::new(goes_on.bytes(), UPLINK);
        let mut work = Work::NONE;
        let verdict = weft_ebpf::uplink::judge(&mut p, &world, &mut work);
        let before = matches!(verdict, Verdict::Tunnel(_, Done::SecondChance));
        assert!(before, "{verdict:?}");
    }
}

#[test]
fn an_error_follows_what_is_remembered_of_its_connection() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let (c, n) = (f.client(), f.node(1));
        let kind = if f.v6 { L4::Icmp(1, 4) } else { L4::Icmp(3, 3) };
        let error = Frame {
            payload: frame(n, c, L4::Tcp(8000, 4000, ACK)).bytes()[14..].to_vec(),
            ..frame(c, n, kind)
        };
        for (drains, other_service) in [(false, false), (true, false), (false, true)] {
            let mut world = both(|_| ());
            world.rings.insert(1, vec![2]);
            assert_eq!(led(&world, &asks(f, 4000, false)), 2);
            // New connections go elsewhere: here.
            world.rings.insert(1, vec![1]);
            world.rings.insert(6, vec![1]);
            if drains && let Some(two) = world.backends.get_mut(&2) {
                two.flags |= backend::DRAINING;
            }
            for (key, front) in &mut world.fronts {
                if other_service && key.port == Be16::new(8000) {
                    front.service = 6;
                }
            }
            let mut p = Bytes::new(error.bytes(), UPLINK);
            let verdict = weft_ebpf::uplink::judge(&mut p, &world, &mut work);
            let follows = matches!(verdict, Verdict::Tunnel(_, Done::ToBackendNode));
            assert_eq!(follows, !other_service, "drains: {drains}, {verdict:?}");
        }
    }
}

#[test]
fn a_count_that_is_told_again_stays_believed() {
    let world = town();
    let learn = |load: u32, seconds| {
        weft_ebpf::least::learn(&world, 2, Load::code(load), seconds * SECOND);
        world.load(2).map(|load| (load.open, load.at / SECOND))
    };
    assert_eq!(learn(3, 1), Some((3, 1)));
    assert_eq!(learn(3, 9), Some((3, 9)), "the same, later");
    assert_eq!(learn(4, 9), Some((4, 9)), "another, at once");
}
