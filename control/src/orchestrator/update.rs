//! Rolls a new spec over a service's tasks, and back.
//!
//! All that an update remembers is in the objects: tasks carry the spec version they were made
//! from and the times at which they were made and began to run. A new leader goes on in the middle.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use weft_types::{
    ServiceId, TaskId, TaskState, Timestamp, Version,
    service::{Service, UpdateConfig, UpdateState, UpdateStatus},
    task::Task,
};

use super::{
    moving,
    slot::{Slots, is_meant},
    task::{Place, coming, is_dirty, made, new_task},
};
use crate::store::{Draft, IdSource, View};

/// How long a new task is watched for failure when the config says nothing.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

/// The config's settings, defaults filled in.
struct Settings {
    /// Places at a time.
    parallelism: usize,
    delay: Duration,
    monitor: Duration,
    action: Action,
    ratio: f64,
    start_first: bool,
}

#[derive(PartialEq)]
enum Action {
    Pause,
    Continue,
    Rollback,
}

impl Settings {
    fn of(config: Option<&UpdateConfig>) -> Self {
        let default = UpdateConfig {
            parallelism: 1,
            ..UpdateConfig::default()
        };
        let config = config.unwrap_or(&default);
        let nanos = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        let monitor = nanos(config.monitor.unwrap_or(0));
        Self {
            parallelism: match config.parallelism {
                0 => usize::MAX,
                some => usize::try_from(some).unwrap_or(usize::MAX),
            },
            delay: nanos(config.delay),
            monitor: if monitor.is_zero() {
                DEFAULT_MONITOR
            } else {
                monitor
            },
            action: match config.failure_action.as_str() {
                "continue" => Action::Continue,
                "rollback" => Action::Rollback,
                _ => Action::Pause,
            },
            ratio: config.max_failure_ratio,
            start_first: config.order == "start-first",
        }
    }

    /// How long the last task is watched before the update is called complete.
    fn watch(&self) -> Duration {
        if self.action == Action::Continue {
            Duration::ZERO
        } else if self.delay >= self.monitor {
            self.delay + Duration::from_secs(1)
        } else {
            self.monitor
        }
    }
}

/// Where one place of the service stands in the update.
enum Stage {
    /// Nothing to do.
    Clean,
    /// Its task is to be replaced.
    Waiting,
    /// It has been replaced; the new task is not up yet, or its delay is not over.
    InFlight,
}

pub(super) fn run(draft: &mut Draft, ids: &mut IdSource, id: ServiceId) {
    let now = draft.now();
    let Some(service) = draft.service(id).cloned() else {
        return;
    };
    let state = service.update_status.as_ref().map(|status| status.state);
    if matches!(
        state,
        Some(UpdateState::Paused | UpdateState::RollbackPaused)
    ) {
        return shut_twins(draft, &service);
    }
    let rolling_back = state == Some(UpdateState::RollbackStarted);
    let settings = Settings::of(if rolling_back {
        service.spec.rollback_config.as_ref()
    } else {
        service.spec.update_config.as_ref()
    });
    let goes_on = matches!(
        state,
        Some(UpdateState::Updating | UpdateState::RollbackStarted)
    );
    let started = goes_on
        .then(|| {
            service
                .update_status
                .as_ref()
                .and_then(|status| status.started_at)
        })
        .flatten()
        .unwrap_or(now);
    let since = if goes_on {
        service.update_since
    } else {
        coming(draft)
    };
    let slots = Slots::of(draft, &service);
    let occupied = slots.occupied(&service, now);
    let mut waiting = Vec::new();
    let mut in_flight = 0usize;
    for (place, updatable) in &occupied {
        let tasks = slots.by_place.get(place).map_or(&[][..], Vec::as_slice);
        shut_replaced(draft, &service, updatable);
        match stage(draft, &service, &settings, tasks, updatable, since) {
            Stage::Clean => {}
            Stage::Waiting => waiting.push(*place),
            Stage::InFlight => in_flight += 1,
        }
    }
    if goes_on
        && settings.action != Action::Continue
        && let Some(failed) = too_many_failed(draft, &service, &settings, &slots, since)
    {
        stop_or_go_back(draft, &service, &settings, failed);
        return;
    }
    if waiting.is_empty() && in_flight == 0 {
        if goes_on {
            complete(draft, &service, &settings, &slots, (since, started));
        }
        return;
    }
    if !goes_on && !waiting.is_empty() {
        draft.edit_service(id, |service| {
            service.update_since = since;
            service.update_status = Some(UpdateStatus {
                state: UpdateState::Updating,
                started_at: Some(now),
                completed_at: None,
                message: "update in progress".to_owned(),
            });
        });
    }
    // Replacing what does not run costs nobody anything: it goes first.
    waiting.sort_by_key(|place| {
        let runs = |task: &Arc<Task>| task.status.state == TaskState::Running;
        (
            occupied
                .get(place)
                .is_some_and(|tasks| tasks.iter().any(runs)),
            *place,
        )
    });
    for place in waiting
        .into_iter()
        .take(settings.parallelism.saturating_sub(in_flight))
    {
        replace(draft, ids, &service, &settings, place, &occupied);
    }
}

