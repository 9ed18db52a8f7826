//! Going away without a failed request: a node that leaves, and tasks whose last flows end.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use weft_proto::dispatcher::NodeMessage;

use super::{Input, Runtime};

/// How long a leaving node waits for its tasks to be taken out of the others' rings and replaced.
const HAND_OVER: Duration = Duration::from_secs(20);
/// The same once no manager listens: others notice by themselves that it has gone.
const HAND_OVER_ALONE: Duration = Duration::from_secs(2);
/// Between two counts of the flows that tasks being withdrawn still have.
const DRAIN_PERIOD: Duration = Duration::from_millis(200);

/// A node on its way out.
pub(super) struct Leaving {
    /// Its tasks are stopped then, handed over or not.
    at: Instant,
    /// They were told to stop.
    is_done: bool,
}

impl Leaving {
    /// When its tasks are stopped, unless they were told so already.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.is_done).then_some(self.at)
    }
}

impl Runtime {
    pub(super) fn begin_to_leave(&mut self) {
        let is_told = self.session.is_up();
        self.send(NodeMessage::Leave);
        let patience = if is_told { HAND_OVER } else { Duration::ZERO };
        self.leaving = Some(Leaving {
            at: Instant::now() + patience,
            is_done: false,
        });
    }

    /// Brings the end nearer when nothing is left to hand over, or nobody listens.
    pub(super) fn hurry_leaving(&mut self) {
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| !leaving.is_done) else {
            return;
        };
        let mut machines = self.worker.machines();
        let now = Instant::now();
        if machines.all(|(_, machine)| machine.status().state.is_terminal()) {
            leaving.at = now;
        } else if self.link.is_none() {
            leaving.at = leaving.at.min(now + HAND_OVER_ALONE);
        }
    }

    pub(super) fn leave_when_due(&mut self, now: Instant) {
        if let Some(leaving) = &mut self.leaving
            && !leaving.is_done
            && now >= leaving.at
        {
            leaving.is_done = true;
            self.forget_all_tasks();
        }
    }

    /// Sees to it that the flows of draining tasks are counted again.
    pub(super) fn plan_next_count(&mut self) {
        let mut machines = self.worker.machines();
        if self.drain_at.is_none() && machines.any(|(_, machine)| machine.is_draining()) {
            self.drain_at = Some(Instant::now() + DRAIN_PERIOD);
        }
    }

    pub(super) fn forget_all_tasks(&mut self) {
        let everything = crate::worker::Assignment {
            complete: true,
            ..crate::worker::Assignment::default()
        };
        let outcome = self.worker.assign(everything, self.clock.now());
        self.carry_out(outcome);
    }

    pub(super) fn count_flows(&mut self) {
        let draining = self
            .worker
            .machines()
            .filter(|(_, machine)| machine.is_draining());
        let draining: Vec<_> = draining
            .map(|(_, machine)| machine.task().clone())
            .collect();
        if draining.is_empty() {
            return;
        }
        let (wiring, inputs) = (Arc::clone(&self.config.wiring), self.inputs.clone());
        tokio::spawn(async move {
            let mut flows = Vec::new();
            for task in &draining {
                flows.push((task.id, wiring.flows(task).await));
            }
            // The loop has ended: nobody wants to know.
            let _sent = inputs.send(Input::Flows(flows)).await;
        });
    }
}
