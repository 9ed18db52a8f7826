//! How worlds begin, and what it means that all is well.

use weft_control::{dispatcher, orchestrator::Place, store::Change, store::View};
use weft_types::{
    ClusterId, Meta, NetworkId, TaskState, Version,
    cluster::{AllocatorState, Cluster, ClusterSpec, JoinTokens},
    network::{Network, NetworkSpec},
    node::{Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role, TlsInfo},
    service::{Service, UpdateState},
};

use crate::{
    deed::{Ask, node},
    host::{Container, Host, addr},
    manager::Group,
};

/// The cluster, its ingress network and its nodes.
pub(crate) fn founding(group: Group) -> Vec<Change> {
    let cluster = Cluster {
        id: ClusterId::numbered(1),
        meta: Meta::default(),
        spec: ClusterSpec {
            name: "default".to_owned(),
            ..ClusterSpec::default()
        },
        tls_info: TlsInfo::default(),
        root_rotation_in_progress: false,
        rotation: None,
        rotated: 0,
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
    };
    let network = |number: u128, name: &str| Network {
        id: NetworkId::numbered(number),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.to_owned(),
            ingress: name == "ingress",
            ..NetworkSpec::default()
        },
        driver_state: None,
        ipam: None,
        vni: None,
        allocation_error: String::new(),
        pending_delete: false,
    };
    let mut changes = vec![
        Change::put(cluster),
        Change::put(network(1, "ingress")),
        Change::put(network(2, "small")),
    ];
    changes.extend((1..=group.hosts).map(|host| {
        let ip = addr(host).ip();
        Change::put(Node {
            id: node(host),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: NodeDescription {
                hostname: format!("n{host}"),
                ..NodeDescription::default()
            },
            status: NodeStatus {
                state: NodeState::Unknown,
                message: String::new(),
                addr: ip.to_string(),
            },
            manager_status: None,
            role: if host <= group.managers {
                Role::Manager
            } else {
                Role::Worker
            },
            index: host,
            data_path_addr: Some(ip),
            addresses: [ip].into(),
            wireguard: None,
            applied_revision: 0,
            certificate: Version::default(),
        })
    }));
    changes
}

/// What must be asked for so that everything can become well.
pub(crate) fn asks(view: &View) -> Vec<Ask> {
    let mut asks = Vec::new();
    for host in 1..=16 {
        let idle = view
            .node(node(host))
            .is_some_and(|node| node.spec.availability != Availability::Active);
        if idle {
            asks.push(Ask::Availability {
                host,
                availability: Availability::Active,
            });
        }
    }
    for service in view.services() {
        let image = service.spec.task_template.container_spec.as_ref();
        let image = image.map_or("", |spec| spec.image.as_str());
        let number = service.spec.name.strip_prefix('s');
        let number = number.and_then(|number| number.parse().ok());
        if let Some(number) = number
            && image != "good"
            && image != "job"
        {
            asks.push(Ask::Image {
                service: number,
                image: "good".to_owned(),
                start_first: number % 2 == 0,
                parallelism: 2,
                action: "continue".to_owned(),
            });
        }
    }
    asks
}

fn fits(service: &Service, host: u32) -> bool {
    let placement = service.spec.task_template.placement.as_ref();
    let is_constrained = placement.is_some_and(|placement| placement.constraints.is_some());
    !is_constrained || host != 1
}

/// Why not all is well yet.
pub(crate) fn complaint(view: &View, hosts: &[Host]) -> Option<String> {
    for host in hosts {
        if let Some(manager) = &host.manager
            && manager.view().index() != view.index()
        {
            return Some(format!(
                "manager {} is behind: applied {}, {}",
                host.id,
                manager.applied,
                manager.member.situation()
            ));
        }
        if host
            .agent
            .as_ref()
            .is_none_or(|agent| !agent.is_connected())
        {
            return Some(format!("the agent of host {} has no session", host.id));
        }
        let known = view.node(node(host.id));
        if known.is_none_or(|known| known.status.state != NodeState::Ready) {
            return Some(format!("host {} is not ready", host.id));
        }
    }
    if let Some(ask) = asks(view).first() {
        return Some(format!("not done yet: {ask:?}"));
    }
    for service in view.services() {
        if let Some(complaint) = of_service(view, service, hosts) {
            return Some(complaint);
        }
    }
    hosts.iter().find_map(|host| of_host(view, host))
}

fn of_service(view: &View, service: &Service, hosts: &[Host]) -> Option<String> {
    let name = &service.spec.name;
    let mode = &service.spec.mode;
    let fitting = hosts.iter().filter(|host| fits(service, host.id)).count() as u64;
    let is_job = mode.replicated_job.is_some() || mode.global_job.is_some();
    let wished = match (service.replicas(), mode.replicated_job) {
        (_, Some(job)) => job.total_completions.unwrap_or(0),
        (Some(replicas), None) => replicas,
        (None, None) => fitting,
    };
    let iteration = service.job_status.map(|job| job.job_iteration);
    let good = view.tasks_of(service.id).filter(|task| {
        if is_job {
            task.status.state == TaskState::Complete && task.job_iteration == iteration
        } else {
            task.status.state == TaskState::Running && task.desired_state == TaskState::Running
        }
    });
    // A run that was given up with its node may have completed all the same.
    let mut places: Vec<_> = good.map(|task| Place::of(service, task)).collect();
    if is_job {
        places.sort_unstable();
        places.dedup();
    }
    let good = places.len() as u64;
    if good != wished {
        return Some(format!("{name} has {good} of {wished}"));
    }
    let status = service.update_status.as_ref()?;
    let goes_on = matches!(
        status.state,
        UpdateState::Updating | UpdateState::RollbackStarted
    );
    goes_on.then(|| format!("{name} is still being updated: {}", status.message))
}

fn of_host(view: &View, host: &Host) -> Option<String> {
    let id = host.id;
    for (task, container) in &host.machine.containers {
        let known = view.task(*task);
        if container.runs()
            && !known.is_some_and(|known| {
                known.node_id == Some(node(id)) && known.status.state == TaskState::Running
            })
        {
            return Some(format!("host {id} runs {task}, of which nobody knows"));
        }
        if known.is_none() {
            return Some(format!(
                "host {id} keeps the container of {task}, which is forgotten"
            ));
        }
    }
    for task in view.tasks_on_node(node(id)) {
        let runs = host
            .machine
            .containers
            .get(&task.id)
            .is_some_and(Container::runs);
        if task.status.state == TaskState::Running && !runs {
            return Some(format!("{} does not run on host {id}", task.name));
        }
    }
    let wished = dispatcher::project(view, node(id));
    let held = &host.machine.kernel.state;
    (!held.same_facts(&wished)).then(|| {
        format!(
            "host {id} holds the network of revision {}, which is not that of {}",
            held.revision,
            view.index()
        )
    })
}
