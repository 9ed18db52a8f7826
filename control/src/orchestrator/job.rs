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
    let active = |tasks: &Vec<Arc<Task>>| {
        let completed = |task: &Arc<Task>| task.status.state == TaskState::Complete;
        !tasks.iter().any(completed) && tasks.iter().any(|task| is_active(task))
    };
    let running = places.values().filter(|tasks| active(tasks)).count() as u64;
    // A place that was given up is not filled again, and there is nothing to look for.
    let create = concurrent
        .saturating_sub(running)
        .min(total.saturating_sub(places.len() as u64));
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
    use weft_types::{service::ServiceMode, task::RestartPolicy};

    use super::*;
    use crate::{
        fixture,
        store::{Change, Store, Transaction},
    };

    /// A job of 2,001 runs, and what became of it after each look.
    struct Run {
        service: Service,
        job: ReplicatedJob,
        store: Store,
        ids: IdSource,
        index: u64,
    }

    impl Run {
        fn new() -> Self {
            let job = ReplicatedJob {
                max_concurrent: Some(10_000),
                total_completions: Some(2_001),
            };
            let mut service = fixture::service(1, "sums", 0);
            service.spec.mode = ServiceMode {
                replicated_job: Some(job),
                ..ServiceMode::default()
            };
            service.spec.task_template.restart_policy = Some(RestartPolicy {
                condition: "none".to_owned(),
                ..RestartPolicy::default()
            });
            let mut run = Self {
                job,
                store: Store::new(),
                ids: IdSource::seeded(1),
                index: 0,
                service,
            };
            run.commit(vec![Change::put(run.service.clone())]);
            run
        }

        fn commit(&mut self, changes: Vec<Change>) {
            let now = Timestamp(1);
            self.index += 1;
            let transaction = Transaction { now, changes };
            self.store
                .apply(self.index, &transaction)
                .expect("what was decided");
        }

        /// How much a look changes, and whether it asks for another at once.
        fn look(&mut self) -> (usize, bool) {
            let mut draft = Draft::new(&self.store.view(), Timestamp(1));
            run_replicated(&mut draft, &mut self.ids, &self.service, self.job);
            let outcome = draft.outcome();
            let seen = (outcome.changes.len(), outcome.wake_at.is_some());
            self.commit(outcome.changes);
            seen
        }
    }

    #[test]
    fn a_job_whose_places_are_all_made_asks_for_no_other_look() {
        let mut run = Run::new();
        // Of the second batch one is left to make, though many more might run at once.
        assert_eq!(
            [run.look(), run.look(), run.look()],
            [(2_000, true), (1, false), (0, false)]
        );
    }

    #[test]
    fn a_job_whose_places_are_all_given_up_asks_for_no_other_look() {
        let mut run = Run::new();
        while run.look().0 > 0 {}
        let mut draft = Draft::new(&run.store.view(), Timestamp(1));
        let tasks: Vec<_> = draft.tasks_of(run.service.id).map(|task| task.id).collect();
        assert_eq!(tasks.len(), 2_001);
        for id in tasks {
            draft.edit_task(id, |task| task.status.state = TaskState::Failed);
        }
        run.commit(draft.changes());
        run.look();
        assert_eq!(run.look(), (0, false));
    }
}
