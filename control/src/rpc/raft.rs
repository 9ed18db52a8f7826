//! Consensus between managers: managers only.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};
use weft_proto::{
    raft::{JoinRequest, LeaveRequest, MembersReply, RaftMessage},
    service::raft_server,
};

use super::guard;
use crate::{raft::ServeError, runtime::Manager};

/// The consensus service of a manager.
#[derive(Debug)]
pub(super) struct Consensus(pub(super) Arc<Manager>);

#[async_trait]
impl raft_server::Raft for Consensus {
    async fn message(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let manager = &self.0;
        guard::manager(&request, manager)?;
        let answer = manager.take_message(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| match error {
            ServeError::Malformed { .. } | ServeError::OutOfOrder { .. } => {
                Status::invalid_argument(error.to_string())
            }
            ServeError::NotMine { .. } => Status::not_found(error.to_string()),
            ServeError::Stopped(_) => Status::unavailable(error.to_string()),
        })
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<MembersReply>, Status> {
        let manager = &self.0;
        guard::manager(&request, manager)?;
        let request = request.into_inner();
        if request.addr.parse::<std::net::SocketAddr>().is_err() {
            let text = format!("{:?} is not an address of the form ip:port", request.addr);
            return Err(Status::invalid_argument(text));
        }
        match manager.bring_in(request).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(error) => Err(guard::status(&error)),
        }
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<MembersReply>, Status> {
        let manager = &self.0;
        let caller = guard::manager(&request, manager)?;
        let request = request.into_inner();
        tracing::info!(node = %request.node, by = %caller.node, "asked to take a manager out");
        match manager.part(request.node).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(error) => Err(guard::status(&error)),
        }
    }
}
