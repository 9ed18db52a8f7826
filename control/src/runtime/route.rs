//! Who leads, and the way of a request to it.

use std::{error::Error, net::SocketAddr, time::Duration};

use openraft::ServerState;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use weft_proto::{ControlError, dial};
use weft_types::NodeId;

use super::{Manager, propose::ProposeError, stopped};

/// How long a request waits for somebody to lead.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// A leader that was not heard of for longer than this leads no more.
const LEADER_SILENCE: Duration = Duration::from_secs(2);

/// Pause between two looks at who leads.
const LOOK: Duration = Duration::from_millis(50);

/// Docker's words when nobody leads.
pub(super) const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
                         are online. Make sure more than half of the managers are online.";

/// How long a leader that leads no more may still take to answer what was sent to it.
const LAST_WORD: Duration = Duration::from_millis(500);

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

pub(super) fn no_leader() -> ControlError {
    ControlError::unavailable(NO_LEADER)
}

/// What is said of a write whose fate nobody here knows.
pub(super) fn in_doubt(why: impl std::fmt::Display) -> ControlError {
    ControlError::unavailable(format!(
        "the leader was lost while the write was under way; it may or may not have been done, \
         look before you try again: {why}"
    ))
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
        // Only what this end found out has a cause: the connection broke.
        Err(status) if status.source().is_some() => {
            Forwarded::Done(Err(in_doubt(status.message())))
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
    /// and goes on until one of them has an answer, for as long as a leader may be hoped for. A
    /// leader that is lost while it is asked is not waited for: what is `repeatable` is asked of
    /// the next one, of the rest it is said that its fate is unknown.
    pub(crate) async fn route<T, H, F>(
        &self,
        repeatable: bool,
        here: impl Fn() -> H,
        there: impl Fn(SocketAddr) -> F,
    ) -> Result<T, ControlError>
    where
        H: Future<Output = Result<T, ProposeError>>,
        F: Future<Output = Forwarded<T>>,
    {
        let begun = Instant::now();
        loop {
            if let Err(fatal) = self.metrics().running_state {
                return Err(ControlError::unavailable(stopped(&fatal)));
            }
            match self.leadership() {
                Leadership::Here => match here().await {
                    Ok(answer) => return Ok(answer),
                    Err(ProposeError::Refused(error)) => return Err(error),
                    Err(ProposeError::NotLeader) => {}
                },
                Leadership::There { node, addr } => {
                    if let Ok(addr) = addr.parse() {
                        match self.unless_lost(node, there(addr)).await {
                            Some(Forwarded::Done(answer)) => return answer,
                            Some(Forwarded::Again) => {}
                            None if repeatable => {}
                            None => return Err(in_doubt(format_args!("{node} does not answer"))),
                        }
                    }
                }
                Leadership::Nowhere => {}
            }
            if begun.elapsed() >= LEADER_PATIENCE {
                return Err(no_leader());
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.stop.cancelled() => return Err(no_leader()),
            }
        }
    }
    /// The answer of the leader `node`; `None` if it leads no more and its last word does not come.
    async fn unless_lost<T>(&self, node: NodeId, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        let lost = async {
            loop {
                sleep(LOOK).await;
                match self.leadership() {
                    Leadership::There { node: leader, .. } if leader == node => {}
                    _ => return,
                }
            }
        };
        tokio::select! {
            answer = &mut answer => return Some(answer),
            () = lost => {}
        }
        timeout(LAST_WORD, answer).await.ok()
    }
}
