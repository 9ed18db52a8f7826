//! No backend gets its stop signal while a live node may still choose it.
//!
//! Waiting is bounded by the grace period of the task. A node that was down and is back counts
//! again once it has taken the network over.

use std::{collections::BTreeMap, time::Duration};

use weft_control::invariant::Broken;
use weft_types::{TaskId, netstate::EndpointPhase};

use crate::{Millis, host::Host, wire::HostId};

const SENTENCE: &str = "no backend gets its stop signal while a live node may still choose it";

/// Docker's grace period, which all services here have.
const GRACE: Millis = 10_000;

/// The same, as leaders measure it.
pub(super) const GRACE_PERIOD: Duration = Duration::from_millis(GRACE);

/// A program was told to stop.
pub(super) struct Stop {
    pub(super) host: HostId,
    pub(super) task: TaskId,
    pub(super) name: String,
    pub(super) at: Millis,
}

pub(super) fn check<'a>(
    stop: &Stop,
    since: Option<Millis>,
    hosts: impl Iterator<Item = &'a Host>,
    stale: &BTreeMap<HostId, u64>,
) -> Result<(), Broken> {
    // Nobody told it to stop: its node did by itself.
    let Some(since) = since else { return Ok(()) };
    if since + GRACE <= stop.at {
        return Ok(());
    }
    for host in hosts {
        if host.agent.is_none() || stale.contains_key(&host.id) {
            continue;
        }
        let chosen = host
            .machine
            .kernel
            .state
            .endpoints
            .values()
            .any(|endpoint| endpoint.task == stop.task && endpoint.phase == EndpointPhase::Serving);
        if chosen {
            let case = format!(
                "{} on host {} stops {} ms after it was to leave, host {} may choose it by revision {}",
                stop.name,
                stop.host,
                stop.at - since,
                host.id,
                host.machine.kernel.state.revision
            );
            return Err(Broken::new(SENTENCE, case));
        }
    }
    Ok(())
}
