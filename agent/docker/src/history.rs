//! Changes of the swarm, remembered for a while: clients of `/events` may ask for the past.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{
    Notify,
    broadcast::{self, error::RecvError},
    watch,
};
use weft_proto::{ControlApi, Event};
use weft_types::Timestamp;

use crate::node::NodeControl;

/// Events remembered, as many as Docker's daemon does.
const KEPT: usize = 256;

/// How often a look is taken whether there is a manager, or another one.
const LOOK: Duration = Duration::from_millis(500);

/// Past changes and those to come, without a gap between.
#[derive(Debug)]
pub(crate) struct History {
    state: Mutex<State>,
    /// Whether a manager's changes are followed now.
    follows: watch::Sender<bool>,
    /// Told when there may be a manager now.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    past: VecDeque<Arc<Event>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl History {
    /// A history that follows the managers of `node` until `stop` is closed.
    pub(crate) fn start(node: Arc<dyn NodeControl>, stop: watch::Receiver<()>) -> Arc<Self> {
        let history = Arc::new(Self {
            state: Mutex::new(State {
                past: VecDeque::new(),
                live: broadcast::channel(1024).0,
            }),
            follows: watch::Sender::new(false),
            changed: Notify::new(),
        });
        tokio::spawn(Arc::clone(&history).follow(node, stop));
        history
    }

    /// Remembered changes from `since` to `until` (none when `since` is "never"), and those to
    /// come.
    pub(crate) fn subscribe(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> (VecDeque<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let state = self.lock();
        let wished = |event: &&Arc<Event>| {
            !since.is_zero() && event.at >= since && (until.is_zero() || event.at <= until)
        };
        let past = state.past.iter().filter(wished).cloned();
        (past.collect(), state.live.subscribe())
    }

    /// Looks for a manager now, and waits until its changes are followed, a short time at most.
    pub(crate) async fn ready(&self) {
        self.changed.notify_one();
        let mut follows = self.follows.subscribe();
        let ready = follows.wait_for(|follows| *follows);
        if tokio::time::timeout(2 * LOOK, ready).await.is_err() {
            tracing::debug!("no manager's changes are followed yet");
        }
    }

    async fn follow(self: Arc<Self>, node: Arc<dyn NodeControl>, mut stop: watch::Receiver<()>) {
        loop {
            if let Ok(manager) = node.control().await {
                tokio::select! {
                    () = self.listen(manager, node.as_ref()) => {}
                    _ = stop.changed() => return,
                }
                self.follows.send_replace(false);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.changed.notified() => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Remembers what `manager` tells, until it ends or another takes its place.
    async fn listen(&self, manager: Arc<dyn ControlApi>, node: &dyn NodeControl) {
        let mut events = manager.watch().await;
        // Not held: a manager that ends must let go of its store at once.
        let followed = Arc::downgrade(&manager);
        drop(manager);
        self.follows.send_replace(true);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => self.remember(event),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "changes of the swarm came too fast for the events");
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = look.tick() => match node.control().await {
                    Ok(now) if followed.ptr_eq(&Arc::downgrade(&now)) => {}
                    _ => return,
                }
            }
        }
    }

    fn remember(&self, event: Arc<Event>) {
        if !crate::events::is_told(&event) {
            return;
        }
        let mut state = self.lock();
        if state.past.len() == KEPT {
            state.past.pop_front();
        }
        state.past.push_back(Arc::clone(&event));
        // Nobody may listen.
        let _ = state.live.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
