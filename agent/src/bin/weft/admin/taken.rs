//! Ports that both a service and a program of this host want.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
};

use weft_types::{NodeId, netstate::NetState, service::Protocol};

/// A port that somebody listens at.
type Port = (Protocol, u16);

/// Says of each published port at which a program of this host listens that the program is not reached.
pub(super) fn faults(net: &NetState, node: NodeId) -> Vec<String> {
    let listens = listening();
    let published = published(net, node).into_iter();
    let both = published.filter(|(port, _)| listens.contains(port));
    both.map(|((protocol, port), whose)| {
        format!(
            "port {port}/{} is published by {whose}: a program of this host that listens there is not reached (`ss -lntup 'sport = :{port}'` names it)",
            protocol.as_str()
        )
    })
    .collect()
}

/// Ports that lead to services on this node, and to which.
fn published(net: &NetState, node: NodeId) -> BTreeSet<(Port, String)> {
    let mut ports = BTreeSet::new();
    for service in net.services.values() {
        let whose = format!("service {}", service.name);
        let mesh = service.ports.iter();
        ports.extend(mesh.map(|port| ((port.protocol, port.published_port), whose.clone())));
    }
    for endpoint in net.endpoints.values().filter(|one| one.node == node) {
        // Of a service with neither a name here nor a port of the mesh nodes know its tasks alone.
        let whose = format!("task {}", endpoint.name);
        let host = endpoint.host_ports.iter();
        ports.extend(host.map(|port| ((port.protocol, port.published_port), whose.clone())));
    }
    ports.retain(|((_, port), _)| *port != 0);
    ports
}

/// Ports at which programs in this process's network namespace listen.
fn listening() -> BTreeSet<Port> {
    let mut ports = BTreeSet::new();
    for (protocol, files) in [
        (Protocol::Tcp, ["tcp", "tcp6"]),
        (Protocol::Udp, ["udp", "udp6"]),
    ] {
        for file in files {
            // A family that the kernel does not have has no file.
            let table = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap_or_default();
            let found = table.lines().filter_map(|row| listener(row, protocol));
            ports.extend(found.map(|port| (protocol, port)));
        }
    }
    ports
}

/// The port of a row of `/proc/net/tcp` and its like, if it is a listener's that others could reach but
/// for us: bound to one loopback address of many (a resolver's), it is nobody's rival.
fn listener(row: &str, protocol: Protocol) -> Option<u16> {
    let mut fields = row.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let waits = match protocol {
        Protocol::Tcp => "0A",
        _ => "07",
    };
    let v4 = u32::from_str_radix(address, 16).ok();
    let v4 = v4.map(|word| IpAddr::from(Ipv4Addr::from(word.to_ne_bytes())));
    let is_private = v4.is_some_and(|own| own.is_loopback() && own != Ipv4Addr::LOCALHOST);
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == waits && !is_private).then_some(port)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use weft_types::{
        BackendId, NetworkId, ServiceId, TaskId,
        netstate::{EndpointPhase, NetEndpoint, NetService},
        service::{EndpointMode, PortConfig, PublishMode},
    };

    use super::*;

    #[test]
    fn listeners_are_told_from_connections_and_private_resolvers() {
        fn tcp(row: &str) -> Option<u16> {
            listener(row, Protocol::Tcp)
        }
        let rest = "00000000:00000000 00:00000000 00000000 0 0 1 1 0 100 0 0 10 0";
        let row = |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} {rest}");
        assert_eq!(tcp(&row("00000000:2328", "0A")), Some(9000));
        assert_eq!(
            tcp(&row("00000000000000000000000000000000:0050", "0A")),
            Some(80)
        );
        assert_eq!(tcp(&row("0100007F:0050", "0A")), Some(80));
        assert_eq!(tcp(&row("3500007F:0035", "0A")), None);
        assert_eq!(tcp(&row("0100007F:0050", "01")), None);
        assert_eq!(tcp("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(
            listener(&row("00000000:0035", "07"), Protocol::Udp),
            Some(53)
        );
    }

    #[test]
    fn a_program_at_a_published_port_is_named() {
        let program = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = program.local_addr().expect("an address").port();
        let mut net = NetState::default();
        let service = NetService {
            name: "web".to_owned(),
            mode: EndpointMode::Vip,
            vips: std::collections::BTreeMap::new(),
            aliases: std::collections::BTreeMap::new(),
            ports: vec![PortConfig {
                name: String::new(),
                protocol: Protocol::Tcp,
                target_port: 80,
                published_port: port,
                publish_mode: PublishMode::Ingress,
            }],
            labels: std::collections::BTreeMap::new(),
        };
        net.services.insert(ServiceId::numbered(1), service);
        let told = faults(&net, NodeId::numbered(1));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&format!("port {port}/tcp")) && told[0].contains("web"));
        // The same on its node alone, of a service that nodes know nothing else of.
        let ports = net.services.remove(&ServiceId::numbered(1));
        let endpoint = NetEndpoint {
            task: TaskId::numbered(1),
            network: NetworkId::numbered(1),
            node: NodeId::numbered(1),
            addresses: Vec::new(),
            service: Some(ServiceId::numbered(1)),
            name: "web.1.abc".to_owned(),
            names: Vec::new(),
            phase: EndpointPhase::Serving,
            host_ports: ports.map(|service| service.ports).unwrap_or_default(),
        };
        net.endpoints.insert(BackendId(1), endpoint);
        let told = faults(&net, NodeId::numbered(1));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("published by task web.1.abc:"), "{told:?}");
        assert!(faults(&net, NodeId::numbered(2)).is_empty(), "not here");
        drop(program);
        assert!(faults(&net, NodeId::numbered(1)).is_empty());
    }
}
