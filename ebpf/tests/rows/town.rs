//! The tables that rows start from: this node is 1; nodes 2 (alive) and 3 (dead) are elsewhere.

use std::net::IpAddr;

use weft_abi::*;

use super::frames::{Frame, L4};
use super::world::World;

/// Ingress network, a user network, an internal one.
pub(crate) const MESH: u32 = 4096;
pub(crate) const WEB: u32 = 5000;
pub(crate) const INNER: u32 = 5001;
/// Interface to the world: in a test run it is the loopback interface.
pub(crate) const UPLINK: u32 = 1;
/// The tunnel device.
pub(crate) const OVERLAY: u32 = 20;

/// One family's addresses of the town.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) v6: bool,
}

impl Family {
    fn pick(self, four: String, six: String) -> IpAddr {
        if self.v6 { six } else { four }
            .parse()
            .unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }
    /// A host of the underlay: node `n`'s own digit is 10 + n.
    pub(crate) fn host(self, digit: u32) -> IpAddr {
        self.pick(format!("192.0.2.{digit}"), format!("2001:db8::{digit}"))
    }
    pub(crate) fn node(self, id: u32) -> IpAddr {
        self.host(10 + id)
    }
    pub(crate) fn client(self) -> IpAddr {
        self.host(100)
    }
    /// Address `digit` on a network.
    pub(crate) fn on(self, net: u32, digit: u32) -> IpAddr {
        let third = match net {
            MESH => 0,
            WEB => 1,
            _ => 2,
        };
        self.pick(
            format!("10.0.{third}.{digit}"),
            format!("fd00:0:0:{third}::{digit}"),
        )
    }
    /// Task `id`'s address on its network.
    pub(crate) fn task(self, id: u32) -> IpAddr {
        self.on(net_of(id), 10 + id)
    }
    /// VIP of the user network.
    pub(crate) fn vip(self) -> IpAddr {
        self.on(WEB, 200)
    }
}

/// Tasks 1 (here) and 2 (node 2) on the mesh; 3 (here), 4 (node 2) and 6 (here) on the user network; 5 (here) inner.
pub(crate) fn net_of(id: u32) -> u32 {
    match id {
        1 | 2 => MESH,
        5 => INNER,
        _ => WEB,
    }
}

/// Node that runs a task.
pub(crate) fn node_of(id: u32) -> u32 {
    if id == 2 || id == 4 { 2 } else { 1 }
}

/// Interface of a local task.
pub(crate) fn link_of(id: u32) -> u32 {
    10 + id
}

/// The town's tables. Published: 8000 on task 1, 8001 on task 2, 8002 on nothing, 8003 on node 3's dead task 7.
pub(crate) fn town() -> World {
    let mut w = World {
        config: Some(Config {
            seed: 7,
            node: 1,
            mesh: MESH,
            overlay: OVERLAY,
            uplink: UPLINK,
            flags: config::CSUM_IPV6,
            vxlan_port: Be16::new(4789),
            pad: 0,
            underlay: Family { v6: false }.node(1).into(),
        }),
        ..World::default()
    };
    for f in [Family { v6: false }, Family { v6: true }] {
        w.locals.push(f.node(1).into());
        for id in [1, 2, 3] {
            let flags = if f.v6 {
                node_addr::HOST
            } else {
                node_addr::HOST | node_addr::UNDERLAY
            };
            w.node_by_addr
                .insert(f.node(id).into(), NodeAddr { node: id, flags });
        }
        for net in [MESH, WEB, INNER] {
            w.subnets
                .push((if f.v6 { 64 } else { 120 }, f.on(net, 0).into(), net));
        }
        for id in 1..=6 {
            let ifindex = if node_of(id) == 1 { link_of(id) } else { 0 };
            let task = Task {
                id,
                node: node_of(id),
                ifindex,
            };
            w.tasks.insert(
                NetAddr {
                    net: net_of(id),
                    addr: f.task(id).into(),
                },
                task,
            );
        }
        w.fronts.insert(
            FrontKey::vip(WEB, f.vip().into()),
            Front {
                service: 5,
                ..Default::default()
            },
        );
    }
    for id in [1, 2, 3] {
        let flags = if id == 3 { node::DEAD } else { 0 };
        w.nodes.insert(
            id,
            Node {
                underlay: Family { v6: false }.node(id).into(),
                flags,
                ..Default::default()
            },
        );
    }
    let (four, six) = (Family { v6: false }, Family { v6: true });
    for id in 1..=6 {
        let (addr4, addr6) = (four.task(id).into(), six.task(id).into());
        w.backends.insert(
            id,
            Backend {
                addr4,
                addr6,
                node: node_of(id),
                net: net_of(id),
                flags: 0,
            },
        );
        if node_of(id) == 1 {
            let flags = if net_of(id) == INNER {
                endpoint::INTERNAL
            } else {
                0
            };
            let link = link_of(id);
            let mac = task_mac(id);
            w.endpoints.insert(
                link,
                Endpoint {
                    id,
                    ifindex: link,
                    net: net_of(id),
                    flags,
                    addr4,
                    addr6,
                    mac,
                    pad: [0; 2],
                },
            );
        }
    }
    w.backends.insert(
        7,
        Backend {
            node: 3,
            net: MESH,
            ..Default::default()
        },
    );
    for (service, ring) in [(1, vec![1]), (2, vec![2]), (4, vec![7]), (5, vec![3])] {
        w.rings.insert(service, ring);
    }
    for (port, service) in [(8000, 1), (8001, 2), (8002, 3), (8003, 4)] {
        let front = Front {
            service,
            port: Be16::new(80),
            ..Default::default()
        };
        publish(&mut w, Addr::ANY, port, front);
    }
    w
}

/// Publishes a port on an address, or on all, for TCP and UDP.
pub(crate) fn publish(world: &mut World, addr: Addr, port: u16, front: Front) {
    for proto in [6, 17] {
        let key = FrontKey::published(addr, Be16::new(port), proto);
        world.fronts.insert(key, front);
    }
}

/// A frame between two addresses.
pub(crate) fn frame(src: IpAddr, dst: IpAddr, l4: L4) -> Frame {
    Frame {
        dst_mac: [0; 6],
        src_mac: [0x0a, 0, 0, 0, 0, 1],
        src,
        dst,
        l4,
        payload: b"hello weft".to_vec(),
    }
}

/// A frame that a task sends.
pub(crate) fn from_task(id: u32, src: IpAddr, dst: IpAddr, l4: L4) -> Frame {
    Frame {
        dst_mac: GATEWAY_MAC,
        src_mac: task_mac(id),
        ..frame(src, dst, l4)
    }
}

/// A frame as it travels in the tunnel.
pub(crate) fn carried(leg: Leg, said: u32, to: u32, src: IpAddr, dst: IpAddr, l4: L4) -> Frame {
    Frame {
        dst_mac: task_mac(to),
        src_mac: wire_mac(leg, said),
        ..frame(src, dst, l4)
    }
}
