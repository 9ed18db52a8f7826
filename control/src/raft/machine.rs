//! The state machine: the store, kept up with the log, and its snapshot on disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, RaftSnapshotBuilder,
    alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf},
    entry::RaftEntry,
    storage::{EntryResponder, RaftStateMachine},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use weft_proto::{Event, Object, codec, identity::write_private};

use super::{Seal, Types};
use crate::store::{self, RestoreError, Store, View};

/// Events kept for a slow follower of the feed before it must list again.
const FEED: usize = 4096;

/// This manager's copy of the replicated state, as the rest of the manager reads it.
#[derive(Debug)]
pub struct Replica {
    state: Mutex<State>,
    view: watch::Sender<View>,
    events: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl Replica {
    /// The state as it stands.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// The state, and word of each change of it.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// The changes from now on, in commit order.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole or not at all, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands in front of the state in a snapshot file.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Form of the file. History: 1 (2026-11), first.
    form: u32,
    meta: SnapshotMetaOf<Types>,
}

/// A snapshot on its way: its bytes, and what they say if somebody has looked already.
#[derive(Debug, Clone)]
pub struct Image {
    pub(super) bytes: Bytes,
    read: Option<Store>,
}

impl Image {
    /// The snapshot that `bytes` spell.
    ///
    /// # Errors
    /// When they are no snapshot, or contradict themselves.
    pub(super) fn read(bytes: Bytes) -> Result<Self, RestoreError> {
        let store = Store::restore(&bytes)?;
        Ok(Self {
            bytes,
            read: Some(store),
        })
    }
}

/// The snapshot on disk: one file, replaced whole.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    path: PathBuf,
    seal: Seal,
    /// What the file holds; also keeps two writers apart.
    newest: Mutex<Option<LogIdOf<Types>>>,
}

const PLACE: &[u8] = b"snapshot";

impl SnapshotFile {
    pub(super) fn new(directory: &Path, seal: Seal) -> Self {
        Self {
            path: directory.join("snapshot"),
            seal,
            newest: Mutex::new(None),
        }
    }

    /// What the file holds; `None` if there is none.
    pub(super) fn load(&self) -> io::Result<Option<(SnapshotMetaOf<Types>, Bytes)>> {
        let record = match fs::read(&self.path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let plain = Bytes::from(
            self.seal
                .open_record(PLACE, &record)
                .map_err(io::Error::other)?,
        );
        let short = || io::Error::other("snapshot is shorter than its header");
        let (length, rest) = plain.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u32::from_be_bytes(*length) as usize;
        let header = rest.get(..length).ok_or_else(short)?;
        let header: Header = codec::decode(header).map_err(io::Error::other)?;
        if header.form != 1 {
            let form = header.form;
            return Err(io::Error::other(format!(
                "snapshot has form {form}, this manager reads form 1"
            )));
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = header.meta.last_log_id;
        Ok(Some((header.meta, plain.slice(4 + length..))))
    }

    /// Replaces the file, unless it already holds something newer. On disk when this returns.
    pub(super) fn save(&self, meta: &SnapshotMetaOf<Types>, data: &[u8]) -> io::Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if *newest > meta.last_log_id {
            return Ok(());
        }
        let header = Header {
            form: 1,
            meta: meta.clone(),
        };
        let header = codec::encode(&header).map_err(io::Error::other)?;
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        let mut plain = Vec::with_capacity(4 + header.len() + data.len());
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(&header);
        plain.extend_from_slice(data);
        write_private(&self.path, &self.seal.seal(PLACE, &plain))?;
        *newest = meta.last_log_id;
        Ok(())
    }
}

/// The state machine as the engine drives it.
#[derive(Debug, Clone)]
pub struct Machine {
    replica: Arc<Replica>,
    file: Arc<SnapshotFile>,
}

impl Machine {
    /// The state machine that keeps its snapshot in `directory`, as that snapshot has it.
    ///
    /// # Errors
    /// When the snapshot is damaged or cannot be read.
    pub fn open(directory: &Path, seal: Seal) -> io::Result<Self> {
        let file = SnapshotFile::new(directory, seal);
        let mut state = State::default();
        if let Some((meta, data)) = file.load()? {
            state.store = Store::restore(&data).map_err(io::Error::other)?;
            state.applied = meta.last_log_id;
            state.membership = meta.last_membership;
        }
        let replica = Replica {
            view: watch::Sender::new(state.store.view()),
            events: broadcast::Sender::new(FEED),
            state: Mutex::new(state),
        };
        Ok(Self {
            replica: Arc::new(replica),
            file: Arc::new(file),
        })
    }

