//! Answering requests: here if this manager leads, else by asking the one that does.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use openraft::ServerState;
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, timeout},
};
use tonic::{Code, Status};
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest, ControlResult, ErrorCode, Event,
    LogItem, LogSelector, ManagerStanding, dial,
};
use weft_types::{NodeId, TaskId};

use super::{Manager, clock, propose::ProposeError};
use crate::api;

/// How long a request may take.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// How long a request waits for somebody to lead.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// A leader that was not heard of for longer than this leads no more.
const LEADER_SILENCE: Duration = Duration::from_secs(2);

/// Pause between two looks at who leads.
const LOOK: Duration = Duration::from_millis(50);

/// Docker's words when nobody leads.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
                         are online. Make sure more than half of the managers are online.";

/// The text by which a manager says that another one leads.
pub(crate) const NOT_LEADER: &str = "this manager does not lead";

/// Who leads, as far as this manager knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// This manager, if it still has its majority.
    Here,
    /// Another one.
    There {
        /// Which node.
        node: NodeId,
        /// `ip:port`.
        addr: String,
    },
    /// Nobody that is known.
    Nowhere,
}

/// What came of asking another manager.
pub(crate) enum Forwarded<T> {
    /// An answer, or a refusal.
    Done(Result<T, ControlError>),
    /// It was not done there, for sure: ask again who leads.
    Again,
}

fn no_leader() -> ControlError {
    ControlError::unavailable(NO_LEADER)
}

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
    )
}

/// Whether the request behind `status` never left this manager.
fn never_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Sorts out what came back from another manager.
pub(crate) fn forwarded<T>(
    answer: Result<tonic::Response<T>, Status>,
    repeatable: bool,
) -> Forwarded<T> {
    match answer {
        Ok(answer) => Forwarded::Done(Ok(answer.into_inner())),
        Err(status)
            if status.code() == Code::FailedPrecondition && status.message() == NOT_LEADER =>
        {
            Forwarded::Again
        }
        Err(status) if never_sent(&status) => Forwarded::Again,
        Err(status) if repeatable && matches!(status.code(), Code::Unavailable | Code::Unknown) => {
            Forwarded::Again
        }
        Err(status) => Forwarded::Done(Err(dial::from_status(&status))),
    }
}

impl Manager {
    /// Who leads.
    pub(crate) fn leadership(&self) -> Leadership {
        let metrics = self.metrics();
        if metrics.running_state.is_err() {
            return Leadership::Nowhere;
        }
        if metrics.state == ServerState::Leader {
            return Leadership::Here;
        }
        let leader = metrics
            .current_leader
            .filter(|leader| *leader != metrics.id && self.inbox.silence() < LEADER_SILENCE);
        match leader.and_then(|leader| metrics.membership_config.get_node(&leader)) {
            Some(member) => Leadership::There {
                node: member.node,
                addr: member.addr.clone(),
            },
            None => Leadership::Nowhere,
        }
    }

    /// Does `here` if this manager leads, `there` with the leader's address if another one does,
    /// and goes on until one of them has an answer, for as long as a leader may be hoped for.
    pub(crate) async fn route<T, H, F>(
        &self,
        here: impl Fn() -> H,
        there: impl Fn(SocketAddr) -> F,
    ) -> Result<T, ControlError>
    where
        H: Future<Output = Result<T, ProposeError>>,
        F: Future<Output = Forwarded<T>>,
    {
        let begun = Instant::now();
        loop {
            match self.leadership() {
                Leadership::Here => match here().await {
                    Ok(answer) => return Ok(answer),
                    Err(ProposeError::Refused(error)) => return Err(error),
                    Err(ProposeError::NotLeader) => {}
                },
                Leadership::There { addr, .. } => {
                    if let Ok(addr) = addr.parse()
                        && let Forwarded::Done(answer) = there(addr).await
                    {
                        return answer;
                    }
                }
                Leadership::Nowhere => {}
            }
            if begun.elapsed() >= LEADER_PATIENCE {
                return Err(no_leader());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stop.cancelled() => return Err(no_leader()),
            }
        }
    }

    /// Serves a request as the leader.
    pub(crate) async fn serve(
        &self,
        request: &ControlRequest,
    ) -> Result<ControlReply, ProposeError> {
        let reply = if only_reads(request) {
            let view = self.fresh_view().await?;
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
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
                (Err(fatal), _) => format!("the manager has stopped: {fatal}"),
                (Ok(()), Some(_)) => String::new(),
                (Ok(()), None) => format!("rpc error: code = Unknown desc = {NO_LEADER}"),
            },
        }
    }
}
