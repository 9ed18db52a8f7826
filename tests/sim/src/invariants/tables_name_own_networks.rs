//! A node's tables name only networks that it takes part in: those of its tasks and the ingress
//! network.

use weft_control::{invariant::Broken, store::View};
use weft_types::{NodeId, netstate::NetState};

const SENTENCE: &str = "a node's tables name only networks that it takes part in";

pub(super) fn check(node: NodeId, state: &NetState, view: &View) -> Result<(), Broken> {
    for (id, network) in &state.networks {
        let is_part = network.ingress
            || view
                .tasks_on_node(node)
                .filter(|task| !task.status.state.is_terminal())
                .any(|task| {
                    let mut attachments = task.networks_attachments.iter();
                    attachments.any(|attachment| attachment.network_id == *id)
                });
        if !is_part {
            let case = format!("{node} has {} in revision {}", network.name, state.revision);
            return Err(Broken::new(SENTENCE, case));
        }
    }
    for endpoint in state.endpoints.values() {
        if !state.networks.contains_key(&endpoint.network) {
            let case = format!("{node} has {} without its network", endpoint.name);
            return Err(Broken::new(SENTENCE, case));
        }
    }
    Ok(())
}
