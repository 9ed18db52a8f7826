//! Services that run to completion.

use std::{collections::BTreeMap, sync::Arc};

use weft_types::{
    NodeId, TaskState, Timestamp,
    node::{Availability, Node},
    service::{ReplicatedJob, Service},
    task::Task,
};

use super::{
    constraint,
    replicated::BATCH,
    restart::{may_restart, promote, restart},
    slot::Slots,
    task::{Place, is_bad, new_task},
};
use crate::store::{Draft, IdSource, View};

/// A job of so many runs.
pub(super) fn run_replicated(
    draft: &mut Draft,
    ids: &mut IdSource,
    service: &Service,
    job: ReplicatedJob,
) {
    let now = draft.now();
    let concurrent = job.max_concurrent.unwrap_or(1);
    let total = job.total_completions.unwrap_or(concurrent);
    let places = supervise(draft, ids, service);
    let mut active = 0u64;
    let mut complete = 0u64;
    for tasks in places.values() {
        if tasks
            .iter()
            .any(|task| task.status.state == TaskState::Complete)
        {
            complete += 1;
        } else if tasks.iter().any(|task| is_active(task)) {
            active += 1;
        }
    }
    let create = concurrent
        .saturating_sub(active)
        .min(total.saturating_sub(complete + active));
    if create > BATCH {
        draft.wake_at(now);
    }
    let free = (0..total).filter(|slot| !places.contains_key(&Place::Slot(*slot)));
    for slot in free.take(usize::try_from(create.min(BATCH)).unwrap_or(0)) {
        draft.put(new_task(
            service,
            Place::Slot(slot),
            TaskState::Complete,
            now,
            ids,
        ));
    }
}

/// A job of one run on every node that fits.
pub(super) fn run_global(draft: &mut Draft, ids: &mut IdSource, service: &Service) {
    let now = draft.now();
    let template = &service.spec.task_template;
    let places = supervise(draft, ids, service);
    let fits = |node: &Node| {
        node.spec.availability == Availability::Active
            && !is_bad(Some(node))
            && constraint::satisfies(node, template)
    };
    let vacant: Vec<NodeId> = draft
        .nodes()
        .filter(|node| {
            let tasks = places.get(&Place::Node(node.id));
            fits(node) && tasks.is_none_or(|tasks| was_cut_short(service, tasks, now))
        })
        .map(|node| node.id)
        .collect();
    for id in vacant {
        draft.put(new_task(
            service,
            Place::Node(id),
            TaskState::Complete,
            now,
            ids,
        ));
    }
}

/// Ends the tasks of earlier runs that have not ended, replaces failed ones, and says which places
/// this run has. Those that ended are history.
fn supervise(
    draft: &mut Draft,
    ids: &mut IdSource,
    service: &Service,
) -> BTreeMap<Place, Vec<Arc<Task>>> {
    let iteration = service.job_status.map(|job| job.job_iteration);
    let old: Vec<_> = draft
        .tasks_of(service.id)
        .filter(|task| task.job_iteration != iteration && !task.status.state.is_terminal())
        .map(|task| task.id)
        .collect();
    for id in old {
        draft.edit_task(id, |task| task.desired_state = TaskState::Remove);
    }
    for (place, tasks) in &this_run(draft, service) {
        for task in tasks {
            if has_failed(draft, task) {
                let gone =
                    matches!(place, Place::Node(id) if is_bad(draft.node(*id).map(AsRef::as_ref)));
                if gone {
                    draft.edit_task(task.id, |task| task.desired_state = TaskState::Shutdown);
                } else {
                    restart(draft, ids, service, task, tasks);
                }
            }
        }
    }
    for tasks in this_run(draft, service).values() {
        promote(draft, service, tasks);
    }
    this_run(draft, service)
}

/// The places that this run has filled, and their tasks of this run.
fn this_run(draft: &Draft, service: &Service) -> BTreeMap<Place, Vec<Arc<Task>>> {
    let iteration = service.job_status.map(|job| job.job_iteration);
    let mut places = Slots::of(draft, service).by_place;
    places.retain(|_, tasks| {
        tasks.retain(|task| task.job_iteration == iteration);
        !tasks.is_empty()
    });
    places
}

/// Whether a node's run of the job was stopped because the node was none to be on, and is due once
/// the node is back: nothing of it completed, and no replacement was made although one may be.
fn was_cut_short(service: &Service, tasks: &[Arc<Task>], now: Timestamp) -> bool {
    let completed = |task: &Arc<Task>| task.status.state == TaskState::Complete;
    let newest = tasks.last();
    !tasks.iter().any(completed)
        && newest.is_some_and(|newest| match newest.status.state {
            TaskState::Shutdown | TaskState::Orphaned => true,
            state => state.is_terminal() && may_restart(service, newest, tasks, now),
        })
}

fn is_active(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete && task.status.state <= TaskState::Running
}

fn has_failed(view: &View, task: &Task) -> bool {
    task.desired_state <= TaskState::Complete
        && task.status.state != TaskState::Complete
        && (task.status.state > TaskState::Complete
            || task
                .node_id
                .is_some_and(|id| is_bad(view.node(id).map(AsRef::as_ref))))
}

#[cfg(test)]
mod tests {
    use weft_types::service::ServiceMode;

    use super::*;
    use crate::{
        fixture,
        store::{Change, Store, Transaction},
    };

    #[test]
    fn a_job_whose_places_are_all_made_asks_for_no_other_look() {
        let now = Timestamp(1);
        let job = ReplicatedJob {
            max_concurrent: Some(10_000),
            total_completions: Some(2_001),
        };
        let mut service = fixture::service(1, "sums", 0);
        service.spec.mode = ServiceMode {
            replicated_job: Some(job),
            ..ServiceMode::default()
        };
        let mut store = Store::new();
        let mut ids = IdSource::seeded(1);
        let mut changes = vec![Change::put(service.clone())];
        let mut looks = Vec::new();
        for index in 1..=3 {
            let transaction = Transaction { now, changes };
            store.apply(index, &transaction).expect("what was decided");
            let mut draft = Draft::new(&store.view(), now);
            run_replicated(&mut draft, &mut ids, &service, job);
            let outcome = draft.outcome();
            looks.push((outcome.changes.len(), outcome.wake_at.is_some()));
            changes = outcome.changes;
        }
        // Of the second batch one is left to make, though many more might run at once.
        assert_eq!(looks, [(2_000, true), (1, false), (0, false)]);
    }
}
