//! What objects look like in Docker's JSON: fields in Docker's order, internal ones left out.

mod spec;

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use serde::{Serialize, Serializer};
use weft_types::{
    ClusterId, Labels, NetworkId, NodeId, SecretId, ServiceId, TaskId, TaskState, Timestamp,
    cluster::{Cluster, ClusterSpec, JoinTokens},
    network::{Driver, IpamOptions, Network, NetworkSpec},
    node::{ManagerStatus, Node, NodeDescription, NodeSpec, NodeStatus, TlsInfo},
    secret::{Base64, Secret, SecretSpec},
    service::{Endpoint, Service, UpdateStatus},
    task::{GenericResource, Task, TaskStatus},
};

pub(crate) use spec::SpecView;
use spec::TemplateView;

use crate::services::ServiceStatus;

/// `Version`, empty while there was no commit.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Version {
    #[serde(skip_serializing_if = "is_zero")]
    index: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<weft_types::Version> for Version {
    fn from(version: weft_types::Version) -> Self {
        Self {
            index: version.index,
        }
    }
}

/// Version and times.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Meta {
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<weft_types::Meta> for Meta {
    fn from(meta: weft_types::Meta) -> Self {
        Self {
            version: meta.version.into(),
            created_at: meta.created_at,
            updated_at: meta.updated_at,
        }
    }
}

/// A node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeView<'a> {
    #[serde(rename = "ID")]
    id: NodeId,
    #[serde(flatten)]
    meta: Meta,
    spec: &'a NodeSpec,
    description: &'a NodeDescription,
    status: &'a NodeStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    manager_status: Option<&'a ManagerStatus>,
}

impl<'a> From<&'a Node> for NodeView<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            id: node.id,
            meta: node.meta.into(),
            spec: &node.spec,
            description: &node.description,
            status: &node.status,
            manager_status: node.manager_status.as_ref(),
        }
    }
}

/// A service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceView<'a> {
    #[serde(rename = "ID")]
    id: ServiceId,
    #[serde(flatten)]
    meta: Meta,
    spec: SpecView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_spec: Option<SpecView<'a>>,
    endpoint: EndpointView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_status: Option<&'a UpdateStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_status: Option<ServiceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_status: Option<JobStatus>,
}

/// What the allocator gave; a service that is on no network and publishes nothing was given nothing.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum EndpointView<'a> {
    Given(&'a Endpoint),
    Nothing {
        #[serde(rename = "Spec")]
        spec: Nothing,
    },
}

#[derive(Debug, Serialize)]
struct Nothing {}

impl<'a> EndpointView<'a> {
    fn of(service: &'a Service) -> Self {
        let spec = &service.spec;
        let alone = spec.attachments().is_empty()
            && spec.ports().is_empty()
            && service.endpoint.virtual_ips.is_empty();
        match alone {
            true => Self::Nothing { spec: Nothing {} },
            false => Self::Given(&service.endpoint),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct JobStatus {
    job_iteration: Version,
    #[serde(skip_serializing_if = "Timestamp::is_zero")]
    last_execution: Timestamp,
}

impl<'a> ServiceView<'a> {
    /// `service` with its task counts, if asked for.
    pub(crate) fn of(service: &'a Service, status: Option<ServiceStatus>) -> Self {
        let job =
            service.spec.mode.replicated_job.is_some() || service.spec.mode.global_job.is_some();
        let job_status = service.job_status.map(|status| JobStatus {
            job_iteration: status.job_iteration.into(),
            last_execution: status.last_execution,
        });
        let empty_job_status = job.then(|| JobStatus {
            job_iteration: Version::default(),
            last_execution: Timestamp::ZERO,
        });
        Self {
            id: service.id,
            meta: service.meta.into(),
            spec: (&service.spec).into(),
            previous_spec: service.previous_spec.as_ref().map(Into::into),
            endpoint: EndpointView::of(service),
            update_status: service.update_status.as_ref(),
            service_status: status,
            job_status: job_status.or(empty_job_status),
        }
    }
}

/// A task.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskView<'a> {
    #[serde(rename = "ID")]
    id: TaskId,
    #[serde(flatten)]
    meta: Meta,
    labels: &'a Labels,
    spec: TemplateView<'a>,
    #[serde(rename = "ServiceID", skip_serializing_if = "Option::is_none")]
    service_id: Option<ServiceId>,
    #[serde(skip_serializing_if = "is_zero")]
    slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none")]
    node_id: Option<NodeId>,
    status: &'a TaskStatus,
    desired_state: TaskState,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks_attachments: Vec<AttachmentView<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    generic_resources: &'a [GenericResource],
    #[serde(skip_serializing_if = "Option::is_none")]
    job_iteration: Option<Version>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttachmentView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<StoredNetworkView<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    addresses: &'a [IpNetwork],
}

impl<'a> TaskView<'a> {
    /// `task`, its attachments shown with the whole network.
    pub(crate) fn of(task: &'a Task, networks: &'a BTreeMap<NetworkId, Network>) -> Self {
        let attachments = task.networks_attachments.iter();
        Self {
            id: task.id,
            meta: task.meta.into(),
            labels: &task.labels,
            spec: TemplateView::of_task(&task.spec),
            service_id: task.service_id,
            slot: task.slot,
            node_id: task.node_id,
            status: &task.status,
            desired_state: task.desired_state,
            networks_attachments: attachments
                .map(|attachment| AttachmentView {
                    network: networks.get(&attachment.network_id).map(Into::into),
                    addresses: &attachment.addresses,
                })
                .collect(),
            generic_resources: &task.generic_resources,
            job_iteration: task.job_iteration.map(Into::into),
        }
    }
}

/// A network as Swarm's store shows it, inside tasks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StoredNetworkView<'a> {
    #[serde(rename = "ID")]
    id: NetworkId,
    #[serde(flatten)]
    meta: Meta,
    spec: &'a NetworkSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_state: Option<&'a Driver>,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    ipam_options: Option<&'a IpamOptions>,
}

impl<'a> From<&'a Network> for StoredNetworkView<'a> {
    fn from(network: &'a Network) -> Self {
        Self {
            id: network.id,
            meta: network.meta.into(),
            spec: &network.spec,
            driver_state: network.driver_state.as_ref(),
            ipam_options: network.ipam.as_ref(),
        }
    }
}

