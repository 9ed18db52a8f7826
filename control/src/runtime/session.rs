//! The nodes' sessions with the leader.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, info};
use weft_proto::{
    WIRE_VERSION,
    dispatcher::{ManagerMessage, NodeMessage},
};
use weft_types::{
    NodeId, SessionId, TaskId, Timestamp, cluster::Cluster, node::Role, task::TaskStatus,
};

use super::{Leadership, Manager, news::Told};
use crate::{
    ca::Caller,
    dispatcher::{self, Acked, Registration, Sound},
    store::{Change, View},
};

/// Time between heartbeats when the user has not chosen one: a dead node is known in 2 s.
const PERIOD: Duration = Duration::from_millis(600);

/// The period that Docker's CLI writes when the user says nothing.
const CLI_PERIOD: Duration = Duration::from_secs(5);

/// Periods of silence after which a node is down.
pub(crate) const GRACE: u32 = 3;

/// How long a new session may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Changes within this time are sent together.
const BATCH: Duration = Duration::from_millis(50);

/// Messages waiting for a slow node.
const OUTBOX: usize = 64;

/// How often the list of managers is looked at.
const TICK: Duration = Duration::from_secs(1);

/// The period that a cluster's spec chooses.
fn period(cluster: &Cluster) -> Duration {
    let nanos = u64::try_from(cluster.spec.dispatcher.heartbeat_period).unwrap_or(0);
    match Duration::from_nanos(nanos) {
        Duration::ZERO | CLI_PERIOD => PERIOD,
        chosen => chosen,
    }
}

pub(crate) type Outbox = mpsc::Sender<Result<ManagerMessage, Status>>;

/// One node's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) id: SessionId,
    pub(crate) outbox: Outbox,
    /// Time between heartbeats that the node was told.
    period: Duration,
    heard: Mutex<Instant>,
    acked: Mutex<Acked>,
    lost_thread: AtomicBool,
    /// Its stream has ended; the node may still come again within its grace.
    ended: AtomicBool,
    poke: Notify,
    end: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// What the node has acknowledged.
    pub(super) fn acked(&self) -> MutexGuard<'_, Acked> {
        lock(&self.acked)
    }

    /// What can be heard of the node.
    fn sound(&self) -> Sound {
        if lock(&self.heard).elapsed() > self.period * GRACE {
            Sound::Silent
        } else if self.ended.load(Ordering::Relaxed) {
            Sound::Gone
        } else {
            Sound::Speaks
        }
    }
}

/// All sessions; empty on a manager that does not lead.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<NodeId, Arc<Session>>>);

impl Sessions {
    /// The session of a node.
    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<Session>> {
        lock(&self.0).get(&node).cloned()
    }

    /// What can be heard of each node that has, or had, a session.
    pub(crate) fn sounds(&self) -> BTreeMap<NodeId, Sound> {
        let sessions = lock(&self.0);
        sessions
            .values()
            .map(|session| (session.node, session.sound()))
            .collect()
    }

    /// What all nodes have acknowledged.
    pub(crate) fn acks(&self) -> dispatcher::Acks {
        let mut acks = dispatcher::Acks::default();
        for session in lock(&self.0).values() {
            let acked = lock(&session.acked);
            acks.applied.insert(session.node, acked.revision());
            acks.draining
                .extend(acked.draining.iter().map(|(task, flows)| (*task, *flows)));
        }
        acks
    }

    fn add(&self, session: Arc<Session>) {
        let old = lock(&self.0).insert(session.node, session);
        if let Some(old) = old {
            old.end.cancel();
        }
    }

    /// Ends and forgets a node's session.
    pub(crate) fn drop_node(&self, node: NodeId) {
        if let Some(session) = lock(&self.0).remove(&node) {
            session.end.cancel();
        }
    }

    /// Ends and forgets all sessions: this manager leads no more.
    pub(crate) fn drop_all(&self) {
        for session in std::mem::take(&mut *lock(&self.0)).into_values() {
            session.end.cancel();
        }
    }
}

/// Reports of tasks' states on their way into the store.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) node: NodeId,
    pub(crate) outbox: Outbox,
    pub(crate) sequence: u64,
    pub(crate) updates: Vec<(TaskId, TaskStatus)>,
}

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
        let session = Arc::new(Session {
            node: caller.node,
            id: SessionId::from_random(rand::random()),
            outbox,
            period: self.period(),
            heard: Mutex::new(Instant::now()),
            acked: Mutex::default(),
            lost_thread: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            poke: Notify::new(),
            end: self.stop.child_token(),
        });
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
        session.ended.store(true, Ordering::Relaxed);
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
            *lock(&session.heard) = Instant::now();
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
                    if self.reports.send(report).await.is_err() {
                        return;
                    }
                }
                NodeMessage::Applied { revision, draining } => {
                    let news = {
                        let mut acked = lock(&session.acked);
                        let flows: BTreeMap<_, _> = draining.into_iter().collect();
                        let news = acked.report(revision) | (acked.draining != flows);
                        acked.draining = flows;
                        news
                    };
                    if news {
                        self.wake.notify_one();
                    }
                }
                NodeMessage::NetStateGap => {
                    session.lost_thread.store(true, Ordering::Relaxed);
                    session.poke.notify_one();
                }
                NodeMessage::Logs {
                    request,
                    items,
                    end,
                } => self.logs.take(session.node, request, items, end).await,
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
        let written = self
            .propose(|view, now, _| Ok((decide(view, now, session.node), ())))
            .await;
        if let Err(error) = written {
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
            if session.lost_thread.swap(false, Ordering::Relaxed) {
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

/// A channel for a session's messages.
pub(crate) fn outbox() -> (Outbox, mpsc::Receiver<Result<ManagerMessage, Status>>) {
    mpsc::channel(OUTBOX)
}
