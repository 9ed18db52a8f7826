//! A client, a switch, two nodes and their tasks, as namespaces of this machine.

use anyhow::Result;
use aya::programs::TcAttachType;
use weft_abi::*;

use super::netns::{Netns, wait_for_links};
use super::node::{MESH, Node, OTHER, Sandbox, ip, wire};
use super::talk::serve;

/// Everything, wired and filled in: tasks 1 (node 1), 2 (node 2) behind port 8000 and a VIP of the
/// mesh's network, and tasks 3 (node 1), 4 (node 2) of another network with a VIP.
pub(crate) struct Lab {
    pub(crate) client: Netns,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tasks: Vec<Sandbox>,
    switch: Netns,
}

impl Lab {
    /// Builds it.
    pub(crate) fn new() -> Result<Self> {
        Self::with_room(4096)
    }

    /// Builds it with room for this many flow entries on each node.
    pub(crate) fn with_room(flows: u32) -> Result<Self> {
        let switch = Netns::new("s")?;
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        let client = Netns::new("c")?;
        wire(&switch, &client, "pc", 100)?;
        let nodes = vec![Node::new(&switch, 1, flows)?, Node::new(&switch, 2, flows)?];
        let mut lab = Self {
            client,
            nodes,
            tasks: Vec::new(),
            switch,
        };
        for (id, node, net) in [(1, 1, MESH), (2, 2, MESH), (3, 1, OTHER), (4, 2, OTHER)] {
            lab.task(id, node, net)?;
        }
        serve(&lab.tasks[0].ns, "t1")?;
        serve(&lab.tasks[1].ns, "t2")?;
        serve(&lab.tasks[2].ns, "t3")?;
        serve(&lab.tasks[3].ns, "t4")?;
        for node in &mut lab.nodes {
            node.ring("rings", 1, &[1, 2])?;
            node.ring("rings", 2, &[3, 4])?;
            let published = Front {
                service: 1,
                port: Be16::new(80),
                ..Default::default()
            };
            for proto in [6, 17] {
                let key = FrontKey::published(Addr::ANY, Be16::new(8000), proto);
                node.put("front", key, published)?;
            }
            for (net, vip, service) in [
                (MESH, "10.0.0.200", 1),
                (MESH, "fd00::200", 1),
                (OTHER, "10.0.1.200", 2),
                (OTHER, "fd00:0:0:1::200", 2),
            ] {
                let front = Front {
                    service,
                    ..Default::default()
                };
                node.put("front", FrontKey::vip(net, ip(vip)), front)?;
            }
        }
        wait_for_links()?;
        Ok(lab)
    }

    /// Every namespace with the interfaces it has on the packets' ways.
    pub(crate) fn links(&self) -> Vec<(&Netns, Vec<String>)> {
        let mut all = vec![(&self.client, vec!["eth0".to_owned()])];
        all.push((
            &self.switch,
            vec!["pc".to_owned(), "p1".to_owned(), "p2".to_owned()],
        ));
        for node in &self.nodes {
            let mut links = vec!["eth0".to_owned(), "weft0".to_owned()];
            let here = |task: &&Sandbox| (task.id % 2 == 1) == (node.id == 1);
            links.extend(self.tasks.iter().filter(here).map(|t| format!("v{}", t.id)));
            all.push((&node.ns, links));
        }
        all.extend(self.tasks.iter().map(|t| (&t.ns, vec!["eth0".to_owned()])));
        all
    }

    fn task(&mut self, id: u32, on: u32, net: u32) -> Result<()> {
        let ns = Netns::new(&format!("t{id}"))?;
        let third = if net == MESH { 0 } else { 1 };
        let (four, six) = (
            format!("10.0.{third}.{}", 10 + id),
            format!("fd00:0:0:{third}::{}", 10 + id),
        );
        let mac = task_mac(id).map(|b| format!("{b:02x}")).join(":");
        let gate = GATEWAY_MAC.map(|b| format!("{b:02x}")).join(":");
        let node = &mut self.nodes[on as usize - 1];
        let veth = format!("v{id}");
        node.ns.ip(&format!("link add {veth} address {gate} type veth peer name eth0 address {mac} mtu 1450 netns {}", ns.0))?;
        node.ns.ip(&format!("link set {veth} mtu 1450 up"))?;
        ns.ip("link set eth0 up")?;
        ns.ip(&format!("addr add {four}/24 dev eth0"))?;
        ns.ip(&format!("addr add {six}/64 dev eth0"))?;
        ns.ip("route add default via 169.254.1.1 dev eth0 onlink")?;
        ns.ip("-6 route add default via fe80::1 dev eth0")?;
        node.ns.ip(&format!("route add {four}/32 dev {veth}"))?;
        node.ns.ip(&format!("-6 route add {six}/128 dev {veth}"))?;
        node.ns
            .ip(&format!("neigh add {four} lladdr {mac} dev {veth}"))?;
        node.ns
            .ip(&format!("neigh add {six} lladdr {mac} dev {veth}"))?;
        let link = node.ns.index(&veth)?;
        let endpoint = Endpoint {
            id,
            ifindex: link,
            net,
            addr4: ip(&four),
            addr6: ip(&six),
            mac: task_mac(id),
            ..Default::default()
        };
        node.put("endpoints", link, endpoint)?;
        node.put("local_tasks", id, endpoint)?;
        node.attach("task_in", &veth, TcAttachType::Ingress)?;
        for node in &mut self.nodes {
            let backend = Backend {
                addr4: ip(&four),
                addr6: ip(&six),
                node: on,
                net,
                flags: 0,
            };
            node.put("backends", id, backend)?;
            let task = Task {
                id,
                node: on,
                ifindex: if node.id == on { link } else { 0 },
            };
            node.put(
                "tasks",
                NetAddr {
                    net,
                    addr: ip(&four),
                },
                task,
            )?;
            node.put(
                "tasks",
                NetAddr {
                    net,
                    addr: ip(&six),
                },
                task,
            )?;
        }
        self.tasks.push(Sandbox {
            ns,
            id,
            net,
            ip4: four.parse()?,
            ip6: six.parse()?,
        });
        Ok(())
    }
}
