//! What time and change do to what is remembered.

use weft_abi::{
    Be16, Done, Leg, Load, Sticky, StickyKey, backend, flow, front, ring_hash, ring_slot,
};
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::tables::Tables as _;
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::bytes::Bytes;
use crate::rows::frames::{Frame, L4};
use crate::rows::town::{Family, MESH, OVERLAY, UPLINK, carried, frame, from_task, link_of, town};
use crate::rows::world::World;
use crate::steering::{both, led_at};

const SECOND: u64 = 1_000_000_000;
const FAMILIES: [Family; 2] = [Family { v6: false }, Family { v6: true }];
const HERE: bool = true;

/// Whether a client's frame at this node's uplink goes to task 1, here, and not to node 2.
fn is_here(world: &World, frame: &Frame, now: u64) -> bool {
    led_at(world, frame, now) == 1
}

/// Ports of the client whose first candidate is task `first`, and whose second is the other.
fn ports(f: Family, proto: u8, first: u32) -> Vec<u16> {
    let slot = |port, attempt| {
        let (c, n) = (f.client().into(), f.node(1).into());
        let hash = ring_hash(7, &c, Be16::new(port), &n, Be16::new(8000), proto, attempt);
        1 + ring_slot(hash, 250) % 2
    };
    (4000..5000)
        .filter(|port| slot(*port, 0) == first && slot(*port, 16) != first)
        .take(8)
        .collect()
}

#[test]
fn a_count_is_believed_for_ten_seconds() {
    for f in FAMILIES {
        let world = both(|front| front.flags |= front::LEAST);
        let (c, n, ports) = (f.client(), f.node(1), ports(f, 6, 1));
        let count = |open| Load {
            open,
            pad: 0,
            at: SECOND,
        };
        world.set_load(1, &count(5));
        world.set_load(2, &count(0));
        let syn = |port| frame(c, n, L4::Tcp(port, 8000, SYN));
        assert_ne!(is_here(&world, &syn(ports[0]), 2 * SECOND), HERE);
        assert_ne!(is_here(&world, &syn(ports[1]), 11 * SECOND), HERE);
        assert_eq!(
            is_here(&world, &syn(ports[2]), 11 * SECOND + 1),
            HERE,
            "nobody knows of task 1 any more, and task 2 has two"
        );
    }
}

#[test]
fn a_client_stays_for_the_time_that_the_service_says() {
    for f in FAMILIES {
        for (now, stays) in [(2, true), (31, true), (32, false)] {
            let mut world = both(|front| front.affinity = 30);
            world.rings.insert(1, vec![1]);
            let key = StickyKey {
                client: f.client().into(),
                service: 1,
            };
            let last = Sticky {
                backend: 2,
                pad: 0,
                last: SECOND,
            };
            world.set_sticky(&key, &last);
            let syn = frame(f.client(), f.node(1), L4::Tcp(4000, 8000, SYN));
            assert_eq!(is_here(&world, &syn, now * SECOND), !stays, "after {now} s");
            // Whoever asked counts anew from there.
            let backend = if stays { 2 } else { 1 };
            let now = now * SECOND;
            let expected = Sticky {
                backend,
                pad: 0,
                last: if now == 2 * SECOND { SECOND } else { now },
            };
            assert_eq!(world.sticky(&key), Some(expected));
        }
    }
}

