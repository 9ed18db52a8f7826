//! Services get VIPs and published ports.

use std::collections::BTreeSet;

use weft_types::{
    NetworkId,
    network::NodeNetwork,
    service::{
        EndpointMode, EndpointSpec, PortConfig, PublishMode, Service, ServiceSpec, VirtualIp,
    },
};

use super::task::choose;
use crate::store::{Draft, Scope, View};

/// Ports that are given to services that name none, as Swarm's.
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The ports of `spec` that the routing mesh serves.
pub fn ingress_ports(spec: &ServiceSpec) -> impl Iterator<Item = &PortConfig> {
    let ports = spec.ports().iter();
    ports.filter(|port| port.publish_mode == PublishMode::Ingress)
}

pub(super) fn run(draft: &mut Draft, scope: &Scope) {
    // What could not be given before may be free now, whoever let go of it.
    let services: Vec<_> = draft
        .services()
        .filter(|service| {
            scope.all
                || !service.allocation_error.is_empty()
                || scope.services.contains(&service.id)
        })
        .filter(|service| !service.pending_delete && !is_settled(draft, service))
        .cloned()
        .collect();
    for service in services {
        let mut service = Service::clone(&service);
        let mut reasons = Vec::new();
        ports(draft, &mut service, &mut reasons);
        vips(draft, &mut service, &mut reasons);
        service.endpoint.spec = service.spec.endpoint_spec.clone().unwrap_or_default();
        service.allocation_error = reasons.join("; ");
        draft.put(service);
    }
}

/// Whether the endpoint is what the spec asks: nothing to do for most services at most times.
fn is_settled(view: &View, service: &Service) -> bool {
    let default = EndpointSpec::default();
    let spec = service.spec.endpoint_spec.as_ref().unwrap_or(&default);
    if !service.allocation_error.is_empty() || service.endpoint.spec != *spec {
        return false;
    }
    let wished: BTreeSet<(NetworkId, bool)> = wished_vips(view, service).into_iter().collect();
    let had = service.endpoint.virtual_ips.iter();
    let had: BTreeSet<_> = had
        .map(|vip| (vip.network_id, vip.addr.is_ipv6()))
        .collect();
    wished == had && service.endpoint.ports.len() == service.spec.ports().len()
}

fn ports(view: &View, service: &mut Service, reasons: &mut Vec<String>) {
    let old = std::mem::take(&mut service.endpoint.ports);
    let mut ports: Vec<PortConfig> = service.spec.ports().to_vec();
    let mut mine: BTreeSet<_> = ports
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Ingress)
        .map(|port| (port.protocol, port.published_port))
        .collect();
    for port in &mut ports {
        if port.publish_mode == PublishMode::Host {
            continue;
        }
        let owner = |number| {
            let owner = view.ledger().port(port.protocol, number);
            owner.filter(|owner| *owner != service.id)
        };
        if port.published_port != 0 {
            if let Some(other) = owner(port.published_port) {
                let name = view.service(other).map_or("", |other| &other.spec.name);
                reasons.push(format!(
                    "port '{}' is already in use by service '{name}' ({other}) as an ingress port",
                    port.published_port
                ));
                // Not ours: what is not published must not be announced as if it were.
                port.published_port = 0;
            }
            continue;
        }
        let sticky = old.iter().find(|old| {
            old.publish_mode == PublishMode::Ingress
                && old.published_port != 0
                && (&old.name, old.protocol, old.target_port)
                    == (&port.name, port.protocol, port.target_port)
                && !mine.contains(&(old.protocol, old.published_port))
        });
        let number = sticky.map(|old| old.published_port).or_else(|| {
            DYNAMIC_PORTS.into_iter().find(|number| {
                owner(*number).is_none() && !mine.contains(&(port.protocol, *number))
            })
        });
        match number {
            Some(number) => {
                mine.insert((port.protocol, number));
                port.published_port = number;
            }
            None => reasons.push(format!(
                "no {} port is free between {} and {}",
                port.protocol.as_str(),
                DYNAMIC_PORTS.start(),
                DYNAMIC_PORTS.end()
            )),
        }
    }
    service.endpoint.ports = ports;
}

/// The networks and families (true: v6) on which a service has a VIP; the ingress network first.
fn wished_vips(view: &View, service: &Service) -> Vec<(NetworkId, bool)> {
    if service.spec.endpoint_mode() != EndpointMode::Vip {
        return Vec::new();
    }
    let mut networks = Vec::new();
    if ingress_ports(&service.spec).next().is_some() {
        networks.extend(view.ingress_network().map(|network| network.id));
    }
    for attachment in service.spec.attachments() {
        networks.extend(attachment.target.parse::<NetworkId>().ok());
    }
    let mut wished = Vec::new();
    for id in networks {
        let Some(network) = view.network(id) else {
            continue;
        };
        for v6 in [false, true] {
            let has = network.subnets().any(|subnet| subnet.is_ipv6() == v6);
            if has && !wished.contains(&(id, v6)) {
                wished.push((id, v6));
            }
        }
    }
    wished
}

fn vips(draft: &mut Draft, service: &mut Service, reasons: &mut Vec<String>) {
    for attachment in service.spec.attachments() {
        if NodeNetwork::named(&attachment.target).is_some() {
            continue;
        }
        let network = attachment.target.parse::<NetworkId>();
        match network.ok().and_then(|id| draft.network(id)) {
            None => reasons.push(format!("network {} not found", attachment.target)),
            Some(network) if network.driver_state.is_none() => {
                reasons.push(network_reason(network));
            }
            Some(_) => {}
        }
    }
    if ingress_ports(&service.spec).next().is_some() {
        match draft.ingress_network() {
            None => reasons.push("there is no ingress network".to_owned()),
            Some(network) if network.driver_state.is_none() => {
                reasons.push(network_reason(network));
            }
            Some(_) => {}
        }
    }
    let old = std::mem::take(&mut service.endpoint.virtual_ips);
    for (id, v6) in wished_vips(draft, service) {
        let kept = old
            .iter()
            .find(|vip| vip.network_id == id && vip.addr.is_ipv6() == v6);
        if let Some(kept) = kept {
            service.endpoint.virtual_ips.push(*kept);
            continue;
        }
        let Some(network) = draft.network(id).cloned() else {
            continue;
        };
        match choose(draft, &network, v6) {
            Ok(addr) => {
                service.endpoint.virtual_ips.push(VirtualIp {
                    network_id: id,
                    addr,
                });
                // Held from now on, so that the next choice is another one.
                draft.put(service.clone());
            }
            Err(full) => reasons.push(full.to_string()),
        }
    }
}

/// Why a network cannot be used yet.
pub(super) fn network_reason(network: &weft_types::network::Network) -> String {
    if network.allocation_error.is_empty() {
        format!("network {} has no subnet yet", network.spec.name)
    } else {
        format!(
            "network {} is not usable: {}",
            network.spec.name, network.allocation_error
        )
    }
}
