//! One task's machine: from the manager's word to a container, one step per event.
//!
//! PURE. [`Machine::step`] takes an [`Event`] and the time and answers with the one [`Action`] to
//! do next, if any. An action replaces the one in flight, so there is never more than one per task.
//! Every action is answered by one event.
//!
//! Invariants: the observed state never falls; after it is terminal it never changes; a container
//! is never started unless the task is desired running (or complete, for jobs), and never removed
//! before the manager forgets the task, so that history can be looked at.
//!
//! ```text
//! Accepted -> Preparing -> Ready -> Starting -> Connecting -> Probing -> Running
//!                                      |            |            |          |  \ exit
//!                                      +------------+--- wish ---+----------+   v
//!                                   Withdrawing -> Draining -> Stopping -> Ended -> Removing
//! ```
//!
//! States and messages are SwarmKit's (`agent/exec`).

mod answer;

use std::time::Duration;

use weft_types::{
    TaskState, Timestamp,
    task::{ContainerStatus, Task, TaskStatus},
};

/// Docker's time between the stop signal and the kill.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Flows that live on, such as idle keep-alive connections, hold a stop up no longer than this.
const DRAIN: Duration = Duration::from_secs(5);
/// First pause before a step that failed for a passing reason is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest such pause.
const RETRY_LAST: Duration = Duration::from_secs(8);

/// What happened to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The manager's word on the task, new or changed.
    Assigned(Box<Task>),
    /// The manager forgot the task.
    Forgotten,
    /// So many flows of its are open, counted after nobody could choose it any more.
    Flows(u64),
    /// [`Action::Prepare`] ended: the engine's id of the container.
    Prepared(Result<String, Failure>),
    /// [`Action::Start`] ended: the process id.
    Started(Result<i64, Failure>),
    /// [`Action::Connect`] ended: the program runs in its network.
    Connected(Result<Health, Failure>),
    /// [`Action::Inspect`] ended, or the engine told of a change unasked.
    Observed(Result<Observation, Failure>),
    /// [`Action::Stop`] ended: the container does not run.
    Stopped(Result<i64, Failure>),
    /// [`Action::Remove`] ended.
    Removed(Result<(), Failure>),
    /// Time has passed.
    Tick,
}

/// Why an action failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people, in Docker's words where it has some.
    pub reason: String,
    /// Trying again may help: the engine did not answer.
    pub passing: bool,
}

/// What a health probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There is no probe.
    Unprobed,
    /// No verdict yet.
    Starting,
    /// Well.
    Healthy,
    /// Unwell: it must be replaced.
    Unhealthy,
}

/// How a container was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// There is none.
    Missing,
    /// Made and never started.
    Created,
    /// Running.
    Running {
        /// Process id.
        pid: i64,
        /// Its probe's verdict.
        health: Health,
    },
    /// Ended.
    Exited {
        /// Exit status.
        code: i64,
        /// What the engine says went wrong, may be empty.
        error: String,
    },
}

/// What must be done for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Pull the image and make the container; one that is there already is taken.
    Prepare,
    /// Start the container.
    Start,
    /// Give the container its network, then wait until its gate lets the program go.
    Connect {
        /// Process whose namespace it is.
        pid: i64,
    },
    /// Look how the container is.
    Inspect,
    /// Send the stop signal, and the kill after `grace`.
    Stop {
        /// Between the two.
        grace: Duration,
    },
    /// Remove the container, running or not.
    Remove,
    /// Give up what is in flight; answered by nothing.
    Abort,
}

/// Where the work on a task stands. Finer than the state that is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Waits to be told to go on after a restart of the agent: an inspection is in flight.
    Adopting,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Connecting,
    Probing,
    Running,
    /// Nodes are taking it out of their rings; at the moment given it is stopped all the same.
    Withdrawing(Timestamp),
    /// Nobody can choose it any more; its flows end. At the moment given it is stopped all the same.
    Draining(Timestamp),
    /// A stop is in flight. With a cause when nobody asked for it.
    Stopping(Option<&'static str>),
    /// A terminal state was reached; the container is kept.
    Ended,
    Removing,
    Gone,
}

/// A task and where it stands.
#[derive(Debug, Clone)]
pub struct Machine {
    task: Task,
    status: TaskStatus,
    stage: Stage,
    forgotten: bool,
    /// When the step that failed for a passing reason is tried again, and the pause after that.
    retry: Option<(Timestamp, Action)>,
    pause: Duration,
}

