//! A task that waits says why.

use weft_types::TaskState;

use super::Broken;
use crate::store::View;

const SENTENCE: &str = "a task that waits says why";

pub(super) fn check(view: &View) -> Result<(), Broken> {
    for task in view.tasks_waiting() {
        // Only tasks that the loops have looked at, which is after one commit.
        let looked_at = task.meta.version.index < view.index();
        if looked_at && task.desired_state <= TaskState::Running && task.status.err.is_empty() {
            let case = format!("{} is {} without a word", task.name, task.status.state);
            return Err(Broken::new(SENTENCE, case));
        }
    }
    Ok(())
}
