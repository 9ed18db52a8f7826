//! A slot never holds two tasks meant to run unless the order is start-first.

use std::{collections::BTreeSet, sync::Arc};

use weft_types::{ServiceId, TaskState, service::UpdateState, task::Task};

use super::Broken;
use crate::store::View;

const SENTENCE: &str = "a slot never holds two tasks meant to run unless the order is start-first";

pub(super) fn check(before: &View, after: &View) -> Result<(), Broken> {
    for service in after.services() {
        let starts_first = [&service.spec.update_config, &service.spec.rollback_config];
        let rolls_back = service.update_status.as_ref().is_some_and(|status| {
            matches!(
                status.state,
                UpdateState::RollbackStarted
                    | UpdateState::RollbackPaused
                    | UpdateState::RollbackCompleted
            )
        });
        let starts_first = starts_first[usize::from(rolls_back)]
            .as_ref()
            .is_some_and(|config| config.order == "start-first");
        if starts_first || service.spec.mode.replicated.is_none() {
            continue;
        }
        let old = meant_twice(before, service.id);
        for slot in meant_twice(after, service.id) {
            // An update of the other order may have left such a pair behind.
            if !old.contains(&slot) {
                let name = &service.spec.name;
                return Err(Broken::new(SENTENCE, format!("{name}.{slot} does now")));
            }
        }
    }
    Ok(())
}

fn meant_twice(view: &View, service: ServiceId) -> BTreeSet<u64> {
    // A move is two tasks for a while, on purpose.
    let meant =
        |task: &&Arc<Task>| task.desired_state <= TaskState::Running && task.labels.is_empty();
    let mut seen = BTreeSet::new();
    let tasks = view.tasks_of(service).filter(meant);
    tasks
        .map(|task| task.slot)
        .filter(|slot| !seen.insert(*slot))
        .collect()
}
