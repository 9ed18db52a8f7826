//! All loops at once, until they have nothing to say.

use weft_types::Timestamp;

use crate::{
    allocator, orchestrator, scheduler,
    store::{Draft, IdSource, Outcome, View},
};

/// Rounds after which a thought is committed as it is; the next one goes on from there.
const ROUNDS: usize = 8;

/// What must change so that allocator, orchestrator and scheduler all are content with `view`.
///
/// One transaction: a service created is allocated, has its tasks and their nodes in one commit.
/// Applied to its own result it answers no changes.
#[must_use]
pub fn settle(view: &View, now: Timestamp, ids: &mut IdSource) -> Outcome {
    let mut draft = Draft::new(view, now);
    for _ in 0..ROUNDS {
        let before = draft.edits();
        allocator::run(&mut draft, ids);
        orchestrator::run(&mut draft, ids);
        allocator::run(&mut draft, ids);
        scheduler::run(&mut draft, ids);
        if draft.edits() == before {
            return draft.outcome();
        }
    }
    draft.wake_at(now);
    draft.outcome()
}
