//! No ring points to a task that does not exist or does not run, by the revision it is of.

use weft_control::{invariant::Broken, store::View};
use weft_types::{
    NodeId, TaskState,
    netstate::{EndpointPhase, NetState},
};

const SENTENCE: &str = "no ring points to a task that does not exist";

pub(super) fn check(node: NodeId, state: &NetState, view: &View) -> Result<(), Broken> {
    for endpoint in state.endpoints.values() {
        let broken = |what: &str| {
            let case = format!(
                "{} of {node}, revision {}, {what}",
                endpoint.name, state.revision
            );
            Err(Broken::new(SENTENCE, case))
        };
        let Some(task) = view.task(endpoint.task) else {
            return broken("is no task");
        };
        if task.node_id != Some(endpoint.node) {
            return broken("is on another node");
        }
        if endpoint.phase == EndpointPhase::Serving && task.status.state != TaskState::Running {
            return broken("serves and does not run");
        }
    }
    Ok(())
}
