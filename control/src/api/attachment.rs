//! Users' own containers on attachable networks.

use std::{net::IpAddr, sync::Arc};

use weft_proto::{ControlError, ControlReply, ErrorCode};
use weft_types::{
    BackendId, Labels, Meta, NodeId, TaskId, TaskState, Timestamp, Version,
    service::NetworkAttachmentConfig,
    task::{NetworkAttachment, NetworkAttachmentSpec, Task, TaskSpec, TaskStatus},
};

use super::{Answer, find};
use crate::{
    allocator,
    store::{Draft, IdSource, Key, View},
};

/// Which container wants to be on which network.
pub(super) struct Wish<'a> {
    pub(super) node: NodeId,
    pub(super) container_id: &'a str,
    pub(super) container_name: &'a str,
    pub(super) network: &'a str,
    pub(super) aliases: &'a [String],
    pub(super) addresses: &'a [IpAddr],
}

/// Makes an attachment task that has its addresses at once and counts as running: its container
/// is its user's.
pub(super) fn attach(view: &View, now: Timestamp, ids: &mut IdSource, wish: &Wish<'_>) -> Answer {
    let network = find::network(view, wish.network)?.clone();
    if !network.spec.attachable || network.spec.ingress {
        return Err(ControlError::new(
            ErrorCode::PermissionDenied,
            format!("network {} not manually attachable", network.spec.name),
        ));
    }
    let is_there = view.tasks_on_network(network.id).any(|task| {
        let spec = task.spec.network_attachment_spec.as_ref();
        spec.is_some_and(|spec| spec.container_id == wish.container_id)
            && !task.status.state.is_terminal()
    });
    if is_there {
        return Err(ControlError::exists(format!(
            "container {} is already attached to network {}",
            wish.container_name, network.spec.name
        )));
    }
    let id: TaskId = ids.id();
    let mut task = Task {
        id,
        meta: Meta::default(),
        name: wish.container_name.trim_start_matches('/').to_owned(),
        labels: Labels::new(),
        spec: TaskSpec {
            network_attachment_spec: Some(NetworkAttachmentSpec {
                container_id: wish.container_id.to_owned(),
            }),
            networks: Some(vec![NetworkAttachmentConfig {
                target: network.id.to_string(),
                aliases: Some(wish.aliases.to_vec()),
                driver_opts: None,
            }]),
            runtime: Some("attachment".to_owned()),
            ..TaskSpec::default()
        }
        .into(),
        service_id: None,
        slot: 0,
        node_id: Some(wish.node),
        status: TaskStatus {
            timestamp: now,
            state: TaskState::Running,
            message: "attached".to_owned(),
            ..TaskStatus::default()
        },
        desired_state: TaskState::Running,
        networks_attachments: vec![NetworkAttachment {
            network_id: network.id,
            addresses: wish
                .addresses
                .iter()
                .map(|address| (*address).into())
                .collect(),
            aliases: Vec::new(),
            backend: BackendId(0),
        }],
        generic_resources: Vec::new(),
        job_iteration: None,
        spec_version: Version::default(),
        service_name: String::new(),
        service_labels: Labels::new(),
        ports: Vec::new(),
        start_after: Timestamp::ZERO,
        log_driver: None,
        registry_auth: String::new(),
        withdrawn: false,
        running_since: now,
        desired_since: now,
        made: Version::default(),
        faults: Vec::new(),
    };
    let mut draft = Draft::new(view, now);
    allocator::attach(&mut draft, &mut task)
        .map_err(|error| ControlError::precondition(error.to_string()))?;
    draft.put(task);
    Ok((draft.changes(), ControlReply::Created(id.to_string())))
}

/// What an attachment was given; `None` while it waits.
///
/// # Errors
/// When it is gone.
pub fn attached(view: &View, task: TaskId) -> Result<Option<ControlReply>, ControlError> {
    let task = view
        .task(task)
        .ok_or_else(|| ControlError::not_found(format!("task {task} not found")))?;
    let is_given = !task.networks_attachments.is_empty();
    Ok(is_given.then(|| ControlReply::Tasks(vec![Arc::clone(task)])))
}

/// Takes an attachment's addresses back.
pub(super) fn detach(view: &View, now: Timestamp, id: TaskId) -> Answer {
    let task = view
        .task(id)
        .filter(|task| task.service_id.is_none())
        .ok_or_else(|| ControlError::not_found(format!("attachment {id} not found")))?;
    let mut draft = Draft::new(view, now);
    draft.delete(Key::Task(task.id));
    Ok((draft.changes(), ControlReply::Done))
}
