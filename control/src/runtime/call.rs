//! Answering requests: here if this manager leads, else by asking the one that does.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{broadcast, mpsc},
    time::timeout,
};
use tonic::Status;
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest, ControlResult, ErrorCode, Event,
    LogItem, LogSelector, ManagerStanding, Tunnel, dial,
};
use weft_types::{NodeId, TaskId};

use super::{
    Forwarded, Leadership, Manager, NOT_LEADER, clock,
    propose::ProposeError,
    route::{NO_LEADER, forwarded, no_leader},
    stopped,
};
use crate::{api, store::IdSource};

/// How long a request may take.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// Whether asking twice is as good as asking once.
fn only_reads(request: &ControlRequest) -> bool {
    use ControlRequest as R;
    matches!(
        request,
        R::GetCluster
            | R::GetUnlockKey
            | R::ListNodes
            | R::GetNode(_)
            | R::ListServices
            | R::GetService(_)
            | R::ListTasks { .. }
            | R::GetTask(_)
            | R::ListNetworks
            | R::GetNetwork(_)
            | R::ListSecrets
            | R::GetSecret(_)
            | R::ListConfigs
            | R::GetConfig(_)
            | R::Tunnel { .. }
    )
}

impl Manager {
    /// Serves a request as the leader.
    pub(crate) async fn serve(
        &self,
        request: &ControlRequest,
    ) -> Result<ControlReply, ProposeError> {
        if let ControlRequest::Tunnel { node, ask } = request {
            return self.pass_on(*node, ask);
        }
        let reply = if only_reads(request) {
            let view = self.fresh_view().await?;
            // A source that nobody else waits for: a list takes long where there is much.
            let mut ids = IdSource::new(rand::random());
            let (_, reply) = api::handle(&view, clock::now(), &mut ids, request)?;
            reply
        } else {
            self.propose(|view, now, ids| {
                self.may_change(view, request)?;
                api::handle(view, now, ids, request)
            })
            .await?
        };
        self.after(request).await;
        match (request, reply) {
            (ControlRequest::AttachNetwork { .. }, ControlReply::Created(task)) => {
                self.attached(task).await
            }
            (_, ControlReply::Nodes(mut nodes)) => {
                self.fold_in(&mut nodes);
                Ok(ControlReply::Nodes(nodes))
            }
            (_, ControlReply::Cluster(mut cluster)) => {
                cluster.rotation = None;
                Ok(ControlReply::Cluster(cluster))
            }
            (_, reply) => Ok(reply),
        }
    }

    /// Waits until the allocator has given an attachment its addresses.
    async fn attached(&self, task: String) -> Result<ControlReply, ProposeError> {
        let Ok(id) = task.parse::<TaskId>() else {
            return Ok(ControlReply::Created(task));
        };
        let mut views = self.replica.follow();
        loop {
            let view = views.borrow_and_update().clone();
            if let Some(reply) = api::attached(&view, id)? {
                return Ok(reply);
            }
            if views.changed().await.is_err() {
                return Err(ProposeError::NotLeader);
            }
        }
    }

    /// Serves a request of another manager, which must be the leader's business.
    pub(crate) async fn serve_forwarded(
        &self,
        request: ControlRequest,
    ) -> Result<ControlResult, Status> {
        match timeout(CALL_LIMIT, self.serve(&request)).await {
            Ok(Ok(reply)) => Ok(Ok(reply)),
            Ok(Err(ProposeError::Refused(error))) => Ok(Err(error)),
            Ok(Err(ProposeError::NotLeader)) => Err(Status::failed_precondition(NOT_LEADER)),
            Err(_) => Ok(Err(too_late())),
        }
    }
}

fn too_late() -> ControlError {
    ControlError::new(ErrorCode::DeadlineExceeded, "context deadline exceeded")
}