/// Where a place has several tasks of the current spec, one stays: an update that paused between the
/// start of one and the stop of another has nobody else to end it.
fn shut_twins(draft: &mut Draft, service: &Service) {
    let now = draft.now();
    let slots = Slots::of(draft, service);
    for tasks in slots.occupied(service, now).into_values() {
        let clean = tasks.into_iter();
        let clean: Vec<_> = clean
            .filter(|task| !is_dirty(draft, service, task))
            .collect();
        shut_replaced(draft, service, &clean);
    }
}

/// Shuts the tasks down whose replacement runs (start-first), or that are one too many.
fn shut_replaced(draft: &mut Draft, service: &Service, updatable: &[Arc<Task>]) {
    let meant: Vec<_> = updatable.iter().filter(|task| is_meant(task)).collect();
    if meant.len() < 2 {
        return;
    }
    // A task that is being moved runs on until the other one does.
    let is_arriving = |task: &&Arc<Task>| {
        moving::is_move(task)
            && task.status.state < TaskState::Running
            && !is_dirty(draft, service, task)
    };
    if meant.iter().any(is_arriving) {
        return;
    }
    let best = meant
        .iter()
        .filter(|task| !is_dirty(draft, service, task))
        .max_by_key(|task| {
            (
                task.status.state == TaskState::Running,
                made(draft, task),
                task.id,
            )
        });
    let Some(best) = best.filter(|best| best.status.state == TaskState::Running) else {
        return;
    };
    let best = best.id;
    for task in meant.into_iter().filter(|task| task.id != best) {
        draft.edit_task(task.id, |task| task.desired_state = TaskState::Shutdown);
    }
}

fn stage(
    draft: &mut Draft,
    service: &Service,
    settings: &Settings,
    tasks: &[Arc<Task>],
    updatable: &[Arc<Task>],
    since: Version,
) -> Stage {
    let now = draft.now();
    let is_clean = |view: &View, task: &Task| !is_dirty(view, service, task);
    if !updatable.iter().any(|task| is_clean(draft, task)) {
        return Stage::Waiting;
    }
    let replaced = tasks.iter().any(|task| !is_clean(draft, task));
    let new: Vec<&Arc<Task>> = tasks
        .iter()
        .filter(|task| is_new(draft, service, task, since))
        .collect();
    if !replaced || new.is_empty() {
        return Stage::Clean;
    }
    let up = new
        .iter()
        .filter(|task| task.status.state >= TaskState::Running)
        .map(|task| up_at(task))
        .min();
    match up {
        Some(up) if up.after(settings.delay) <= now => Stage::Clean,
        Some(up) => {
            draft.wake_at(up.after(settings.delay));
            Stage::InFlight
        }
        None => Stage::InFlight,
    }
}

