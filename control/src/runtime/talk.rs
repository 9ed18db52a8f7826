//! The talk of a session: what the node says is written down, what it must know is told.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tonic::{Status, Streaming};
use tracing::{debug, info};
use weft_proto::{
    WIRE_VERSION,
    dispatcher::{ManagerMessage, NodeMessage},
};
use weft_types::{NodeId, Timestamp, node::Role};

use super::{
    Leadership, Manager, NOT_LEADER,
    news::Told,
    session::{Outbox, PERIOD, Report, Session, period},
};
use crate::{
    ca::Caller,
    dispatcher::{self, Registration},
    store::{Change, View},
};

/// How long a new session may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// How long a session waits for the beginning of a term.
const TERM_LIMIT: Duration = Duration::from_secs(2);

/// Changes within this time are sent together.
const BATCH: Duration = Duration::from_millis(50);

/// How often the list of managers is looked at.
const TICK: Duration = Duration::from_secs(1);

impl Manager {
    /// Serves one node's stream to its end.
    pub(crate) async fn run_session(
        self: Arc<Self>,
        caller: Caller,
        from: SocketAddr,
        mut inbound: Streaming<NodeMessage>,
        outbox: Outbox,
    ) {
        let hello = tokio::time::timeout(HELLO_LIMIT, inbound.message()).await;
        let refuse = |status: Status| async {
            // If the node is gone already, there is nobody to tell.
            let _ = outbox.send(Err(status)).await;
        };
        let Ok(Ok(Some(NodeMessage::Hello {
            description,
            data_path_addr,
            addresses,
            wireguard,
            wire_version,
            ..
        }))) = hello
        else {
            return refuse(Status::invalid_argument("a session starts with a hello")).await;
        };
        if wire_version > WIRE_VERSION {
            let text = format!("this manager speaks wire version {WIRE_VERSION}");
            return refuse(Status::failed_precondition(text)).await;
        }
        let registration = Registration {
            description: *description,
            remote: from.ip().to_canonical(),
            data_path_addr,
            addresses,
            wireguard,
        };
        if tokio::time::timeout(TERM_LIMIT, self.term_begun())
            .await
            .is_err()
        {
            return refuse(Status::unavailable(NOT_LEADER)).await;
        }
        let registered = self
            .propose(|view, now, _| {
                Ok((
                    dispatcher::register(view, now, caller.node, &registration),
                    view.node(caller.node).is_some(),
                ))
            })
            .await;
        match registered {
            Ok(true) => {}
            Ok(false) => {
                let _ = outbox.send(Ok(ManagerMessage::Removed)).await;
                return;
            }
            Err(error) => return refuse(Status::unavailable(error.to_string())).await,
        }
        let end = self.stop.child_token();
        let session = Arc::new(Session::new(caller.node, outbox, self.period(), end));
        self.sessions.add(Arc::clone(&session));
        self.wake.notify_one();
        info!(node = %session.node, session = %session.id, %from, "session opened");
        tokio::select! {
            () = self.listen(&session, &mut inbound) => {}
            () = self.speak(&session, caller.role) => {}
            () = session.end.cancelled() => {
                let _ = session.outbox.try_send(Ok(ManagerMessage::Redirect(self.leader_addr())));
            }
        }
        session.close();
        self.wake.notify_one();
        debug!(node = %session.node, session = %session.id, "session ended");
    }

    /// Time between heartbeats in force.
    pub(crate) fn period(&self) -> Duration {
        self.replica
            .view()
            .cluster()
            .map_or(PERIOD, |cluster| period(cluster))
    }

    /// Address of the leader, if it is another manager.
    pub(crate) fn leader_addr(&self) -> Option<String> {
        match self.leadership() {
            Leadership::There { addr, .. } => Some(addr),
            Leadership::Here | Leadership::Nowhere => None,
        }
    }

    /// Takes what the node says until it stops talking.
    async fn listen(&self, session: &Arc<Session>, inbound: &mut Streaming<NodeMessage>) {
        loop {
            let message = match inbound.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(status) => {
                    debug!(node = %session.node, %status, "session broke");
                    return;
                }
            };
            session.hear();
            match message {
                NodeMessage::Hello { .. } => return,
                NodeMessage::Heartbeat => {}
                NodeMessage::Description(description) => {
                    self.note(session, |view, now, node| {
                        dispatcher::describe(view, now, node, &description)
                    })
                    .await;
                }
                NodeMessage::Addresses(addresses) => {
                    self.note(session, |view, now, node| {
                        dispatcher::addresses(view, now, node, &addresses)
                    })
                    .await;
                }
                NodeMessage::WireGuard(peer) => {
                    self.note(session, |view, now, node| {
                        dispatcher::wireguard(view, now, node, peer)
                    })
                    .await;
                }
                NodeMessage::Status { sequence, updates } => {
                    let report = Report {
                        node: session.node,
                        outbox: session.outbox.clone(),
                        sequence,
                        updates,
                    };
                    if session.unheard(self.reports.send(report)).await.is_err() {
                        return;
                    }
                }
                NodeMessage::Applied { revision } => {
                    let is_news = session.acked().report(revision);
                    if is_news {
                        self.wake.notify_one();
                    }
                }
                NodeMessage::NetStateGap => {
                    session.lose_thread();
                }
                NodeMessage::Logs {
                    request,
                    items,
                    end,
                } => {
                    let taken = self.logs.take(session.node, request, items, end);
                    session.unheard(taken).await;
                }
                NodeMessage::Leave => {
                    // It keeps its tasks until others have taken over, then it is let go.
                    info!(node = %session.node, "node leaves");
                    self.note(session, dispatcher::leave).await;
                }
            }
        }
    }

    /// Writes down what the node says of itself.
    async fn note(
        &self,
        session: &Session,
        decide: impl Fn(&View, Timestamp, NodeId) -> Vec<Change>,
    ) {
        let write = self.propose(|view, now, _| Ok((decide(view, now, session.node), ())));
        if let Err(error) = session.unheard(write).await {
            // It says so again with its next hello.
            debug!(node = %session.node, %error, "what the node told was not stored");
        }
    }

    /// Tells the node what it must know, now and after each change.
    async fn speak(&self, session: &Arc<Session>, certified: Role) {
        let mut views = self.replica.follow();
        let mut told = Told::new(certified);
        let welcome = ManagerMessage::Welcome {
            session: session.id,
            heartbeat_millis: u64::try_from(session.period.as_millis()).unwrap_or(u64::MAX),
        };
        if session.outbox.send(Ok(welcome)).await.is_err() {
            return;
        }
        loop {
            let view = views.borrow_and_update().clone();
            if view.node(session.node).is_none() {
                let _ = session.outbox.send(Ok(ManagerMessage::Removed)).await;
                self.sessions.drop_node(session.node);
                return;
            }
            if self.period() != session.period {
                // The next session, opened at once, has the new period.
                let _ = session
                    .outbox
                    .send(Ok(ManagerMessage::Redirect(None)))
                    .await;
                return;
            }
            if session.has_lost_thread() {
                told.work.lost_thread();
            }
            for message in self.news(session, &view, &mut told) {
                if session.outbox.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = session.poke.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            tokio::time::sleep(BATCH).await;
        }
    }
}
