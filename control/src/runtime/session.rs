//! The nodes' sessions with the leader.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weft_proto::dispatcher::ManagerMessage;
use weft_types::{NodeId, SessionId, TaskId, cluster::Cluster, task::TaskStatus};

use crate::dispatcher::{self, Acked, Sound};

/// Time between heartbeats when the user has not chosen one: a dead node is known in 2 s.
pub(super) const PERIOD: Duration = Duration::from_millis(600);

/// The period that Docker's CLI writes when the user says nothing.
const CLI_PERIOD: Duration = Duration::from_secs(5);

/// Periods of silence after which a node is down.
pub(crate) const GRACE: u32 = 3;

/// Messages waiting for a slow node.
const OUTBOX: usize = 64;

/// The period that a cluster's spec chooses.
pub(super) fn period(cluster: &Cluster) -> Duration {
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
    pub(super) period: Duration,
    heard: Mutex<Instant>,
    acked: Mutex<Acked>,
    lost_thread: AtomicBool,
    /// Nobody listens to the stream just now, so its silence says nothing.
    unheard: AtomicBool,
    /// Its stream has ended; the node may still come again within its grace.
    ended: AtomicBool,
    pub(super) poke: Notify,
    pub(super) end: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// What the node has acknowledged.
    pub(super) fn acked(&self) -> MutexGuard<'_, Acked> {
        lock(&self.acked)
    }

    /// A session that has just said hello.
    pub(super) fn new(
        node: NodeId,
        outbox: Outbox,
        period: Duration,
        end: CancellationToken,
    ) -> Self {
        Self {
            node,
            id: SessionId::from_random(rand::random()),
            outbox,
            period,
            heard: Mutex::new(Instant::now()),
            acked: Mutex::default(),
            lost_thread: AtomicBool::new(false),
            unheard: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            poke: Notify::new(),
            end,
        }
    }

    /// The node has said something.
    pub(super) fn hear(&self) {
        *lock(&self.heard) = Instant::now();
    }

    /// Does `work` without listening to the node meanwhile: however long a slow disk makes it, its
    /// heartbeats wait on our side, and it is as alive afterwards as it was before.
    pub(super) async fn unheard<T>(&self, work: impl Future<Output = T>) -> T {
        self.unheard.store(true, Ordering::Relaxed);
        let done = work.await;
        self.hear();
        // Who sees this sees that it was heard, too.
        self.unheard.store(false, Ordering::Release);
        done
    }

    /// The stream has ended.
    pub(super) fn close(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.unheard.store(false, Ordering::Relaxed);
    }

    /// The node has missed something: it is to be told everything again, now.
    pub(super) fn lose_thread(&self) {
        self.lost_thread.store(true, Ordering::Relaxed);
        self.poke.notify_one();
    }

    /// Whether everything must be told again; once.
    pub(super) fn has_lost_thread(&self) -> bool {
        self.lost_thread.swap(false, Ordering::Relaxed)
    }

    /// What can be heard of the node.
    fn sound(&self) -> Sound {
        // Looked at first: work that ends between the two looks has counted as a word of the node by the second.
        let listens = !self.unheard.load(Ordering::Acquire);
        let is_silent = lock(&self.heard).elapsed() > self.period * GRACE;
        if is_silent && listens {
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
pub(crate) struct Sessions {
    by_node: Mutex<BTreeMap<NodeId, Arc<Session>>>,
}

impl Sessions {
    /// The session of a node.
    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<Session>> {
        lock(&self.by_node).get(&node).cloned()
    }

    /// What can be heard of each node that has, or had, a session.
    pub(crate) fn sounds(&self) -> BTreeMap<NodeId, Sound> {
        let sessions = lock(&self.by_node);
        sessions
            .values()
            .map(|session| (session.node, session.sound()))
            .collect()
    }

    /// What all nodes have acknowledged.
    pub(crate) fn acks(&self) -> dispatcher::Acks {
        let mut acks = dispatcher::Acks::default();
        for session in lock(&self.by_node).values() {
            let acked = lock(&session.acked);
            acks.applied.insert(session.node, acked.revision());
        }
        acks
    }

    pub(super) fn add(&self, session: Arc<Session>) {
        let old = lock(&self.by_node).insert(session.node, session);
        if let Some(old) = old {
            old.end.cancel();
        }
    }

    /// Ends a node's session; the node is expected to come again within its grace.
    pub(crate) fn end(&self, node: NodeId) {
        if let Some(session) = self.get(node) {
            session.end.cancel();
        }
    }

    /// Ends and forgets a node's session.
    pub(crate) fn drop_node(&self, node: NodeId) {
        if let Some(session) = lock(&self.by_node).remove(&node) {
            session.end.cancel();
        }
    }

    /// Ends and forgets all sessions: this manager leads no more.
    pub(crate) fn drop_all(&self) {
        for session in std::mem::take(&mut *lock(&self.by_node)).into_values() {
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

/// A channel for a session's messages.
pub(crate) fn outbox() -> (Outbox, mpsc::Receiver<Result<ManagerMessage, Status>>) {
    mpsc::channel(OUTBOX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_is_not_silent_while_nobody_listens() {
        let (outbox, _inbox) = outbox();
        let node = NodeId::numbered(1);
        // Every moment is too long for it.
        let session = Session::new(node, outbox, Duration::ZERO, CancellationToken::new());
        while session.sound() != Sound::Silent {
            tokio::task::yield_now().await;
        }
        let meanwhile = session.unheard(async { session.sound() }).await;
        assert_eq!(meanwhile, Sound::Speaks);
        // One whose stream ends before the work is done keeps nobody waiting.
        tokio::select! {
            biased;
            () = session.unheard(std::future::pending()) => {}
            () = std::future::ready(()) => {}
        }
        session.close();
        while session.sound() != Sound::Silent {
            tokio::task::yield_now().await;
        }
    }
}
