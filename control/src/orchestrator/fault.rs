//! Which tasks failed where of late.
//!
//! Each task remembers those that failed in its place before it: history keeps only a few, and of
//! a service of one task never as many as make a node avoided.

use std::time::Duration;

use weft_types::{
    TaskState, Timestamp,
    task::{Fault, Task},
};

/// Failures older than this are forgiven, as in Swarm.
const WINDOW: Duration = Duration::from_secs(5 * 60);

/// Failures that a place remembers at most, the newest.
const KEPT: usize = 16;

/// The failures of late that `task` tells of: those before it, and its own.
pub fn faults(task: &Task, now: Timestamp) -> impl Iterator<Item = Fault> + '_ {
    let has_failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
    let own = task.node_id.filter(|_| has_failed).map(|node| Fault {
        task: task.id,
        node,
        at: task.status.timestamp,
    });
    let all = task.faults.iter().copied().chain(own);
    all.filter(move |fault| now.since(fault.at) < WINDOW)
}

/// What a task of the same spec remembers that takes the place of `task`.
pub(super) fn inherited(task: &Task, now: Timestamp) -> Vec<Fault> {
    let mut faults: Vec<Fault> = faults(task, now).collect();
    faults.drain(..faults.len().saturating_sub(KEPT));
    faults
}
