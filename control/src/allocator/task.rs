//! Tasks get addresses.

use std::collections::HashMap;

use ipnetwork::IpNetwork;
use weft_types::{
    NetworkId, ServiceId, TaskState, Timestamp,
    network::Network,
    service::NetworkAttachmentConfig,
    task::{NetworkAttachment, Task},
};

use super::{
    endpoint::{ingress_ports, network_reason},
    network::{is_node_local, subnets},
};
use crate::store::{Draft, REST};

/// What a resting address must have rested when nothing else is left.
const REST_IN_NEED: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a task could not be given its addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// All addresses are held or rest.
    #[error("no address is free in network {network} ({subnet}: {held} in use, {resting} resting)")]
    Full {
        /// The network's name.
        network: String,
        /// Its subnet.
        subnet: IpNetwork,
        /// Addresses held.
        held: usize,
        /// Addresses resting after use.
        resting: usize,
    },
    /// The network has no subnet of the family.
    #[error("network {0} has no subnet")]
    NoSubnet(String),
    /// A wished address is not to be had.
    #[error("address {address} of network {network} is {why}")]
    NotFree {
        /// The address.
        address: std::net::IpAddr,
        /// The network's name.
        network: String,
        /// `in use` or `not in its subnets`.
        why: &'static str,
    },
    /// Something else is not ready.
    #[error("{0}")]
    NotReady(String),
}

pub(super) fn run(draft: &mut Draft) {
    let waiting: Vec<_> = draft
        .tasks_waiting()
        .filter(|task| {
            task.status.state == TaskState::New && task.desired_state <= TaskState::Complete
        })
        .cloned()
        .collect();
    // What one task of a service and spec cannot have, the next cannot have either.
    let mut refused: HashMap<(ServiceId, u64), AttachError> = HashMap::new();
    for task in waiting {
        let mut task = Task::clone(&task);
        let group = task.service_id.map(|id| (id, task.spec_version.index));
        let earlier = group.and_then(|group| refused.get(&group).cloned());
        let result = earlier.map_or_else(|| attach(draft, &mut task), Err);
        if let (Err(error), Some(group)) = (&result, group) {
            refused.insert(group, error.clone());
        }
        match result {
            Ok(()) => {
                task.status.state = TaskState::Pending;
                task.status.message = "pending task scheduling".to_owned();
                task.status.err.clear();
                task.status.timestamp = draft.now();
            }
            Err(reason) => {
                let reason = reason.to_string();
                if task.status.err != reason {
                    task.status.err = reason;
                }
                task.networks_attachments.clear();
            }
        }
        draft.put(task);
    }
}

/// Gives `task` its attachments, all or none: the ingress network first when its service
/// publishes ports there, then those it wishes.
///
/// Attachments that it has already with backend number 0 are wishes for these very addresses.
///
/// # Errors
/// With the reason, for people. The draft may ask to be run again then.
pub fn attach(draft: &mut Draft, task: &mut Task) -> Result<(), AttachError> {
    let asked = std::mem::take(&mut task.networks_attachments);
    let mut given: Vec<NetworkAttachment> = Vec::new();
    for (network, config) in wished(draft, task)? {
        let mut attachment = NetworkAttachment {
            network_id: network.id,
            addresses: Vec::new(),
            aliases: config.aliases.unwrap_or_default(),
            backend: draft.ledger().next_backend(),
        };
        let wishes = asked.iter().find(|asked| asked.network_id == network.id);
        for v6 in [false, true] {
            if !network.subnets().any(|subnet| subnet.is_ipv6() == v6) {
                continue;
            }
            let wish = wishes
                .into_iter()
                .flat_map(|wishes| &wishes.addresses)
                .find(|address| address.is_ipv6() == v6);
            let address = match wish {
                Some(wish) => fixed(draft, &network, wish.ip())?,
                None => choose(draft, &network, v6)?,
            };
            attachment.addresses.push(address);
        }
        given.push(attachment);
        // Held from now on, so that the next choice is another one.
        task.networks_attachments.clone_from(&given);
        draft.put(task.clone());
    }
    Ok(())
}

