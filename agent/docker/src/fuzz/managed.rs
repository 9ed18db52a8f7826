//! A manager without sockets, disk and clock: the real store, the real answers, the real loops.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::{
    net::UnixStream,
    sync::{broadcast, mpsc},
};
use weft_control::{
    api, invariant,
    settle::Settler,
    store::{self, Change, IdSource, Store, Transaction, View},
};
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest, Event, LogItem, LogSelector,
    ManagerStanding, Object, Tunnel,
};
use weft_types::{
    Id, NodeId, Timestamp,
    secret::{Config, Secret, SecretSpec},
};

use super::cluster::{FakeNode, NOW, node_id};

/// Commits after which all invariants are looked at once more; each look reads the whole store.
const LOOK: u64 = 16;

/// Tasks from which on a world is too slow to be asked more.
pub(super) const CROWD: usize = 400;

pub(super) struct Managed {
    inner: Mutex<Inner>,
    events: broadcast::Sender<Arc<Event>>,
    /// Front door of the second node, where its tunnels end.
    beyond: Option<PathBuf>,
}

struct Inner {
    store: Store,
    settler: Settler,
    ids: IdSource,
    now: Timestamp,
    /// Transactions that clients' requests have made.
    written: u64,
}

impl Managed {
    /// A cluster of three nodes with its ingress network, a secret, a config and a network.
    pub(super) fn new(seed: u64) -> Self {
        let inner = Inner {
            store: Store::new(),
            settler: Settler::default(),
            ids: IdSource::seeded(seed),
            now: NOW,
            written: 0,
        };
        let managed = Self {
            inner: Mutex::new(inner),
            events: broadcast::channel(64).0,
            beyond: None,
        };
        managed.commit(beginning());
        managed
    }

    /// With `door` as the second node's; the third is not reached.
    pub(super) fn beyond(mut self, door: &Path) -> Self {
        self.beyond = Some(door.to_owned());
        self
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> View {
        self.lock().store.view()
    }

    /// Transactions made by requests so far.
    pub(super) fn written(&self) -> u64 {
        self.lock().written
    }

    /// Commits and lets the loops do what follows from it.
    fn commit(&self, changes: Vec<Change>) {
        let mut inner = self.lock();
        inner.apply(changes, &self.events);
        for _ in 0..20 {
            let Inner {
                settler,
                store,
                now,
                ids,
                ..
            } = &mut *inner;
            let outcome = settler.settle(&store.view(), *now, ids);
            if outcome.changes.is_empty() || store.view().task_count() > CROWD {
                return;
            }
            inner.apply(outcome.changes, &self.events);
        }
    }
}

impl Inner {
    fn apply(&mut self, changes: Vec<Change>, events: &broadcast::Sender<Arc<Event>>) {
        let index = self.store.index() + 1;
        self.now.0 += 1_000_000;
        let before = self.store.view();
        let now = self.now;
        let done = self.store.apply(index, &Transaction { now, changes });
        let done =
            done.unwrap_or_else(|error| panic!("the store refuses its own manager: {error}"));
        if index.is_multiple_of(LOOK) {
            let sound = invariant::check(&before, &self.store.view());
            sound.unwrap_or_else(|broken| panic!("{broken}"));
        }
        for event in done {
            let event = Event {
                index,
                at: event.now,
                old: event.old.map(told),
                new: event.new.map(told),
            };
            // Nobody may listen.
            let _ = events.send(Arc::new(event));
        }
    }
}

/// The same object as clients' side of the wire has it.
fn told(object: store::Object) -> Object {
    match object {
        store::Object::Cluster(object) => Object::Cluster(Box::new((*object).clone())),
        store::Object::Node(object) => Object::Node(Box::new((*object).clone())),
        store::Object::Network(object) => Object::Network(Box::new((*object).clone())),
        store::Object::Secret(object) => Object::Secret(Box::new((*object).clone())),
        store::Object::Config(object) => Object::Config(Box::new((*object).clone())),
        store::Object::Service(object) => Object::Service(Box::new((*object).clone())),
        store::Object::Task(object) => Object::Task(Box::new((*object).clone())),
    }
}

/// What the seeds speak of, under the ids that they use.
fn beginning() -> Vec<Change> {
    let fake = FakeNode::manager();
    let mut state = fake.cluster.state();
    let mut changes = Vec::new();
    if let Some(mut cluster) = state.cluster.take() {
        cluster.meta.version.index = 0;
        changes.push(Change::put(cluster));
    }
    for mut node in state.nodes.drain(..) {
        node.meta.version.index = 0;
        node.index = u32::try_from(changes.len()).unwrap_or(0);
        changes.push(Change::put(node));
    }
    for mut network in state.networks.drain(..) {
        network.meta.version.index = 0;
        network.allocation_error = String::new();
        changes.push(Change::put(network));
    }
    let spec = SecretSpec {
        name: "s".to_owned(),
        data: weft_types::secret::Base64(b"a".to_vec()),
        ..SecretSpec::default()
    };
    changes.push(Change::put(Secret {
        id: Id::numbered(1),
        meta: Default::default(),
        spec: spec.clone(),
    }));
    changes.push(Change::put(Config {
        id: Id::numbered(1),
        meta: Default::default(),
        spec,
    }));
    changes
}

#[async_trait]
impl ControlApi for Managed {
    async fn call(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        let (changes, reply) = {
            let mut inner = self.lock();
            let (view, now) = (inner.store.view(), inner.now);
            api::handle(&view, now, &mut inner.ids, &request)?
        };
        if !changes.is_empty() {
            self.lock().written += 1;
            self.commit(changes);
        }
        Ok(reply)
    }

    async fn watch(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    async fn logs(&self, _: LogSelector) -> Result<mpsc::Receiver<LogItem>, ControlError> {
        Ok(mpsc::channel(1).1)
    }

    async fn tunnel(&self, node: NodeId) -> Result<Tunnel, ControlError> {
        let door = self.beyond.as_ref().filter(|_| node == node_id(2));
        let door = door.ok_or_else(|| ControlError::unavailable("it is not connected"))?;
        match UnixStream::connect(door).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(ControlError::unavailable(error.to_string())),
        }
    }

    async fn standing(&self) -> ManagerStanding {
        ManagerStanding {
            leads: true,
            leader: Some(node_id(1)),
            error: String::new(),
        }
    }
}
