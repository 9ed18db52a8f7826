//! Whether a node can take a task, and if not, why.

use std::{collections::BTreeMap, fmt, sync::Arc};

use weft_types::{
    ServiceId,
    node::{Availability, EnginePlugin, NodeState},
    service::{PortConfig, Protocol, PublishMode},
    task::{GenericResource, LogDriver, Platform, Task, TaskSpec},
};

use super::node_table::Row;
use crate::{orchestrator::constraint, store::View};

/// What the tasks of a group need.
#[derive(Debug)]
pub(super) struct Needs {
    pub(super) service: Option<ServiceId>,
    pub(super) spec_version: u64,
    task: Arc<Task>,
    pub(super) nano_cpus: i64,
    pub(super) memory_bytes: i64,
    pub(super) generic: Vec<GenericResource>,
    pub(super) host_ports: Vec<(Protocol, u16)>,
    /// Whether a number is to be found for some port of the node alone.
    pub(super) has_open_ports: bool,
    /// The spec's, or the cluster's where the spec names none.
    pub(super) log_driver: Option<LogDriver>,
    pub(super) max_replicas: u64,
}

impl Needs {
    pub(super) fn of(view: &View, task: &Arc<Task>) -> Self {
        let resources = task.spec.resources.as_ref();
        let reserved = resources.and_then(|resources| resources.reservations.as_ref());
        let generic = reserved.and_then(|reserved| reserved.generic_resources.clone());
        Self {
            service: task.service_id,
            spec_version: task.spec_version.index,
            nano_cpus: reserved.map_or(0, |reserved| reserved.nano_cpus),
            memory_bytes: reserved.map_or(0, |reserved| reserved.memory_bytes),
            generic: added_up(generic.unwrap_or_default()),
            host_ports: host_ports(task).collect(),
            has_open_ports: task.ports.iter().any(is_open),
            log_driver: log_driver(view, task),
            max_replicas: (task.spec.placement.as_ref()).map_or(0, |place| place.max_replicas),
            task: task.clone(),
        }
    }

    pub(super) fn spec(&self) -> &TaskSpec {
        &self.task.spec
    }
}

/// The wishes with those for the same kind as one: each alone may fit where all together do not.
fn added_up(wishes: Vec<GenericResource>) -> Vec<GenericResource> {
    let mut sums: Vec<GenericResource> = Vec::new();
    for wish in wishes {
        let same = wish.discrete_resource_spec.as_ref().and_then(|wish| {
            let mut known = sums.iter_mut();
            known.find_map(|sum| {
                let sum = sum.discrete_resource_spec.as_mut()?;
                (sum.kind == wish.kind).then_some((sum, wish.value))
            })
        });
        match same {
            Some((sum, value)) => sum.value = sum.value.saturating_add(value),
            None => sums.push(wish),
        }
    }
    sums
}

/// The log driver that a task will have, if any but the engine's own.
pub(super) fn log_driver(view: &View, task: &Task) -> Option<LogDriver> {
    let default = view.cluster();
    let default = default.and_then(|cluster| cluster.spec.task_defaults.log_driver.as_ref());
    let driver = task.spec.log_driver.as_ref().or(default);
    driver.filter(|driver| !driver.name.is_empty()).cloned()
}

/// Ports of its node that a task has, or wants by their numbers.
pub(super) fn host_ports(task: &Task) -> impl Iterator<Item = (Protocol, u16)> + '_ {
    let ports = task.ports.iter();
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && !is_open(port))
        .map(|port| (port.protocol, port.published_port))
}

/// Whether any port of the node would do.
pub(super) fn is_open(port: &PortConfig) -> bool {
    port.publish_mode == PublishMode::Host && port.published_port == 0
}

/// The filters, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    Ready,
    Resource,
    Plugin,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
}

/// Whether a node passes a filter.
type Check = fn(&Row, &Needs) -> bool;

