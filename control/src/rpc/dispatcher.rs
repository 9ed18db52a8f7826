//! Sessions of nodes, and what they ask for themselves: any node with a certificate of this cluster.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use weft_proto::{
    ControlApi, ControlRequest, ControlResult,
    dispatcher::{ManagerMessage, NodeMessage, is_own},
    service::dispatcher_server,
};

use super::guard;
use crate::runtime::{Leadership, Manager, outbox};

/// The dispatcher service of a manager.
#[derive(Debug)]
pub(super) struct Dispatcher(pub(super) Arc<Manager>);

#[async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    type SessionStream = ReceiverStream<Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let manager = &self.0;
        let peer = guard::peer(&request)?;
        let (outbox, messages) = outbox();
        let answer = |message: ManagerMessage| {
            // The channel is new and holds more than this.
            let _ = outbox.try_send(Ok(message));
        };
        let view = manager.view();
        match manager.leadership() {
            Leadership::There { addr, .. } => {
                guard::member(&peer, manager.cluster_id(), &view)?;
                answer(ManagerMessage::Redirect(Some(addr)));
            }
            Leadership::Nowhere => {
                guard::member(&peer, manager.cluster_id(), &view)?;
                answer(ManagerMessage::Redirect(None));
            }
            Leadership::Here => match guard::member(&peer, manager.cluster_id(), &view) {
                Ok(caller) => {
                    let manager = Arc::clone(manager);
                    tokio::spawn(manager.run_session(
                        caller,
                        peer.addr,
                        request.into_inner(),
                        outbox,
                    ));
                }
                Err(_) if guard::is_removed(&peer, &view) => answer(ManagerMessage::Removed),
                Err(refusal) => return Err(refusal),
            },
        }
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn ask(
        &self,
        request: Request<ControlRequest>,
    ) -> Result<Response<ControlResult>, Status> {
        let manager = &self.0;
        let view = manager.view();
        let peer = guard::peer(&request)?;
        let caller = guard::member(&peer, manager.cluster_id(), &view)?;
        let request = request.into_inner();
        let owner = |task| {
            let task = view.task(task).filter(|task| task.service_id.is_none());
            task.and_then(|task| task.node_id)
        };
        if !is_own(&request, caller.node, owner) {
            return Err(Status::permission_denied(format!(
                "node {} may ask this only for itself, and only about attachments of its own",
                caller.node
            )));
        }
        Ok(Response::new(manager.call(request).await))
    }
}