    /// The copy of the state that this machine keeps up.
    #[must_use]
    pub fn replica(&self) -> Arc<Replica> {
        Arc::clone(&self.replica)
    }
}

/// Object by object, for those who follow the feed; secrets and keys left out.
fn told(object: store::Object) -> Object {
    match object {
        store::Object::Cluster(object) => {
            let mut cluster = Arc::unwrap_or_clone(object);
            cluster.ca_key.clear();
            cluster.unlock_key.clear();
            cluster.rotation = None;
            cluster.spec.ca_config.signing_ca_key.clear();
            Object::Cluster(Box::new(cluster))
        }
        store::Object::Node(object) => Object::Node(Box::new(Arc::unwrap_or_clone(object))),
        store::Object::Network(object) => Object::Network(Box::new(Arc::unwrap_or_clone(object))),
        store::Object::Service(object) => Object::Service(Box::new(Arc::unwrap_or_clone(object))),
        store::Object::Task(object) => Object::Task(Box::new(Arc::unwrap_or_clone(object))),
        store::Object::Config(object) => Object::Config(Box::new(Arc::unwrap_or_clone(object))),
        store::Object::Secret(object) => {
            let mut secret = Arc::unwrap_or_clone(object);
            secret.spec.data = Default::default();
            Object::Secret(Box::new(secret))
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        let state = self.replica.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let log_id = entry.log_id();
            let (verdict, events) = {
                let mut state = self.replica.lock();
                let outcome = match entry.payload {
                    EntryPayload::Blank => Ok(Vec::new()),
                    EntryPayload::Normal(proposal) => state.store.apply(log_id.index, &proposal.0),
                    EntryPayload::Membership(membership) => {
                        state.membership =
                            StoredMembershipOf::<Types>::new(Some(log_id), membership);
                        Ok(Vec::new())
                    }
                };
                state.applied = Some(log_id);
                // Published before the proposer hears of it, so that he reads his own write.
                if outcome.as_ref().is_ok_and(|events| !events.is_empty()) {
                    self.replica.view.send_replace(state.store.view());
                }
                match outcome {
                    Ok(events) => (Ok(()), events),
                    Err(refusal) => (Err(refusal), Vec::new()),
                }
            };
            if self.replica.events.receiver_count() > 0 {
                for event in events {
                    let event = Event {
                        index: event.index,
                        at: event.now,
                        old: event.old.map(told),
                        new: event.new.map(told),
                    };
                    // Nobody listening any more is fine.
                    let _ = self.replica.events.send(Arc::new(event));
                }
            }
            if let Some(responder) = responder {
                responder.send(verdict);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = self.replica.lock();
        Builder {
            view: state.store.view(),
            meta: SnapshotMetaOf::<Types> {
                last_log_id: state.applied,
                last_membership: state.membership.clone(),
            },
            file: Arc::clone(&self.file),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: Image,
    ) -> io::Result<()> {
        let (file, kept) = (Arc::clone(&self.file), meta.clone());
        let store = tokio::task::spawn_blocking(move || {
            let store = match snapshot.read {
                Some(store) => store,
                None => Store::restore(&snapshot.bytes).map_err(io::Error::other)?,
            };
            file.save(&kept, &snapshot.bytes)?;
            io::Result::Ok(store)
        })
        .await
        .map_err(io::Error::other)??;
        let mut state = self.replica.lock();
        state.store = store;
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        self.replica.view.send_replace(state.store.view());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Image>>> {
        let file = Arc::clone(&self.file);
        let loaded = tokio::task::spawn_blocking(move || file.load())
            .await
            .map_err(io::Error::other)??;
        Ok(loaded.map(|(meta, bytes)| SnapshotOf::<Types, Image> {
            meta,
            snapshot: Image { bytes, read: None },
        }))
    }
}

/// Makes a snapshot of the state as it was when the builder was made, while the state goes on.
#[derive(Debug)]
pub struct Builder {
    view: View,
    meta: SnapshotMetaOf<Types>,
    file: Arc<SnapshotFile>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Image>> {
        let (view, meta, file) = (self.view.clone(), self.meta.clone(), Arc::clone(&self.file));
        let snapshot = tokio::task::spawn_blocking(move || {
            let data = Bytes::from(view.snapshot().map_err(io::Error::other)?);
            file.save(&meta, &data)?;
            io::Result::Ok(SnapshotOf::<Types, Image> {
                meta,
                snapshot: Image {
                    bytes: data,
                    read: None,
                },
            })
        });
        snapshot.await.map_err(io::Error::other)?
    }
}
