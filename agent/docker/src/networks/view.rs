//! Swarm networks in the shape of `docker network inspect`.

use std::collections::{BTreeMap, BTreeSet};

use regex::RegexBuilder;
use serde::Serialize;
use weft_types::{
    Labels, NetworkId, NodeId, TaskId, Timestamp,
    netstate::{NetEndpoint, NetNetwork, NetService, NetState},
    network::{IpamConfig, Network, NodeNetwork},
};

use super::PREDEFINED;
use crate::filter::Filters;

/// A network as Docker shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkView {
    name: String,
    id: String,
    created: Timestamp,
    scope: &'static str,
    driver: String,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: IpamView,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigFrom,
    config_only: bool,
    containers: Option<BTreeMap<String, ContainerView>>,
    options: Option<Labels>,
    labels: Option<Labels>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<PeerView>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    services: BTreeMap<String, ServiceView>,
    #[serde(skip)]
    predefined: bool,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamView {
    driver: String,
    options: Option<Labels>,
    config: Option<Vec<SubnetView>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SubnetView {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    ip_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerView {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PeerView {
    name: String,
    #[serde(rename = "IP")]
    ip: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceView {
    #[serde(rename = "VIP")]
    vip: String,
    ports: Vec<String>,
    #[serde(rename = "LocalLBIndex")]
    local_lb_index: u32,
    tasks: Vec<TaskView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskView {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    #[serde(rename = "EndpointIP")]
    endpoint_ip: String,
    info: BTreeMap<&'static str, String>,
}

/// What this node knows of its networks.
pub(super) struct Here<'a> {
    pub(super) node: Option<NodeId>,
    pub(super) state: &'a NetState,
    pub(super) containers: &'a BTreeMap<TaskId, String>,
    /// With services and their tasks.
    pub(super) verbose: bool,
}

impl Here<'_> {
    /// Networks in use here, from what the kernel holds.
    pub(super) fn all(&self) -> Vec<NetworkView> {
        let networks = self.state.networks.iter();
        networks
            .map(|(id, network)| self.held(*id, network))
            .collect()
    }

    /// A network of the store, with this node's part if it has one.
    pub(super) fn stored(&self, network: &Network) -> NetworkView {
        let spec = &network.spec;
        let driver = network.driver_state.as_ref();
        let ipam = network.ipam.as_ref();
        let mut view = NetworkView {
            name: spec.name.clone(),
            id: network.id.to_string(),
            created: network.meta.created_at,
            scope: "swarm",
            driver: driver.map_or_else(String::new, |driver| driver.name.clone()),
            enable_ipv6: spec.ipv6_enabled || network.subnets().any(|subnet| subnet.is_ipv6()),
            ipam: IpamView {
                driver: ipam.map_or_else(String::new, |_| "default".to_owned()),
                options: None,
                config: ipam.map(|ipam| ipam.configs.iter().filter_map(subnet).collect()),
            },
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            config_from: ConfigFrom::default(),
            config_only: false,
            containers: None,
            options: driver.map(|driver| driver.options.clone().unwrap_or_default()),
            labels: (!spec.labels.is_empty()).then(|| spec.labels.clone()),
            peers: vec![],
            services: BTreeMap::new(),
            predefined: spec.labels.contains_key(PREDEFINED),
        };
        self.add_presence(network.id, spec.ingress, &mut view);
        view
    }

    fn held(&self, id: NetworkId, network: &NetNetwork) -> NetworkView {
        let list = "com.docker.network.driver.overlay.vxlanid_list";
        let mut options = Labels::from([(list.to_owned(), network.vni.to_string())]);
        if network.encrypted {
            options.insert("encrypted".to_owned(), String::new());
        }
        let subnets = network.subnets.iter().map(|subnet| SubnetView {
            subnet: subnet.to_string(),
            ip_range: None,
            gateway: network
                .gateways
                .iter()
                .find(|gateway| subnet.contains(**gateway))
                .map(ToString::to_string),
        });
        let mut view = NetworkView {
            name: network.name.clone(),
            id: id.to_string(),
            created: network.about.created_at,
            scope: "swarm",
            driver: "overlay".to_owned(),
            enable_ipv6: network.subnets.iter().any(|subnet| subnet.is_ipv6()),
            ipam: IpamView {
                driver: "default".to_owned(),
                options: None,
                config: Some(subnets.collect()),
            },
            internal: network.internal,
            attachable: network.about.attachable,
            ingress: network.ingress,
            config_from: ConfigFrom::default(),
            config_only: false,
            containers: None,
            options: Some(options),
            labels: Some(network.about.labels.clone()),
            peers: vec![],
            services: BTreeMap::new(),
            predefined: false,
        };
        self.add_presence(id, network.ingress, &mut view);
        view
    }

    /// Containers of this node, peers, and services: known only where the network is in use.
    fn add_presence(&self, id: NetworkId, ingress: bool, view: &mut NetworkView) {
        let endpoints = || {
            let endpoints = self.state.endpoints.iter();
            endpoints.filter(move |(_, endpoint)| endpoint.network == id)
        };
        let mut own = endpoints().filter(|(_, endpoint)| Some(endpoint.node) == self.node);
        if !ingress && own.next().is_none() {
            return;
        }
        let containers = endpoints()
            .filter(|(_, endpoint)| Some(endpoint.node) == self.node)
            .map(|(backend, endpoint)| {
                let key = self.containers.get(&endpoint.task).cloned();
                let address = |v6: bool| {
                    let mut addresses = endpoint.addresses.iter();
                    let found = addresses.find(|address| address.is_ipv6() == v6);
                    found.map_or_else(String::new, ToString::to_string)
                };
                let view = ContainerView {
                    name: endpoint.name.clone(),
                    endpoint_id: endpoint_id(backend.0),
                    mac_address: mac(backend.mac()),
                    ipv4_address: address(false),
                    ipv6_address: address(true),
                };
                (key.unwrap_or_else(|| endpoint.task.to_string()), view)
            });
        view.containers = Some(containers.collect());
        view.labels.get_or_insert_with(Labels::new);
        let present: BTreeSet<NodeId> = endpoints().map(|(_, endpoint)| endpoint.node).collect();
        let mut nodes: Vec<_> = self.state.nodes.iter().collect();
        nodes.sort_by_key(|(_, facts)| facts.addr);
        view.peers = nodes
            .into_iter()
            .filter(|(node, facts)| facts.alive && (ingress || present.contains(node)))
            .map(|(node, facts)| PeerView {
                name: format!("{:012x}", scatter(node.as_str()) >> 16),
                ip: facts.addr.to_string(),
            })
            .collect();
        if self.verbose {
            view.services = self.services(id);
        }
    }

    fn services(&self, id: NetworkId) -> BTreeMap<String, ServiceView> {
        let mut services: BTreeMap<String, ServiceView> = BTreeMap::new();
        for (backend, endpoint) in &self.state.endpoints {
            if endpoint.network != id {
                continue;
            }
            let service = endpoint.service.and_then(|id| self.state.services.get(&id));
            let name = service.map_or_else(String::new, |service| service.name.clone());
            let view = services
                .entry(name)
                .or_insert_with(|| service_view(service, id));
            view.tasks.push(self.task(backend.0, endpoint));
        }
        services
    }

    fn task(&self, backend: u32, endpoint: &NetEndpoint) -> TaskView {
        let host = self.state.nodes.get(&endpoint.node);
        let host = host.map_or_else(String::new, |node| node.addr.to_string());
        let address = endpoint.addresses.first();
        TaskView {
            name: endpoint.name.clone(),
            endpoint_id: endpoint_id(backend),
            endpoint_ip: address.map_or_else(String::new, |address| address.ip().to_string()),
            info: BTreeMap::from([("Host IP", host)]),
        }
    }
}

fn service_view(service: Option<&NetService>, network: NetworkId) -> ServiceView {
    let vip = service
        .and_then(|service| service.vips.get(&network))
        .and_then(|vips| vips.first())
        .map_or_else(|| "<nil>".to_owned(), ToString::to_string);
    let ports = service
        .map(|service| service.ports.as_slice())
        .unwrap_or_default();
    ServiceView {
        vip,
        ports: ports
            .iter()
            .map(|port| {
                format!(
                    "Target: {}, Publish: {}",
                    port.target_port, port.published_port
                )
            })
            .collect(),
        local_lb_index: 0,
        tasks: vec![],
    }
}

impl NetworkView {
    /// What the swarm has in the place of a network that every node has for itself. Its id is its
    /// name, the same on all nodes.
    pub(super) fn twin(network: NodeNetwork) -> Self {
        let name = network.name();
        Self {
            name: name.to_owned(),
            id: name.to_owned(),
            created: Timestamp::ZERO,
            scope: "swarm",
            driver: name.to_owned(),
            enable_ipv6: false,
            ipam: IpamView::default(),
            internal: false,
            attachable: false,
            ingress: false,
            config_from: ConfigFrom::default(),
            config_only: false,
            containers: None,
            options: None,
            labels: Some(Labels::from([(PREDEFINED.to_owned(), "true".to_owned())])),
            peers: vec![],
            services: BTreeMap::new(),
            predefined: true,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name == name
    }

    /// Whether nothing leads out of it.
    pub(crate) fn is_internal(&self) -> bool {
        self.internal
    }

    /// The swarm's twin of one of the engine's own networks.
    pub(crate) fn is_predefined(&self) -> bool {
        self.predefined
    }

    pub(super) fn fits(&self, filters: &Filters) -> bool {
        let no_labels = Labels::new();
        let labels = self.labels.as_ref().unwrap_or(&no_labels);
        let dangling = self.containers.as_ref().is_none_or(BTreeMap::is_empty);
        let both = |wish: &str| matches(wish, &self.name) || matches(wish, &self.id);
        filters.exact("driver", &self.driver)
            && filters.any("id", |wish| matches(wish, &self.id))
            && filters.any("idOrName", both)
            && filters.any("name", |wish| matches(wish, &self.name))
            && filters.labels("label", labels)
            && filters.exact("scope", self.scope)
            && filters.any("type", |wish| wish == "custom")
            && filters.any("dangling", |wish| {
                (wish == "true" || wish == "1") == dangling
            })
    }
}

/// Memory that a pattern may take; what is larger matches nothing.
const PATTERN_BYTES: usize = 256 << 10;

/// Whether `text` matches `wish`, a regular expression; what is none matches nothing.
fn matches(wish: &str, text: &str) -> bool {
    if regex::escape(wish) == wish {
        return text.contains(wish);
    }
    let wish = RegexBuilder::new(wish).size_limit(PATTERN_BYTES).build();
    wish.is_ok_and(|wish| wish.is_match(text))
}

fn subnet(config: &IpamConfig) -> Option<SubnetView> {
    Some(SubnetView {
        subnet: config.subnet?.to_string(),
        ip_range: config.range.map(|range| range.to_string()),
        gateway: config.gateway.map(|gateway| gateway.to_string()),
    })
}

/// 64 digits that stand for an attachment, the same on each node.
pub(crate) fn endpoint_id(backend: u32) -> String {
    (0..4)
        .map(|part| format!("{:016x}", scatter(&format!("{part} {backend}"))))
        .collect()
}

/// FNV-1a, 64 bit, its bits spread once more.
fn scatter(text: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A MAC address as text.
pub(crate) fn mac(bytes: [u8; 6]) -> String {
    let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}
