//! Who may call.

use tonic::{Code, Request, Status};
use weft_proto::{ControlError, ErrorCode};
use weft_types::{ClusterId, node::Role};

use super::Peer;
use crate::{ca::Caller, runtime::Manager, store::View};

/// Who is at the other end.
///
/// # Errors
/// When the connection did not come through our own accept loop, which never happens.
pub fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .cloned()
        .ok_or_else(|| Status::internal("connection without a peer"))
}

/// The caller, who must be a node of `cluster` that was not removed.
///
/// # Errors
/// `Unauthenticated` without a certificate, `PermissionDenied` with the wrong one.
pub fn member(peer: &Peer, cluster: ClusterId, view: &View) -> Result<Caller, Status> {
    let caller = peer
        .caller
        .ok_or_else(|| Status::unauthenticated("this call needs a node's certificate"))?;
    if caller.cluster != cluster {
        return Err(Status::permission_denied(format!(
            "node {} belongs to cluster {}, not to {cluster}",
            caller.node, caller.cluster
        )));
    }
    if is_removed(peer, view) {
        return Err(Status::permission_denied(format!(
            "node {} was removed from the cluster",
            caller.node
        )));
    }
    Ok(caller)
}

/// Who asks `asked` something, which must be another manager of its cluster.
///
/// # Errors
/// As [`member`], and `PermissionDenied` for a worker.
pub fn manager<T>(request: &Request<T>, asked: &Manager) -> Result<Caller, Status> {
    let view = asked.view();
    let caller = member(&peer(request)?, asked.cluster_id(), &view)?;
    let demoted = view
        .node(caller.node)
        .is_some_and(|node| node.role == Role::Worker);
    if caller.role == Role::Manager && !demoted {
        Ok(caller)
    } else {
        Err(Status::permission_denied(format!(
            "node {} is a worker; this call is for managers",
            caller.node
        )))
    }
}

/// Whether the caller is a node that was removed.
#[must_use]
pub fn is_removed(peer: &Peer, view: &View) -> bool {
    match (peer.caller, view.cluster()) {
        (Some(caller), Some(cluster)) => cluster.blacklist.contains(&caller.node),
        _ => false,
    }
}

/// A refusal as gRPC carries it.
#[must_use]
pub fn status(error: &ControlError) -> Status {
    let code = match error.code {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::Unimplemented => Code::Unimplemented,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Aborted => Code::Aborted,
        ErrorCode::Unknown => Code::Unknown,
    };
    Status::new(code, error.message.clone())
}
