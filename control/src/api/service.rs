//! Services made, changed, rolled back and removed.

use std::collections::BTreeSet;

use weft_proto::{ControlError, ControlReply, ErrorCode};
use weft_types::{
    Meta, ServiceId, Timestamp, Version,
    network::NodeNetwork,
    service::{
        Endpoint, JobStatus, NetworkAttachmentConfig, PortConfig, Protocol, PublishMode,
        Replicated, Service, ServiceMode, ServiceSpec, UpdateState, UpdateStatus,
    },
    validate,
};

use super::{Answer, find, in_sequence, refused};
use crate::{
    allocator::ingress_ports,
    orchestrator::constraint::Constraint,
    store::{Draft, IdSource, Key, View},
};

pub(super) fn create(
    view: &View,
    now: Timestamp,
    ids: &mut IdSource,
    spec: &ServiceSpec,
    registry_auth: &str,
) -> Answer {
    let spec = checked(view, None, spec)?;
    if view.service_named(&spec.name).is_some() {
        return Err(ControlError::exists(format!(
            "name conflicts with an existing object: service {} already exists",
            spec.name
        )));
    }
    let id = ids.id();
    let is_job = spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some();
    let mut draft = Draft::new(view, now);
    draft.put(Service {
        id,
        meta: Meta::default(),
        spec,
        previous_spec: None,
        endpoint: Endpoint::default(),
        update_status: None,
        job_status: is_job.then_some(JobStatus {
            job_iteration: Version::default(),
            last_execution: now,
        }),
        spec_version: next_version(view),
        previous_spec_version: None,
        update_since: Version::default(),
        allocation_error: String::new(),
        registry_auth: registry_auth.to_owned(),
        previous_registry_auth: String::new(),
        pending_delete: false,
    });
    Ok((draft.changes(), ControlReply::Created(id.to_string())))
}

/// The version of a spec that is stored now. Never given before: every commit has its own index,
/// and this one's will be at least this.
fn next_version(view: &View) -> Version {
    Version {
        index: view.index() + 1,
    }
}

/// What an update asks.
pub(super) struct Update<'a> {
    pub(super) version: u64,
    pub(super) spec: &'a ServiceSpec,
    pub(super) registry_auth: Option<&'a str>,
    pub(super) auth_from_previous: bool,
    pub(super) rollback: bool,
}

pub(super) fn update(view: &View, now: Timestamp, reference: &str, update: &Update<'_>) -> Answer {
    let stored = find::service(view, reference)?;
    let spec = checked(view, Some(stored.id), update.spec)?;
    in_sequence(update.version, stored.meta.version)?;
    if !spec.name.eq(&stored.spec.name) {
        return Err(unimplemented("renaming services is not supported"));
    }
    if kind(&spec.mode) != kind(&stored.spec.mode) {
        return Err(unimplemented("service mode change is not allowed"));
    }
    let mut service = Service::clone(stored);
    if update.rollback {
        let Some(previous) = service.previous_spec.take() else {
            return Err(ControlError::precondition(format!(
                "service {} does not have a previous spec",
                service.id
            )));
        };
        let version = service.previous_spec_version.take();
        service.previous_spec = Some(std::mem::replace(&mut service.spec, previous));
        // Credentials are part of what is gone back to.
        let Service {
            registry_auth,
            previous_registry_auth,
            ..
        } = &mut service;
        std::mem::swap(registry_auth, previous_registry_auth);
        service.previous_spec_version = Some(service.spec_version);
        service.spec_version = version.unwrap_or_else(|| next_version(view));
        service.update_since = next_version(view);
        // A job runs anew at once: nothing is rolled out that could be completed.
        service.update_status = service.job_status.is_none().then(|| UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: Some(now),
            completed_at: None,
            message: "manually requested rollback".to_owned(),
        });
    } else {
        let auth = match update.registry_auth {
            Some(given) => given.to_owned(),
            None if !update.auth_from_previous => service.registry_auth.clone(),
            None if service.previous_spec.is_some() => service.previous_registry_auth.clone(),
            None => {
                return Err(ControlError::precondition(
                    "service does not have a previous spec",
                ));
            }
        };
        service.previous_registry_auth = std::mem::replace(&mut service.registry_auth, auth);
        service.previous_spec = Some(std::mem::replace(&mut service.spec, spec));
        service.previous_spec_version = Some(service.spec_version);
        service.spec_version = next_version(view);
        service.update_status = None;
    }
    if let Some(job) = &mut service.job_status {
        job.job_iteration.index += 1;
        job.last_execution = now;
    }
    let mut draft = Draft::new(view, now);
    draft.put(service);
    Ok((draft.changes(), ControlReply::Done))
}

pub(super) fn remove(view: &View, now: Timestamp, reference: &str) -> Answer {
    let service = find::service(view, reference)?;
    let mut draft = Draft::new(view, now);
    draft.delete(Key::Service(service.id));
    Ok((draft.changes(), ControlReply::Done))
}

fn unimplemented(message: &str) -> ControlError {
    ControlError::new(ErrorCode::Unimplemented, message)
}

fn kind(mode: &ServiceMode) -> u8 {
    match mode {
        ServiceMode {
            global: Some(_), ..
        } => 1,
        ServiceMode {
            replicated_job: Some(_),
            ..
        } => 2,
        ServiceMode {
            global_job: Some(_),
            ..
        } => 3,
        _ => 0,
    }
}

