//! Services: the user's wishes.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Labels, Meta, NetworkId, Rest, ServiceId, Timestamp, Version, task::TaskSpec};

/// What the user wishes: a name, a task to repeat, how often, and how it is reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    /// Unique in the cluster.
    pub name: String,
    /// The user's own.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: Labels,
    /// The task to repeat.
    pub task_template: TaskSpec,
    /// How often, and whether it ends.
    pub mode: ServiceMode,
    /// How a new spec replaces the old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How a rollback does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Deprecated: `TaskTemplate.Networks` wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkAttachmentConfig>>,
    /// How it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How often a task is repeated. At most one field is set; none means one replica.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceMode {
    /// So many of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    /// One on every node that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Empty>,
    /// So many runs to completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<ReplicatedJob>,
    /// One run to completion on every node that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Empty>,
}

/// An empty JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// Parameters of a replicated service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Replicated {
    /// Count; `None` means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
}

/// Parameters of a replicated job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReplicatedJob {
    /// At a time; `None` means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
    /// In all; `None` means `max_concurrent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_completions: Option<u64>,
}

/// How tasks are replaced. Durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// Tasks at a time; 0 means all at once.
    pub parallelism: u64,
    /// Pause between batches.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay: i64,
    /// `pause` (default), `continue` or `rollback`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failure_action: String,
    /// How long a new task is watched for failure; `None` or zero means 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<i64>,
    /// Share of tasks, 0 to 1, that may fail.
    #[serde(serialize_with = "as_go_float")]
    pub max_failure_ratio: f64,
    /// `stop-first` (default) or `start-first`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub order: String,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    /// `vip` (default when absent) or `dnsrr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<EndpointMode>,
    /// Published ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortConfig>>,
}

/// What a service's name resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// One address that is balanced.
    #[default]
    Vip,
    /// The addresses of its tasks.
    Dnsrr,
}

/// A transport protocol of published ports.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, IP protocol 6.
    #[default]
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// IP protocol number (IANA).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// `tcp`, `udp` or `sctp`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Where a published port listens.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node, by the routing mesh.
    #[default]
    Ingress,
    /// On the nodes that run a task, for that task.
    Host,
}

/// A port that a service publishes. Host byte order; 0 means "choose one".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortConfig {
    /// The user's word for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub target_port: u16,
    /// Port on the nodes.
    #[serde(skip_serializing_if = "is_zero_port")]
    pub published_port: u16,
    /// Where it listens.
    pub publish_mode: PublishMode,
}

/// The wish of a service's tasks to be on a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachmentConfig {
    /// Id or name as the client sent it; the store holds ids, and the names of
    /// [`NodeNetwork`](crate::network::NodeNetwork)s.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Further names on this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aliases: Option<Vec<String>>,
    /// Options for the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_opts: Option<Labels>,
}

/// A service, as the store holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What the user wishes now.
    pub spec: ServiceSpec,
    /// What the user wished before; a rollback's goal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<ServiceSpec>,
    /// What the allocator gave it.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// How an update goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// Which run of a job this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
    /// Internal. Grows when the spec changes; tasks carry the one they were made from.
    #[serde(default)]
    pub spec_version: Version,
    /// Internal. The version of `previous_spec`.
    #[serde(default)]
    pub previous_spec_version: Option<Version>,
    /// Internal. The commit with which the update or rollback of `update_status` began: tasks made
    /// since then, of the spec in force, are of it.
    #[serde(default)]
    pub update_since: Version,
    /// Internal. Why the allocator could not give what the spec asks; empty when it could.
    #[serde(default)]
    pub allocation_error: String,
    /// Internal. Registry credentials for the agents, as the client sent them (base64 JSON).
    #[serde(default)]
    pub registry_auth: String,
    /// Internal. The credentials that went with `previous_spec`.
    #[serde(default)]
    pub previous_registry_auth: String,
    /// Internal. Marked for removal: gone when its last task is.
    #[serde(default)]
    pub pending_delete: bool,
}

/// What the allocator gave a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    /// The spec it was made from.
    pub spec: EndpointSpec,
    /// Ports, chosen ones filled in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// One per network (two where the network has both families), in vip mode.
    #[serde(rename = "VirtualIPs", skip_serializing_if = "Vec::is_empty")]
    pub virtual_ips: Vec<VirtualIp>,
}

/// A service's address on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VirtualIp {
    /// Which network.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// Address and the subnet's prefix length.
    pub addr: IpNetwork,
}

/// How an update or rollback goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// For people.
    #[serde(default)]
    pub message: String,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Going on.
    Updating,
    /// Stopped by a failure.
    Paused,
    /// Done.
    Completed,
    /// Going back.
    RollbackStarted,
    /// Going back was stopped by a failure.
    RollbackPaused,
    /// Back.
    RollbackCompleted,
}

/// Which run of a job this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobStatus {
    /// Number of the run.
    pub job_iteration: Version,
    /// When it was last started.
    #[serde(skip_serializing_if = "Timestamp::is_zero")]
    pub last_execution: Timestamp,
}

impl Service {
    /// How many tasks are wished of a replicated service; `None` for other modes.
    #[must_use]
    pub fn replicas(&self) -> Option<u64> {
        let mode = &self.spec.mode;
        if mode.global.is_some() || mode.replicated_job.is_some() || mode.global_job.is_some() {
            return None;
        }
        Some(
            mode.replicated
                .and_then(|replicated| replicated.replicas)
                .unwrap_or(1),
        )
    }
}

impl ServiceSpec {
    /// The networks its tasks wish to be on: the template's, else the deprecated field's.
    #[must_use]
    pub fn attachments(&self) -> &[NetworkAttachmentConfig] {
        match (&self.task_template.networks, &self.networks) {
            (Some(networks), _) if !networks.is_empty() => networks,
            (_, Some(networks)) => networks,
            _ => &[],
        }
    }

    /// The endpoint mode in force.
    #[must_use]
    pub fn endpoint_mode(&self) -> EndpointMode {
        self.endpoint_spec
            .as_ref()
            .and_then(|spec| spec.mode)
            .unwrap_or_default()
    }

    /// The ports wished.
    #[must_use]
    pub fn ports(&self) -> &[PortConfig] {
        self.endpoint_spec
            .as_ref()
            .and_then(|spec| spec.ports.as_deref())
            .unwrap_or_default()
    }
}

pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes whole floats without a fraction.
fn as_go_float<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if *number == 0.0 || *number == 1.0 {
        serializer.serialize_u64(u64::from(*number == 1.0))
    } else {
        serializer.serialize_f64(*number)
    }
}

fn is_zero_port(port: &u16) -> bool {
    *port == 0
}

/// Go clients write `null` for an empty map or list.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
