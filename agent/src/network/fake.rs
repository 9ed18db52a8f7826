//! A pretend network: remembers what it was told.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use weft_types::{
    TaskId,
    netstate::{NetState, WireGuardPeer},
    task::Task,
};

use super::Wiring;
use crate::task::Failure;

/// A network in memory.
#[derive(Debug, Default)]
pub struct FakeWiring {
    held: Mutex<Held>,
    /// Nothing is ready while a test holds this.
    pub starting: tokio::sync::Mutex<()>,
}

/// What the pretend network holds.
#[derive(Debug, Default)]
pub struct Held {
    /// The last state applied.
    pub state: NetState,
    /// Sandboxes that are up.
    pub sandboxes: BTreeSet<TaskId>,
    /// What sandboxes were made from, in order.
    pub made: Vec<Task>,
    /// Tasks whose names were answered before their sandbox was looked at.
    pub named_early: BTreeSet<TaskId>,
    /// What it says of its keys.
    pub keys: Option<WireGuardPeer>,
    /// What to answer instead of applying, if anything.
    pub refuses: Option<Failure>,
}

impl FakeWiring {
    /// Looks at, and changes, what it holds.
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Wiring for FakeWiring {
    async fn apply(&self, state: &NetState) -> Result<u64, Failure> {
        let mut held = self.held();
        if let Some(failure) = &held.refuses {
            return Err(failure.clone());
        }
        held.state = state.clone();
        Ok(state.revision)
    }

    async fn ready(&self) {
        let _done = self.starting.lock().await;
    }

    async fn connect(&self, task: &Task, _pid: i64) -> Result<(), Failure> {
        let mut held = self.held();
        if let Some(failure) = &held.refuses {
            return Err(failure.clone());
        }
        held.sandboxes.insert(task.id);
        held.made.push(task.clone());
        Ok(())
    }

    async fn answer_names(&self, task: &Task, _pid: i64) {
        self.held().named_early.insert(task.id);
    }

    async fn disconnect(&self, task: TaskId) {
        self.held().sandboxes.remove(&task);
    }

    async fn retain(&self, tasks: &BTreeSet<TaskId>) {
        self.held().sandboxes.retain(|task| tasks.contains(task));
    }

    async fn flows(&self, _task: &Task) -> u64 {
        0
    }

    async fn keys(&self) -> Option<WireGuardPeer> {
        self.held().keys
    }

    async fn uninstall(&self) -> Result<(), Failure> {
        *self.held() = Held::default();
        Ok(())
    }
}
