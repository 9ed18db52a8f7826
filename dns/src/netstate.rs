//! Zones from the network state that a manager sends.
//!
//! - Only serving endpoints on nodes thought alive have names; addresses point back in every
//!   phase, since a starting or draining task talks to others too.
//! - A service owns its names on each network it is on, tasks or none: a virtual address is
//!   answered even then (the data plane refuses the connection at once), the rest is "no data".
//! - The ingress network has subnets and no names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use weft_types::{
    NetworkId, ServiceId,
    netstate::{EndpointPhase, NetEndpoint, NetNetwork, NetService, NetState},
    service::EndpointMode,
};

use crate::zone::{ContainerNames, Mode, ServiceNames, Zone, ZoneBuilder, Zones};

/// What is on one network, gathered in one pass over the state.
#[derive(Default)]
struct Members<'a> {
    endpoints: Vec<&'a NetEndpoint>,
    services: BTreeMap<ServiceId, &'a NetService>,
}

impl Zones {
    /// The zones of all networks in `state`.
    #[must_use]
    pub fn from_netstate(state: &NetState) -> Self {
        Self::default().updated(&NetState::default(), state)
    }

    /// These zones, made from `old`, as `new` has them: the zone of a network on which nothing
    /// changed is the same allocation.
    #[must_use]
    pub fn updated(&self, old: &NetState, new: &NetState) -> Self {
        let touched = touched(old, new);
        let members = members(new, &touched);
        let networks = new.networks.iter().map(|(id, network)| {
            let kept = self.networks.get(id).filter(|_| !touched.contains(id));
            let zone = kept.cloned().unwrap_or_else(|| {
                Arc::new(members.get(id).map_or_else(
                    || ZoneBuilder::new(&network.name, &network.subnets).build(),
                    |members| zone(*id, network, members, new),
                ))
            });
            (*id, zone)
        });
        Self {
            networks: networks.collect(),
        }
    }
}

/// Networks on which a fact that names are made of differs.
fn touched(old: &NetState, new: &NetState) -> BTreeSet<NetworkId> {
    let mut touched = BTreeSet::new();
    for (id, network) in &new.networks {
        if old.networks.get(id) != Some(network) {
            touched.insert(*id);
        }
    }
    let lives = |state: &NetState, endpoint: &NetEndpoint| is_serving(state, endpoint);
    for (id, endpoint) in &new.endpoints {
        let before = old.endpoints.get(id);
        if before != Some(endpoint) || lives(old, endpoint) != lives(new, endpoint) {
            touched.insert(endpoint.network);
            touched.extend(before.map(|before| before.network));
        }
    }
    for (id, endpoint) in &old.endpoints {
        if !new.endpoints.contains_key(id) {
            touched.insert(endpoint.network);
        }
    }
    let services = old.services.keys().chain(new.services.keys());
    let moved: BTreeSet<ServiceId> = services
        .filter(|id| old.services.get(id) != new.services.get(id))
        .copied()
        .collect();
    for service in moved
        .iter()
        .flat_map(|id| old.services.get(id).into_iter().chain(new.services.get(id)))
    {
        touched.extend(networks_of(service));
    }
    if !moved.is_empty() {
        for endpoint in new.endpoints.values() {
            if endpoint
                .service
                .is_some_and(|service| moved.contains(&service))
            {
                touched.insert(endpoint.network);
            }
        }
    }
    touched
}

fn networks_of(service: &NetService) -> impl Iterator<Item = NetworkId> {
    service.vips.keys().chain(service.aliases.keys()).copied()
}

fn members<'a>(
    state: &'a NetState,
    wanted: &BTreeSet<NetworkId>,
) -> BTreeMap<NetworkId, Members<'a>> {
    let mut members: BTreeMap<NetworkId, Members<'a>> = BTreeMap::new();
    for endpoint in state
        .endpoints
        .values()
        .filter(|endpoint| wanted.contains(&endpoint.network))
    {
        let here = members.entry(endpoint.network).or_default();
        here.endpoints.push(endpoint);
        let service = endpoint
            .service
            .and_then(|id| Some((id, state.services.get(&id)?)));
        here.services.extend(service);
    }
    for (id, service) in &state.services {
        for network in networks_of(service).filter(|network| wanted.contains(network)) {
            members
                .entry(network)
                .or_default()
                .services
                .insert(*id, service);
        }
    }
    members
}

fn zone(id: NetworkId, network: &NetNetwork, members: &Members<'_>, state: &NetState) -> Zone {
    let mut zone = ZoneBuilder::new(&network.name, &network.subnets);
    if network.ingress {
        return zone.build();
    }
    let mut tasks: HashMap<ServiceId, Vec<IpAddr>> = HashMap::new();
    for endpoint in &members.endpoints {
        let addresses: Vec<IpAddr> = endpoint
            .addresses
            .iter()
            .map(|address| address.ip())
            .collect();
        if !is_serving(state, endpoint) {
            zone.pointer(&endpoint.name, &addresses);
            continue;
        }
        let others: Vec<&str> = endpoint.names.iter().map(String::as_str).collect();
        zone.container(&ContainerNames {
            name: &endpoint.name,
            others: &others,
            addresses: &addresses,
        });
        if let Some(service) = endpoint.service {
            tasks.entry(service).or_default().extend(addresses);
        }
    }
    for (service_id, service) in &members.services {
        let aliases = service.aliases.get(&id).into_iter().flatten();
        let names: Vec<&str> = aliases.chain([&service.name]).map(String::as_str).collect();
        let vips = service.vips.get(&id).map_or(&[][..], Vec::as_slice);
        zone.service(&ServiceNames {
            names: &names,
            mode: match service.mode {
                EndpointMode::Vip => Mode::Vip(vips),
                EndpointMode::Dnsrr => Mode::RoundRobin,
            },
            tasks: tasks.get(service_id).map_or(&[][..], Vec::as_slice),
        });
    }
    zone.build()
}

fn is_serving(state: &NetState, endpoint: &NetEndpoint) -> bool {
    // A node missing from the list is younger than the list, not dead.
    endpoint.phase == EndpointPhase::Serving
        && state
            .nodes
            .get(&endpoint.node)
            .is_none_or(|node| node.alive)
}
