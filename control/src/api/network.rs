//! Networks made and removed.

use weft_proto::{ControlError, ControlReply, ErrorCode};
use weft_types::{
    Meta, TaskState, Timestamp,
    network::{Network, NetworkSpec},
    service::ServiceSpec,
    validate,
};

use super::{Answer, find, refused};
use crate::{
    allocator,
    store::{Draft, IdSource, Key, Scope, View},
};

pub(super) fn create(
    view: &View,
    now: Timestamp,
    ids: &mut IdSource,
    spec: &NetworkSpec,
) -> Answer {
    let name = &spec.name;
    if matches!(name.as_str(), "none" | "default") {
        return Err(ControlError::new(
            ErrorCode::PermissionDenied,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    validate::network_spec(spec).map_err(refused)?;
    if matches!(name.as_str(), "bridge" | "host" | "docker_gwbridge")
        || view.network_named(name).is_some()
    {
        return Err(ControlError::exists(format!(
            "network with name {name} already exists"
        )));
    }
    if spec.ingress
        && let Some(ingress) = view.ingress_network()
    {
        return Err(ControlError::exists(format!(
            "ingress network ({}) is already present",
            ingress.id
        )));
    }
    if spec.config_from.is_some() {
        return Err(ControlError::new(
            ErrorCode::Unimplemented,
            "networks made from a config-only network are not supported",
        ));
    }
    let id = ids.id();
    let mut draft = Draft::new(view, now);
    draft.put(Network {
        id,
        meta: Meta::default(),
        spec: spec.clone(),
        driver_state: None,
        ipam: None,
        vni: None,
        allocation_error: String::new(),
        pending_delete: false,
    });
    // What cannot be given now is refused now, not left waiting in silence.
    allocator::run(&mut draft, ids, &Scope::default());
    if let Some(network) = draft.network(id)
        && !network.allocation_error.is_empty()
    {
        return Err(ControlError::invalid(network.allocation_error.clone()));
    }
    Ok((draft.changes(), ControlReply::Created(id.to_string())))
}

pub(super) fn remove(view: &View, now: Timestamp, reference: &str) -> Answer {
    let network = find::network(view, reference)?;
    let id = network.id;
    let target = id.to_string();
    let uses = |spec: &ServiceSpec| {
        let mut attachments = spec.attachments().iter();
        attachments.any(|attachment| attachment.target == target)
    };
    for service in view.services() {
        if network.spec.ingress && allocator::ingress_ports(&service.spec).next().is_some() {
            return Err(ControlError::precondition(format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            )));
        }
        if uses(&service.spec) {
            return Err(ControlError::precondition(format!(
                "network {id} is in use by service {}",
                service.id
            )));
        }
    }
    let lives = |task: &&std::sync::Arc<weft_types::task::Task>| {
        task.desired_state <= TaskState::Complete && task.status.state <= TaskState::Running
    };
    if let Some(task) = view.tasks_on_network(id).find(lives) {
        return Err(ControlError::precondition(format!(
            "network {id} is in use by task {}",
            task.id
        )));
    }
    let mut draft = Draft::new(view, now);
    draft.delete(Key::Network(id));
    Ok((draft.changes(), ControlReply::Done))
}
