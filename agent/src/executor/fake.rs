//! A pretend executor with faults, for tests and simulations.
//!
//! Containers are entries of a table. They run until they are stopped or [`FakeExecutor::exit`]
//! ends them. A fault is a failure that the next call of one verb answers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use weft_types::{TaskId, node::NodeDescription};

use super::{Change, Executor, Found, LogEntry, LogQuery, Order};
use crate::task::{Failure, Health, Observation};

/// A verb of the executor that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// [`Executor::prepare`].
    Prepare,
    /// [`Executor::start`].
    Start,
    /// [`Executor::stop`].
    Stop,
    /// [`Executor::remove`].
    Remove,
    /// [`Executor::inspect`].
    Inspect,
    /// [`Executor::logs`], after the last line.
    Logs,
}

/// A container in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeContainer {
    /// Whose.
    pub task: TaskId,
    /// How it is.
    pub observation: Observation,
    /// How often it was started.
    pub starts: u32,
    /// Verdict of its probe once it runs.
    pub health: Health,
    /// Lines of its log.
    pub log: Vec<LogEntry>,
}

/// Containers in memory.
#[derive(Debug, Default)]
pub struct FakeExecutor {
    held: Mutex<Held>,
}

/// What the pretend executor holds.
#[derive(Debug, Default)]
pub struct Held {
    /// Containers by id.
    pub containers: BTreeMap<String, FakeContainer>,
    /// Failures waiting for a call of their verb.
    pub faults: BTreeMap<Verb, VecDeque<Failure>>,
    /// Whether containers of new tasks have a probe that has no verdict yet.
    pub probed: bool,
    /// What is in the log of containers that are made from now on.
    pub log: Vec<LogEntry>,
    /// With what status containers end the moment that they are started, if they do: nobody is
    /// told, as when the engine's word comes before the answer to the start.
    pub ends_at_once: Option<i64>,
    watchers: Vec<mpsc::Sender<Change>>,
    made: i64,
}

impl FakeExecutor {
    /// Looks at, and changes, what it holds.
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call of `verb` fails.
    pub fn fail(&self, verb: Verb, failure: Failure) {
        self.held()
            .faults
            .entry(verb)
            .or_default()
            .push_back(failure);
    }

    /// The container of `task`, if there is one.
    #[must_use]
    pub fn container_of(&self, task: TaskId) -> Option<FakeContainer> {
        let held = self.held();
        let found = held
            .containers
            .values()
            .find(|container| container.task == task);
        found.cloned()
    }

    /// Ends the container of `task` by itself.
    pub fn exit(&self, task: TaskId, code: i64) {
        let observation = Observation::Exited {
            code,
            error: String::new(),
        };
        self.tell(task, observation);
    }

    /// The probe of the container of `task` has a verdict.
    pub fn probe(&self, task: TaskId, health: Health) {
        let pid = 1;
        self.tell(task, Observation::Running { pid, health });
    }

    fn tell(&self, task: TaskId, observation: Observation) {
        let mut held = self.held();
        for container in held.containers.values_mut() {
            if container.task == task {
                container.observation = observation.clone();
            }
        }
        let change = Change::Container(task, observation);
        // A watcher that does not listen looks again at its next resync.
        held.watchers
            .retain(|watcher| watcher.try_send(change.clone()).is_ok());
    }

    fn fault(&self, verb: Verb) -> Result<(), Failure> {
        let fault = self
            .held()
            .faults
            .get_mut(&verb)
            .and_then(VecDeque::pop_front);
        fault.map_or(Ok(()), Err)
    }
}

fn missing(container: &str) -> Failure {
    Failure::lasting(format!("No such container: {container}"))
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn describe(&self) -> Result<NodeDescription, Failure> {
        Ok(NodeDescription {
            hostname: "fake".to_owned(),
            ..NodeDescription::default()
        })
    }

    async fn prepare(&self, order: Order) -> Result<String, Failure> {
        self.fault(Verb::Prepare)?;
        let Some(task) = order.task else {
            return Err(Failure::lasting("no task to prepare a container for"));
        };
        let mut held = self.held();
        held.made += 1;
        let health = if held.probed {
            Health::Starting
        } else {
            Health::Unprobed
        };
        held.containers
            .retain(|_, container| container.task != task.id);
        let log = held.log.clone();
        held.containers.insert(
            task.id.to_string(),
            FakeContainer {
                task: task.id,
                observation: Observation::Created,
                starts: 0,
                health,
                log,
            },
        );
        Ok(task.id.to_string())
    }

    async fn start(&self, container: &str) -> Result<i64, Failure> {
        self.fault(Verb::Start)?;
        let mut held = self.held();
        let pid = 1000 + held.made;
        let ends = held.ends_at_once;
        let found = held
            .containers
            .get_mut(container)
            .ok_or_else(|| missing(container))?;
        if !matches!(found.observation, Observation::Running { .. }) {
            found.starts += 1;
            let health = found.health;
            found.observation = match ends {
                None => Observation::Running { pid, health },
                Some(code) => Observation::Exited {
                    code,
                    error: String::new(),
                },
            };
        }
        Ok(pid)
    }

    async fn await_program(&self, container: &str, _pid: i64) -> Result<Health, Failure> {
        let held = self.held();
        let found = held
            .containers
            .get(container)
            .ok_or_else(|| missing(container))?;
        Ok(found.health)
    }

    async fn inspect(&self, container: &str) -> Result<Observation, Failure> {
        self.fault(Verb::Inspect)?;
        let held = self.held();
        let found = held.containers.get(container);
        Ok(found.map_or(Observation::Missing, |found| found.observation.clone()))
    }

    async fn stop(&self, container: &str, _grace: Duration) -> Result<i64, Failure> {
        self.fault(Verb::Stop)?;
        let mut held = self.held();
        let Some(found) = held.containers.get_mut(container) else {
            return Ok(0);
        };
        match found.observation {
            Observation::Exited { code, .. } => Ok(code),
            Observation::Running { .. } => {
                let code = 143;
                let error = String::new();
                found.observation = Observation::Exited { code, error };
                Ok(code)
            }
            Observation::Missing | Observation::Created => Ok(0),
        }
    }

    async fn remove(&self, task: TaskId, _container: Option<&str>) -> Result<(), Failure> {
        self.fault(Verb::Remove)?;
        self.held()
            .containers
            .retain(|_, container| container.task != task);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Found>, Failure> {
        let held = self.held();
        let found = held.containers.iter().map(|(id, container)| Found {
            task: container.task,
            container: id.clone(),
            observation: container.observation.clone(),
        });
        Ok(found.collect())
    }

    async fn watch(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel(256);
        // Never full: it is new.
        let _sent = sender.try_send(Change::Resync);
        self.held().watchers.push(sender);
        receiver
    }

    async fn logs(
        &self,
        container: &str,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<Result<LogEntry, Failure>>, Failure> {
        let log = match self.held().containers.get(container) {
            Some(found) => found.log.clone(),
            None => return Err(missing(container)),
        };
        let skipped = query.tail.map_or(0, |tail| {
            log.len()
                .saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX))
        });
        let (sender, receiver) = mpsc::channel(log.len() + 1);
        for entry in log.into_iter().skip(skipped) {
            // As large as the log.
            let _sent = sender.try_send(Ok(entry));
        }
        if let Err(failure) = self.fault(Verb::Logs) {
            let _sent = sender.try_send(Err(failure));
        }
        Ok(receiver)
    }
}