/// The networks that a task is to be on.
fn wished(
    draft: &Draft,
    task: &mut Task,
) -> Result<Vec<(std::sync::Arc<Network>, NetworkAttachmentConfig)>, AttachError> {
    let mut wished = Vec::new();
    let mut configs = task.spec.networks.clone().unwrap_or_default();
    if let Some(service) = task.service_id.and_then(|id| draft.service(id)) {
        let publishes = ingress_ports(&service.spec).next().is_some();
        if configs.is_empty() {
            configs = service.spec.attachments().to_vec();
        }
        // A port of the node alone needs a leg to arrive at as well.
        let needs_leg = configs.is_empty() && !service.spec.ports().is_empty();
        if publishes {
            let ports = service.endpoint.ports.iter();
            if service.endpoint.ports.len() < service.spec.ports().len()
                || ports.clone().any(|port| {
                    port.publish_mode == weft_types::service::PublishMode::Ingress
                        && port.published_port == 0
                })
            {
                return Err(AttachError::NotReady(service.allocation_error.clone()));
            }
        }
        if publishes || needs_leg {
            let ingress = draft
                .ingress_network()
                .ok_or_else(|| AttachError::NotReady("there is no ingress network".to_owned()))?;
            wished.push((ingress.clone(), NetworkAttachmentConfig::default()));
        }
        task.ports.clone_from(&service.endpoint.ports);
    }
    if task.spec.node_network().is_some() {
        return Ok(Vec::new());
    }
    for config in configs {
        let network = config.target.parse::<NetworkId>().ok();
        let network = network
            .and_then(|id| draft.network(id))
            .ok_or_else(|| AttachError::NotReady(format!("network {} not found", config.target)))?;
        if wished.iter().any(|(other, _)| other.id == network.id) {
            continue;
        }
        wished.push((network.clone(), config));
    }
    if let Some((network, _)) = wished
        .iter()
        .find(|(network, _)| network.driver_state.is_none())
    {
        return Err(AttachError::NotReady(network_reason(network)));
    }
    wished.retain(|(network, _)| !is_node_local(network));
    Ok(wished)
}

fn fixed(
    draft: &Draft,
    network: &Network,
    address: std::net::IpAddr,
) -> Result<IpNetwork, AttachError> {
    let not_free = |why| AttachError::NotFree {
        address,
        network: network.spec.name.clone(),
        why,
    };
    let subnets = subnets(network);
    let subnet = subnets
        .iter()
        .find(|subnet| subnet.net().contains(address) && subnet.gateway() != address)
        .ok_or_else(|| not_free("not in its subnets"))?;
    if draft.ledger().holder(network.id, address).is_some() {
        return Err(not_free("in use"));
    }
    Ok(subnet.with_prefix(address))
}

/// The next free address of a family on a network. When only resting ones are left, the one that
/// rested longest is taken if it rested a little; otherwise the draft is woken when one has.
pub(super) fn choose(
    draft: &mut Draft,
    network: &Network,
    v6: bool,
) -> Result<IpNetwork, AttachError> {
    let subnets: Vec<_> = subnets(network)
        .into_iter()
        .filter(|subnet| subnet.net().is_ipv6() == v6)
        .collect();
    let Some(first) = subnets.first() else {
        return Err(AttachError::NoSubnet(network.spec.name.clone()));
    };
    let ledger = draft.ledger();
    let last = ledger.last_address(network.id, v6);
    // Go on in the subnet that was given from last, then in the others.
    let current = subnets
        .iter()
        .position(|subnet| last.is_some_and(|last| subnet.net().contains(last)))
        .unwrap_or(0);
    for nth in 0..subnets.len() {
        let subnet = &subnets[(current + nth) % subnets.len()];
        let free = subnet.next(last, |address| {
            ledger.holder(network.id, address).is_none()
                && ledger.resting_since(network.id, address).is_none()
        });
        if let Some(address) = free {
            return Ok(subnet.with_prefix(address));
        }
    }
    let oldest = ledger
        .resting(network.id)
        .filter(|(address, _)| subnets.iter().any(|subnet| subnet.gives(*address)))
        .min_by_key(|(address, since)| (*since, *address));
    if let Some((address, since)) = oldest {
        let ready: Timestamp = since.after(REST_IN_NEED.min(REST));
        if ready <= draft.now()
            && let Some(subnet) = subnets.iter().find(|subnet| subnet.gives(address))
        {
            return Ok(subnet.with_prefix(address));
        }
        draft.wake_at(ready);
    }
    let ledger = draft.ledger();
    let inside = |address: std::net::IpAddr| subnets.iter().any(|subnet| subnet.gives(address));
    Err(AttachError::Full {
        network: network.spec.name.clone(),
        subnet: first.net(),
        held: ledger
            .held(network.id)
            .filter(|(address, _)| inside(*address))
            .count(),
        resting: ledger
            .resting(network.id)
            .filter(|(address, _)| inside(*address))
            .count(),
    })
}