/// The spec as it is stored: checked against itself and against the cluster, its networks named
/// by id.
fn checked(
    view: &View,
    service: Option<ServiceId>,
    spec: &ServiceSpec,
) -> Result<ServiceSpec, ControlError> {
    validate::service_spec(spec).map_err(refused)?;
    let mut spec = spec.clone();
    if spec.mode == ServiceMode::default() {
        spec.mode.replicated = Some(Replicated { replicas: Some(1) });
    }
    let placement = spec.task_template.placement.as_ref();
    for text in placement
        .and_then(|placement| placement.constraints.as_ref())
        .into_iter()
        .flatten()
    {
        Constraint::parse(text).map_err(|error| ControlError::unknown(error.to_string()))?;
    }
    for networks in [&mut spec.task_template.networks, &mut spec.networks] {
        let mut named = BTreeSet::new();
        for attachment in networks.iter_mut().flatten() {
            resolve(view, attachment)?;
            if !named.insert(attachment.target.clone()) {
                let name = find::network(view, &attachment.target)?.spec.name.clone();
                return Err(ControlError::invalid(format!(
                    "network {name} is named twice"
                )));
            }
        }
    }
    files(view, &spec)?;
    ports(view, service, &spec)?;
    if ingress_ports(&spec).next().is_some() && view.ingress_network().is_none() {
        return Err(ControlError::precondition(
            "service needs ingress network, but no ingress network is present",
        ));
    }
    Ok(spec)
}

fn resolve(view: &View, attachment: &mut NetworkAttachmentConfig) -> Result<(), ControlError> {
    if NodeNetwork::named(&attachment.target).is_some() {
        return Ok(());
    }
    let network = find::network(view, &attachment.target)?;
    if network.spec.ingress {
        return Err(ControlError::invalid(format!(
            "Service cannot be explicitly attached to the ingress network {:?}",
            network.spec.name
        )));
    }
    attachment.target = network.id.to_string();
    Ok(())
}

/// Secrets and configs must be there, with the id and the name that the spec says.
fn files(view: &View, spec: &ServiceSpec) -> Result<(), ControlError> {
    let Some(container) = &spec.task_template.container_spec else {
        return Ok(());
    };
    let secrets = container.secrets.iter().flatten();
    let missing: Vec<&str> = secrets
        .filter(|reference| {
            let secret = view.secret(reference.secret_id);
            secret.is_none_or(|secret| secret.spec.name != reference.secret_name)
        })
        .map(|reference| reference.secret_name.as_str())
        .collect();
    missing_files("secret", &missing)?;
    let configs = container.configs.iter().flatten();
    let missing: Vec<&str> = configs
        .filter(|reference| {
            let config = view.config(reference.config_id);
            config.is_none_or(|config| config.spec.name != reference.config_name)
        })
        .map(|reference| reference.config_name.as_str())
        .collect();
    missing_files("config", &missing)
}

fn missing_files(kind: &str, missing: &[&str]) -> Result<(), ControlError> {
    match missing {
        [] => Ok(()),
        [one] => Err(ControlError::invalid(format!("{kind} not found: {one}"))),
        more => Err(ControlError::invalid(format!(
            "{kind}s not found: {}",
            more.join(", ")
        ))),
    }
}

/// A fixed port of the mesh is nobody else's, and no node's own either.
fn ports(view: &View, service: Option<ServiceId>, spec: &ServiceSpec) -> Result<(), ControlError> {
    let wished: Vec<_> = spec
        .ports()
        .iter()
        .filter(|port| port.published_port != 0)
        .collect();
    if wished.is_empty() {
        return Ok(());
    }
    if let Some((port, whose)) = wished
        .iter()
        .find_map(|port| Some((port, ours(view, port)?)))
    {
        return Err(needed(port, whose));
    }
    for other in view.services().filter(|other| Some(other.id) != service) {
        let given = other.endpoint.ports.iter();
        // Ports asked for and not given yet count as well.
        for taken in given.chain(other.spec.ports()) {
            let clash = wished.iter().find(|port| {
                (port.protocol, port.published_port) == (taken.protocol, taken.published_port)
                    && !(port.publish_mode == PublishMode::Host
                        && taken.publish_mode == PublishMode::Host)
            });
            if let Some(port) = clash {
                let how = match taken.publish_mode {
                    PublishMode::Ingress => "an ingress port",
                    PublishMode::Host => "a host-published port",
                };
                return Err(ControlError::invalid(format!(
                    "port '{}' is already in use by service '{}' ({}) as {how}",
                    port.published_port, other.spec.name, other.id
                )));
            }
        }
    }
    Ok(())
}

/// What the nodes themselves need this port for: published, it would cut them off from each other.
/// Where managers listen only they know, who look at it beside this.
fn ours(view: &View, port: &PortConfig) -> Option<&'static str> {
    let number = port.published_port;
    let of_tasks = view.cluster().map(|cluster| cluster.data_path_port);
    (port.protocol == Protocol::Udp && of_tasks == Some(number))
        .then_some("it carries the traffic of tasks between nodes")
}

/// The refusal of a port that nodes need themselves, for what `whose` says.
pub(crate) fn needed(port: &PortConfig, whose: &str) -> ControlError {
    ControlError::invalid(format!(
        "port '{}' is needed by the swarm itself: {whose}; publish another one",
        port.published_port
    ))
}
