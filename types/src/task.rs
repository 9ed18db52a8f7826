//! Tasks: attempts at a slot.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    BackendId, Labels, Meta, NetworkId, NodeId, Rest, ServiceId, Shared, TaskId, TaskState,
    Timestamp, Version,
    container::ContainerSpec,
    network::NodeNetwork,
    service::{NetworkAttachmentConfig, PortConfig},
};

/// What is repeated: a container, its resources, and where it may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskSpec {
    /// The container. Absent only for attachments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_spec: Option<ContainerSpec>,
    /// A container that the user made himself and that wants an address (`docker run`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_attachment_spec: Option<NetworkAttachmentSpec>,
    /// Limits and reservations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// When an ended task is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Networks wished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkAttachmentConfig>>,
    /// Log driver and its options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
    /// Grows to force an update.
    pub force_update: u64,
    /// `container`, `plugin` or `attachment`; absent means container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A user's own container on an attachable network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkAttachmentSpec {
    /// The engine's id of the container.
    #[serde(rename = "ContainerID", default)]
    pub container_id: String,
}

/// A log driver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogDriver {
    /// Driver name.
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Labels>,
}

/// Limits and reservations.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceRequirements {
    /// Enforced by the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Counted by the scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Resources>,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// An amount of resources. Zero means none asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "crate::service::is_zero")]
    pub nano_cpus: i64,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "crate::service::is_zero")]
    pub memory_bytes: i64,
    /// Processes (limits only).
    #[serde(skip_serializing_if = "crate::service::is_zero")]
    pub pids: i64,
    /// Countable and named resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generic_resources: Option<Vec<GenericResource>>,
}

/// A countable or a named resource; exactly one field is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GenericResource {
    /// One by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_resource_spec: Option<NamedResource>,
    /// So many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discrete_resource_spec: Option<DiscreteResource>,
}

/// A resource with a name, such as one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NamedResource {
    /// Of what kind.
    pub kind: String,
    /// Which.
    pub value: String,
}

/// So many of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiscreteResource {
    /// Of what kind.
    pub kind: String,
    /// How many.
    pub value: i64,
}

/// When an ended task is replaced. Durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `none`, `on-failure` or `any` (default).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub condition: String,
    /// Before the replacement starts; absent means 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<i64>,
    /// How often; absent or 0 means always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// In which attempts are counted; absent or 0 means for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
}

/// Where a task may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Placement {
    /// `key==value` and `key!=value`, all of which must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Vec<String>>,
    /// How to spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferences: Option<Vec<PlacementPreference>>,
    /// Tasks of the service on one node; 0 means any number.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub max_replicas: u64,
    /// Platforms that the image has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<Platform>>,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

fn is_zero_u64(number: &u64) -> bool {
    *number == 0
}

/// How to spread tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlacementPreference {
    /// Evenly over the values of a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// Evenly over the values of a label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Spread {
    /// `node.labels.X` or `engine.labels.X`.
    pub spread_descriptor: String,
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// `x86_64`, `aarch64` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// `linux` …
    #[serde(rename = "OS", skip_serializing_if = "String::is_empty")]
    pub os: String,
}

/// One attempt at a slot, as the store holds it.
///
/// Never moved to another node and never restarted: it is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: TaskId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// Internal for the API (which leaves it empty): `<service>.<slot or node>.<task id>`.
    #[serde(default)]
    pub name: String,
    /// The task's own labels; Docker leaves them empty.
    #[serde(default)]
    pub labels: Labels,
    /// What it was made from; the tasks of a service repeat it.
    #[serde(default)]
    pub spec: Shared<TaskSpec>,
    /// Whose it is. Absent for attachments.
    #[serde(rename = "ServiceID", default, skip_serializing_if = "Option::is_none")]
    pub service_id: Option<ServiceId>,
    /// Which place it fills, from 1 (jobs: from 0). 0 for global services.
    #[serde(default)]
    pub slot: u64,
    /// Where it runs; set once.
    #[serde(rename = "NodeID", default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// Where it was last seen.
    #[serde(default)]
    pub status: TaskStatus,
    /// Where it should be.
    #[serde(default)]
    pub desired_state: TaskState,
    /// What the allocator gave it, ingress first.
    #[serde(default)]
    pub networks_attachments: Vec<NetworkAttachment>,
    /// Generic resources that the scheduler set aside for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
    /// Which run of a job it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<Version>,
    /// Internal. The service's spec version it was made from.
    #[serde(default)]
    pub spec_version: Version,
    /// Internal. The service's name and labels when it was made: names, filters, templates.
    #[serde(default)]
    pub service_name: String,
    /// Internal. See `service_name`.
    #[serde(default)]
    pub service_labels: Labels,
    /// Internal. The service's ports when it was made, chosen ones filled in.
    #[serde(default)]
    pub ports: Vec<PortConfig>,
    /// Internal. When this task may run although it is desired ready (restart delay).
    #[serde(default)]
    pub start_after: Timestamp,
    /// Internal. The cluster's log driver when the task got its node; the spec's own goes before it.
    #[serde(default)]
    pub log_driver: Option<LogDriver>,
    /// Internal. Registry credentials for the agent.
    #[serde(default)]
    pub registry_auth: String,
    /// Internal. No live node may still choose it, so its agent may let its flows end and send the
    /// stop signal. Meaningful when desired is later than running.
    #[serde(default)]
    pub withdrawn: bool,
    /// Internal. When it was first seen running; zero if never. What updates watch.
    #[serde(default)]
    pub running_since: Timestamp,
    /// Internal. When its desired state was set.
    #[serde(default)]
    pub desired_since: Timestamp,
    /// Internal. The commit that made it; zero until then. What is earlier is told by this, whatever
    /// the leaders' clocks said.
    #[serde(default)]
    pub made: Version,
    /// Internal. Tasks of the same spec that failed in its place before it, oldest first: what the
    /// scheduler counts, although history may have forgotten them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// That a task failed on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fault {
    /// Which.
    pub task: TaskId,
    /// Where.
    pub node: NodeId,
    /// When.
    pub at: Timestamp,
}

impl TaskSpec {
    /// The network of its node that the task is on, and then on no other.
    #[must_use]
    pub fn node_network(&self) -> Option<NodeNetwork> {
        let mut networks = self.networks.iter().flatten();
        networks.find_map(|network| NodeNetwork::named(&network.target))
    }
}

impl Task {
    /// The log driver in force, if any but the engine's own.
    #[must_use]
    pub fn log_driver(&self) -> Option<&LogDriver> {
        let own = self.spec.log_driver.as_ref();
        own.or(self.log_driver.as_ref())
            .filter(|driver| !driver.name.is_empty())
    }
}

/// Where a task was last seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskStatus {
    /// When.
    pub timestamp: Timestamp,
    /// In which state.
    pub state: TaskState,
    /// What was last done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What went wrong, or why it waits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub err: String,
    /// Its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
    /// Its host-mode ports.
    pub port_status: PortStatus,
}

/// The container of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerStatus {
    /// The engine's id.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Process id on the node.
    #[serde(rename = "PID")]
    pub pid: i64,
    /// Status it exited with.
    pub exit_code: i64,
}

/// Host-mode ports of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortStatus {
    /// Ports with the chosen numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

/// What the allocator gave a task on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkAttachment {
    /// The network. The API shows it whole.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// Address and prefix length, v4 first; one per family of the network.
    #[serde(default)]
    pub addresses: Vec<IpNetwork>,
    /// Further names on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Cluster-wide number of this attachment; its MAC address.
    #[serde(default)]
    pub backend: BackendId,
}