#[test]
fn silent_datagrams_give_their_tuple_up() {
    for f in FAMILIES {
        for (silence, port) in [(100, None), (181, Some(4000))] {
            let world = town();
            let (c, n, n2) = (f.client(), f.node(1), f.node(2));
            assert_eq!(
                is_here(&world, &frame(c, n, L4::Udp(4000, 8000)), SECOND),
                HERE
            );
            // The same client port to another host's address: the task could not tell them apart.
            let other = carried(Leg::Mesh, 0, 1, c, n2, L4::Udp(4000, 8000));
            let mut p = Bytes::new(other.bytes(), OVERLAY);
            p.now = (1 + silence) * SECOND;
            p.tunnel = Some(weft_ebpf::packet::Tunnel {
                vni: MESH,
                remote: Family { v6: false }.node(2).into(),
            });
            let mut work = Work::NONE;
            let verdict = weft_ebpf::overlay::judge(&mut p, &world, &mut work);
            assert_eq!(verdict, Verdict::Peer(link_of(1), Done::ToTaskTranslated));
            let Some(L4::Udp(seen, 80)) = Frame::read(&p.bytes).map(|frame| frame.l4) else {
                panic!("{:?}", p.bytes)
            };
            match port {
                Some(port) => assert_eq!(seen, port, "after {silence} s"),
                None => assert_ne!(seen, 4000, "after {silence} s"),
            }
        }
    }
}

#[test]
fn a_silent_connection_keeps_its_tuple() {
    for f in FAMILIES {
        let world = town();
        let (c, n, n2, t1) = (f.client(), f.node(1), f.node(2), f.task(1));
        let ask = |flags| frame(c, n, L4::Tcp(4000, 8000, flags));
        assert_eq!(is_here(&world, &ask(SYN), SECOND), HERE);
        let answer = from_task(1, t1, c, L4::Tcp(80, 4000, ACK)).bytes();
        let mut p = Bytes::new(answer, link_of(1));
        p.now = SECOND;
        let mut work = Work::NONE;
        let back = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
        assert_eq!(weft_ebpf::task::judge(&mut p, &world, &mut work), back);
        // Two hours are less than a host's own patience with an idle connection.
        let other = carried(Leg::Mesh, 0, 1, c, n2, L4::Tcp(4000, 8000, SYN));
        let mut p = Bytes::new(other.bytes(), OVERLAY);
        p.now = 7200 * SECOND;
        p.tunnel = Some(weft_ebpf::packet::Tunnel {
            vni: MESH,
            remote: Family { v6: false }.node(2).into(),
        });
        let verdict = weft_ebpf::overlay::judge(&mut p, &world, &mut work);
        assert_eq!(verdict, Verdict::Peer(link_of(1), Done::ToTaskTranslated));
        let seen = Frame::read(&p.bytes).map(|frame| frame.l4);
        assert!(
            matches!(seen, Some(L4::Tcp(port, 80, _)) if port != 4000),
            "the idle connection's place was taken: {seen:?}"
        );
    }
}

#[test]
fn a_new_connection_goes_by_the_ring_and_not_by_what_is_remembered() {
    for f in FAMILIES {
        let mut world = both(|_| ());
        let segment = |flags| {
            frame(
                f.client(),
                f.node(1),
                L4::Tcp(ports(f, 6, 2)[0], 8000, flags),
            )
        };
        assert_ne!(is_here(&world, &segment(SYN), 1), HERE);
        world.rings.insert(1, vec![1]);
        assert_ne!(is_here(&world, &segment(ACK), 2), HERE, "its connection");
        assert_eq!(is_here(&world, &segment(SYN), 3), HERE, "a new connection");
    }
}

#[test]
fn what_drains_keeps_connections_and_nothing_else() {
    for f in FAMILIES {
        for flags in [0, front::LEAST] {
            let mut world = both(|front| front.flags |= flags);
            let (c, n) = (f.client(), f.node(1));
            let (tcp, udp) = (ports(f, 6, 2)[0], ports(f, 17, 2)[0]);
            let segment = |flags| frame(c, n, L4::Tcp(tcp, 8000, flags));
            let datagram = frame(c, n, L4::Udp(udp, 8000));
            assert_ne!(is_here(&world, &segment(SYN), 1), HERE);
            assert_ne!(is_here(&world, &datagram, 1), HERE);
            if let Some(two) = world.backends.get_mut(&2) {
                two.flags |= backend::DRAINING;
            }
            assert_ne!(is_here(&world, &segment(ACK), 2), HERE, "its connection");
            assert_eq!(
                is_here(&world, &datagram, 2),
                HERE,
                "datagrams move at once"
            );
            assert_eq!(is_here(&world, &segment(SYN), 2), HERE, "a new connection");
        }
        let mut world = both(|_| ());
        let (c, n, port) = (f.client(), f.node(1), ports(f, 17, 1)[0]);
        let datagram = frame(c, n, L4::Udp(port, 8000));
        assert_eq!(is_here(&world, &datagram, 1), HERE);
        if let Some(one) = world.backends.get_mut(&1) {
            one.flags |= backend::DRAINING;
        }
        assert_ne!(
            is_here(&world, &datagram, 2),
            HERE,
            "datagrams of a flow that is here move at once"
        );
    }
}

