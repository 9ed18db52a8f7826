//! Networks get subnets and a VNI.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use ipnetwork::IpNetwork;
use weft_ipam::Subnet;
use weft_types::{
    NetworkId,
    network::{Driver, IpamConfig, IpamOptions, Network},
    node::Node,
};

use crate::store::{Draft, VNI_OPTION, View};

/// First VNI of the series, as Swarm's.
const FIRST_VNI: u32 = 4096;
/// Last VNI there is: 24 bits.
const LAST_VNI: u32 = (1 << 24) - 1;
/// Prefix length of IPv6 subnets cut from the cluster's own prefix.
const SUBNET_SIZE_V6: u8 = 64;

/// How far around a node's IPv4 address subnets of our own choice keep away: its neighbours, which may be nodes
/// tomorrow, are likely there.
pub(crate) const NEIGHBOURS_V4: u8 = 16;
/// The same for IPv6.
const NEIGHBOURS_V6: u8 = 64;

/// The pool that subnets are cut from when the cluster names none: 10.0.0.0/8.
#[must_use]
pub fn default_pool() -> IpNetwork {
    IpNetwork::V4(
        ipnetwork::Ipv4Network::new(std::net::Ipv4Addr::new(10, 0, 0, 0), 8)
            .unwrap_or_else(|_| unreachable!("8 is a prefix length")),
    )
}

/// The subnets in force of a network, ready to give out addresses, v4 first.
#[must_use]
pub fn subnets(network: &Network) -> Vec<Subnet> {
    let configs = network.ipam.iter().flat_map(|ipam| &ipam.configs);
    configs
        .filter_map(|config| Subnet::new(config.subnet?, config.range, config.gateway).ok())
        .collect()
}

pub(super) fn run(draft: &mut Draft) {
    let mut waiting: Vec<_> = draft
        .networks()
        .filter(|network| network.driver_state.is_none() && !network.pending_delete)
        .cloned()
        .collect();
    // The ingress network gets the first subnet; of two that want the same, the older gets it.
    waiting.sort_by_key(|network| (!network.spec.ingress, network.meta.created_at, network.id));
    for network in waiting {
        let result = allocate(draft, &network);
        draft.edit_network(network.id, |network| match result {
            Ok(given) => {
                network.driver_state = Some(given.driver);
                network.ipam = given.ipam;
                network.vni = given.vni;
                network.allocation_error.clear();
            }
            Err(reason) => network.allocation_error = reason,
        });
    }
}

struct Given {
    driver: Driver,
    ipam: Option<IpamOptions>,
    vni: Option<u32>,
}

fn allocate(view: &View, network: &Network) -> Result<Given, String> {
    let wished = &network.spec.driver_configuration;
    if is_node_local(network) {
        return Ok(Given {
            driver: wished.clone(),
            ipam: None,
            vni: None,
        });
    }
    let mut taken = taken(view, network.id);
    let mut configs = Vec::new();
    for v4 in [true, false] {
        let asked: Vec<&IpamConfig> = asked(network)
            .filter(|config| config.subnet.is_some_and(|subnet| subnet.is_ipv4() == v4))
            .collect();
        for config in &asked {
            configs.push(take_asked(view, config, &taken)?);
        }
        let wants = v4 || network.spec.ipv6_enabled || network.spec.ingress;
        if asked.is_empty() && wants {
            configs.extend(take_from_pool(view, network, v4, &taken)?);
        }
        taken.extend(configs.iter().filter_map(|config| config.subnet));
    }
    let vni = vni(view, network, FIRST_VNI..=LAST_VNI)?;
    let mut options = wished.options.clone().unwrap_or_default();
    options.insert(VNI_OPTION.to_owned(), vni.to_string());
    Ok(Given {
        driver: Driver {
            name: "overlay".to_owned(),
            options: Some(options),
        },
        ipam: Some(IpamOptions {
            driver: Driver {
                name: "default".to_owned(),
                options: None,
            },
            configs,
        }),
        vni: Some(vni),
    })
}

/// Networks that each node has for itself: `bridge`, `host`. They need nothing from us.
pub(crate) fn is_node_local(network: &Network) -> bool {
    matches!(
        network.spec.driver_configuration.name.as_str(),
        "bridge" | "host" | "null"
    )
}

