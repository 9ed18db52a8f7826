//! Whether a spec can be right at all. What depends on other objects is the manager's to check.
//!
//! PURE. Messages are Docker's, word for word.

mod constraint;
mod container;
mod endpoint;
mod fields;
mod image;
mod network;
mod template;

pub use constraint::constraints;
pub use fields::{asks, unread};
pub use image::image_reference;
pub use network::{is_encrypted, network_spec};

use crate::{
    cluster::ClusterSpec,
    network::Driver,
    node::NodeSpec,
    secret::{ConfigSpec, SecretSpec},
    service::{ServiceSpec, UpdateConfig},
    task::{Resources, TaskSpec},
};

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Its class.
    pub kind: RefusalKind,
    /// For people, in Docker's words.
    pub message: String,
}

/// Docker's classes of refusals of specs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// gRPC `InvalidArgument`, HTTP 400.
    Invalid,
    /// gRPC `Unknown`, HTTP 500: Docker classifies bad constraints so.
    Unknown,
    /// gRPC `Unimplemented`, HTTP 501.
    Unimplemented,
}

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::Invalid,
            message: message.into(),
        }
    }

    fn unknown(message: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::Unknown,
            message: message.into(),
        }
    }

    fn unimplemented(message: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::Unimplemented,
            message: message.into(),
        }
    }
}

/// Largest secret, in bytes, exclusive.
pub const MAX_SECRET_BYTES: usize = 512_000;

/// Largest config, in bytes, exclusive.
pub const MAX_CONFIG_BYTES: usize = 1_024_000;

/// Least memory that a task can be given, in bytes.
const MIN_MEMORY_BYTES: i64 = 4 << 20;

/// Least CPU that a task can be given, in billionths.
const MIN_NANO_CPUS: i64 = 1_000_000;

/// Most tasks that a service may have: far more than any cluster holds, and few enough that a slip
/// of the hand does not keep the managers busy until they run out of memory. Runs of a job count
/// all, for those that completed are remembered.
pub const MAX_TASKS: u64 = 1_000_000;

/// Whether a service spec can be right.
///
/// # Errors
/// Docker's refusal when it cannot.
pub fn service_spec(spec: &ServiceSpec) -> Result<(), Refusal> {
    name(&spec.name)?;
    task_spec(&spec.task_template)?;
    let mode = &spec.mode;
    let modes = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if modes.into_iter().filter(|given| *given).count() > 1 {
        return Err(Refusal::invalid("must specify only one service mode"));
    }
    let job = mode.replicated_job.is_some() || mode.global_job.is_some();
    for (config, name) in [
        (&spec.update_config, "an update"),
        (&spec.rollback_config, "a rollback"),
    ] {
        if job && config.is_some() {
            return Err(Refusal::invalid(format!(
                "job-mode services cannot have {name} config"
            )));
        }
    }
    if let Some(mode) = &mode.replicated_job
        && mode.max_concurrent == Some(0)
    {
        return Err(Refusal::invalid(
            "Maximum concurrent jobs must be at least 1",
        ));
    }
    let wished = [
        mode.replicated.and_then(|mode| mode.replicas),
        mode.replicated_job.and_then(|mode| mode.max_concurrent),
        mode.replicated_job.and_then(|mode| mode.total_completions),
    ];
    if let Some(count) = wished
        .into_iter()
        .flatten()
        .find(|count| *count > MAX_TASKS)
    {
        return Err(Refusal::invalid(format!(
            "{count} tasks are more than a service may have ({MAX_TASKS})"
        )));
    }
    for config in [&spec.update_config, &spec.rollback_config]
        .into_iter()
        .flatten()
    {
        update_config(config)?;
    }
    endpoint::endpoint_spec(spec)?;
    fields::service(spec)
}

