//! Where nodes saw their tasks.

use weft_types::{NodeId, TaskId, TaskState, Timestamp, task::TaskStatus};

use crate::store::{Change, Draft, View};

/// Merges a node's reports. Only its own tasks, and a state that was seen only rises: older news
/// and news of others' tasks are dropped.
#[must_use]
pub fn status(
    view: &View,
    now: Timestamp,
    node: NodeId,
    updates: &[(TaskId, TaskStatus)],
) -> Vec<Change> {
    let mut draft = Draft::new(view, now);
    for (id, status) in updates {
        let is_news = draft.task(*id).is_some_and(|task| {
            task.node_id == Some(node)
                && status.state >= task.status.state
                && status.state != TaskState::Remove
                && status.state != TaskState::Orphaned
        });
        if !is_news {
            continue;
        }
        draft.edit_task(*id, |task| {
            let mut status = status.clone();
            // A node's clock may be ahead; what loops compare must not lie in the future.
            status.timestamp = status.timestamp.max(task.status.timestamp).min(now);
            if status.state == TaskState::Running && task.running_since.is_zero() {
                task.running_since = status.timestamp;
            }
            // A container is remembered after its end even if the last report leaves it out.
            if status.container_status.is_none() {
                status
                    .container_status
                    .clone_from(&task.status.container_status);
            }
            // The same news again is no news.
            let repeated = TaskStatus {
                timestamp: task.status.timestamp,
                ..status.clone()
            };
            if repeated != task.status {
                task.status = status;
            }
        });
    }
    draft.changes()
}
