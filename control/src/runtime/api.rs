//! Stand-in until the pure API room is there.
use weft_proto::{ControlError, ControlReply, ControlRequest};
use weft_types::{TaskId, Timestamp};

use crate::store::{Change, IdSource, View};

pub(super) fn handle(
    view: &View,
    _now: Timestamp,
    ids: &mut IdSource,
    request: &ControlRequest,
) -> Result<(Vec<Change>, ControlReply), ControlError> {
    Ok(match request {
        ControlRequest::GetCluster => (vec![], ControlReply::Cluster(Box::new(view.cluster().unwrap().as_ref().clone()))),
        ControlRequest::ListNodes => (vec![], ControlReply::Nodes(view.nodes().map(|n| n.as_ref().clone()).collect())),
        ControlRequest::ListNetworks => (vec![], ControlReply::Networks(view.networks().map(|n| n.as_ref().clone()).collect())),
        ControlRequest::CreateNetwork(spec) => {
            let network = weft_types::network::Network { id: ids.id(), meta: Default::default(), spec: *spec.clone(), driver_state: None, ipam: None, vni: None, allocation_error: String::new(), pending_delete: false };
            let id = network.id.to_string();
            (vec![Change::put(network)], ControlReply::Created(id))
        }
        _ => return Err(ControlError::unknown("not yet")),
    })
}

pub(super) fn attached(_: &View, _: TaskId) -> Result<Option<ControlReply>, ControlError> {
    Ok(None)
}
