//! Services to tasks: creates, replaces and removes tasks, nothing else.
//!
//! PURE. Everything it remembers is in the objects, so that any leader goes on in the middle.

pub mod constraint;
mod global;
mod job;
mod reaper;
mod replicated;
mod restart;
mod slot;
mod task;
mod update;

pub use restart::{delay, may_restart};
pub use task::{Place, is_dirty, is_live, occupies, template};

use weft_types::{ServiceId, Timestamp};

use crate::store::{Draft, IdSource, Outcome, View};

/// What must change so that every service has the tasks it wishes.
#[must_use]
pub fn reconcile(view: &View, now: Timestamp, ids: &mut IdSource) -> Outcome {
    let mut draft = Draft::new(view, now);
    run(&mut draft, ids);
    draft.outcome()
}

/// The same, as a part of a larger thought.
pub(crate) fn run(draft: &mut Draft, ids: &mut IdSource) {
    constraint::enforce(draft);
    let services: Vec<ServiceId> = draft.services().map(|service| service.id).collect();
    for id in services {
        let Some(service) = draft.service(id).cloned() else {
            continue;
        };
        if service.pending_delete {
            continue;
        }
        let mode = &service.spec.mode;
        if mode.global.is_some() {
            global::run(draft, ids, &service);
        } else if let Some(job) = mode.replicated_job {
            job::run_replicated(draft, ids, &service, job);
        } else if mode.global_job.is_some() {
            job::run_global(draft, ids, &service);
        } else {
            replicated::run(draft, ids, &service, service.replicas().unwrap_or(1));
        }
    }
    reaper::run(draft);
}