impl Machine {
    /// A task never seen before, and the first thing to do for it.
    #[must_use]
    pub fn accept(task: Task, now: Timestamp) -> (Self, Option<Action>) {
        let mut machine = Self::with(task, Stage::Accepted);
        machine.status = TaskStatus {
            state: machine.task.status.state,
            ..TaskStatus::default()
        };
        if machine.task.desired_state >= TaskState::Shutdown {
            machine.report(TaskState::Shutdown, "shutdown", now);
            machine.stage = Stage::Ended;
            return (machine, None);
        }
        machine.report(TaskState::Accepted, "accepted", now);
        let action = machine.advance(now);
        (machine, action)
    }

    /// A task that an earlier life of this agent left in `status`, and the first thing to do.
    #[must_use]
    pub fn adopt(task: Task, status: TaskStatus, now: Timestamp) -> (Self, Option<Action>) {
        let mut machine = Self::with(task, Stage::Adopting);
        machine.status = status;
        let state = machine.status.state;
        if state.is_terminal() {
            machine.stage = Stage::Ended;
            return (machine, None);
        }
        if state <= TaskState::Preparing {
            machine.stage = Stage::Accepted;
            let action = machine.advance(now);
            return (machine, action);
        }
        (machine, Some(Action::Inspect))
    }

    fn with(task: Task, stage: Stage) -> Self {
        Self {
            task,
            status: TaskStatus::default(),
            stage,
            forgotten: false,
            retry: None,
            pause: RETRY_FIRST,
        }
    }

    /// The manager's last word.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// What was last seen.
    #[must_use]
    pub fn status(&self) -> &TaskStatus {
        &self.status
    }