/// Whether a name can name a service or network: a DNS label of at most 63 characters.
///
/// # Errors
/// Docker's refusal when it cannot.
pub fn name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::invalid("meta: name must be provided"));
    }
    let ends = [name.as_bytes().first(), name.as_bytes().last()];
    let ends_well = ends
        .iter()
        .flatten()
        .all(|byte| byte.is_ascii_alphanumeric());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !ends_well || !name.bytes().all(fits) {
        return Err(Refusal::invalid(
            "name must be valid as a DNS name component",
        ));
    }
    if name.len() > 63 {
        return Err(Refusal::invalid("name must be 63 characters or fewer"));
    }
    Ok(())
}

fn task_spec(spec: &TaskSpec) -> Result<(), Refusal> {
    if let Some(resources) = &spec.resources {
        for amount in [&resources.limits, &resources.reservations]
            .into_iter()
            .flatten()
        {
            check_amount(amount)?;
        }
    }
    if let Some(policy) = &spec.restart_policy {
        let not_negative = |field: &str, value: Option<i64>| match value {
            Some(value) if value < 0 => Err(Refusal::invalid(format!(
                "TaskSpec: restart-{field} cannot be negative"
            ))),
            _ => Ok(()),
        };
        if !["", "none", "on-failure", "any"].contains(&policy.condition.as_str()) {
            return Err(Refusal::invalid(format!(
                "invalid RestartCondition: {:?}",
                policy.condition
            )));
        }
        not_negative("delay", policy.delay)?;
        not_negative("window", policy.window)?;
    }
    if let Some(placement) = &spec.placement {
        constraints(placement.constraints.as_deref().unwrap_or_default())?;
    }
    let Some(container) = &spec.container_spec else {
        return Err(Refusal::invalid("ContainerSpec: missing in service spec"));
    };
    container::container_spec(container)
}

fn check_amount(amount: &Resources) -> Result<(), Refusal> {
    if amount.nano_cpus != 0 && amount.nano_cpus < MIN_NANO_CPUS {
        return Err(Refusal::invalid(format!(
            "invalid cpu value {}: Must be at least 0.001",
            amount.nano_cpus as f64 / 1e9
        )));
    }
    if amount.memory_bytes != 0 && amount.memory_bytes < MIN_MEMORY_BYTES {
        return Err(Refusal::invalid(format!(
            "invalid memory value {}: Must be at least 4MiB",
            amount.memory_bytes
        )));
    }
    if amount.pids < 0 {
        return Err(Refusal::invalid(format!(
            "invalid pids limit {}: cannot be negative",
            amount.pids
        )));
    }
    Ok(())
}

fn update_config(config: &UpdateConfig) -> Result<(), Refusal> {
    if config.delay < 0 {
        return Err(Refusal::invalid(
            "TaskSpec: update-delay cannot be negative",
        ));
    }
    if config.monitor.is_some_and(|monitor| monitor < 0) {
        return Err(Refusal::invalid(
            "TaskSpec: update-monitor cannot be negative",
        ));
    }
    if !["", "pause", "continue", "rollback"].contains(&config.failure_action.as_str()) {
        return Err(Refusal::invalid(format!(
            "unrecognized update failure action {}",
            config.failure_action
        )));
    }
    if !["", "stop-first", "start-first"].contains(&config.order.as_str()) {
        return Err(Refusal::invalid(format!(
            "unrecognized update order {}",
            config.order
        )));
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(Refusal::invalid(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ));
    }
    Ok(())
}

/// Whether a secret spec can be right.
///
/// # Errors
/// Docker's refusal when it cannot.
pub fn secret_spec(spec: &SecretSpec) -> Result<(), Refusal> {
    object_name(&spec.name)?;
    fields::rest("", &spec.rest)?;
    if spec.driver.as_ref().is_some_and(asks_of_driver) {
        if !spec.data.is_empty() {
            return Err(Refusal::invalid(
                "secret data must be empty when using an external secret driver",
            ));
        }
        return Err(Refusal::unimplemented(
            "external secret drivers are not supported",
        ));
    }
    size("secret", spec.data.0.len(), MAX_SECRET_BYTES)?;
    template::file("secret", spec)
}

