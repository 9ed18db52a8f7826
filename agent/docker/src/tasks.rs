//! `/tasks`.

use std::{collections::BTreeMap, sync::Arc};

use weft_proto::ControlRequest;
use weft_types::{NetworkId, NodeId, ServiceId, TaskState, network::Network, task::Task};

use crate::{
    door::{Asked, Door, expect_one, expect_reply},
    filter::{Filters, invalid},
    reply::{ApiError, Reply, ok},
    view::TaskView,
};

/// All states, for reading their names.
const STATES: [TaskState; 14] = [
    TaskState::New,
    TaskState::Pending,
    TaskState::Assigned,
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Ready,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Complete,
    TaskState::Shutdown,
    TaskState::Failed,
    TaskState::Rejected,
    TaskState::Remove,
    TaskState::Orphaned,
];

impl Door {
    pub(crate) async fn list_tasks(&self, asked: &Asked) -> Reply {
        let known = [
            "_up-to-date",
            "desired-state",
            "id",
            "label",
            "name",
            "node",
            "runtime",
            "service",
        ];
        let filters = Filters::of(asked, &known)?;
        self.manager().await?;
        let mut desired = Vec::new();
        for wish in filters
            .values("desired-state")
            .filter(|wish| !wish.is_empty())
        {
            let state = STATES
                .into_iter()
                .find(|state| state.as_str().eq_ignore_ascii_case(wish));
            desired.push(state.ok_or_else(|| {
                let word = invalid(asked.version);
                ApiError::internal(format!("{word} desired-state filter: '{wish}'"))
            })?);
        }
        let mut services: Vec<ServiceId> = Vec::new();
        for reference in filters.values("service") {
            let request = ControlRequest::GetService(reference.to_owned());
            services.push(expect_one!(self.ask(request).await?, Services)?.id);
        }
        let mut nodes: Vec<NodeId> = Vec::new();
        for reference in filters.values("node") {
            nodes.push(self.find_node(reference).await?);
        }
        let up_to_date = filters.values("_up-to-date").any(|value| value != "false");
        let request = ControlRequest::ListTasks {
            services,
            nodes,
            desired,
            up_to_date,
        };
        let tasks = expect_reply!(self.ask(request).await?, Tasks)?;
        let fits = |task: &&Arc<Task>| {
            filters.prefix("id", task.id.as_str())
                && filters.prefix("name", &task_name(task))
                && filters.labels("label", &task.service_labels)
                && runtime_fits(&filters, task)
        };
        let networks = self.networks_by_id().await?;
        let views: Vec<TaskView<'_>> = tasks
            .iter()
            .filter(fits)
            .map(|task| TaskView::of(task, &networks))
            .collect();
        Ok(ok(&views))
    }

    pub(crate) async fn inspect_task(&self, id: String) -> Reply {
        let task = expect_one!(self.ask(ControlRequest::GetTask(id)).await?, Tasks)?;
        let networks = self.networks_by_id().await?;
        Ok(ok(&TaskView::of(&task, &networks)))
    }

    /// The node that `reference` names; `self` is this one.
    async fn find_node(&self, reference: &str) -> Result<NodeId, ApiError> {
        if reference == "self"
            && let Some(id) = self.node.status().await.node_id
        {
            return Ok(id);
        }
        let request = ControlRequest::GetNode(reference.to_owned());
        Ok(expect_one!(self.ask(request).await?, Nodes)?.id)
    }

    /// The cluster's networks.
    pub(crate) async fn networks_by_id(&self) -> Result<BTreeMap<NetworkId, Network>, ApiError> {
        let networks = expect_reply!(self.ask(ControlRequest::ListNetworks).await?, Networks)?;
        let pairs = networks.into_iter().map(|network| (network.id, network));
        Ok(pairs.collect())
    }
}

/// `<service>.<slot or node>.<task>`.
fn task_name(task: &Task) -> String {
    if !task.name.is_empty() {
        return task.name.clone();
    }
    let node = task.node_id.map(|node| node.to_string());
    let place = match (task.slot, node) {
        (0, Some(node)) => node,
        (slot, _) => slot.to_string(),
    };
    format!("{}.{place}.{}", task.service_name, task.id)
}

/// Attachments are shown only to who asks for them.
fn runtime_fits(filters: &Filters, task: &Task) -> bool {
    let runtime = match task.spec.runtime.as_deref() {
        _ if task.spec.network_attachment_spec.is_some() => "attachment",
        None | Some("") => "container",
        Some(runtime) => runtime,
    };
    if filters.has("runtime") {
        filters.exact("runtime", runtime)
    } else {
        runtime == "container"
    }
}
