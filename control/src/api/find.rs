//! What a reference names: exact id, then exact name, then a unique prefix of an id.

use std::{fmt::Display, sync::Arc};

use weft_proto::ControlError;
use weft_types::{
    network::Network,
    node::Node,
    secret::{Config, Secret},
    service::Service,
    task::Task,
};

use crate::store::View;

fn pick<'a, T>(
    kind: &str,
    reference: &str,
    all: impl Iterator<Item = &'a Arc<T>> + Clone,
    id: impl Fn(&T) -> String,
    name: impl Fn(&T) -> Option<String>,
) -> Result<&'a Arc<T>, ControlError> {
    let not_found = || ControlError::not_found(format!("{kind} {reference} not found"));
    if reference.is_empty() {
        return Err(not_found());
    }
    if let Some(object) = all.clone().find(|object| id(object) == reference) {
        return Ok(object);
    }
    let named = all
        .clone()
        .filter(|object| name(object).is_some_and(|name| name == reference));
    if let Some(object) = one(kind, reference, named)? {
        return Ok(object);
    }
    let begins = all.filter(|object| id(object).starts_with(reference));
    one(kind, reference, begins)?.ok_or_else(not_found)
}

fn one<T>(
    kind: &str,
    reference: impl Display,
    mut matching: impl Iterator<Item = T>,
) -> Result<Option<T>, ControlError> {
    let Some(first) = matching.next() else {
        return Ok(None);
    };
    match matching.count() {
        0 => Ok(Some(first)),
        more => Err(ControlError::invalid(format!(
            "{kind} {reference} is ambiguous ({} matches found)",
            more + 1
        ))),
    }
}

pub(super) fn node<'a>(view: &'a View, reference: &str) -> Result<&'a Arc<Node>, ControlError> {
    let nodes: Vec<_> = view.nodes().collect();
    let hostname = |node: &Node| Some(node.description.hostname.clone());
    pick(
        "node",
        reference,
        nodes.into_iter(),
        |node| node.id.to_string(),
        hostname,
    )
}

pub(super) fn service<'a>(
    view: &'a View,
    reference: &str,
) -> Result<&'a Arc<Service>, ControlError> {
    if let Some(service) = reference.parse().ok().and_then(|id| view.service(id)) {
        return Ok(service);
    }
    if let Some(service) = view.service_named(reference) {
        return Ok(service);
    }
    let services: Vec<_> = view.services().collect();
    let id = |service: &Service| service.id.to_string();
    pick("service", reference, services.into_iter(), id, |_| None)
}

pub(super) fn network<'a>(
    view: &'a View,
    reference: &str,
) -> Result<&'a Arc<Network>, ControlError> {
    if let Some(network) = reference.parse().ok().and_then(|id| view.network(id)) {
        return Ok(network);
    }
    if let Some(network) = view.network_named(reference) {
        return Ok(network);
    }
    let networks: Vec<_> = view.networks().collect();
    let id = |network: &Network| network.id.to_string();
    pick("network", reference, networks.into_iter(), id, |_| None)
}

pub(super) fn task<'a>(view: &'a View, reference: &str) -> Result<&'a Arc<Task>, ControlError> {
    if let Some(task) = reference.parse().ok().and_then(|id| view.task(id)) {
        return Ok(task);
    }
    let tasks: Vec<_> = view.tasks().collect();
    let id = |task: &Task| task.id.to_string();
    pick("task", reference, tasks.into_iter(), id, |_| None)
}

pub(super) fn secret<'a>(view: &'a View, reference: &str) -> Result<&'a Arc<Secret>, ControlError> {
    if let Some(secret) = view.secret_named(reference) {
        return Ok(secret);
    }
    let secrets: Vec<_> = view.secrets().collect();
    let id = |secret: &Secret| secret.id.to_string();
    pick("secret", reference, secrets.into_iter(), id, |_| None)
}

pub(super) fn config<'a>(view: &'a View, reference: &str) -> Result<&'a Arc<Config>, ControlError> {
    if let Some(config) = view.config_named(reference) {
        return Ok(config);
    }
    let configs: Vec<_> = view.configs().collect();
    let id = |config: &Config| config.id.to_string();
    pick("config", reference, configs.into_iter(), id, |_| None)
}