/// Whether a config spec can be right.
///
/// # Errors
/// Docker's refusal when it cannot.
pub fn config_spec(spec: &ConfigSpec) -> Result<(), Refusal> {
    object_name(&spec.name)?;
    fields::rest("", &spec.rest)?;
    if spec.driver.as_ref().is_some_and(asks_of_driver) {
        return Err(Refusal::unimplemented("configs have no drivers"));
    }
    size("config", spec.data.0.len(), MAX_CONFIG_BYTES)?;
    template::file("config", spec)
}

/// Whether a driver that may be named is: options without a name are a wish too.
fn asks_of_driver(driver: &Driver) -> bool {
    !driver.name.is_empty() || driver.options.iter().flatten().next().is_some()
}

fn size(kind: &str, bytes: usize, limit: usize) -> Result<(), Refusal> {
    if bytes == 0 || bytes >= limit {
        return Err(Refusal::invalid(format!(
            "{kind} data must be larger than 0 and less than {limit} bytes"
        )));
    }
    Ok(())
}

/// Names of secrets and configs.
fn object_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::invalid("name must be provided"));
    }
    let ends = [name.as_bytes().first(), name.as_bytes().last()];
    let ends_well = ends
        .iter()
        .flatten()
        .all(|byte| byte.is_ascii_alphanumeric());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > 64 || !ends_well || !name.bytes().all(fits) {
        return Err(Refusal::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        ));
    }
    Ok(())
}

/// Whether the fields of a spec that no part of weft knows say nothing.
///
/// # Errors
/// With the first that does.
pub fn unknown(rest: &crate::Rest) -> Result<(), Refusal> {
    fields::rest("", rest)
}

/// Whether a node spec can be right.
///
/// # Errors
/// When it asks for what no part of weft follows.
pub fn node_spec(spec: &NodeSpec) -> Result<(), Refusal> {
    fields::rest("", &spec.rest)
}

/// Whether a cluster spec can be right.
///
/// # Errors
/// Docker's refusal when it cannot.
pub fn cluster_spec(spec: &ClusterSpec) -> Result<(), Refusal> {
    if !matches!(spec.name.as_str(), "" | "default") {
        return Err(Refusal::invalid(
            "swarm spec name must be \"default\" or empty",
        ));
    }
    fields::rest("", &spec.rest)?;
    let expiry = spec.ca_config.node_cert_expiry;
    if expiry != 0 && expiry < 3_600_000_000_000 {
        return Err(Refusal::invalid(
            "minimum certificate expiry time is: 1h0m0s",
        ));
    }
    let period = spec.dispatcher.heartbeat_period;
    if period < 0 {
        return Err(Refusal::invalid(
            "heartbeat time period cannot be a negative duration",
        ));
    }
    if period != 0 && period < 1_000_000 {
        return Err(Refusal::invalid(
            "heartbeat time period cannot be below 1ms",
        ));
    }
    if spec.raft.election_tick < 0 || spec.raft.heartbeat_tick < 0 {
        return Err(Refusal::invalid("raft ticks cannot be negative"));
    }
    // Zero is "not said". What we would not follow is refused, never kept as if it counted.
    let chosen = |ticks: i64, default: i64| ticks != 0 && ticks != default;
    if chosen(spec.raft.election_tick, 10) || chosen(spec.raft.heartbeat_tick, 1) {
        return Err(Refusal::unimplemented(
            "raft ticks other than 10 (election) and 1 (heartbeat) are not supported",
        ));
    }
    if spec.raft.keep_old_snapshots.unwrap_or(0) != 0 {
        return Err(Refusal::unimplemented(
            "keeping old raft snapshots is not supported",
        ));
    }
    let ca = &spec.ca_config;
    let external = ca.external_cas.iter().flatten().next().is_some();
    if external || !ca.signing_ca_cert.is_empty() || !ca.signing_ca_key.is_empty() {
        return Err(Refusal::unimplemented(
            "certificate authorities other than the cluster's own are not supported by weft: leave them out; managers sign by themselves, and `docker swarm ca --rotate` gives the cluster a new root",
        ));
    }
    fields::log_driver("TaskDefaults", spec.task_defaults.log_driver.as_ref())
}

#[cfg(test)]
mod edges;
#[cfg(test)]
mod tests;
