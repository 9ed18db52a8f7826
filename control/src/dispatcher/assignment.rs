//! What a node must run and hold.

use std::collections::BTreeSet;

use weft_proto::dispatcher::AssignmentSet;
use weft_types::{NodeId, TaskState, task::Task};

use crate::store::View;

/// Everything that `node` must run and hold: its tasks from assigned on, ended ones included as
/// long as they are remembered, and the secrets and configs of those that have not ended.
#[must_use]
pub fn assignments(view: &View, node: NodeId) -> AssignmentSet {
    let mut set = AssignmentSet {
        complete: true,
        ..AssignmentSet::default()
    };
    let mut secrets = BTreeSet::new();
    let mut configs = BTreeSet::new();
    for task in view.tasks_on_node(node) {
        if task.status.state < TaskState::Assigned || task.status.state == TaskState::Orphaned {
            continue;
        }
        if !task.status.state.is_terminal() {
            let container = task.spec.container_spec.iter();
            for container in container {
                let references = container.secrets.iter().flatten();
                secrets.extend(references.map(|reference| reference.secret_id));
                let references = container.configs.iter().flatten();
                configs.extend(references.map(|reference| reference.config_id));
            }
        }
        set.tasks.push(Task::clone(task));
    }
    let secrets = secrets.into_iter().filter_map(|id| view.secret(id));
    set.secrets = secrets.map(|secret| secret.as_ref().clone()).collect();
    let configs = configs.into_iter().filter_map(|id| view.config(id));
    set.configs = configs.map(|config| config.as_ref().clone()).collect();
    set
}

/// Whether a task's networks must be there on its node: it is the node's and has not ended.
pub(super) fn holds_network(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}
