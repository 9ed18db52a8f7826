//! The only way in: transactions, whole or not at all.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_types::{Timestamp, Version};

use super::{Change, Event, Key, Object, Transaction, View};

/// Why a transaction was refused. Nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else wrote first: look again and decide again.
    #[error("update out of sequence")]
    OutOfSequence {
        /// Which object.
        key: Key,
        /// The version the writer saw; 0 is "none".
        seen: u64,
        /// The version in the store; 0 is "none".
        stored: u64,
    },
    /// The name belongs to another object of the kind.
    #[error("name conflicts with an existing object: {} {name:?} is {by}", by.kind())]
    NameTaken {
        /// The name wished.
        name: String,
        /// Whose it is.
        by: Key,
    },
    /// Two owners of what there is only one of.
    #[error("{wanted_by} cannot have {what}: {by} has it")]
    Taken {
        /// An address, VNI, port or backend number.
        what: String,
        /// Its owner.
        by: Key,
        /// Who wants it.
        wanted_by: Key,
    },
    /// A transaction names an object twice, which has no meaning.
    #[error("{0} is changed twice in one transaction")]
    Twice(Key),
}

impl ApplyError {
    /// Whether deciding again on a fresh view can succeed.
    #[must_use]
    pub fn is_race(&self) -> bool {
        matches!(self, Self::OutOfSequence { .. } | Self::Taken { .. })
    }
}

/// The replicated state machine.
///
/// Deterministic: the same entries in the same order give the same state on every manager.
#[derive(Debug, Clone, Default)]
pub struct Store {
    view: View,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state as it stands; costs nothing.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// The last entry applied.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.view.index
    }

    /// Applies the log entry `index`. Every object put gets `index` as its version.
    ///
    /// Entries that carry no transaction need not be applied; indexes only have to grow.
    ///
    /// # Errors
    /// When the transaction is refused; the state is then as before, but for its index.
    pub fn apply(
        &mut self,
        index: u64,
        transaction: &Transaction,
    ) -> Result<Vec<Event>, ApplyError> {
        self.view.index = index;
        let mut next = self.view.clone();
        let events = next.change(index, transaction.now, &transaction.changes)?;
        self.view = next;
        Ok(events)
    }

    pub(super) fn from_view(view: View) -> Self {
        Self { view }
    }
}

impl View {
    /// Carries out `changes`, half of them if it fails.
    fn change(
        &mut self,
        index: u64,
        now: Timestamp,
        changes: &[Change],
    ) -> Result<Vec<Event>, ApplyError> {
        self.ledger.wake(now);
        let mut events = Vec::with_capacity(changes.len());
        let mut seen = std::collections::HashSet::with_capacity(changes.len());
        // First everything is let go, then everything is taken: the order within a transaction
        // has no meaning.
        for change in changes {
            let key = change.key();
            if !seen.insert(key) {
                return Err(ApplyError::Twice(key));
            }
            let old = self.get(key);
            let expected = match change {
                Change::Put(object) => object.meta().version,
                Change::Delete { version, .. } => *version,
            };
            let stored = old.as_ref().map_or(0, |old| old.meta().version.index);
            if stored != expected.index
                || (old.is_none() && matches!(change, Change::Delete { .. }))
            {
                return Err(ApplyError::OutOfSequence {
                    key,
                    seen: expected.index,
                    stored,
                });
            }
            if let Some(old) = &old {
                self.unlink(old);
                self.ledger.release(old, now);
            }
            events.push(Event {
                index,
                now,
                key,
                old,
                new: None,
            });
        }
        for (change, event) in changes.iter().zip(&mut events) {
            match change {
                Change::Put(object) => {
                    let mut object = object.clone();
                    let mut meta = *object.meta();
                    meta.version = Version { index };
                    meta.updated_at = now;
                    match &event.old {
                        Some(old) => meta.created_at = old.meta().created_at,
                        None => meta.created_at = now,
                    }
                    if let (Object::Task(task), None) = (&mut object, &event.old) {
                        Arc::make_mut(task).made = meta.version;
                    }
                    object.set_meta(meta);
                    self.share(&mut object, event.old.as_ref());
                    self.ledger.take(&object)?;
                    if let Some(by) = self.link(&object) {
                        return Err(ApplyError::NameTaken {
                            name: name(&object),
                            by,
                        });
                    }
                    event.new = Some(object);
                }
                Change::Delete {
                    key: Key::Network(id),
                    ..
                } => self.ledger.drop_network(*id),
                Change::Delete { .. } => {}
            }
        }
        Ok(events)
    }
}

fn name(object: &Object) -> String {
    match object {
        Object::Network(network) => network.spec.name.clone(),
        Object::Secret(secret) => secret.spec.name.clone(),
        Object::Config(config) => config.spec.name.clone(),
        Object::Service(service) => service.spec.name.clone(),
        _ => String::new(),
    }
}
