//! How worlds begin, and what it means that all is well.

use weft_control::{dispatcher, orchestrator::Place, store::Change, store::View};
use weft_types::{
    ClusterId, Meta, NetworkId, NodeId, TaskState, Timestamp, Version,
    cluster::{AllocatorState, Cluster, ClusterSpec, JoinTokens},
    network::{Network, NetworkSpec},
    node::{Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role, TlsInfo},
    service::{Service, UpdateState},
    task::Task,
};

use crate::{
    deed::Ask,
    host::{Container, Host, addr},
    manager::Group,
    members,
    seat::{host_of, node},
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
        let role = if host <= group.managers {
            Role::Manager
        } else {
            Role::Worker
        };
        Change::put(new_node(node(host, 0), host, role, host))
    }));
    changes
}

/// A host becomes a node.
pub(crate) fn entering(view: &View, host: u32, id: NodeId) -> Vec<Change> {
    let cluster = view.cluster();
    let is_gone = cluster.is_some_and(|cluster| cluster.blacklist.contains(&id));
    let is_known = is_gone || view.node(id).is_some();
    let fresh = || {
        let role = Role::Worker;
        let index = view.ledger().next_node_index();
        Change::put(new_node(id, host, role, index))
    };
    (!is_known).then(fresh).into_iter().collect()
}

fn new_node(id: NodeId, host: u32, role: Role, index: u32) -> Node {
    let ip = addr(host).ip();
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec {
            role,
            ..NodeSpec::default()
        },
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
        role,
        index,
        data_path_addr: Some(ip),
        addresses: [ip].into(),
        wireguard: None,
        down_since: Timestamp::default(),
        applied_revision: 0,
        certificate: Version::default(),
    }
}

/// What must be asked for so that everything can become well.
pub(crate) fn asks(view: &View) -> Vec<Ask> {
    let mut asks = Vec::new();
    for node in view.nodes() {
        if let Some(host) = host_of(node.id)
            && node.spec.availability != Availability::Active
        {
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
        let Some(known) = view.node(host.node()) else {
            return Some(format!("host {} is no node", host.id));
        };
        if known.status.state != NodeState::Ready {
            return Some(format!("host {} is not ready", host.id));
        }
        if let Some(complaint) = of_role(known, host) {
            return Some(complaint);
        }
    }
    let leader = hosts.iter().find_map(|host| {
        let manager = host.manager.as_ref()?;
        manager.reign.as_ref().map(|_| manager.member.group())
    });
    let Some(group) = leader else {
        return Some("nobody leads".to_owned());
    };
    let mut wished: Vec<_> = hosts
        .iter()
        .filter(|host| host.seat.certified == Role::Manager)
        .map(|host| host.id)
        .collect();
    let mut voters: Vec<_> = group
        .voters
        .iter()
        .map(|id| members::host_of(*id))
        .collect();
    wished.sort_unstable();
    voters.sort_unstable();
    if voters != wished || !group.learners.is_empty() {
        return Some(format!(
            "the managers are {wished:?}, the group is {group:?}"
        ));
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

/// Whether a node is what its spec says.
fn of_role(known: &Node, host: &Host) -> Option<String> {
    let manages = host
        .manager
        .as_ref()
        .is_some_and(|manager| manager.member.is_full());
    let is_manager = known.spec.role == Role::Manager;
    let agrees = known.role == known.spec.role
        && host.seat.certified == known.spec.role
        && manages == is_manager
        && host.manager.is_some() == is_manager;
    (!agrees).then(|| {
        format!(
            "host {} is to be {:?}, is written down as {:?}, certified as {:?} and has {}",
            host.id,
            known.spec.role,
            known.role,
            host.seat.certified,
            match &host.manager {
                Some(manager) => format!(
                    "member {} of {:?}",
                    manager.member.id(),
                    manager.member.group()
                ),
                None => "no manager".to_owned(),
            }
        )
    })
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
    // What a global job did on a node that is gone does not count.
    let here = |task: &Task| {
        mode.global_job.is_none() || task.node_id.is_some_and(|node| view.node(node).is_some())
    };
    let good = view.tasks_of(service.id).filter(|task| {
        if !here(task) {
            return false;
        }
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
                known.node_id == Some(host.node()) && known.status.state == TaskState::Running
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
    for task in view.tasks_on_node(host.node()) {
        let runs = host
            .machine
            .containers
            .get(&task.id)
            .is_some_and(Container::runs);
        if task.status.state == TaskState::Running && !runs {
            return Some(format!("{} does not run on host {id}", task.name));
        }
    }
    let wished = dispatcher::project(view, host.node());
    let held = &host.machine.kernel.state;
    (!held.same_facts(&wished)).then(|| {
        format!(
            "host {id} holds the network of revision {}, which is not that of {}",
            held.revision,
            view.index()
        )
    })
}
