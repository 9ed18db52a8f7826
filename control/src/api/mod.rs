//! What the front door asks, answered from a view: changes to commit, and a reply.
//!
//! PURE. Every check of a request is here, in Docker's words, so that a refusal is the same on
//! every manager and nothing is half done. Specs have been checked for themselves by
//! `weft_types::validate`, which is asked again: a request may come from another manager.

mod attachment;
mod cluster;
mod find;
mod network;
mod node;
mod secret;
mod service;
#[cfg(test)]
mod tests;

pub use attachment::attached;
pub use node::show_revision;
pub(crate) use service::needed;

use std::sync::Arc;

use weft_proto::{ControlError, ControlReply, ControlRequest, ErrorCode};
use weft_types::{
    Timestamp,
    secret::{Config, Secret},
    task::Task,
    validate::{Refusal, RefusalKind},
};

use crate::{
    orchestrator::{carry_out, is_dirty},
    scheduler,
    store::{Change, IdSource, View},
};

/// What a request answers: changes, which must be committed before the reply is given.
pub type Answer = Result<(Vec<Change>, ControlReply), ControlError>;

/// Answers one request.
///
/// # Errors
/// Docker's refusal; nothing is to be changed then.
pub fn handle(view: &View, now: Timestamp, ids: &mut IdSource, request: &ControlRequest) -> Answer {
    use ControlRequest as Ask;
    match request {
        Ask::GetCluster => cluster::get(view),
        Ask::UpdateCluster {
            version,
            spec,
            rotate_worker_token,
            rotate_manager_token,
            rotate_unlock_key,
        } => {
            let rotate = cluster::Rotate {
                worker_token: *rotate_worker_token,
                manager_token: *rotate_manager_token,
                unlock_key: *rotate_unlock_key,
            };
            cluster::update(view, now, ids, *version, spec, &rotate)
        }
        Ask::GetUnlockKey => cluster::unlock_key(view),
        Ask::ListNodes => nodes(view.nodes()),
        Ask::GetNode(node) => nodes([find::node(view, node)?]),
        Ask::UpdateNode {
            node,
            version,
            spec,
        } => node::update(view, now, node, *version, spec),
        Ask::RemoveNode { node, force } => node::remove(view, now, node, *force),
        Ask::ListServices => services(view.services()),
        Ask::GetService(service) => services([find::service(view, service)?]),
        Ask::CreateService {
            spec,
            registry_auth,
        } => service::create(view, now, ids, spec, registry_auth),
        Ask::UpdateService {
            service,
            version,
            spec,
            registry_auth,
            auth_from_previous,
            rollback,
        } => {
            let update = service::Update {
                version: *version,
                spec,
                registry_auth: registry_auth.as_deref(),
                auth_from_previous: *auth_from_previous,
                rollback: *rollback,
            };
            service::update(view, now, service, &update)
        }
        Ask::RemoveService(service) => service::remove(view, now, service),
        Ask::ListTasks {
            services,
            nodes,
            desired,
            up_to_date,
        } => {
            let wished = |task: &&Arc<Task>| {
                (services.is_empty() || task.service_id.is_some_and(|id| services.contains(&id)))
                    && (nodes.is_empty() || task.node_id.is_some_and(|id| nodes.contains(&id)))
                    && (desired.is_empty() || desired.contains(&task.desired_state))
                    && (!up_to_date || is_up_to_date(view, task))
            };
            // A service's tasks are found by index: the CLI asks for them five times a second.
            let tasks = if services.is_empty() {
                view.tasks().filter(wished).cloned().collect()
            } else {
                let tasks = services.iter().flat_map(|id| view.tasks_of(*id));
                tasks.filter(wished).cloned().collect()
            };
            Ok((Vec::new(), ControlReply::Tasks(tasks)))
        }
        Ask::GetTask(task) => {
            let task = Arc::clone(find::task(view, task)?);
            Ok((Vec::new(), ControlReply::Tasks(vec![task])))
        }
        Ask::ListNetworks => networks(view.networks()),
        Ask::GetNetwork(network) => networks([find::network(view, network)?]),
        Ask::CreateNetwork(spec) => network::create(view, now, ids, spec),
        Ask::RemoveNetwork(network) => network::remove(view, now, network),
        Ask::ListSecrets => secret::list::<Secret>(view),
        Ask::GetSecret(secret) => secret::get::<Secret>(view, secret),
        Ask::CreateSecret(spec) => secret::create::<Secret>(view, now, ids, spec),
        Ask::UpdateSecret {
            secret,
            version,
            spec,
        } => secret::update::<Secret>(view, now, secret, *version, spec),
        Ask::RemoveSecret(secret) => secret::remove::<Secret>(view, now, secret),
        Ask::ListConfigs => secret::list::<Config>(view),
        Ask::GetConfig(config) => secret::get::<Config>(view, config),
        Ask::CreateConfig(spec) => secret::create::<Config>(view, now, ids, spec),
        Ask::UpdateConfig {
            config,
            version,
            spec,
        } => secret::update::<Config>(view, now, config, *version, spec),
        Ask::RemoveConfig(config) => secret::remove::<Config>(view, now, config),
        Ask::AttachNetwork {
            node,
            container_id,
            container_name,
            network,
            aliases,
            addresses,
        } => {
            let wish = attachment::Wish {
                node: *node,
                container_id,
                container_name,
                network,
                aliases,
                addresses,
            };
            attachment::attach(view, now, ids, &wish)
        }
        Ask::DetachNetwork(task) => attachment::detach(view, now, *task),
        // The store has no say in it: the leader asks the node before it comes here.
        Ask::Tunnel { node, .. } => nodes([find::node(view, node.as_str())?]),
        Ask::Rebalance { budget, apply } => {
            let moves = scheduler::plan(view, now, *budget);
            let changes = if *apply {
                carry_out(view, now, ids, &moves)
            } else {
                Vec::new()
            };
            Ok((changes, ControlReply::Moves(moves)))
        }
    }
}

fn is_up_to_date(view: &View, task: &Task) -> bool {
    let service = task.service_id.and_then(|id| view.service(id));
    service.is_some_and(|service| !is_dirty(view, service, task))
}

fn nodes<'a>(nodes: impl IntoIterator<Item = &'a Arc<weft_types::node::Node>>) -> Answer {
    let nodes = nodes.into_iter().map(|node| node.as_ref().clone());
    Ok((Vec::new(), ControlReply::Nodes(nodes.collect())))
}

fn services<'a>(
    services: impl IntoIterator<Item = &'a Arc<weft_types::service::Service>>,
) -> Answer {
    let services = services.into_iter().cloned().collect();
    Ok((Vec::new(), ControlReply::Services(services)))
}

fn networks<'a>(
    networks: impl IntoIterator<Item = &'a Arc<weft_types::network::Network>>,
) -> Answer {
    let networks = networks.into_iter().map(|network| network.as_ref().clone());
    Ok((Vec::new(), ControlReply::Networks(networks.collect())))
}

/// A refused spec as a refused request.
fn refused(refusal: Refusal) -> ControlError {
    let code = match refusal.kind {
        RefusalKind::Invalid => ErrorCode::InvalidArgument,
        RefusalKind::Unknown => ErrorCode::Unknown,
        RefusalKind::Unimplemented => ErrorCode::Unimplemented,
    };
    ControlError::new(code, refusal.message)
}

/// Whether the client read the version that is stored.
fn in_sequence(version: u64, stored: weft_types::Version) -> Result<(), ControlError> {
    if version == stored.index {
        Ok(())
    } else {
        Err(ControlError::aborted("update out of sequence"))
    }
}
