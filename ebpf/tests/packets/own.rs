//! What is the host's own: its connections from published ports, and ports that it may not bind.

use weft_abi::{Addr, Be16, Done, Netns, front, netns};
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::socket::{Request, lead, may_bind};
use weft_ebpf::translate::Tuple;
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::bytes::Bytes;
use crate::rows::frames::L4;
use crate::rows::town::{Family, UPLINK, frame, from_task, link_of, town};

const FAMILIES: [Family; 2] = [Family { v6: false }, Family { v6: true }];

fn ends(src: std::net::IpAddr, dst: std::net::IpAddr, sport: u16, dport: u16) -> Tuple {
    Tuple {
        src: src.into(),
        dst: dst.into(),
        sport: Be16::new(sport),
        dport: Be16::new(dport),
    }
}

#[test]
fn a_hosts_own_connection_from_a_published_port_is_left_to_it() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let (c, n) = (f.client(), f.node(1));
        let held = ends(c, n, 443, 8000);
        for (l4, own) in [
            (L4::Tcp(443, 8000, SYN | ACK), true),
            (L4::Tcp(443, 8000, ACK), true),
            (L4::Udp(443, 8000), true),
            // Who opens a connection asks the service, and another client is not this connection.
            (L4::Tcp(443, 8000, SYN), false),
            (L4::Tcp(444, 8000, ACK), false),
        ] {
            let world = town();
            let mut p = Bytes::new(frame(c, n, l4).bytes(), UPLINK);
            p.connected.push(held);
            let verdict = weft_ebpf::uplink::judge(&mut p, &world, &mut work);
            assert_eq!(verdict == Verdict::Next(Done::HostsOwn), own, "{l4:?}");
        }
        // A flow that is known goes before.
        let world = town();
        for (flags, connected) in [(SYN, false), (ACK, true)] {
            let mut p = Bytes::new(frame(c, n, L4::Tcp(443, 8000, flags)).bytes(), UPLINK);
            if connected {
                p.connected.push(held);
            }
            let verdict = weft_ebpf::uplink::judge(&mut p, &world, &mut work);
            assert_eq!(
                verdict,
                Verdict::Peer(link_of(1), Done::ToTaskTranslated),
                "flags {flags}"
            );
        }
        // A task answers the host's process the same way.
        let t3 = f.task(3);
        let world = town();
        let mut p = Bytes::new(
            from_task(3, t3, n, L4::Tcp(80, 8000, SYN | ACK)).bytes(),
            link_of(3),
        );
        p.connected.push(ends(t3, n, 80, 8000));
        let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
        assert_eq!(verdict, Verdict::Next(Done::HostsOwn));
        assert!(p.claimed, "the stack must take it as its own");
        // A VIP is no address of the host, whatever its sockets are connected to.
        let mut p = Bytes::new(
            from_task(3, t3, f.vip(), L4::Tcp(80, 8000, ACK)).bytes(),
            link_of(3),
        );
        p.connected.push(ends(t3, f.vip(), 80, 8000));
        let verdict = weft_ebpf::task::judge(&mut p, &world, &mut work);
        assert_eq!(verdict, Verdict::Peer(link_of(3), Done::ToTaskTranslated));
    }
}

#[test]
fn an_error_about_a_hosts_own_connection_is_left_to_it() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let (c, n) = (f.client(), f.node(1));
        // Port 8001's backend is elsewhere: without the connection, the error would be sent there.
        let quoted = frame(n, c, L4::Tcp(8001, 443, ACK)).bytes();
        let kind = if f.v6 { L4::Icmp(1, 4) } else { L4::Icmp(3, 3) };
        let mut error = frame(c, n, kind);
        error.payload = quoted[14..].to_vec();
        for own in [false, true] {
            let world = town();
            let mut p = Bytes::new(error.bytes(), UPLINK);
            if own {
                p.connected.push(ends(c, n, 443, 8001));
            }
            let verdict = weft_ebpf::uplink::judge(&mut p, &world, &mut work);
            assert_eq!(verdict == Verdict::Next(Done::HostsOwn), own, "{verdict:?}");
        }
    }
}

fn request(addr: Addr, port: u16, proto: u8) -> Request {
    Request {
        cookie: 9,
        namespace: 1,
        now: 0,
        bound: Addr::ANY,
        addr,
        port: Be16::new(port),
        proto,
        v6: !addr.is_v4(),
    }
}

