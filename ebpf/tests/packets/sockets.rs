//! Where a socket is led, and where it is not.

use weft_abi::{Addr, AllowKey, Be16, Config, Drop, Netns, front, netns};
use weft_ebpf::socket::{Request, lead};

use crate::rows::town::{Family, WEB, town};
use crate::rows::world::World;

const FAMILIES: [Family; 2] = [Family { v6: false }, Family { v6: true }];

fn request(addr: Addr, port: u16, proto: u8) -> Request {
    Request {
        cookie: 9,
        namespace: 1,
        now: 1,
        bound: Addr::ANY,
        addr,
        port: Be16::new(port),
        proto,
        v6: !addr.is_v4(),
    }
}

fn host() -> Netns {
    Netns {
        flags: netns::HOST,
        ..Default::default()
    }
}

fn config(world: &World) -> Config {
    world.config.unwrap_or_default()
}

#[test]
fn no_process_writes_to_a_nodes_tunnel_port() {
    let world = town();
    let cfg = config(&world);
    for f in FAMILIES {
        for ns in [host(), Netns::default()] {
            for node in [1, 2] {
                let asks = |port, proto| {
                    let asked = request(f.node(node).into(), port, proto);
                    lead(&world, &cfg, &ns, &asked)
                };
                assert_eq!(asks(4789, 17), Err(Drop::TunnelForged), "node {node}");
                assert_eq!(asks(4789, 6), Ok(None), "TCP is no tunnel's");
                assert_eq!(asks(4790, 17), Ok(None));
            }
            let stranger = request(f.client().into(), 4789, 17);
            assert_eq!(lead(&world, &cfg, &ns, &stranger), Ok(None));
        }
    }
}

#[test]
fn a_host_asks_itself_at_every_address_of_its_own() {
    let world = town();
    let cfg = config(&world);
    let loopback: [Addr; 2] = [
        Addr::v4([127, 0, 0, 1]),
        std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST).into(),
    ];
    for (f, loopback) in FAMILIES.into_iter().zip(loopback) {
        let to = Ok(Some((f.task(1).into(), Be16::new(80))));
        for proto in [6, 17] {
            for addr in [loopback, f.node(1).into()] {
                let asked = request(addr, 8000, proto);
                assert_eq!(lead(&world, &cfg, &host(), &asked), to, "{addr:?}");
                // A task's own addresses are not the host's.
                assert_eq!(lead(&world, &cfg, &Netns::default(), &asked), Ok(None));
            }
            let nobody = request(loopback, 8002, proto);
            let refused = lead(&world, &cfg, &host(), &nobody);
            assert_eq!(refused, Err(Drop::NoBackend), "at once");
        }
    }
}

#[test]
fn a_host_that_is_not_on_the_list_is_refused() {
    for f in FAMILIES {
        let mut world = town();
        for front in world.fronts.values_mut() {
            front.flags |= front::ALLOWED;
        }
        let cfg = config(&world);
        let asked = request(f.node(1).into(), 8000, 6);
        let refused = lead(&world, &cfg, &host(), &asked);
        assert_eq!(refused, Err(Drop::NotAllowed));
        let key = AllowKey {
            service: 1,
            addr: f.node(1).into(),
        };
        world.allowed.push((128, key));
        assert!(matches!(lead(&world, &cfg, &host(), &asked), Ok(Some(_))));
    }
}

#[test]
fn all_networks_of_a_task_are_searched() {
    let world = town();
    let cfg = config(&world);
    for f in FAMILIES {
        let mut two = Netns {
            count: 2,
            ..Default::default()
        };
        two.nets[0] = 9;
        two.nets[1] = WEB;
        let asked = request(f.vip().into(), 80, 6);
        let to = Ok(Some((f.task(3).into(), Be16::new(80))));
        assert_eq!(lead(&world, &cfg, &two, &asked), to);
        two.count = 1;
        assert_eq!(lead(&world, &cfg, &two, &asked), Ok(None), "not its own");
    }
}

#[test]
fn sockets_of_one_namespace_stay_together_for_their_time() {
    for f in FAMILIES {
        let mut world = town();
        for front in world.fronts.values_mut() {
            front.affinity = 30;
        }
        let cfg = config(&world);
        let asks = |world: &World, cookie, now: u64| {
            let asked = Request {
                cookie,
                now: now * 1_000_000_000,
                ..request(f.node(1).into(), 8000, 6)
            };
            match lead(world, &cfg, &host(), &asked) {
                Ok(Some((to, _))) => to,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(asks(&world, 1, 1), f.task(1).into());
        world.rings.insert(1, vec![2]);
        assert_eq!(asks(&world, 2, 31), f.task(1).into(), "in its time");
        assert_eq!(asks(&world, 3, 62), f.task(2).into(), "when that is over");
    }
}

#[test]
fn a_socket_goes_where_its_family_can() {
    for (only, asked, wanted) in [
        (Family { v6: false }, Family { v6: true }, true),
        (Family { v6: true }, Family { v6: false }, false),
        (Family { v6: true }, Family { v6: true }, true),
    ] {
        let mut world = town();
        if let Some(one) = world.backends.get_mut(&1) {
            if only.v6 {
                one.addr4 = Addr::ANY;
            } else {
                one.addr6 = Addr::ANY;
            }
        }
        let cfg = config(&world);
        let led = lead(
            &world,
            &cfg,
            &host(),
            &request(asked.node(1).into(), 8000, 6),
        );
        let to = wanted.then(|| (only.task(1).into(), Be16::new(80)));
        assert_eq!(led, Ok(to), "a backend of {only:?}, asked by {asked:?}");
    }
}
