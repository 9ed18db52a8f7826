//! Objects for tests.

use weft_types::{
    ClusterId, Labels, Meta, NetworkId, NodeId, ServiceId, Timestamp, Version,
    cluster::{AllocatorState, Cluster, ClusterSpec, JoinTokens},
    container::ContainerSpec,
    network::{Network, NetworkSpec},
    node::{Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role, TlsInfo},
    service::{Endpoint, Replicated, Service, ServiceSpec},
};

pub(crate) fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::numbered(1),
        meta: Meta::default(),
        spec: ClusterSpec {
            name: "default".into(),
            ..ClusterSpec::default()
        },
        tls_info: TlsInfo::default(),
        root_rotation_in_progress: false,
        rotation: None,
        rotated: 0,
        spec_version: Version::default(),
        keys: Default::default(),
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        join_tokens: JoinTokens::default(),
        ca_key: String::new(),
        unlock_key: String::new(),
        ring_seed: 1,
        ula_prefix: "fd12:3456:789a::/48".parse().ok(),
        blacklist: Vec::new(),
        allocator: AllocatorState::default(),
    }
}

pub(crate) fn node(number: u32) -> Node {
    Node {
        id: NodeId::numbered(u128::from(number)),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: NodeDescription {
            hostname: format!("n{number}"),
            ..NodeDescription::default()
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: format!("192.0.2.{}", 10 + number),
        },
        manager_status: None,
        role: Role::Worker,
        index: number,
        data_path_addr: format!("192.0.2.{}", 10 + number).parse().ok(),
        addresses: std::collections::BTreeSet::new(),
        wireguard: None,
        down_since: Timestamp::default(),
        applied_revision: 0,
        certificate: Version::default(),
    }
}

pub(crate) fn network(number: u128, name: &str) -> Network {
    Network {
        id: NetworkId::numbered(number),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.into(),
            ingress: name == "ingress",
            ..NetworkSpec::default()
        },
        driver_state: None,
        ipam: None,
        vni: None,
        allocation_error: String::new(),
        pending_delete: false,
    }
}

pub(crate) fn service(number: u128, name: &str, replicas: u64) -> Service {
    let mut spec = ServiceSpec {
        name: name.into(),
        labels: Labels::new(),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(Replicated {
        replicas: Some(replicas),
    });
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "busybox:latest".into(),
        ..ContainerSpec::default()
    });
    Service {
        id: ServiceId::numbered(number),
        meta: Meta::default(),
        spec,
        previous_spec: None,
        endpoint: Endpoint::default(),
        update_status: None,
        job_status: None,
        spec_version: Version { index: 1 },
        previous_spec_version: None,
        update_since: Version::default(),
        allocation_error: String::new(),
        registry_auth: String::new(),
        previous_registry_auth: String::new(),
        pending_delete: false,
    }
}
