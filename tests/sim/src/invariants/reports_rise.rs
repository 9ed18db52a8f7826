//! What a node reports of a task never falls, whatever became of its agent in between.

use std::collections::BTreeMap;

use weft_control::invariant::Broken;
use weft_types::{NodeId, TaskId, TaskState, task::TaskStatus};

const SENTENCE: &str = "what a node reports of a task never falls";

pub(super) fn check(
    reported: &mut BTreeMap<TaskId, TaskState>,
    node: NodeId,
    updates: &[(TaskId, TaskStatus)],
) -> Result<(), Broken> {
    for (task, status) in updates {
        let highest = reported.entry(*task).or_insert(status.state);
        if status.state < *highest {
            let case = format!("{node} says {} of {task} after {highest}", status.state);
            return Err(Broken::new(SENTENCE, case));
        }
        *highest = status.state;
    }
    Ok(())
}