/// A secret, or a config with its data.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SecretView {
    #[serde(rename = "ID")]
    id: SecretId,
    #[serde(flatten)]
    meta: Meta,
    spec: SecretSpec,
}

impl From<Secret> for SecretView {
    fn from(secret: Secret) -> Self {
        let spec = SecretSpec {
            data: Base64::default(),
            ..secret.spec
        };
        Self {
            id: secret.id,
            meta: secret.meta.into(),
            spec,
        }
    }
}

impl From<weft_types::secret::Config> for SecretView {
    fn from(config: weft_types::secret::Config) -> Self {
        Self {
            id: config.id.cast(),
            meta: config.meta.into(),
            spec: config.spec,
        }
    }
}

/// A cluster's spec, or Go's zero one, which has no name and null for labels.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownSpec {
    Known(Box<ClusterSpec>),
    Zero(serde_json::Value),
}

/// The cluster; with join tokens for `GET /swarm`, without for `info`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ClusterView {
    #[serde(rename = "ID", serialize_with = "id_or_empty")]
    id: Option<ClusterId>,
    #[serde(flatten)]
    meta: Meta,
    spec: ShownSpec,
    #[serde(rename = "TLSInfo")]
    tls_info: TlsInfo,
    root_rotation_in_progress: bool,
    default_addr_pool: Option<Vec<IpNetwork>>,
    subnet_size: u8,
    data_path_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_tokens: Option<JoinTokens>,
}

fn id_or_empty<S: Serializer>(id: &Option<ClusterId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_ref().map_or("", |id| id.as_str()))
}

impl ClusterView {
    pub(crate) fn of(cluster: Cluster, with_tokens: bool) -> Self {
        let pools = if cluster.default_addr_pool.is_empty() {
            "10.0.0.0/8".parse().ok().map(|pool| vec![pool])
        } else {
            Some(cluster.default_addr_pool)
        };
        Self {
            id: Some(cluster.id),
            meta: cluster.meta.into(),
            spec: ShownSpec::Known(Box::new(crate::swarm::shown(cluster.spec))),
            tls_info: cluster.tls_info,
            root_rotation_in_progress: cluster.root_rotation_in_progress,
            default_addr_pool: pools,
            subnet_size: match cluster.subnet_size {
                0 => 24,
                size => size,
            },
            data_path_port: match cluster.data_path_port {
                0 => 4789,
                port => port,
            },
            join_tokens: with_tokens.then_some(cluster.join_tokens),
        }
    }

    /// What `info` shows while no leader answers.
    pub(crate) fn unknown() -> Self {
        Self {
            id: None,
            meta: Meta::default(),
            spec: ShownSpec::Zero(serde_json::json!({
                "Labels": null, "Orchestration": {},
                "Raft": {"ElectionTick": 0, "HeartbeatTick": 0}, "Dispatcher": {},
                "CAConfig": {}, "TaskDefaults": {},
                "EncryptionConfig": {"AutoLockManagers": false},
            })),
            tls_info: TlsInfo::default(),
            root_rotation_in_progress: false,
            default_addr_pool: None,
            subnet_size: 0,
            data_path_port: 0,
            join_tokens: None,
        }
    }
}