fn asked(network: &Network) -> impl Iterator<Item = &IpamConfig> {
    let options = network.spec.ipam_options.iter();
    options.flat_map(|options| &options.configs)
}

/// Subnets of all other networks, those included that were removed while tasks on them have not
/// ended: their routes are still on nodes.
fn taken(view: &View, network: NetworkId) -> Vec<IpNetwork> {
    let mut taken: Vec<IpNetwork> = view
        .networks()
        .filter(|other| other.id != network)
        .flat_map(|other| other.subnets())
        .collect();
    for task in view.tasks().filter(|task| !task.status.state.is_terminal()) {
        for attachment in &task.networks_attachments {
            if view.network(attachment.network_id).is_some() {
                continue;
            }
            for address in &attachment.addresses {
                let subnet = IpNetwork::new(address.network(), address.prefix());
                taken.extend(subnet.ok().filter(|subnet| !taken.contains(subnet)));
            }
        }
    }
    taken
}

/// Where nodes reach each other. A subnet that holds such an address would lead what is sent there into the overlay, and
/// cut the node off.
fn underlay(view: &View) -> impl Iterator<Item = (IpAddr, &Node)> {
    view.nodes().flat_map(|node| {
        let told = node.status.addr.parse().ok().into_iter();
        let addresses = told.chain(node.data_path_addr);
        addresses.map(|address| (address, node.as_ref()))
    })
}

/// The networks of these prefix lengths around the nodes' addresses.
fn around(view: &View, v4: u8, v6: u8) -> BTreeSet<IpNetwork> {
    let networks = underlay(view).filter_map(|(address, _)| {
        let size = if address.is_ipv4() { v4 } else { v6 };
        let near = IpNetwork::new(address, size).ok()?;
        IpNetwork::new(near.network(), size).ok()
    });
    networks.collect()
}

fn take_asked(view: &View, config: &IpamConfig, taken: &[IpNetwork]) -> Result<IpamConfig, String> {
    let Some(net) = config.subnet else {
        return Ok(config.clone());
    };
    let subnet =
        Subnet::new(net, config.range, config.gateway).map_err(|error| error.to_string())?;
    if let Some(other) = weft_ipam::overlapping(net, taken.iter().copied()) {
        let owner = view
            .networks()
            .find(|network| network.subnets().any(|subnet| subnet == other))
            .map_or_else(String::new, |owner| {
                format!(" of network {}", owner.spec.name)
            });
        return Err(format!("subnet {net} overlaps with {other}{owner}"));
    }
    if let Some((address, node)) = underlay(view).find(|(address, _)| net.contains(*address)) {
        return Err(format!(
            "subnet {net} holds {address}, by which other nodes reach {}: it would be cut off; choose another subnet",
            node.description.hostname
        ));
    }
    Ok(IpamConfig {
        subnet: Some(net),
        range: config.range,
        gateway: Some(subnet.gateway()),
    })
}

fn take_from_pool(
    view: &View,
    network: &Network,
    v4: bool,
    taken: &[IpNetwork],
) -> Result<Option<IpamConfig>, String> {
    let cluster = view.cluster();
    let (pools, size) = if v4 {
        let pools = cluster.map(|cluster| &cluster.default_addr_pool);
        let pools: Vec<IpNetwork> = pools.into_iter().flatten().copied().collect();
        let size = cluster.map_or(0, |cluster| cluster.subnet_size);
        let pools = if pools.is_empty() {
            vec![default_pool()]
        } else {
            pools
        };
        (pools, if size == 0 { 24 } else { size })
    } else {
        let prefix = cluster.and_then(|cluster| cluster.ula_prefix);
        (prefix.into_iter().collect(), SUBNET_SIZE_V6)
    };
    if pools.is_empty() {
        if network.spec.ipv6_enabled {
            return Err("the cluster has no IPv6 prefix: name a subnet".to_owned());
        }
        return Ok(None);
    }
    let away_from = |near: BTreeSet<IpNetwork>| {
        let taken: Vec<IpNetwork> = taken.iter().copied().chain(near).collect();
        weft_ipam::cut(&pools, size, &taken)
    };
    let net = away_from(around(view, NEIGHBOURS_V4, NEIGHBOURS_V6))
        .or_else(|_| away_from(around(view, 32, 128)))
        .map_err(|error| error.to_string())?;
    let subnet = Subnet::new(net, None, None).map_err(|error| error.to_string())?;
    Ok(Some(IpamConfig {
        subnet: Some(net),
        range: None,
        gateway: Some(subnet.gateway()),
    }))
}