#[test]
fn five_extension_headers_are_walked_and_no_more() {
    use weft_ebpf::parse::{Headers, NotParsed, parse};
    let f = Family { v6: true };
    let plain = frame(f.client(), f.node(1), L4::Udp(4000, 8000)).bytes();
    for headers in 0..8_usize {
        let mut bytes = plain.clone();
        for _ in 0..headers {
            // Destination options, before what was there.
            let next = bytes[20];
            bytes.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
            bytes[20] = 60;
        }
        let length = (bytes.len() - 54) as u16;
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
        let mut ip = Headers::NONE;
        let parsed = parse(&Bytes::new(bytes, UPLINK), &mut ip);
        if headers <= 5 {
            assert_eq!(parsed, Ok(()), "{headers} headers");
            assert_eq!(ip.dport, Be16::new(8000), "{headers} headers");
        } else {
            assert_eq!(parsed, Err(NotParsed::TooDeep), "{headers} headers");
        }
    }
}

#[test]
fn fragments_of_two_protocols_may_share_an_identification() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let world = town();
        let (c, n) = (f.client(), f.node(1));
        let mut judge = |bytes: Vec<u8>| {
            let mut p = Bytes::new(bytes, UPLINK);
            weft_ebpf::uplink::judge(&mut p, &world, &mut work)
        };
        let mut long = frame(c, n, L4::Udp(4000, 8000));
        long.payload = vec![7; 64];
        let [first, later] = long.fragments(32);
        long.l4 = L4::Tcp(4000, 8001, ACK);
        let [other, other_later] = long.fragments(32);
        let here = Verdict::Peer(link_of(1), Done::ToTaskTranslated);
        assert_eq!(judge(first), here);
        assert!(matches!(
            judge(other),
            Verdict::Tunnel(_, Done::ToBackendNode)
        ));
        assert_eq!(judge(later), here);
        assert!(matches!(
            judge(other_later),
            Verdict::Tunnel(_, Done::ToBackendNode)
        ));
    }
}

#[test]
fn fragments_of_two_datagrams_are_kept_apart() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let world = town();
        let (c, n) = (f.client(), f.node(1));
        let mut judge = |bytes: &[u8]| {
            let mut p = Bytes::new(bytes.to_vec(), UPLINK);
            weft_ebpf::uplink::judge(&mut p, &world, &mut work)
        };
        let mut long = frame(c, n, L4::Tcp(4000, 8000, ACK));
        long.payload = vec![7; 64];
        let [first, later] = long.fragments(32);
        long.l4 = L4::Tcp(4000, 8001, ACK);
        let [mut other, mut other_later] = long.fragments(32);
        for bytes in [&mut other, &mut other_later] {
            // Another identification; IPv4 keeps its header's sum by giving the difference back elsewhere.
            if f.v6 {
                bytes[58] ^= 1;
            } else {
                bytes[19] += 1;
                bytes[25] -= 1;
            }
        }
        let here = Verdict::Peer(link_of(1), Done::ToTaskTranslated);
        assert_eq!(judge(&first), here);
        assert!(matches!(
            judge(&other),
            Verdict::Tunnel(_, Done::ToBackendNode)
        ));
        assert_eq!(judge(&later), here);
        assert!(matches!(
            judge(&other_later),
            Verdict::Tunnel(_, Done::ToBackendNode)
        ));
    }
}