/// Whether a task was made by, or during, the update that began with commit `since`. No clock is
/// asked: one that was set back in between would make it seem older.
fn is_new(view: &View, service: &Service, task: &Task, since: Version) -> bool {
    task.spec_version == service.spec_version && made(view, task) >= since
}

/// When a task began to run, or ended without.
fn up_at(task: &Task) -> Timestamp {
    if task.running_since.is_zero() {
        task.status.timestamp
    } else {
        task.running_since
    }
}

/// Whether a place had, or has, a task that this update replaces.
fn is_touched(view: &View, service: &Service, tasks: &[Arc<Task>], since: Version) -> bool {
    let has_new = tasks.iter().any(|task| is_new(view, service, task, since));
    let mut old = tasks.iter().filter(|task| is_dirty(view, service, task));
    old.any(|task| is_meant(task) || has_new)
}

/// The task of this update whose failure was one too many: of the places that it touches more have
/// failed than may. One per place counts.
fn too_many_failed(
    draft: &Draft,
    service: &Service,
    settings: &Settings,
    slots: &Slots,
    since: Version,
) -> Option<TaskId> {
    let mut failed: Vec<(Timestamp, Place, TaskId)> = slots
        .by_place
        .iter()
        .filter_map(|(place, tasks)| {
            let mut tasks = tasks.iter();
            let failed = tasks.find(|task| {
                let ended = matches!(
                    task.status.state,
                    TaskState::Complete | TaskState::Failed | TaskState::Rejected
                );
                let early = task.running_since.is_zero()
                    || task.status.timestamp.since(task.running_since) <= settings.monitor;
                is_new(draft, service, task, since) && ended && early
            })?;
            Some((failed.status.timestamp, *place, failed.id))
        })
        .collect();
    failed.sort_unstable();
    let touched = slots.by_place.values();
    let touched = touched.filter(|tasks| is_touched(draft, service, tasks, since));
    // Of a place that failed several times the first task may be forgotten already.
    let places = touched.count().max(failed.len()).max(1);
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of places are far below 2^52"
    )]
    let is_too_many = |failures: usize| failures as f64 / places as f64 > settings.ratio;
    let mut counted = (1..).zip(failed);
    let one_too_many = counted.find(|(failures, _)| is_too_many(*failures));
    one_too_many.map(|(_, (.., task))| task)
}

fn stop_or_go_back(draft: &mut Draft, service: &Service, settings: &Settings, failed: TaskId) {
    let (now, since) = (draft.now(), coming(draft));
    let reason = format!("due to failure or early termination of task {failed}");
    let rolling_back = service
        .update_status
        .as_ref()
        .is_some_and(|status| status.state == UpdateState::RollbackStarted);
    draft.edit_service(service.id, |service| {
        let previous = (!rolling_back && settings.action == Action::Rollback)
            .then(|| service.previous_spec.take())
            .flatten();
        let started_at = service
            .update_status
            .as_ref()
            .and_then(|status| status.started_at);
        let mut status = UpdateStatus {
            state: UpdateState::Paused,
            started_at,
            completed_at: None,
            message: format!("update paused {reason}"),
        };
        if rolling_back {
            status.state = UpdateState::RollbackPaused;
            // Docker calls it an update where it was told to pause.
            if settings.action == Action::Rollback {
                status.message = format!("rollback paused {reason}");
            }
        } else if let Some(previous) = previous {
            service.spec = previous;
            service.registry_auth = std::mem::take(&mut service.previous_registry_auth);
            if let Some(version) = service.previous_spec_version.take() {
                service.spec_version = version;
            }
            status.state = UpdateState::RollbackStarted;
            status.started_at = Some(now);
            service.update_since = since;
            status.message = format!("update rolled back {reason}");
        }
        service.update_status = Some(status);
    });
    draft.wake_at(now);
}