/// The VNI that `network` asks for, or the next free one of `series`.
fn vni(view: &View, network: &Network, series: RangeInclusive<u32>) -> Result<u32, String> {
    let options = network.spec.driver_configuration.options.as_ref();
    let Some(asked) = options.and_then(|options| options.get(VNI_OPTION)) else {
        let (first, last) = series.into_inner();
        return view
            .ledger()
            .next_vni(first, last)
            .ok_or_else(|| format!("all VNIs from {first} to {last} are taken"));
    };
    // Swarm takes one per subnet; one per network is what we need.
    let first = asked.split(',').next().unwrap_or_default().trim();
    let vni: u32 = first
        .parse()
        .ok()
        .filter(|vni| (1..=LAST_VNI).contains(vni))
        .ok_or_else(|| format!("{VNI_OPTION} {asked:?} is no VNI: 1 to {LAST_VNI}"))?;
    match view.ledger().vni(vni).filter(|owner| *owner != network.id) {
        None => Ok(vni),
        Some(owner) => {
            let name = view.network(owner).map_or("", |owner| &owner.spec.name);
            Err(format!("VNI {vni} is taken by network {name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_types::Timestamp;

    use super::*;
    use crate::{
        allocator, fixture,
        store::{Change, IdSource, Store, Transaction},
    };

    #[test]
    fn subnets_of_our_own_choice_keep_away_from_nodes() {
        let chosen = |pool: &str, address: &str| {
            let mut store = Store::new();
            let mut cluster = fixture::cluster();
            cluster.default_addr_pool = pool.parse().into_iter().collect();
            let mut node = fixture::node(1);
            address.clone_into(&mut node.status.addr);
            node.data_path_addr = None;
            let network = fixture::network(1, "one");
            let changes = vec![Change::put(cluster), Change::put(node)];
            let now = Timestamp(1);
            store.apply(1, &Transaction { now, changes }).unwrap();
            let given = allocate(&store.view(), &network)?;
            let subnet = given.ipam.and_then(|ipam| ipam.configs[0].subnet);
            Ok::<_, String>(subnet.unwrap().to_string())
        };
        let given = |subnet: &str| Ok(subnet.to_owned());
        assert_eq!(chosen("", "192.0.2.11"), given("10.0.0.0/24"));
        // Whoever is beside it may be a node tomorrow.
        assert_eq!(chosen("", "10.0.7.5"), given("10.1.0.0/24"));
        assert_eq!(chosen("10.0.0.0/8", "10.1.0.5"), given("10.0.0.0/24"));
        // Where there is nothing else, as near as can be.
        assert_eq!(chosen("10.0.0.0/16", "10.0.0.5"), given("10.0.1.0/24"));
        let none = "no /24 is free in the address pool 10.0.0.0/24";
        assert_eq!(chosen("10.0.0.0/24", "10.0.0.5"), Err(none.to_owned()));
    }

    #[test]
    fn a_series_of_vnis_is_given_to_the_last_and_no_further() {
        let mut store = Store::new();
        let networks = ["one", "two"];
        let networks = (1..)
            .zip(networks)
            .map(|(id, name)| fixture::network(id, name));
        let mut changes: Vec<_> = networks.map(Change::put).collect();
        changes.push(Change::put(fixture::cluster()));
        let now = Timestamp(1);
        store.apply(1, &Transaction { now, changes }).unwrap();
        let given = allocator::reconcile(&store.view(), now, &mut IdSource::seeded(1));
        let changes = given.changes;
        store.apply(2, &Transaction { now, changes }).unwrap();
        let view = store.view();
        let next = |last| vni(&view, &fixture::network(3, "three"), FIRST_VNI..=last);
        assert_eq!(next(FIRST_VNI + 2), Ok(FIRST_VNI + 2));
        assert_eq!(
            next(FIRST_VNI + 1),
            Err("all VNIs from 4096 to 4097 are taken".to_owned())
        );
    }
}
