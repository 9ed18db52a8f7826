//! Tasks that are asked to be elsewhere: each is started there before it is stopped here.

use weft_proto::Move;
use weft_types::{TaskState, Timestamp, task::Task};

use super::{
    slot::is_meant,
    task::{Place, new_task},
};
use crate::store::{Change, Draft, IdSource, View};

/// The label of a task that was made to take another one's place on another node; its value is
/// the other one's id.
const REPLACES: &str = "weft.replaces";

/// Whether a task was made to take another's place.
pub(super) fn is_move(task: &Task) -> bool {
    task.labels.contains_key(REPLACES)
}

/// Makes the replacements that `moves` names. When one runs, the task that it replaces stops; if
/// it fails, that task runs on.
#[must_use]
pub fn carry_out(view: &View, now: Timestamp, ids: &mut IdSource, moves: &[Move]) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    for step in moves {
        let Some(old) = view.task(step.task) else {
            continue;
        };
        let Some(service) = old.service_id.and_then(|id| view.service(id)) else {
            continue;
        };
        let meant = view.tasks_of_slot(service.id, old.slot);
        if meant.filter(|task| is_meant(task)).count() != 1 {
            continue;
        }
        let place = Place::Slot(old.slot);
        let mut task = new_task(service, place, TaskState::Running, now, ids);
        task.node_id = Some(step.to);
        let replaced = old.id.to_string();
        task.labels.insert(REPLACES.to_owned(), replaced);
        draft.put(task);
    }
    draft.changes()
}