/// The first filter that `row` does not pass; `None` when it can take one more task.
pub(super) fn refuse(row: &Row, needs: &Needs) -> Option<Filter> {
    let checks: [(Filter, Check); 7] = [
        (Filter::Ready, is_ready),
        (Filter::Resource, has_resources),
        (Filter::Plugin, has_plugins),
        (Filter::Constraint, |row, needs| {
            constraint::satisfies(&row.node, needs.spec())
        }),
        (Filter::Platform, has_platform),
        (Filter::HostPort, |row, needs| {
            let mut ports = needs.host_ports.iter();
            !ports.any(|port| row.host_ports.contains(port))
        }),
        (Filter::MaxReplicas, |row, needs| {
            needs.max_replicas == 0 || (row.of_service(needs.service) as u64) < needs.max_replicas
        }),
    ];
    checks
        .into_iter()
        .find(|(_, passes)| !passes(row, needs))
        .map(|(filter, _)| filter)
}

fn is_ready(row: &Row, _: &Needs) -> bool {
    row.node.status.state == NodeState::Ready && row.node.spec.availability == Availability::Active
}

fn has_resources(row: &Row, needs: &Needs) -> bool {
    (needs.nano_cpus == 0 || needs.nano_cpus <= row.nano_cpus)
        && (needs.memory_bytes == 0 || needs.memory_bytes <= row.memory_bytes)
        && needs.generic.iter().all(|wish| row.has_generic(wish))
}

fn has_plugins(row: &Row, needs: &Needs) -> bool {
    let plugins = &row.node.description.engine.plugins;
    let has = |kind: &str, name: &str| {
        let is = |plugin: &EnginePlugin| {
            plugin.kind == kind && (plugin.name == name || plugin.name == format!("{name}:latest"))
        };
        plugins.iter().any(is)
    };
    let lists = |kind: &str| plugins.iter().any(|plugin| plugin.kind == kind);
    if let Some(log) = &needs.log_driver
        && log.name != "none"
        && lists("Log")
        && !has("Log", &log.name)
    {
        return false;
    }
    let container = needs.spec().container_spec.as_ref();
    let mounts = container.and_then(|container| container.mounts.as_ref());
    mounts.into_iter().flatten().all(|mount| {
        let options = mount.rest.get("VolumeOptions");
        let driver = options
            .and_then(|options| options.get("DriverConfig")?.get("Name")?.as_str())
            .unwrap_or("local");
        mount.kind != "volume" || driver.is_empty() || driver == "local" || has("Volume", driver)
    })
}

fn has_platform(row: &Row, needs: &Needs) -> bool {
    let placement = needs.spec().placement.as_ref();
    let Some(platforms) = placement.and_then(|placement| placement.platforms.as_ref()) else {
        return true;
    };
    let has = &row.node.description.platform;
    let fits = |wish: &Platform| {
        (wish.os.is_empty() || wish.os == has.os)
            && (wish.architecture.is_empty()
                || architecture(&wish.architecture) == architecture(&has.architecture))
    };
    platforms.is_empty() || platforms.iter().any(fits)
}

fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Why no node can take a task: how many nodes stopped at which filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Explanation(BTreeMap<Filter, usize>);

impl Explanation {
    pub(super) fn count(&mut self, filter: Filter) {
        *self.0.entry(filter).or_default() += 1;
    }
}

impl fmt::Display for Explanation {
    /// Docker's words, most failures first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no suitable node")?;
        if self.0.is_empty() {
            return Ok(());
        }
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|(filter, count)| (usize::MAX - **count, **filter));
        let texts: Vec<String> = counts
            .into_iter()
            .map(|(filter, count)| {
                let nodes = if *count == 1 {
                    "1 node".to_owned()
                } else {
                    format!("{count} nodes")
                };
                match filter {
                    Filter::Ready => format!("{nodes} not available for new tasks"),
                    Filter::Resource => format!("insufficient resources on {nodes}"),
                    Filter::Plugin => format!("missing plugin on {nodes}"),
                    Filter::Constraint => {
                        format!("scheduling constraints not satisfied on {nodes}")
                    }
                    Filter::Platform => format!("unsupported platform on {nodes}"),
                    Filter::HostPort => format!("host-mode port already in use on {nodes}"),
                    Filter::MaxReplicas => "max replicas per node limit exceed".to_owned(),
                }
            })
            .collect();
        write!(f, " ({})", texts.join("; "))
    }
}
