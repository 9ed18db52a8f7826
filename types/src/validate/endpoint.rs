//! Published ports.

use std::collections::BTreeSet;

use super::Refusal;
use crate::{
    network::NodeNetwork,
    service::{EndpointMode, PublishMode, ServiceSpec},
    steering::Steering,
};

pub(super) fn endpoint_spec(spec: &ServiceSpec) -> Result<(), Refusal> {
    let mut taken = BTreeSet::new();
    for port in spec.ports() {
        let ingress = port.publish_mode == PublishMode::Ingress;
        if ingress && spec.endpoint_mode() == EndpointMode::Dnsrr {
            return Err(Refusal::invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.target_port == 0 {
            return Err(Refusal::invalid(
                "EndpointSpec: a published port needs a target port",
            ));
        }
        if port.published_port != 0 && !taken.insert((port.protocol, port.published_port)) {
            return Err(Refusal::invalid(
                "EndpointSpec: duplicate published ports provided",
            ));
        }
    }
    node_network(spec)?;
    steering(spec)
}

/// A network of the nodes' own is the only one of a service, and forwards no port.
fn node_network(spec: &ServiceSpec) -> Result<(), Refusal> {
    let networks = spec.attachments();
    let mut own = networks.iter();
    let Some(own) = own.find_map(|network| NodeNetwork::named(&network.target)) else {
        return Ok(());
    };
    if networks.len() > 1 {
        return Err(Refusal::invalid(match own {
            NodeNetwork::Host => {
                "container sharing network namespace with another container or host cannot be connected to any other network"
            }
            NodeNetwork::Bridge => {
                "a service on the nodes' own network bridge cannot be on any other network"
            }
        }));
    }
    for port in spec.ports() {
        let target = port.target_port;
        let why = match (own, port.publish_mode) {
            (NodeNetwork::Bridge, _) => {
                "weft publishes no ports there: use a swarm network, or network host"
            }
            (NodeNetwork::Host, PublishMode::Ingress) => {
                "its tasks answer on their nodes' own ports: publish it with mode=host, or not at all"
            }
            (NodeNetwork::Host, PublishMode::Host) if port.published_port != target => {
                "its tasks answer on their nodes' own ports: the published port is the target port"
            }
            (NodeNetwork::Host, PublishMode::Host) => continue,
        };
        return Err(Refusal::invalid(format!(
            "EndpointSpec: port {target} cannot be published so by a service on network {}: {why}",
            own.name()
        )));
    }
    Ok(())
}

/// Labels that steer have something to steer.
fn steering(spec: &ServiceSpec) -> Result<(), Refusal> {
    let steering = Steering::of(&spec.labels).map_err(Refusal::invalid)?;
    if steering.chooses() && spec.endpoint_mode() == EndpointMode::Dnsrr {
        return Err(Refusal::invalid(
            "weft.affinity, weft.prefer and weft.weights need endpoint mode vip: with dnsrr the client chooses",
        ));
    }
    let is_published = |port: u16| {
        let mut ports = spec.ports().iter();
        ports
            .any(|known| known.published_port == port && known.publish_mode == PublishMode::Ingress)
    };
    let mut named = steering.listen.keys().flatten();
    if let Some(port) = named.find(|port| !is_published(**port)) {
        return Err(Refusal::invalid(format!(
            "label weft.listen.{port}: the service publishes no port {port} in ingress mode"
        )));
    }
    Ok(())
}
