//! What a node must know of the network: a projection of the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_types::{
    BackendId, NetworkId, NodeId, TaskState,
    netstate::{
        EndpointPhase, KeyGenerations, NetEndpoint, NetNetwork, NetNode, NetService, NetState,
        NetworkAbout, ZONE,
    },
    network::Network,
    node::{Node, NodeState},
    service::{EndpointMode, PublishMode, Service},
    task::Task,
    template::{self, Place},
    validate::is_encrypted,
};

use super::step::Parts;
use crate::store::View;

/// The UDP port of VXLAN when the cluster names none.
const DEFAULT_DATA_PATH_PORT: u16 = 4789;

/// Label of the cluster that encrypts every network, the ingress network too, when it is `true`.
const ENCRYPTED_BY_DEFAULT: &str = "weft.encrypted";

/// What `node` must know: the networks that its tasks are on and the ingress network, everybody on
/// them, all nodes, and the services that have a name there or publish a port.
///
/// The revision is left 0: the runtime numbers what it sends.
#[must_use]
pub fn project(view: &View, node: NodeId) -> NetState {
    project_parts(view, &Parts::of(view, node).networks(view))
}

/// What a node must know that takes part in just these networks.
pub(super) fn project_parts(view: &View, parts: &BTreeSet<NetworkId>) -> NetState {
    let facts = Facts::of(view);
    let mut state = NetState {
        ring_seed: facts.ring_seed,
        data_path_port: facts.data_path_port,
        keys: facts.keys,
        nodes: view
            .nodes()
            .filter_map(|node| Some((node.id, net_node(node)?)))
            .collect(),
        ..NetState::default()
    };
    let encrypts_all = encrypts_all(view);
    for network in parts {
        let Some(network) = view.network(*network) else {
            continue;
        };
        if let Some(known) = net_network(network, encrypts_all) {
            state.networks.insert(network.id, known);
            endpoints(view, network.id, &mut state);
        }
    }
    for service in view.services() {
        if let Some(known) = net_service(service, &state.networks) {
            state.services.insert(service.id, known);
        }
    }
    state
}

/// What the cluster says to every node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) ring_seed: u64,
    pub(super) data_path_port: u16,
    pub(super) keys: KeyGenerations,
}

impl Facts {
    pub(super) fn of(view: &View) -> Self {
        let cluster = view.cluster();
        let port = cluster.map_or(0, |cluster| cluster.data_path_port);
        Self {
            ring_seed: cluster.map_or(0, |cluster| cluster.ring_seed),
            data_path_port: if port == 0 {
                DEFAULT_DATA_PATH_PORT
            } else {
                port
            },
            keys: cluster.map_or(KeyGenerations::default(), |cluster| {
                cluster.keys.generations
            }),
        }
    }
}

/// Whether the cluster's label says that every network is encrypted.
pub(super) fn encrypts_all(view: &View) -> bool {
    let label = view
        .cluster()
        .and_then(|cluster| cluster.spec.labels.get(ENCRYPTED_BY_DEFAULT));
    label.is_some_and(|value| value == "true")
}

pub(super) fn net_node(node: &Node) -> Option<NetNode> {
    let addr = node
        .data_path_addr
        .or_else(|| node.status.addr.parse().ok())?;
    if node.index == 0 {
        return None;
    }
    Some(NetNode {
        index: node.index,
        hostname: node.description.hostname.clone(),
        addr,
        addresses: node.addresses.clone(),
        alive: node.status.state != NodeState::Down,
        wireguard: node.wireguard,
        zone: node.spec.labels.get(ZONE).cloned().unwrap_or_default(),
    })
}

pub(super) fn net_network(network: &Network, encrypts_all: bool) -> Option<NetNetwork> {
    let vni = network.vni?;
    let options = network.spec.driver_configuration.options.as_ref();
    let option = |name: &str| options.and_then(|options| options.get(name));
    let configs = network.ipam.iter().flat_map(|ipam| &ipam.configs);
    Some(NetNetwork {
        name: network.spec.name.clone(),
        vni,
        subnets: network.subnets().collect(),
        gateways: configs.filter_map(|config| config.gateway).collect(),
        mtu_bytes: option("com.docker.network.driver.mtu").and_then(|mtu| mtu.parse().ok()),
        ingress: network.spec.ingress,
        internal: network.spec.internal,
        encrypted: encrypts_all || options.is_some_and(is_encrypted),
        about: NetworkAbout {
            created_at: network.meta.created_at,
            attachable: network.spec.attachable,
            labels: network.spec.labels.clone(),
        },
    })
}

fn endpoints(view: &View, network: NetworkId, state: &mut NetState) {
    for task in view.tasks_on_network(network) {
        let here = rows(view, task).filter(|(_, endpoint)| endpoint.network == network);
        state.endpoints.extend(here);
    }
}