#[async_trait]
impl ControlApi for Manager {
    async fn call(&self, request: ControlRequest) -> ControlResult {
        let repeatable = only_reads(&request);
        let answer = self.route(
            repeatable,
            || self.serve(&request),
            |addr| {
                let request = request.clone();
                async move {
                    let mut client = dial::control(self.peers.control(addr));
                    match forwarded(client.call(request).await, repeatable) {
                        Forwarded::Done(answer) => Forwarded::Done(answer.and_then(|inner| inner)),
                        Forwarded::Again => Forwarded::Again,
                    }
                }
            },
        );
        timeout(CALL_LIMIT, answer)
            .await
            .unwrap_or_else(|_| Err(too_late()))
    }

    async fn watch(&self) -> broadcast::Receiver<Arc<Event>> {
        self.replica.events()
    }

    async fn logs(&self, selector: LogSelector) -> Result<mpsc::Receiver<LogItem>, ControlError> {
        if !selector.stdout && !selector.stderr {
            return Err(ControlError::unknown(
                "at least one stream must be specified",
            ));
        }
        let Some(me) = self.me.upgrade() else {
            return Err(no_leader());
        };
        let answer = self.route(
            true,
            || me.gather(selector.clone()),
            |addr| {
                let selector = selector.clone();
                async move {
                    let mut client = dial::control(self.peers.control(addr));
                    match forwarded(client.logs(selector).await, true) {
                        Forwarded::Again => Forwarded::Again,
                        Forwarded::Done(Err(error)) => Forwarded::Done(Err(error)),
                        Forwarded::Done(Ok(mut stream)) => {
                            let (reader, lines) = mpsc::channel(64);
                            tokio::spawn(async move {
                                loop {
                                    let (item, last) = match stream.message().await {
                                        Ok(Some(item)) => (item, false),
                                        Ok(None) => return,
                                        Err(status) => {
                                            let why = status.message();
                                            let text = format!("the log stream broke: {why}");
                                            (LogItem::Warning(text), true)
                                        }
                                    };
                                    if reader.send(item).await.is_err() || last {
                                        return;
                                    }
                                }
                            });
                            Forwarded::Done(Ok(lines))
                        }
                    }
                }
            },
        );
        timeout(CALL_LIMIT, answer)
            .await
            .unwrap_or_else(|_| Err(too_late()))
    }

    async fn tunnel(&self, node: NodeId) -> Result<Tunnel, ControlError> {
        self.dig(node).await
    }

    async fn standing(&self) -> ManagerStanding {
        let leader = match self.leadership() {
            Leadership::Here if self.has_majority() => Some(self.node),
            Leadership::There { node, .. } => Some(node),
            Leadership::Here | Leadership::Nowhere => None,
        };
        ManagerStanding {
            leads: leader == Some(self.node),
            leader,
            error: match (self.metrics().running_state, leader) {
                (Err(fatal), _) => stopped(&fatal),
                (Ok(()), Some(_)) => String::new(),
                (Ok(()), None) => format!("rpc error: code = Unknown desc = {NO_LEADER}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::PoisonError};

    use super::*;
    use crate::runtime::{InitOptions, ManagerConfig};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_reads_does_not_wait_for_who_decides() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let free = listener.local_addr().expect("an address");
        drop(listener);
        let config = ManagerConfig {
            state_dir: directory.path().to_owned(),
            listen: free,
            advertise: free,
        };
        let init = InitOptions::default();
        let manager = Manager::bootstrap(config, init).await.expect("a manager");
        let reader = Arc::clone(&manager);
        let (said, heard) = std::sync::mpsc::channel();
        let answer = {
            // As the one does whose proposal is being decided.
            let _held = manager.ids.lock().unwrap_or_else(PoisonError::into_inner);
            tokio::spawn(async move {
                said.send(reader.call(ControlRequest::ListServices).await)
                    .ok()
            });
            heard.recv_timeout(Duration::from_secs(10))
        };
        manager.shutdown().await;
        let answer = answer.expect("an answer while the ids are held");
        assert!(matches!(answer, Ok(ControlReply::Services(_))));
    }
}
