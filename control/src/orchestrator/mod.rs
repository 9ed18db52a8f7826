//! Services to tasks: creates, replaces and removes tasks, nothing else.
//!
//! PURE. Everything it remembers is in the objects, so that any leader goes on in the middle.

pub mod constraint;
mod fault;
mod global;
mod job;
mod moving;
mod reaper;
mod replicated;
mod restart;
mod slot;
mod task;
mod update;

pub use fault::faults;
pub use moving::carry_out;
pub use restart::{delay, may_restart};
pub use task::{Place, is_dirty, is_live, occupies, template};

use std::collections::BTreeMap;

use weft_types::{ServiceId, Timestamp, service::Service};

use crate::store::{Draft, IdSource, Outcome, Scope, View};

/// What must change so that every service has the tasks it wishes.
#[must_use]
pub fn reconcile(view: &View, now: Timestamp, ids: &mut IdSource) -> Outcome {
    let mut draft = Draft::new(view, now);
    let mut wakes = Wakes::default();
    let left = run(&mut draft, ids, &Scope::all(), &mut wakes);
    if !left.is_empty() {
        draft.wake_at(now);
    }
    if let Some(at) = wakes.earliest() {
        draft.wake_at(at);
    }
    draft.outcome()
}

/// When which service wants to be looked at again although nothing changed.
#[derive(Debug, Default)]
pub(crate) struct Wakes(BTreeMap<ServiceId, Timestamp>);

impl Wakes {
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.0.values().min().copied()
    }

    /// The services whose time has come.
    pub(crate) fn due(&self, now: Timestamp) -> impl Iterator<Item = ServiceId> + '_ {
        let due = self.0.iter().filter(move |(_, at)| **at <= now);
        due.map(|(id, _)| *id)
    }
}

/// Objects in one transaction after which the other services wait for the next: an entry of the
/// log must fit into a message between managers.
const BATCH: usize = 2_000;

/// The same, as a part of a larger thought. Each service looked at sets its wake anew. Those that
/// there was no room for are returned.
pub(crate) fn run(
    draft: &mut Draft,
    ids: &mut IdSource,
    scope: &Scope,
    wakes: &mut Wakes,
) -> Vec<ServiceId> {
    constraint::enforce(draft, scope);
    let services: Vec<ServiceId> = if scope.all {
        draft.services().map(|service| service.id).collect()
    } else {
        scope.services.iter().copied().collect()
    };
    // What was asked so far concerns nobody in particular.
    let general = draft.take_wake();
    let mut services = services.into_iter();
    while draft.touched() < BATCH
        && let Some(id) = services.next()
    {
        if let Some(service) = draft.service(id).cloned() {
            run_service(draft, ids, &service);
        }
        reaper::run(draft, id);
        match draft.take_wake() {
            Some(at) => wakes.0.insert(id, at),
            None => wakes.0.remove(&id),
        };
    }
    if scope.all {
        reaper::run_strays(draft);
    }
    if let Some(at) = general {
        draft.wake_at(at);
    }
    services.collect()
}

fn run_service(draft: &mut Draft, ids: &mut IdSource, service: &Service) {
    if service.pending_delete {
        return;
    }
    let mode = &service.spec.mode;
    if mode.global.is_some() {
        global::run(draft, ids, service);
    } else if let Some(job) = mode.replicated_job {
        job::run_replicated(draft, ids, service, job);
    } else if mode.global_job.is_some() {
        job::run_global(draft, ids, service);
    } else {
        replicated::run(draft, ids, service, service.replicas().unwrap_or(1));
    }
}
