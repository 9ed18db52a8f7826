//! Replaces tasks that ended or whose node is none to be on, as their policy says.

use std::{sync::Arc, time::Duration};

use weft_types::{
    TaskState, Timestamp,
    service::Service,
    task::{RestartPolicy, Task},
};

use super::{
    fault, moving,
    slot::is_meant,
    task::{Place, is_bad, is_lost, new_task, occupies},
};
use crate::store::{Draft, IdSource, View};

/// A replacement waits this long for the task before it to stop, then starts beside it.
const OLD_TASK_WAIT: Duration = Duration::from_secs(60);

/// Docker's delay when a policy names none.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);

fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// How long a replacement waits before it starts.
#[must_use]
pub fn delay(policy: Option<&RestartPolicy>) -> Duration {
    policy
        .and_then(|policy| policy.delay)
        .map_or(DEFAULT_DELAY, nanos)
}

/// Whether the policy lets `task`, one of `slot`'s, be replaced.
///
/// Attempts are counted from the slot's history: its tasks of the same spec version, made no longer
/// than the policy's window before `task` ended. The reaper keeps enough of them.
#[must_use]
pub fn may_restart(service: &Service, task: &Task, slot: &[Arc<Task>], now: Timestamp) -> bool {
    // What it was made with: a spec that came later is for those that come later.
    let policy = task.spec.restart_policy.as_ref();
    let is_job = is_job(service);
    let completed = task.status.state == TaskState::Complete;
    match policy.map_or("any", |policy| policy.condition.as_str()) {
        "none" => return false,
        "on-failure" if completed => return false,
        _ if is_job && completed => return false,
        _ => {}
    }
    let max = policy.and_then(|policy| policy.max_attempts).unwrap_or(0);
    if max == 0 {
        return true;
    }
    let window = policy.and_then(|policy| policy.window).unwrap_or(0);
    // What was given up stays so, however late it is looked at again.
    let ended = if task.status.state.is_terminal() {
        task.status.timestamp.min(now)
    } else {
        now
    };
    let mut made: Vec<Timestamp> = slot
        .iter()
        .filter(|other| {
            other.spec_version == task.spec_version && other.job_iteration == task.job_iteration
        })
        .map(|other| born(other, now))
        .collect();
    made.sort_unstable();
    // The first was no restart.
    let restarts = made
        .iter()
        .skip(1)
        .filter(|made| window <= 0 || made.after(nanos(window)) > ended);
    (restarts.count() as u64) < max
}

pub(super) fn is_job(service: &Service) -> bool {
    service.spec.mode.replicated_job.is_some() || service.spec.mode.global_job.is_some()
}

/// When a task was made; one of this very transaction is made now.
pub(super) fn born(task: &Task, now: Timestamp) -> Timestamp {
    if task.meta.created_at.is_zero() {
        now
    } else {
        task.meta.created_at
    }
}

/// Ends `task` and, if its policy says so, puts another in its place.
///
/// A task that failed while it only got ready is replaced when its own delay is over: an image
/// that is nowhere is asked for once per delay.
pub(super) fn restart(
    draft: &mut Draft,
    ids: &mut IdSource,
    service: &Service,
    task: &Task,
    slot: &[Arc<Task>],
) {
    let now = draft.now();
    if task.desired_state == TaskState::Ready
        && task.status.state.is_terminal()
        && task.start_after > now
    {
        draft.wake_at(task.start_after);
        return;
    }
    draft.edit_task(task.id, |task| task.desired_state = TaskState::Shutdown);
    if !may_restart(service, task, slot, now) {
        return;
    }
    let Some(place) = Place::of(service, task) else {
        return;
    };
    // The task whose place it was to take runs on, or is replaced itself.
    let is_there = |other: &Arc<Task>| other.id != task.id && is_meant(other);
    if moving::is_move(task) && slot.iter().any(is_there) {
        return;
    }
    // The delay keeps a task that fails from failing all the time. One whose node was drained or
    // lost did nothing wrong: no delay. (Swarm delays those of lost nodes too.)
    let wait = if task.status.state.is_terminal() {
        delay(task.spec.restart_policy.as_ref())
    } else {
        Duration::ZERO
    };
    let mut next = new_task(service, place, TaskState::Ready, now, ids);
    next.start_after = now.after(wait);
    if next.spec_version == task.spec_version && matches!(place, Place::Slot(_)) {
        next.faults = fault::inherited(task, now);
    }
    draft.put(next);
}

/// Lets those run that were only to get ready: their delay is over and the task before them has
/// stopped, or is not heard of, or takes too long.
pub(super) fn promote(draft: &mut Draft, service: &Service, slot: &[Arc<Task>]) {
    let now = draft.now();
    for task in slot {
        if task.desired_state != TaskState::Ready || task.status.state > TaskState::Running {
            continue;
        }
        let waits_for_old = slot.iter().any(|old| {
            old.id != task.id
                && old.desired_state > TaskState::Running
                && occupies(old)
                && !is_lost(node_of(draft, old))
        });
        let mut due = task.start_after;
        if waits_for_old {
            due = due.max(born(task, now).after(OLD_TASK_WAIT));
        }
        if due <= now {
            let desired = if is_job(service) {
                TaskState::Complete
            } else {
                TaskState::Running
            };
            draft.edit_task(task.id, |task| task.desired_state = desired);
        } else {
            draft.wake_at(due);
        }
    }
}

fn node_of<'a>(view: &'a View, task: &Task) -> Option<&'a weft_types::node::Node> {
    task.node_id.and_then(|id| view.node(id)).map(AsRef::as_ref)
}

