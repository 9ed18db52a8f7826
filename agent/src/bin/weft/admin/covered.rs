//! Networks of the swarm that a node's own address lies in.

use std::net::IpAddr;

use weft_types::netstate::NetState;

/// Says of each node whose address a network of the swarm covers that it is not reached. Managers refuse such a
/// subnet, but not the node that joins with such an address later.
pub(super) fn faults(net: &NetState) -> Vec<String> {
    let mut faults = Vec::new();
    for network in net.networks.values() {
        for subnet in &network.subnets {
            for node in net.nodes.values() {
                let own = node.addresses.iter().chain([&node.addr]);
                let mut covered: Vec<&IpAddr> = own.filter(|own| subnet.contains(**own)).collect();
                covered.sort();
                covered.dedup();
                faults.extend(covered.into_iter().map(|own| {
                    format!(
                        "the subnet {subnet} of network {} holds the address {own} of node {}: packets for it go into the overlay and that node is cut off. Make the network anew with another --subnet, or give the node another address",
                        network.name, node.hostname
                    )
                }));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use weft_types::{
        NetworkId, NodeId,
        netstate::{NetNetwork, NetNode, NetworkAbout},
    };

    use super::*;

    #[test]
    fn a_node_inside_a_network_is_named_once_for_each_address() {
        let network = |name: &str, subnets: &[&str]| NetNetwork {
            name: name.to_owned(),
            vni: 4096,
            subnets: subnets
                .iter()
                .map(|one| one.parse().expect("a subnet"))
                .collect(),
            gateways: Vec::new(),
            mtu_bytes: None,
            ingress: false,
            internal: false,
            encrypted: false,
            about: NetworkAbout::default(),
        };
        let node = |hostname: &str, addr: &str, more: &[&str]| NetNode {
            index: 1,
            hostname: hostname.to_owned(),
            addr: addr.parse().expect("an address"),
            addresses: more
                .iter()
                .map(|one| one.parse().expect("an address"))
                .collect(),
            alive: true,
            wireguard: None,
            zone: String::new(),
        };
        let mut net = NetState::default();
        let id = NetworkId::numbered;
        net.networks
            .insert(id(1), network("front", &["10.0.1.0/24"]));
        net.networks
            .insert(id(2), network("back", &["10.0.2.0/24", "fd00:2::/64"]));
        let out = node("n1", "192.0.2.11", &["192.0.2.11", "2001:db8::11"]);
        net.nodes.insert(NodeId::numbered(1), out);
        assert_eq!(faults(&net), Vec::<String>::new());
        let inside = node("n2", "10.0.2.12", &["10.0.2.12", "fd00:2::12"]);
        net.nodes.insert(NodeId::numbered(2), inside);
        let told = faults(&net);
        let begin = |subnet: &str, own: &str| {
            format!("the subnet {subnet} of network back holds the address {own} of node n2: ")
        };
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with(&begin("10.0.2.0/24", "10.0.2.12")),
            "{told:?}"
        );
        assert!(
            told[1].starts_with(&begin("fd00:2::/64", "fd00:2::12")),
            "{told:?}"
        );
    }
}
