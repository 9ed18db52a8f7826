//! Forgets tasks: those to be removed once they have stopped, and history beyond its limit.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use weft_types::{
    ServiceId, TaskState, Timestamp,
    node::{Node, NodeState},
    service::{Service, UpdateState},
    task::Task,
};

use super::{slot::Slots, task::occupies};
use crate::store::{Draft, Key, View};

/// How long a node may be down before its tasks are given up, as in Swarm.
const ORPHANED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Docker's limit when the cluster names none.
const DEFAULT_LIMIT: i64 = 5;

/// Forgets what may be forgotten of the tasks of `id`, a service that may be gone itself.
pub(super) fn run(draft: &mut Draft, id: ServiceId) {
    let now = draft.now();
    let service = draft.service(id).cloned();
    let tasks: Vec<Arc<Task>> = draft.tasks_of(id).cloned().collect();
    for task in tasks {
        let removed = service.is_none() || task.desired_state == TaskState::Remove;
        if removed && has_stopped(&task) {
            draft.delete(Key::Task(task.id));
        } else if removed {
            draft.edit_task(task.id, |task| task.desired_state = TaskState::Remove);
        } else if task.desired_state == TaskState::Shutdown
            && task.status.state < TaskState::Assigned
        {
            // Nobody will ever report on a task that no agent has: it ends where it is.
            draft.edit_task(task.id, |task| {
                task.status.state = TaskState::Shutdown;
                task.status.timestamp = now;
                "shutdown".clone_into(&mut task.status.message);
            });
        }
    }
    if let Some(service) = service {
        history(draft, &service);
    }
}

/// Forgets tasks that are no service's: attachments of lost nodes, and what a removed service
/// left behind under an earlier leader.
pub(super) fn run_strays(draft: &mut Draft) {
    orphan(draft);
    let mut services = BTreeSet::new();
    let mut gone = Vec::new();
    for task in draft.tasks() {
        match task.service_id {
            Some(id) if draft.service(id).is_none() => {
                services.insert(id);
            }
            None if task.status.state == TaskState::Orphaned => gone.push(task.id),
            _ => {}
        }
    }
    for id in services {
        run(draft, id);
    }
    for id in gone {
        draft.delete(Key::Task(id));
    }
}

/// Gives up tasks of nodes that have been down for a day: what they hold is free again.
fn orphan(draft: &mut Draft) {
    let now = draft.now();
    let lost: Vec<_> = draft
        .nodes()
        .filter(|node| node.status.state == NodeState::Down)
        .filter(|node| down_since(node).after(ORPHANED_AFTER) <= now)
        .map(|node| node.id)
        .collect();
    for node in lost {
        let tasks: Vec<_> = draft
            .tasks_on_node(node)
            .filter(|task| occupies(task))
            .cloned()
            .collect();
        for task in tasks {
            draft.edit_task(task.id, |task| {
                task.status.state = TaskState::Orphaned;
                task.status.timestamp = now;
                "node has been down for too long".clone_into(&mut task.status.message);
            });
        }
    }
}

/// Since when a node is down; of one that an older version found to be down, when it last changed.
fn down_since(node: &Node) -> Timestamp {
    if node.down_since.is_zero() {
        node.meta.updated_at
    } else {
        node.down_since
    }
}

/// Whether nothing of a task is left on a node.
fn has_stopped(task: &Task) -> bool {
    task.status.state < TaskState::Assigned || task.status.state >= TaskState::Complete
}

fn history(draft: &mut Draft, service: &Service) {
    let Some(limit) = limit(draft, service) else {
        return;
    };
    if draft.tasks_of(service.id).take(limit + 1).count() <= limit {
        return;
    }
    let slots = Slots::of(draft, service);
    for tasks in slots.by_place.values() {
        let is_dead = |task: &&Arc<Task>| {
            task.desired_state > TaskState::Running && task.status.state.is_terminal()
        };
        let live = tasks.len() - tasks.iter().filter(is_dead).count();
        // While a slot is being replaced its old task tells that it is: it stays for a while.
        let keep_last = usize::from(is_updating(service) && live == 1 && unsettled(tasks));
        let keep = limit.max(1).max(live + keep_last);
        for task in tasks
            .iter()
            .filter(is_dead)
            .take(tasks.len().saturating_sub(keep))
        {
            draft.delete(Key::Task(task.id));
        }
    }
}

fn unsettled(tasks: &[Arc<Task>]) -> bool {
    tasks.iter().any(|task| {
        task.desired_state <= TaskState::Running && task.status.state < TaskState::Running
    })
}

fn is_updating(service: &Service) -> bool {
    service.update_status.as_ref().is_some_and(|status| {
        matches!(
            status.state,
            UpdateState::Updating | UpdateState::RollbackStarted
        )
    })
}

/// How many tasks a place keeps, the live one included; `None` is all.
fn limit(view: &View, service: &Service) -> Option<usize> {
    let policy = service.spec.task_template.restart_policy.as_ref();
    if let Some(max) = policy.and_then(|policy| policy.max_attempts)
        && max > 0
    {
        return Some(usize::try_from(max).unwrap_or(usize::MAX).saturating_add(1));
    }
    let cluster = view.cluster();
    let limit = cluster
        .and_then(|cluster| cluster.spec.orchestration.task_history_retention_limit)
        .unwrap_or(DEFAULT_LIMIT);
    usize::try_from(limit).ok()
}
