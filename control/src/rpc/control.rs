//! Requests that other managers forward: managers only.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};
use weft_proto::{ControlRequest, ControlResult, LogItem, LogSelector, service::control_server};

use super::guard;
use crate::runtime::{Manager, NOT_LEADER, ProposeError};

/// The control service of a manager.
#[derive(Debug)]
pub(super) struct Control(pub(super) Arc<Manager>);

#[async_trait]
impl control_server::Control for Control {
    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogItem, Status>> + Send>>;

    async fn call(
        &self,
        request: Request<ControlRequest>,
    ) -> Result<Response<ControlResult>, Status> {
        let manager = &self.0;
        guard::manager(&request, manager)?;
        manager
            .serve_forwarded(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn logs(
        &self,
        request: Request<LogSelector>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let manager = &self.0;
        guard::manager(&request, manager)?;
        match manager.gather(request.into_inner()).await {
            Ok(lines) => {
                let lines = ReceiverStream::new(lines).map(Ok);
                Ok(Response::new(Box::pin(lines)))
            }
            Err(ProposeError::NotLeader) => Err(Status::failed_precondition(NOT_LEADER)),
            Err(ProposeError::Refused(error)) => Err(guard::status(&error)),
        }
    }
}