#[test]
fn a_connection_is_counted_once_and_when_its_task_accepts_it() {
    for f in FAMILIES {
        let mut world = both(|front| front.flags |= front::LEAST);
        world.rings.insert(1, vec![1]);
        let (c, n, t1) = (f.client(), f.node(1), f.task(1));
        let open = |world: &World| world.load(1).map_or(0, |load| load.open);
        assert_eq!(
            is_here(&world, &frame(c, n, L4::Tcp(4000, 8000, SYN)), 1),
            HERE
        );
        assert_eq!(open(&world), 0, "anybody can send a SYN");
        let mut work = Work::NONE;
        for (flags, counted) in [(SYN | ACK, 0), (ACK, 1), (ACK, 1)] {
            let answer = from_task(1, t1, c, L4::Tcp(80, 4000, flags));
            let mut p = Bytes::new(answer.bytes(), link_of(1));
            let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
            assert_eq!(verdict, Verdict::Neighbour(UPLINK, Done::AnswerToClient));
            assert_eq!(open(&world), counted, "flags {flags}");
        }
    }
}

/// A test run of the kernel refuses such a packet before any program sees it, so this is no row.
#[test]
fn a_network_header_cut_short_is_malformed() {
    let mut work = Work::NONE;
    let world = town();
    for f in FAMILIES {
        let whole = from_task(3, f.task(3), f.task(6), L4::Udp(1, 2)).bytes();
        for len in 14..if f.v6 { 54 } else { 34 } {
            let mut p = Bytes::new(whole[..len].to_vec(), link_of(3));
            let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
            assert_eq!(
                verdict,
                Verdict::Drop(weft_abi::Drop::Malformed),
                "{len} bytes"
            );
        }
    }
}

/// Takes the answers' entries out of the table of new flows, as when there was no room for them.
fn evict_answers(world: &World) -> usize {
    let mut flows = world.flow_new.borrow_mut();
    let before = flows.len();
    flows.retain(|key, _| key.side != flow::REPLY);
    before - flows.len()
}

#[test]
fn an_answers_entry_that_was_evicted_is_written_again() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let (c, n1, n2, t1) = (f.client(), f.node(1), f.node(2), f.task(1));
        let talks = [
            (L4::Tcp(4000, 8000, SYN), L4::Tcp(4000, 8000, ACK), ACK),
            (L4::Udp(4000, 8000), L4::Udp(4000, 8000), 0),
        ];
        for (first, next, tcp) in talks {
            for far in [false, true] {
                let world = town();
                let mut asks = |l4| {
                    if far {
                        let frame = carried(Leg::Mesh, 0, 1, c, n2, l4);
                        let mut p = Bytes::new(frame.bytes(), OVERLAY);
                        p.tunnel = Some(weft_ebpf::packet::Tunnel {
                            vni: MESH,
                            remote: Family { v6: false }.node(2).into(),
                        });
                        weft_ebpf::overlay::judge(&mut p, &world, &mut work)
                    } else {
                        let mut p = Bytes::new(frame(c, n1, l4).bytes(), UPLINK);
                        weft_ebpf::uplink::judge(&mut p, &world, &mut work)
                    }
                };
                let to_task = Verdict::Peer(link_of(1), Done::ToTaskTranslated);
                assert_eq!(asks(first), to_task);
                assert_eq!(evict_answers(&world), 1);
                assert_eq!(asks(next), to_task);
                let l4 = if tcp == 0 {
                    L4::Udp(80, 4000)
                } else {
                    L4::Tcp(80, 4000, tcp)
                };
                let mut p = Bytes::new(from_task(1, t1, c, l4).bytes(), link_of(1));
                let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
                let answered = match verdict {
                    Verdict::Neighbour(UPLINK, Done::AnswerToClient) => !far,
                    Verdict::Tunnel(_, Done::AnswerToNode) => far,
                    _ => false,
                };
                assert!(answered, "{l4:?}, {verdict:?}");
                // Nothing is taken for the task's that the client said.
                let promoted = world.flow.borrow().len();
                assert_eq!(promoted, if tcp == 0 { 0 } else { 2 });
            }
        }
    }
}