/// Whether `task`, which is meant to run, no longer does or is where it should not be.
pub(super) fn has_failed(view: &View, task: &Task) -> bool {
    if task.desired_state > TaskState::Running {
        return false;
    }
    task.status.state > TaskState::Running
        || (task.node_id.is_some() && is_bad(node_of(view, task)))
}

#[cfg(test)]
mod tests {
    use weft_types::service::{ReplicatedJob, ServiceMode};

    use super::*;
    use crate::{
        fixture,
        store::{Change, IdSource, Store, Transaction},
    };

    fn policy(condition: &str) -> Option<RestartPolicy> {
        Some(RestartPolicy {
            condition: condition.into(),
            ..RestartPolicy::default()
        })
    }

    #[test]
    fn a_task_is_replaced_by_the_policy_that_it_was_made_with() {
        let now = Timestamp(1_000_000_000);
        for (made_with, came_later, expected) in [("none", "any", false), ("any", "none", true)] {
            let mut service = fixture::service(1, "web", 1);
            service.spec.task_template.restart_policy = policy(made_with);
            let mut ids = IdSource::seeded(1);
            let place = Place::Slot(1);
            let mut task = new_task(&service, place, TaskState::Running, now, &mut ids);
            task.status.state = TaskState::Failed;
            service.spec.task_template.restart_policy = policy(came_later);
            assert_eq!(
                may_restart(&service, &task, &[], now),
                expected,
                "made with {made_with}, then {came_later}"
            );
        }
    }

    #[test]
    fn what_a_job_completed_is_not_done_again_whatever_the_policy() {
        let now = Timestamp(1_000_000_000);
        let mut service = fixture::service(1, "sums", 1);
        service.spec.mode = ServiceMode {
            replicated_job: Some(ReplicatedJob::default()),
            ..ServiceMode::default()
        };
        service.spec.task_template.restart_policy = policy("any");
        let mut ids = IdSource::seeded(1);
        let mut task = new_task(&service, Place::Slot(0), TaskState::Complete, now, &mut ids);
        for (ended, again) in [(TaskState::Failed, true), (TaskState::Complete, false)] {
            task.status.state = ended;
            assert_eq!(may_restart(&service, &task, &[], now), again, "{ended}");
        }
    }

    #[test]
    fn attempts_are_counted_within_their_window() {
        let second = |second: i64| Timestamp(second * 1_000_000_000);
        let mut service = fixture::service(1, "web", 1);
        service.spec.task_template.restart_policy = Some(RestartPolicy {
            condition: "any".into(),
            max_attempts: Some(2),
            window: Some(10_000_000_000),
            ..RestartPolicy::default()
        });
        let mut ids = IdSource::seeded(1);
        let slot: Vec<Arc<Task>> = [1, 10, 15]
            .map(|born| {
                let place = Place::Slot(1);
                let mut task =
                    new_task(&service, place, TaskState::Running, second(born), &mut ids);
                task.meta.created_at = second(born);
                task.status.state = TaskState::Failed;
                Arc::new(task)
            })
            .into();
        let may = |ended: i64, asked: i64| {
            let mut last = Task::clone(&slot[2]);
            last.status.timestamp = second(ended);
            may_restart(&service, &last, &slot, second(asked))
        };
        // Two restarts in the ten seconds before it ended; at 20 the first of them is too old.
        assert!(!may(19, 19));
        assert!(may(20, 20));
        // Given up is given up, whenever somebody looks again.
        assert!(!may(19, 90));
    }

    #[test]
    fn attempts_are_counted_anew_for_each_spec() {
        let now = Timestamp(1_000_000_000);
        let mut service = fixture::service(1, "web", 1);
        service.spec.task_template.restart_policy = Some(RestartPolicy {
            condition: "any".into(),
            max_attempts: Some(1),
            ..RestartPolicy::default()
        });
        let mut ids = IdSource::seeded(1);
        let mut slot = Vec::new();
        for spec in [1, 2] {
            service.spec_version.index = spec;
            for may in [true, false] {
                let place = Place::Slot(1);
                let mut task = new_task(&service, place, TaskState::Running, now, &mut ids);
                task.status.state = TaskState::Failed;
                slot.push(Arc::new(task));
                let newest = &slot[slot.len() - 1];
                let answer = may_restart(&service, newest, &slot, now);
                assert_eq!(answer, may, "task {} of all", slot.len());
            }
        }
    }

    #[test]
    fn a_replacement_waits_a_minute_for_a_task_that_does_not_stop() {
        let service = fixture::service(1, "web", 1);
        let mut ids = IdSource::seeded(1);
        let (made, place) = (Timestamp(1), Place::Slot(1));
        let mut old = new_task(&service, place, TaskState::Shutdown, made, &mut ids);
        old.node_id = Some(fixture::node(1).id);
        old.status.state = TaskState::Running;
        let new = new_task(&service, place, TaskState::Ready, made, &mut ids);
        let mut store = Store::new();
        let changes = vec![
            Change::put(fixture::node(1)),
            Change::put(service.clone()),
            Change::put(old),
            Change::put(new),
        ];
        let first = Transaction { now: made, changes };
        store.apply(1, &first).expect("both tasks");
        let view = store.view();
        let slot: Vec<Arc<Task>> = view.tasks_of(service.id).cloned().collect();
        for (waited, starts) in [(59, 0), (60, 1)] {
            let mut draft = Draft::new(&view, made.after(Duration::from_secs(waited)));
            promote(&mut draft, &service, &slot);
            let outcome = draft.outcome();
            assert_eq!(outcome.changes.len(), starts, "after {waited} s");
            assert_eq!(outcome.wake_at.is_some(), starts == 0, "after {waited} s");
        }
    }
}