fn complete(
    draft: &mut Draft,
    service: &Service,
    settings: &Settings,
    slots: &Slots,
    (since, started): (Version, Timestamp),
) {
    let now = draft.now();
    let last = slots
        .by_place
        .values()
        .flatten()
        .filter(|task| is_new(draft, service, task, since))
        .filter(|task| task.status.state >= TaskState::Running)
        .map(|task| up_at(task))
        .max()
        .unwrap_or(started);
    let due = last.after(settings.watch());
    if due > now {
        draft.wake_at(due);
        return;
    }
    draft.edit_service(service.id, |service| {
        if let Some(status) = &mut service.update_status {
            let rolled_back = status.state == UpdateState::RollbackStarted;
            (status.state, status.message) = if rolled_back {
                (
                    UpdateState::RollbackCompleted,
                    "rollback completed".to_owned(),
                )
            } else {
                (UpdateState::Completed, "update completed".to_owned())
            };
            status.completed_at = Some(now);
        }
    });
}

fn replace(
    draft: &mut Draft,
    ids: &mut IdSource,
    service: &Service,
    settings: &Settings,
    place: Place,
    occupied: &BTreeMap<Place, Vec<Arc<Task>>>,
) {
    let now = draft.now();
    if settings.start_first {
        draft.put(new_task(service, place, TaskState::Running, now, ids));
        return;
    }
    for old in occupied.get(&place).into_iter().flatten() {
        draft.edit_task(old.id, |task| {
            task.desired_state = task.desired_state.max(TaskState::Shutdown);
        });
    }
    let mut task = new_task(service, place, TaskState::Ready, now, ids);
    task.start_after = now;
    draft.put(task);
}

#[cfg(test)]
mod tests {
    use weft_types::task::TaskSpec;

    use super::*;
    use crate::{
        fixture,
        store::{Change, Store, Transaction},
    };

    /// Of four places an update touches one; the new task of so many fails.
    fn failed(ratio: f64, count: usize) -> bool {
        let (started, now) = (Timestamp(50), Timestamp(60));
        let mut service = fixture::service(1, "web", 4);
        let mut ids = IdSource::seeded(1);
        let mut tasks = Vec::new();
        for slot in 1..=4 {
            let place = Place::Slot(slot);
            let mut old = new_task(&service, place, TaskState::Running, Timestamp(10), &mut ids);
            old.status.state = TaskState::Running;
            if slot == 1 {
                let mut spec = TaskSpec::clone(&old.spec);
                spec.force_update += 1;
                old.spec = spec.into();
                old.desired_state = TaskState::Shutdown;
                old.desired_since = started;
            }
            tasks.push(old);
        }
        service.spec_version.index += 1;
        let mut new = new_task(&service, Place::Slot(1), TaskState::Running, now, &mut ids);
        if count > 0 {
            new.status.state = TaskState::Failed;
        }
        let mut store = Store::new();
        let changes = tasks.into_iter().map(Change::put).collect();
        let first = Transaction {
            now: Timestamp(10),
            changes,
        };
        store.apply(1, &first).expect("the old tasks");
        let second = Transaction {
            now,
            changes: vec![Change::put(new)],
        };
        store.apply(2, &second).expect("the new task");
        let draft = Draft::new(&store.view(), now);
        let slots = Slots::of(&draft, &service);
        let config = UpdateConfig {
            parallelism: 1,
            max_failure_ratio: ratio,
            ..UpdateConfig::default()
        };
        let settings = Settings::of(Some(&config));
        let since = Version { index: 2 };
        too_many_failed(&draft, &service, &settings, &slots, since).is_some()
    }

    #[test]
    fn failures_are_a_share_of_what_the_update_touches() {
        assert!(!failed(0.0, 0));
        // One of one, not one of four. As many as may are not too many.
        assert!(failed(0.5, 1));
        assert!(!failed(1.0, 1));
    }
}