    /// The engine's id of the container, once there is one.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        let container = self.status.container_status.as_ref()?;
        (!container.container_id.is_empty()).then_some(container.container_id.as_str())
    }

    /// Whether nothing is left to do and it can be dropped.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    /// Whether its container has, or may have, a network.
    #[must_use]
    pub fn holds_sandbox(&self) -> bool {
        match self.stage {
            Stage::Adopting => self.status.state >= TaskState::Starting,
            Stage::Connecting
            | Stage::Probing
            | Stage::Running
            | Stage::Withdrawing(_)
            | Stage::Draining(_)
            | Stage::Stopping(_) => true,
            Stage::Accepted
            | Stage::Preparing
            | Stage::Ready
            | Stage::Starting
            | Stage::Ended
            | Stage::Removing
            | Stage::Gone => false,
        }
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let withdrawn = match self.stage {
            Stage::Withdrawing(until) | Stage::Draining(until) => Some(until),
            _ => None,
        };
        let retry = self.retry.as_ref().map(|(at, _)| *at);
        withdrawn.into_iter().chain(retry).min()
    }

    /// Takes an event.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Option<Action> {
        match event {
            Event::Assigned(task) => {
                let desired = self.task.desired_state.max(task.desired_state);
                self.task = *task;
                self.task.desired_state = desired;
                self.advance(now)
            }
            Event::Forgotten => {
                self.forgotten = true;
                self.advance(now)
            }
            Event::Tick => self.tick(now),
            Event::Flows(flows) => match self.stage {
                Stage::Draining(_) if flows == 0 => self.stop(None),
                _ => None,
            },
            Event::Prepared(result) => self.prepared(result, now),
            Event::Started(result) => self.started(result, now),
            Event::Connected(result) => self.connected(result, now),
            Event::Observed(result) => self.observed(result, now),
            Event::Stopped(result) => self.stopped(result, now),
            Event::Removed(result) => self.removed(result, now),
        }
    }

    /// Whether its last flows are waited for: a count that is begun now counts all of them.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining(_))
    }

    pub(crate) fn wants_stop(&self) -> bool {
        self.forgotten || self.task.desired_state >= TaskState::Shutdown
    }

    fn grace(&self) -> Duration {
        let wished = self.task.spec.container_spec.as_ref();
        wished
            .and_then(|container| container.stop_grace_period)
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map_or(STOP_GRACE, Duration::from_nanos)
    }

    /// The next thing to do for the wish at hand, if it can be done from this stage.
    fn advance(&mut self, now: Timestamp) -> Option<Action> {
        let wants_stop = self.wants_stop();
        match self.stage {
            // Nothing is in flight: the start has failed and was to be tried again.
            Stage::Starting if wants_stop && self.retry.is_some() => {
                self.end(TaskState::Shutdown, "shutdown", now);
                self.clear()
            }
            // The answer of what is in flight comes first.
            Stage::Adopting
            | Stage::Starting
            | Stage::Stopping(_)
            | Stage::Removing
            | Stage::Gone => None,
            Stage::Accepted | Stage::Preparing if wants_stop => {
                self.end(TaskState::Shutdown, "shutdown", now);
                self.clear().or(Some(Action::Abort))
            }
            Stage::Accepted => {
                self.stage = Stage::Preparing;
                self.report(TaskState::Preparing, "preparing", now);
                Some(Action::Prepare)
            }
            Stage::Preparing => None,
            Stage::Ready if wants_stop => {
                self.end(TaskState::Shutdown, "shutdown", now);
                self.clear()
            }
            Stage::Ready if self.task.desired_state >= TaskState::Running => {
                self.stage = Stage::Starting;
                self.report(TaskState::Starting, "starting", now);
                Some(Action::Start)
            }
            Stage::Ready => None,
            // Nobody chooses it before it was reported running. A task that an earlier life of this
            // agent reported so is in the rings of others while it is only being adopted.
            Stage::Connecting | Stage::Probing
                if wants_stop && self.status.state < TaskState::Running =>
            {
                self.stop(None)
            }
            Stage::Connecting | Stage::Probing | Stage::Running if wants_stop => {
                self.stage = Stage::Withdrawing(now.after(self.grace()));
                self.withdraw(now)
            }
            Stage::Connecting | Stage::Probing | Stage::Running => None,
            Stage::Withdrawing(_) | Stage::Draining(_) => self.withdraw(now),
            Stage::Ended => self.clear(),
        }
    }

    /// Stops the container once nobody chooses it any more and its flows have ended, or when
    /// waiting has been long enough.
    fn withdraw(&mut self, now: Timestamp) -> Option<Action> {
        let (Stage::Withdrawing(until) | Stage::Draining(until)) = self.stage else {
            return None;
        };
        if self.forgotten || self.task.networks_attachments.is_empty() || now >= until {
            return self.stop(None);
        }
        if self.task.withdrawn && !self.is_draining() {
            self.stage = Stage::Draining(until.min(now.after(DRAIN)));
        }
        None
    }

    fn stop(&mut self, cause: Option<&'static str>) -> Option<Action> {
        self.stage = Stage::Stopping(cause);
        self.retry = None;
        Some(Action::Stop {
            grace: self.grace(),
        })
    }

    /// Removes what an ended task left, once the manager has forgotten it.
    fn clear(&mut self) -> Option<Action> {
        if !self.forgotten {
            return None;
        }
        self.stage = Stage::Removing;
        Some(Action::Remove)
    }

    fn tick(&mut self, now: Timestamp) -> Option<Action> {
        if self.retry.as_ref().is_some_and(|(at, _)| now >= *at) {
            return self.retry.take().map(|(_, action)| action);
        }
        match self.stage {
            Stage::Withdrawing(_) | Stage::Draining(_) => self.withdraw(now),
            _ => None,
        }
    }

    /// A step has succeeded: nothing is to be tried again.
    fn settled(&mut self) {
        self.pause = RETRY_FIRST;
        self.retry = None;
    }

    fn retry(&mut self, action: Action, now: Timestamp) -> Option<Action> {
        self.retry = Some((now.after(self.pause), action));
        self.pause = (self.pause * 2).min(RETRY_LAST);
        None
    }

    /// Ends the task in error: rejected before it was started, failed after.
    fn fail(&mut self, reason: String, now: Timestamp) -> Option<Action> {
        let state = if self.status.state < TaskState::Starting {
            TaskState::Rejected
        } else {
            TaskState::Failed
        };
        self.status.err = reason;
        self.status.state = self.status.state.max(state);
        self.status.timestamp = now;
        self.stage = Stage::Ended;
        self.retry = None;
        self.clear()
    }

    fn end(&mut self, state: TaskState, message: &str, now: Timestamp) {
        self.retry = None;
        self.stage = Stage::Ended;
        self.report(state, message, now);
    }

    /// Raises the state; one that is not higher changes nothing.
    fn report(&mut self, state: TaskState, message: &str, now: Timestamp) {
        if state <= self.status.state {
            return;
        }
        self.status.state = state;
        message.clone_into(&mut self.status.message);
        self.status.timestamp = now;
    }

    fn blame(&mut self, reason: String, now: Timestamp) {
        if self.status.err != reason {
            self.status.err = reason;
            self.status.timestamp = now;
        }
    }

    fn container_mut(&mut self) -> &mut ContainerStatus {
        self.status.container_status.get_or_insert_default()
    }
}
