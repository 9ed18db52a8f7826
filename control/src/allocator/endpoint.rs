//! Services get VIPs and published ports.

use std::collections::BTreeSet;

use weft_types::{
    NetworkId, ServiceId,
    network::NodeNetwork,
    service::{
        Endpoint, EndpointMode, EndpointSpec, PortConfig, PublishMode, Service, ServiceSpec,
        VirtualIp,
    },
};

use super::task::choose;
use crate::store::{Draft, Scope, View};

/// Ports that are given to services that name none, as Swarm's.
pub(crate) const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The ports of `spec` that the routing mesh serves.
pub fn ingress_ports(spec: &ServiceSpec) -> impl Iterator<Item = &PortConfig> {
    let ports = spec.ports().iter();
    ports.filter(|port| port.publish_mode == PublishMode::Ingress)
}

pub(super) fn run(draft: &mut Draft, scope: &Scope) {
    let services: BTreeSet<ServiceId> = if scope.all {
        draft.services().map(|service| service.id).collect()
    } else {
        // What could not be given before may be free now, whoever let go of it.
        let refused = draft.services_refused();
        refused.chain(scope.services.iter().copied()).collect()
    };
    let services: Vec<_> = services
        .into_iter()
        .filter_map(|id| draft.service(id))
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
    if !service.allocation_error.is_empty() {
        return false;
    }
    if service.spec.attachments().is_empty()
        && service.spec.ports().is_empty()
        && service.endpoint == Endpoint::default()
    {
        // Nothing is to be given: a write would outdate the version that the client has just read.
        return true;
    }
    if service.endpoint.spec != *spec {
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
    // Whoever had a number keeps it, wherever it stands in the list; only then others choose.
    for port in ports.iter_mut().filter(|port| is_unnamed(port)) {
        let sticky = old.iter().find(|old| {
            old.publish_mode == PublishMode::Ingress
                && old.published_port != 0
                && (&old.name, old.protocol, old.target_port)
                    == (&port.name, port.protocol, port.target_port)
                && !mine.contains(&(old.protocol, old.published_port))
        });
        if let Some(sticky) = sticky {
            mine.insert((sticky.protocol, sticky.published_port));
            port.published_port = sticky.published_port;
        }
    }
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
        let number = DYNAMIC_PORTS
            .into_iter()
            .find(|number| owner(*number).is_none() && !mine.contains(&(port.protocol, *number)));
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

/// Whether the mesh is to serve a port under a number of our choice.
fn is_unnamed(port: &PortConfig) -> bool {
    port.publish_mode == PublishMode::Ingress && port.published_port == 0
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::fixture;

    /// Some targets in some order, each with the number it asks for, 0 for none.
    fn wishes() -> impl Strategy<Value = Vec<(u16, u16)>> {
        let targets: Vec<u16> = (1..=6).collect();
        let numbers: Vec<u16> = (30_000..30_008).collect();
        let some = prop::sample::subsequence(targets, 0..=6).prop_shuffle();
        let asked = prop::collection::vec(any::<bool>(), 6);
        (some, Just(numbers).prop_shuffle(), asked).prop_map(|(targets, numbers, asked)| {
            let wishes = targets.into_iter().zip(numbers).zip(asked);
            wishes
                .map(|((target, number), asks)| (target, if asks { number } else { 0 }))
                .collect()
        })
    }

    /// The number that each target has after the service wished so.
    fn given(service: &mut Service, wishes: &[(u16, u16)]) -> BTreeMap<u16, u16> {
        let config = |(target_port, published_port): &(u16, u16)| PortConfig {
            target_port: *target_port,
            published_port: *published_port,
            ..PortConfig::default()
        };
        service.spec.endpoint_spec = Some(EndpointSpec {
            mode: None,
            ports: Some(wishes.iter().map(config).collect()),
        });
        let mut reasons = Vec::new();
        ports(&View::default(), service, &mut reasons);
        assert_eq!(reasons, [""; 0]);
        let ports = service.endpoint.ports.iter();
        ports
            .map(|port| (port.target_port, port.published_port))
            .collect()
    }

    #[test]
    fn a_service_without_networks_and_ports_is_not_written_again() {
        let mut service = fixture::service(1, "web", 1);
        let vip = |ports| EndpointSpec {
            mode: Some(EndpointMode::Vip),
            ports,
        };
        service.spec.endpoint_spec = Some(vip(None));
        assert!(is_settled(&View::default(), &service));
        service.spec.endpoint_spec = Some(vip(Some(vec![PortConfig::default()])));
        assert!(!is_settled(&View::default(), &service), "a port is due");
        // Its last port is taken away.
        service.endpoint.ports = vec![PortConfig::default()];
        service.spec.endpoint_spec = Some(vip(None));
        assert!(
            !is_settled(&View::default(), &service),
            "a port is to be freed"
        );
    }

    proptest! {
        #[test]
        fn a_port_keeps_its_number_wherever_it_is_listed(first in wishes(), second in wishes()) {
            let mut service = fixture::service(1, "web", 1);
            let before = given(&mut service, &first);
            let after = given(&mut service, &second);
            let numbers: BTreeSet<&u16> = after.values().collect();
            prop_assert_eq!(numbers.len(), second.len(), "each has its own");
            for (target, asked) in &second {
                let got = after[target];
                let had = before.get(target).filter(|had| {
                    !second.iter().any(|(_, asked)| asked == *had)
                });
                match (asked, had) {
                    (0, Some(had)) => prop_assert_eq!(got, *had, "of target {}", target),
                    (0, None) => prop_assert_ne!(got, 0),
                    (asked, _) => prop_assert_eq!(got, *asked),
                }
            }
        }
    }
}