#[test]
fn answers_follow_a_client_whose_own_entry_alone_was_evicted() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let (c, n1, t1) = (f.client(), f.node(1), f.task(1));
        let world = town();
        let mut say = |link, frame: &Frame| {
            let mut p = Bytes::new(frame.bytes(), link);
            if link == UPLINK {
                return weft_ebpf::uplink::judge(&mut p, &world, &mut work);
            }
            if link != OVERLAY {
                return weft_ebpf::task::judge(&mut p, &world, &mut work);
            }
            p.tunnel = Some(weft_ebpf::packet::Tunnel {
                vni: MESH,
                remote: Family { v6: false }.node(2).into(),
            });
            weft_ebpf::overlay::judge(&mut p, &world, &mut work)
        };
        let asks = |flags| frame(c, n1, L4::Tcp(4000, 8000, flags));
        let answer = from_task(1, t1, c, L4::Tcp(80, 4000, ACK));
        let to_task = Verdict::Peer(link_of(1), Done::ToTaskTranslated);
        assert_eq!(say(UPLINK, &asks(SYN)), to_task);
        // The answers' entry alone is established, the client's is new again.
        world
            .flow_new
            .borrow_mut()
            .retain(|key, _| key.side == flow::REPLY);
        let here = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
        assert_eq!(say(link_of(1), &answer), here);
        assert_eq!(say(UPLINK, &asks(ACK)), to_task);
        // The address moved to node 2, and the client with it.
        let moved = Frame {
            src_mac: weft_abi::wire_mac(Leg::Mesh, 0),
            dst_mac: weft_abi::task_mac(1),
            ..asks(ACK)
        };
        assert_eq!(say(OVERLAY, &moved), to_task);
        let verdict = say(link_of(1), &answer);
        assert!(
            matches!(verdict, Verdict::Tunnel(to, Done::AnswerToNode) if to.remote == Family { v6: false }.node(2).into()),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_flow_that_is_evicted_while_its_packet_is_judged_leaves_nothing_of_another() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let world = town();
        let (c, n) = (f.client(), f.node(1));
        let to_task = Verdict::Peer(link_of(1), Done::ToTaskTranslated);
        let mut asks = |port, flags| {
            let frame = frame(c, n, L4::Tcp(port, 8000, flags));
            let mut p = Bytes::new(frame.bytes(), UPLINK);
            assert_eq!(weft_ebpf::uplink::judge(&mut p, &world, &mut work), to_task);
        };
        asks(4001, SYN);
        assert_eq!(evict_answers(&world), 1);
        // What was written down last is of this one.
        asks(4000, SYN);
        let evicted = |world: &World| {
            let mut flows = world.flow_new.borrow_mut();
            flows.retain(|key, _| key.sport != Be16::new(4001));
        };
        world.meanwhile.set(Some((2, evicted)));
        asks(4001, ACK);
        assert!(
            world.meanwhile.get().is_none(),
            "nothing happened meanwhile"
        );
        for (key, flow) in world.flow_new.borrow().iter() {
            let port = if key.side == flow::REPLY {
                key.dport
            } else {
                key.sport
            };
            assert_eq!(port, flow.cport, "{key:?} leads to another's client");
        }
        // Its next packet begins it again, for its task to answer.
        asks(4001, ACK);
        let answer = from_task(1, f.task(1), c, L4::Tcp(80, 4001, ACK));
        let mut p = Bytes::new(answer.bytes(), link_of(1));
        let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
        assert_eq!(verdict, Verdict::Neighbour(UPLINK, Done::AnswerToClient));
        let there = Frame::read(&p.bytes).map(|frame| frame.l4);
        assert_eq!(there, Some(L4::Tcp(8000, 4001, ACK)));
    }
}
