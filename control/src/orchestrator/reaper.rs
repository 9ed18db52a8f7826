//! Forgets tasks: those to be removed once they have stopped, and history beyond its limit.

use weft_types::{ServiceId, TaskState, service::Service, service::UpdateState, task::Task};

use super::slot::Slots;
use crate::store::{Draft, Key, View};

/// Docker's limit when the cluster names none.
const DEFAULT_LIMIT: i64 = 5;

pub(super) fn run(draft: &mut Draft) {
    let now = draft.now();
    let mut gone = Vec::new();
    let mut stopped = Vec::new();
    for task in draft.tasks() {
        let service = task.service_id.and_then(|id| draft.service(id));
        if task.desired_state == TaskState::Remove {
            if task.status.state < TaskState::Assigned || task.status.state >= TaskState::Complete {
                gone.push(task.id);
            }
        } else if task.service_id.is_some() && service.is_none() {
            stopped.push(task.id);
        } else if task.status.state == TaskState::Orphaned && task.service_id.is_none() {
            gone.push(task.id);
        }
    }
    for id in stopped {
        draft.edit_task(id, |task| task.desired_state = TaskState::Remove);
        if draft.task(id).is_some_and(|task| {
            task.status.state < TaskState::Assigned || task.status.state >= TaskState::Complete
        }) {
            gone.push(id);
        }
    }
    for id in gone {
        draft.delete(Key::Task(id));
    }
    // Nobody will ever report on a task that no agent has: it ends where it is.
    let never: Vec<_> = draft
        .tasks_waiting()
        .filter(|task| task.desired_state == TaskState::Shutdown)
        .map(|task| task.id)
        .collect();
    for id in never {
        draft.edit_task(id, |task| {
            task.status.state = TaskState::Shutdown;
            task.status.timestamp = now;
            task.status.message = "shutdown".to_owned();
        });
    }
    let services: Vec<ServiceId> = draft.services().map(|service| service.id).collect();
    for id in services {
        if let Some(service) = draft.service(id).cloned() {
            history(draft, &service);
        }
    }
}

fn history(draft: &mut Draft, service: &Service) {
    let Some(limit) = limit(draft, service) else {
        return;
    };
    if draft.tasks_of(service.id).take(limit + 1).count() <= limit {
        return;
    }
    let slots = Slots::of(draft, service, draft.now());
    for tasks in slots.by_place.values() {
        let is_dead = |task: &&std::sync::Arc<Task>| {
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

fn unsettled(tasks: &[std::sync::Arc<Task>]) -> bool {
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