/// A task's endpoints, on all its networks.
pub(super) fn rows<'a>(
    view: &'a View,
    task: &'a Task,
) -> impl Iterator<Item = (BackendId, NetEndpoint)> + 'a {
    let place = phase(view, task).zip(task.node_id);
    let attachments = place.map(|place| {
        let attachments = task.networks_attachments.iter();
        attachments.map(move |attachment| (place, attachment))
    });
    let attachments = attachments.into_iter().flatten();
    attachments
        .filter(|(_, attachment)| !attachment.addresses.is_empty())
        .map(|((phase, node), attachment)| {
            let endpoint = NetEndpoint {
                task: task.id,
                network: attachment.network_id,
                node,
                addresses: attachment.addresses.clone(),
                service: task.service_id,
                name: task.name.clone(),
                names: names(view, task, &attachment.aliases),
                phase,
                host_ports: host_ports(task),
            };
            (attachment.backend, endpoint)
        })
}

/// Whether a task's endpoint may be chosen; `None` when nobody need know of it.
fn phase(view: &View, task: &Task) -> Option<EndpointPhase> {
    let observed = task.status.state;
    if !(TaskState::Assigned..=TaskState::Running).contains(&observed) {
        return None;
    }
    let stops = task.desired_state > TaskState::Complete;
    if stops && observed < TaskState::Starting {
        return None;
    }
    let node = task.node_id.and_then(|id| view.node(id))?;
    if stops || node.status.state == NodeState::Down {
        return Some(EndpointPhase::Draining);
    }
    Some(if observed == TaskState::Running {
        EndpointPhase::Serving
    } else {
        EndpointPhase::Starting
    })
}

/// Further names of one container: its host name, the short form of its container id, and for a
/// user's own container its aliases, since no service carries them.
fn names(view: &View, task: &Task, aliases: &[String]) -> Vec<String> {
    let container = task.spec.container_spec.as_ref();
    let mut names = BTreeSet::new();
    if let Some(hostname) = container.and_then(|container| container.hostname.as_deref()) {
        let hostname = expand(view, task, hostname);
        names.extend((!hostname.is_empty()).then_some(hostname));
    }
    let status = task.status.container_status.as_ref();
    let attached = task.spec.network_attachment_spec.as_ref();
    let id = status
        .map(|status| status.container_id.as_str())
        .or(attached.map(|spec| spec.container_id.as_str()));
    names.extend(id.and_then(|id| id.get(..12)).map(str::to_owned));
    if task.service_id.is_none() {
        names.extend(aliases.iter().cloned());
    }
    names.into_iter().collect()
}

/// A host name with its placeholders filled in. One that means nothing leaves no name: the agent
/// refuses such a task.
fn expand(view: &View, task: &Task, text: &str) -> String {
    let node = task.node_id.and_then(|id| view.node(id));
    let place = node.map_or_else(Place::default, |node| Place::of(node.id, &node.description));
    template::expand(text, task, &place).unwrap_or_default()
}

fn host_ports(task: &Task) -> Vec<weft_types::service::PortConfig> {
    let reported = &task.status.port_status.ports;
    let ports = if reported.is_empty() {
        &task.ports
    } else {
        reported
    };
    let ports = ports.iter();
    ports
        .filter(|port| port.publish_mode == PublishMode::Host)
        .cloned()
        .collect()
}

/// A service as far as it has a name on one of `networks` or publishes a port.
pub(super) fn net_service(
    service: &Service,
    networks: &BTreeMap<NetworkId, NetNetwork>,
) -> Option<NetService> {
    if service.pending_delete {
        return None;
    }
    let mut vips: BTreeMap<NetworkId, Vec<IpAddr>> = BTreeMap::new();
    for vip in &service.endpoint.virtual_ips {
        if networks.contains_key(&vip.network_id) {
            vips.entry(vip.network_id).or_default().push(vip.addr.ip());
        }
    }
    for vips in vips.values_mut() {
        vips.sort_unstable();
    }
    let mode = service.spec.endpoint_mode();
    let mut aliases: BTreeMap<NetworkId, BTreeSet<String>> = BTreeMap::new();
    for attachment in service.spec.attachments() {
        let Some(network) = attachment.target.parse().ok() else {
            continue;
        };
        let names = attachment.aliases.iter().flatten().cloned();
        // A service of round-robin names has an entry even without aliases: its name stays ours
        // while no task of it runs.
        if networks.contains_key(&network)
            && (mode == EndpointMode::Dnsrr || names.clone().next().is_some())
        {
            aliases.entry(network).or_default().extend(names);
        }
    }
    let mut ports: Vec<_> = service
        .endpoint
        .ports
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Ingress && port.published_port != 0)
        .cloned()
        .collect();
    ports.sort_unstable();
    if vips.is_empty() && aliases.is_empty() && ports.is_empty() {
        return None;
    }
    let labels = service.spec.labels.iter();
    Some(NetService {
        name: service.spec.name.clone(),
        mode,
        vips,
        aliases,
        ports,
        labels: labels
            .filter(|(name, _)| name.starts_with("weft."))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    })
}
