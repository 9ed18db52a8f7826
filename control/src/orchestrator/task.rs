//! How a task is made, and when it no longer is what its service wishes.

use weft_types::{
    NodeId, TaskState, Timestamp, Version,
    node::Node,
    service::{PortConfig, PublishMode, Service},
    task::{Task, TaskSpec, TaskStatus},
};

use super::constraint;
use crate::{
    allocator::ingress_ports,
    store::{IdSource, View},
};

/// The spec that a new task of `service` gets: the template, with the networks of the deprecated
/// field where it names none.
#[must_use]
pub fn template(service: &Service) -> TaskSpec {
    let mut spec = service.spec.task_template.clone();
    let attachments = service.spec.attachments();
    if spec.networks.as_ref().is_none_or(Vec::is_empty) && !attachments.is_empty() {
        spec.networks = Some(attachments.to_vec());
    }
    spec
}

/// Where a task is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A numbered slot, on whichever node.
    Slot(u64),
    /// A node's own, of a global service.
    Node(NodeId),
}

impl Place {
    /// The place that `task` fills.
    #[must_use]
    pub fn of(service: &Service, task: &Task) -> Option<Self> {
        let mode = &service.spec.mode;
        if mode.global.is_some() || mode.global_job.is_some() {
            task.node_id.map(Self::Node)
        } else {
            Some(Self::Slot(task.slot))
        }
    }
}

/// A new task of `service`, desired `desired`.
pub(super) fn new_task(
    service: &Service,
    place: Place,
    desired: TaskState,
    now: Timestamp,
    ids: &mut IdSource,
) -> Task {
    let id = ids.id();
    let (slot, node_id) = match place {
        Place::Slot(slot) => (slot, None),
        Place::Node(node) => (0, Some(node)),
    };
    let name = match place {
        Place::Slot(slot) => format!("{}.{slot}.{id}", service.spec.name),
        Place::Node(node) => format!("{}.{node}.{id}", service.spec.name),
    };
    Task {
        id,
        meta: weft_types::Meta::default(),
        name,
        labels: weft_types::Labels::new(),
        spec: template(service).into(),
        service_id: Some(service.id),
        slot,
        node_id,
        status: TaskStatus {
            timestamp: now,
            state: TaskState::New,
            message: "created".to_owned(),
            ..TaskStatus::default()
        },
        desired_state: desired,
        networks_attachments: Vec::new(),
        generic_resources: Vec::new(),
        job_iteration: service.job_status.map(|job| job.job_iteration),
        spec_version: service.spec_version,
        service_name: service.spec.name.clone(),
        service_labels: service.spec.labels.clone(),
        ports: service.endpoint.ports.clone(),
        start_after: Timestamp::ZERO,
        log_driver: None,
        registry_auth: service.registry_auth.clone(),
        withdrawn: false,
        running_since: Timestamp::ZERO,
        desired_since: now,
        made: Version::default(),
        faults: Vec::new(),
    }
}

/// The commit that made a task, or will: one of this very transaction is the newest.
pub(super) fn made(view: &View, task: &Task) -> Version {
    if task.made.index == 0 {
        coming(view)
    } else {
        task.made
    }
}

/// What the next commit is at least: every one has its own index.
pub(super) fn coming(view: &View) -> Version {
    Version {
        index: view.index() + 1,
    }
}

/// Whether an update would replace `task`: its template differs, if only by a `force_update` that
/// has grown.
///
/// Replica count, service labels and update settings never dirty a task; a placement that its node
/// satisfies does not either. Ports of the routing mesh dirty it only when it has no leg on the
/// ingress network: the mesh translates to whatever the service says at the moment.
#[must_use]
pub fn is_dirty(view: &View, service: &Service, task: &Task) -> bool {
    if task.spec_version == service.spec_version {
        return false;
    }
    let wished = template(service);
    if lacks_ports(view, service, task) {
        return true;
    }
    if *task.spec == wished {
        return false;
    }
    let mut moved = TaskSpec::clone(&task.spec);
    moved.placement.clone_from(&wished.placement);
    let node = task.node_id.and_then(|id| view.node(id));
    moved != wished || node.is_none_or(|node| !constraint::satisfies(node, &wished))
}

fn lacks_ports(view: &View, service: &Service, task: &Task) -> bool {
    let has_host_ports = task
        .ports
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Host);
    let wants_host_ports = service
        .spec
        .ports()
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Host);
    // A number that was found for it is not what it was made with.
    let is_wanted = |(has, wants): (&PortConfig, &PortConfig)| {
        let mut made = has.clone();
        if wants.published_port == 0 {
            made.published_port = 0;
        }
        made == *wants
    };
    if has_host_ports.clone().count() != wants_host_ports.clone().count()
        || !has_host_ports.zip(wants_host_ports).all(is_wanted)
    {
        return true;
    }
    let wants_ingress = ingress_ports(&service.spec).next().is_some();
    wants_ingress
        && task.status.state >= TaskState::Pending
        && view.ingress_network().is_some_and(|ingress| {
            let mut attachments = task.networks_attachments.iter();
            !attachments.any(|attachment| attachment.network_id == ingress.id)
        })
}

/// Whether the task should be running and may yet, as far as it was seen.
#[must_use]
pub fn is_live(task: &Task) -> bool {
    task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running
}

/// Whether the task holds a container or may hold one: an agent has it, and it has not ended.
#[must_use]
pub fn occupies(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}

/// Whether a task's node is none to be on: gone, down, leaving, or drained.
pub(super) fn is_bad(node: Option<&Node>) -> bool {
    use weft_types::node::NodeState;
    node.is_none_or(|node| {
        matches!(node.status.state, NodeState::Down | NodeState::Disconnected)
            || node.spec.availability == weft_types::node::Availability::Drain
    })
}

/// Whether nobody is there any more who could stop a task of this node.
pub(super) fn is_lost(node: Option<&Node>) -> bool {
    node.is_none_or(|node| node.status.state == weft_types::node::NodeState::Down)
}
