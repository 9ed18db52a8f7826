//! A view that one thinks aloud in.

use std::{collections::BTreeSet, ops::Deref};

use weft_types::{
    Timestamp, Version, cluster::Cluster, network::Network, node::Node, service::Service,
    task::Task,
};

use super::{Change, Key, Object, Scope, View};

/// What a loop answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// What must change, as one transaction; empty when all is settled.
    pub changes: Vec<Change>,
    /// When to ask again even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

impl Outcome {
    /// What two loops answer of the same view. Of an object that both would change, this one's change counts; the
    /// other loop is asked about it again when that is written.
    #[must_use]
    pub fn beside(mut self, other: Self) -> Self {
        let ours: BTreeSet<Key> = self.changes.iter().map(Change::key).collect();
        let theirs = other.changes.into_iter();
        self.changes
            .extend(theirs.filter(|change| !ours.contains(&change.key())));
        self.wake_at = [self.wake_at, other.wake_at].into_iter().flatten().min();
        self
    }
}

/// A view and the changes thought of so far. Reads see the changes.
///
/// What is put equal to what was there, or is made and taken back, makes no change: so a loop
/// that writes what it wishes is idempotent.
#[derive(Debug)]
pub struct Draft {
    base: View,
    next: View,
    touched: BTreeSet<Key>,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    dirty: Scope,
}

impl Draft {
    /// A draft on `view`, thought at `now`.
    #[must_use]
    pub fn new(view: &View, now: Timestamp) -> Self {
        let mut next = view.clone();
        next.ledger.wake(now);
        Self {
            base: view.clone(),
            next,
            touched: BTreeSet::new(),
            now,
            wake_at: None,
            dirty: Scope::default(),
        }
    }

    /// The moment the draft is thought at.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Creates or replaces an object. Its version is kept from what the base has, so a caller
    /// cannot get it wrong.
    pub fn put(&mut self, object: impl Into<Object>) {
        let mut object = object.into();
        let key = object.key();
        let old = self.next.get(key);
        let mut meta = *object.meta();
        match &old {
            Some(old) => {
                meta = *old.meta();
            }
            None => meta.version = Version::default(),
        }
        if *object.meta() != meta {
            object.set_meta(meta);
        }
        if let (Object::Task(task), Some(Object::Task(old))) = (&mut object, &old)
            && task.desired_state != old.desired_state
        {
            std::sync::Arc::make_mut(task).desired_since = self.now;
        }
        if old.as_ref() == Some(&object) {
            return;
        }
        self.note(old.as_ref(), Some(&object));
        if let Some(old) = &old {
            self.next.unlink(old);
            self.next.ledger.release(old, self.now);
        }
        // A clash here is found again, and refused, when the transaction is applied.
        let _ = self.next.ledger.take(&object);
        let _ = self.next.link(&object);
        self.touched.insert(key);
    }

    /// Changes a task that is there; otherwise nothing happens.
    pub fn edit_task(&mut self, id: weft_types::TaskId, edit: impl FnOnce(&mut Task)) {
        if let Some(task) = self.next.task(id) {
            let mut task = Task::clone(task);
            edit(&mut task);
            self.put(task);
        }
    }

    /// Changes a service that is there; otherwise nothing happens.
    pub fn edit_service(&mut self, id: weft_types::ServiceId, edit: impl FnOnce(&mut Service)) {
        if let Some(service) = self.next.service(id) {
            let mut service = Service::clone(service);
            edit(&mut service);
            self.put(service);
        }
    }

    /// Changes a network that is there; otherwise nothing happens.
    pub fn edit_network(&mut self, id: weft_types::NetworkId, edit: impl FnOnce(&mut Network)) {
        if let Some(network) = self.next.network(id) {
            let mut network = Network::clone(network);
            edit(&mut network);
            self.put(network);
        }
    }

    /// Changes a node that is there; otherwise nothing happens.
    pub fn edit_node(&mut self, id: weft_types::NodeId, edit: impl FnOnce(&mut Node)) {
        if let Some(node) = self.next.node(id) {
            let mut node = Node::clone(node);
            edit(&mut node);
            self.put(node);
        }
    }

    /// Changes the cluster, if it is there.
    pub fn edit_cluster(&mut self, edit: impl FnOnce(&mut Cluster)) {
        if let Some(cluster) = self.next.cluster() {
            let mut cluster = Cluster::clone(cluster);
            edit(&mut cluster);
            self.put(cluster);
        }
    }

    /// Removes an object, if it is there.
    pub fn delete(&mut self, key: Key) {
        if let Some(old) = self.next.get(key) {
            self.next.unlink(&old);
            self.next.ledger.release(&old, self.now);
            if let Key::Network(id) = key {
                self.next.ledger.drop_network(id);
            }
            self.touched.insert(key);
            self.note(Some(&old), None);
        }
    }

    /// Asks to be run again at `moment`, or earlier.
    pub fn wake_at(&mut self, moment: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(moment, |at| at.min(moment)));
    }

    /// What has really been changed since this was asked last.
    pub fn take_dirty(&mut self) -> Scope {
        std::mem::take(&mut self.dirty)
    }

    /// Whether nothing has been changed since [`Draft::take_dirty`].
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Takes back what was asked of [`Draft::wake_at`].
    pub fn take_wake(&mut self) -> Option<Timestamp> {
        self.wake_at.take()
    }

    fn note(&mut self, old: Option<&Object>, new: Option<&Object>) {
        for object in old.into_iter().chain(new) {
            match object {
                Object::Service(service) => {
                    self.dirty.services.insert(service.id);
                }
                Object::Task(_) => {}
                Object::Cluster(_) | Object::Node(_) | Object::Network(_) => self.dirty.all = true,
                Object::Secret(_) | Object::Config(_) => {}
            }
        }
        let task = |object: Option<&Object>| match object {
            Some(Object::Task(task)) => Some(task.clone()),
            _ => None,
        };
        let (old, new) = (task(old), task(new));
        if old.is_some() || new.is_some() {
            self.dirty.note(old.as_deref(), new.as_deref());
        }
    }

    /// How many objects have been touched so far.
    #[must_use]
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// The state with the changes in it.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.next
    }

    /// What is different from the base.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.touched.len());
        for key in &self.touched {
            match (self.base.get(*key), self.next.get(*key)) {
                (Some(old), Some(new)) if old == new => {}
                (_, Some(new)) => changes.push(Change::Put(new)),
                (Some(old), None) => changes.push(Change::delete(&old)),
                (None, None) => {}
            }
        }
        changes
    }

    /// The answer of a loop.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        Outcome {
            changes: self.changes(),
            wake_at: self.wake_at,
        }
    }
}

impl Deref for Draft {
    type Target = View;

    fn deref(&self) -> &View {
        &self.next
    }
}