#[test]
fn nobody_on_the_host_binds_a_published_port() {
    let world = town();
    let Some(cfg) = world.config else { return };
    let host = Netns {
        flags: netns::HOST,
        ..Default::default()
    };
    for f in FAMILIES {
        let every = if f.v6 { Addr::ANY } else { Addr::v4([0; 4]) };
        let loopback: Addr = if f.v6 {
            "::1".parse::<std::net::IpAddr>()
        } else {
            "127.0.0.1".parse()
        }
        .map_or(Addr::ANY, Addr::from);
        let binds =
            |ns: &Netns, addr, port, proto| may_bind(&world, &cfg, ns, &request(addr, port, proto));
        for proto in [6, 17] {
            for addr in [every, loopback, f.node(1).into()] {
                assert!(!binds(&host, addr, 8000, proto), "{addr:?}, {proto}");
                assert!(binds(&host, addr, 8010, proto), "{addr:?}, not published");
                assert!(
                    binds(&host, addr, 0, proto),
                    "{addr:?}, the kernel's choice"
                );
                assert!(
                    binds(&Netns::default(), addr, 8000, proto),
                    "{addr:?}, in a task"
                );
            }
            assert!(
                binds(&host, f.host(50).into(), 8000, proto),
                "an address that answers for no service"
            );
        }
        assert!(binds(&host, every, 8000, 132), "another protocol");
    }
}

#[test]
fn sockets_are_led_to_the_less_loaded_but_tasks_packets_decide() {
    use weft_abi::{FrontKey, Load};
    use weft_ebpf::tables::Tables as _;
    let mut world = town();
    for front in world.fronts.values_mut() {
        front.flags |= front::LEAST;
    }
    let f = FAMILIES[0];
    world
        .rings
        .insert(1, (0..250).map(|slot| 1 + slot % 2).collect());
    let Some(cfg) = world.config else { return };
    let load = |open| Load {
        open,
        pad: 0,
        at: 1,
    };
    world.set_load(1, &load(1000));
    world.set_load(2, &load(0));
    let host = Netns {
        flags: netns::HOST,
        ..Default::default()
    };
    let mut led = 0;
    for cookie in 0..400 {
        let mut r = request(f.node(1).into(), 8000, 6);
        (r.cookie, r.now) = (cookie, 2);
        match lead(&world, &cfg, &host, &r) {
            Ok(Some((to, _))) if to == Addr::from(f.task(2)) => led += 1,
            other => assert!(matches!(other, Ok(Some(_))), "{other:?}"),
        }
    }
    // One in sixteen has the other backend twice.
    assert!((350..400).contains(&led), "{led} of 400 to the idle one");
    assert_eq!(world.load(2).map(|load| load.open), Some(led));
    let mut tasks = Netns {
        count: 1,
        ..Default::default()
    };
    tasks.nets[0] = crate::rows::town::WEB;
    let vip: Addr = f.vip().into();
    assert_eq!(lead(&world, &cfg, &tasks, &request(vip, 80, 6)), Ok(None));
    let key = FrontKey::vip(crate::rows::town::WEB, vip);
    assert!(world.fronts.contains_key(&key));
}

#[test]
fn a_tasks_datagrams_are_led_by_packets_unless_its_sockets_stay_together() {
    for affinity in [0, 60] {
        let mut world = town();
        for front in world.fronts.values_mut() {
            front.affinity = affinity;
        }
        let Some(cfg) = world.config else { return };
        let mut tasks = Netns {
            count: 1,
            ..Default::default()
        };
        tasks.nets[0] = crate::rows::town::WEB;
        let host = Netns {
            flags: netns::HOST,
            ..Default::default()
        };
        for f in FAMILIES {
            let is_led = |ns, proto| {
                let asked = request(f.vip().into(), 80, proto);
                matches!(lead(&world, &cfg, ns, &asked), Ok(Some(_)))
            };
            assert!(is_led(&tasks, 6));
            assert_eq!(is_led(&tasks, 17), affinity != 0);
            // Its packets would be led by nobody.
            assert!(is_led(&host, 17));
        }
    }
}

#[test]
fn a_host_reaches_services_of_every_network_at_their_vips() {
    let world = town();
    let Some(cfg) = world.config else { return };
    let host = Netns {
        flags: netns::HOST,
        ..Default::default()
    };
    for f in FAMILIES {
        let vip: Addr = f.vip().into();
        let tasks = [3, 4].map(|id| Addr::from(f.task(id)));
        for proto in [6, 17] {
            match lead(&world, &cfg, &host, &request(vip, 80, proto)) {
                Ok(Some((to, port))) => {
                    assert!(tasks.contains(&to), "{to:?}");
                    assert_eq!(port, Be16::new(80));
                }
                other => panic!("{proto}: {other:?}"),
            }
            // With a loopback source the kernel would not let it out.
            let mut bound = request(vip, 80, proto);
            bound.bound = if f.v6 {
                Addr::from(std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST))
            } else {
                Addr::v4([127, 0, 0, 1])
            };
            assert_eq!(lead(&world, &cfg, &host, &bound), Ok(None));
            for other in [tasks[0], f.client().into()] {
                let asked = lead(&world, &cfg, &host, &request(other, 80, proto));
                assert_eq!(asked, Ok(None), "{other:?} is no service");
            }
        }
    }
}
