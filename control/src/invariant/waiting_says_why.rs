//! A task that waits says why.

use weft_types::TaskState;

use super::Broken;
use crate::store::View;

const SENTENCE: &str = "a task that waits says why";

/// Commits in which the loops have had their turn.
const PATIENCE: u64 = 16;

pub(super) fn check(view: &View) -> Result<(), Broken> {
    for task in view.tasks_waiting() {
        // Only tasks that the loops have looked at: other writes may come before theirs.
        let looked_at = task.meta.version.index + PATIENCE < view.index();
        if looked_at && task.desired_state <= TaskState::Running && task.status.err.is_empty() {
            let case = format!("{} is {} without a word", task.name, task.status.state);
            return Err(Broken::new(SENTENCE, case));
        }
    }
    Ok(())
}
