//! Gives out what there is only one of: VNIs, subnets, VIPs, addresses, published ports.
//!
//! PURE. What is taken is read from the store's ledger, so the allocator has no state of its own
//! and a new leader goes on where the last one stopped. What cannot be given is said on the object
//! (`allocation_error`, a task's `status.err`) and tried again on every run.

mod endpoint;
mod network;
mod task;

pub(crate) use endpoint::DYNAMIC_PORTS;
pub use endpoint::ingress_ports;
pub(crate) use network::NEIGHBOURS_V4;
pub use network::{default_pool, subnets};
pub use task::{AttachError, attach};

use weft_types::Timestamp;

use crate::store::{Draft, IdSource, Outcome, Scope, View};

/// Gives every network, service and new task what it needs.
#[must_use]
pub fn reconcile(view: &View, now: Timestamp, ids: &mut IdSource) -> Outcome {
    let mut draft = Draft::new(view, now);
    run(&mut draft, ids, &Scope::all());
    draft.outcome()
}

/// The same, as a part of a larger thought.
pub(crate) fn run(draft: &mut Draft, _ids: &mut IdSource, scope: &Scope) {
    network::run(draft);
    endpoint::run(draft, scope);
    task::run(draft);
}
