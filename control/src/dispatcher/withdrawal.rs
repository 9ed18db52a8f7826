//! When a task may get its stop signal: nobody chooses it any more.

use std::{collections::BTreeMap, time::Duration};

use weft_types::{NodeId, TaskState, Timestamp, node::NodeState, task::Task};

use crate::store::{Draft, Outcome, View};

/// Docker's grace period when a service names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What live nodes have said of the network state they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    /// Per node that has a session: the index of a view whose projection its kernel holds. For a
    /// node that acknowledged the last state sent to it, that is the last view projected for it,
    /// whether or not that view changed anything for it.
    pub applied: BTreeMap<NodeId, u64>,
}

/// Sets `withdrawn` on tasks that are to stop, once every live node has acknowledged that it does
/// not choose them. Their own nodes then let their flows end.
///
/// Bounded: nodes are waited for during the task's grace period at most, those without a session
/// until they are down.
#[must_use]
pub fn withdraw(view: &View, now: Timestamp, acks: &Acks) -> Outcome {
    let mut draft = Draft::new(view, now);
    let leaving: Vec<_> = view.tasks_leaving().cloned().collect();
    for task in leaving {
        match due(view, now, acks, &task) {
            Due::Now => draft.edit_task(task.id, |task| task.withdrawn = true),
            Due::At(moment) => draft.wake_at(moment),
        }
    }
    draft.outcome()
}

enum Due {
    Now,
    /// At the latest.
    At(Timestamp),
}

fn due(view: &View, now: Timestamp, acks: &Acks, task: &Task) -> Due {
    let grace = task.spec.container_spec.as_ref();
    let grace = grace.and_then(|container| container.stop_grace_period);
    let grace = grace
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map_or(DEFAULT_GRACE, Duration::from_nanos);
    let was_chosen = task.status.state == TaskState::Running
        && task
            .networks_attachments
            .iter()
            .any(|attachment| !attachment.addresses.is_empty());
    if !was_chosen {
        return Due::Now;
    }
    let decided = task.meta.version.index;
    // A new leader has heard of nobody yet: a node that it knows nothing of may choose the task.
    let acknowledged = view
        .nodes()
        .filter(|node| node.status.state != NodeState::Down)
        .all(|node| {
            acks.applied
                .get(&node.id)
                .is_some_and(|index| *index >= decided)
        });
    let latest = task.desired_since.after(grace);
    if acknowledged || latest <= now {
        Due::Now
    } else {
        Due::At(latest)
    }
}
