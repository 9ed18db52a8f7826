//! An update never exceeds its parallelism: no more tasks that run well are being replaced at a
//! time than it allows.

use std::collections::{BTreeMap, BTreeSet};

use weft_control::{invariant::Broken, orchestrator::Place, store::View};
use weft_types::{
    ServiceId, TaskId, TaskState,
    node::{Availability, NodeState},
    service::{Service, UpdateState},
    task::Task,
};

const SENTENCE: &str = "an update never exceeds its parallelism";

/// Replacements that do not run yet, by service.
#[derive(Debug, Default)]
pub(super) struct Updates(BTreeMap<ServiceId, BTreeSet<TaskId>>);

impl Updates {
    pub(super) fn check(&mut self, before: &View, after: &View) -> Result<(), Broken> {
        self.0.retain(|id, _| after.service(*id).is_some());
        for service in after.services() {
            let Some(old) = before.service(service.id) else {
                continue;
            };
            let under_way = self.0.entry(service.id).or_default();
            let state =
                |service: &Service| service.update_status.as_ref().map(|status| status.state);
            if old.spec_version != service.spec_version || state(old) != state(service) {
                under_way.clear();
                continue;
            }
            // What was given up, with its node or for a better one, is not waited for.
            under_way.retain(|id| {
                after.task(*id).is_some_and(|task| {
                    task.status.state < TaskState::Running
                        && task.desired_state <= TaskState::Running
                })
            });
            let config = match state(service) {
                Some(UpdateState::Updating) => service.spec.update_config.as_ref(),
                Some(UpdateState::RollbackStarted) => service.spec.rollback_config.as_ref(),
                _ => continue,
            };
            let parallelism = config.map_or(1, |config| config.parallelism);
            let fresh = after
                .tasks_of(service.id)
                .filter(|task| before.task(task.id).is_none() && task.labels.is_empty())
                .filter(|task| replaces_what_runs(before, after, service, task));
            let count = under_way.len();
            under_way.extend(fresh.map(|task| task.id));
            if under_way.len() > count && parallelism > 0 && under_way.len() as u64 > parallelism {
                let case = format!(
                    "{} replaces {} at a time instead of {parallelism}",
                    service.spec.name,
                    under_way.len()
                );
                return Err(Broken::new(SENTENCE, case));
            }
        }
        Ok(())
    }
}

/// Whether `new` takes the place of a task of an older spec that runs where it may.
fn replaces_what_runs(before: &View, after: &View, service: &Service, new: &Task) -> bool {
    let place = Place::of(service, new);
    // One that takes the place of a replacement that failed is no step of the update.
    let is_again = before.tasks_of(service.id).any(|earlier| {
        let given_up = earlier.status.state != TaskState::Running
            && earlier.desired_state <= TaskState::Running
            && after
                .task(earlier.id)
                .is_none_or(|task| task.desired_state > TaskState::Running);
        Place::of(service, earlier) == place
            && (earlier.spec_version == new.spec_version || given_up)
    });
    if new.spec_version != service.spec_version || is_again {
        return false;
    }
    let mut old = before.tasks_of(service.id);
    old.any(|old| {
        let node = old.node_id.and_then(|node| after.node(node));
        let is_well = node.is_some_and(|node| {
            node.status.state != NodeState::Down && node.spec.availability != Availability::Drain
        });
        let still = after.task(old.id);
        Place::of(service, old) == place
            && old.spec_version != service.spec_version
            && old.desired_state <= TaskState::Running
            && old.status.state == TaskState::Running
            && still.is_some_and(|still| still.status.state == TaskState::Running)
            && is_well
    })
}
