//! What makes containers: the door between tasks and whatever runs them.
//!
//! [`engine`] is the Docker Engine below, [`fake`] a pretend one with faults for tests and
//! simulations. Both keep the same promises: [`Executor::prepare`] and [`Executor::remove`] may be
//! repeated, and a call that is dropped half-way can be made again.

pub mod engine;
pub mod fake;

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;
use weft_proto::LogStream;
use weft_types::{Labels, TaskId, Timestamp, node::NodeDescription, task::Task};

use crate::task::{Failure, Health, Observation};

pub use weft_types::template::Place;

/// What a task's container is made from, beside the task itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Order {
    /// The task.
    pub task: Option<Box<Task>>,
    /// Where it will run, for templates and labels.
    pub place: Place,
    /// Secrets and configs as files.
    pub files: Vec<DeliveredFile>,
}

/// A secret or config that a container sees as a file.
#[derive(Clone, PartialEq, Eq)]
pub struct DeliveredFile {
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode bits.
    pub mode: u32,
    /// Content.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for DeliveredFile {
    /// Without the content, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeliveredFile")
            .field("target", &self.target)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Something that the executor tells unasked.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A task's container is like this now.
    Container(TaskId, Observation),
    /// Changes may have been missed: look at everything.
    Resync,
}

/// A container of ours, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose.
    pub task: TaskId,
    /// The engine's id.
    pub container: String,
    /// How it is.
    pub observation: Observation,
}

/// Which lines of a container's log are wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Go on with new lines.
    pub follow: bool,
    /// Last lines; `None` is all.
    pub tail: Option<u64>,
    /// Only lines since then.
    pub since: Timestamp,
}

/// A line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// On which stream.
    pub stream: LogStream,
    /// When.
    pub at: Timestamp,
    /// The line with its newline, if it had one.
    pub line: Vec<u8>,
    /// What the log's options ask to be told with each line: labels, environment, tag.
    pub attributes: Labels,
}

/// Makes, runs and watches containers.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// What the node has. Fields that only the agent knows (certificates) are left empty.
    ///
    /// # Errors
    /// When the executor does not answer.
    async fn describe(&self) -> Result<NodeDescription, Failure>;

    /// Pulls the image and makes the container, and answers its id. A container of the same task
    /// that is there already is taken if it was never started, else replaced.
    ///
    /// # Errors
    /// With Docker's words when the image is not there, or when something in the spec cannot be
    /// honoured.
    async fn prepare(&self, order: Order) -> Result<String, Failure>;

    /// Starts the container; answers the process id of its gate. One that runs stays as it is.
    ///
    /// # Errors
    /// When it cannot be started.
    async fn start(&self, container: &str) -> Result<i64, Failure>;

    /// Returns when the program has replaced its gate; the network must be there.
    ///
    /// # Errors
    /// When it did not within the gate's patience. A container that ended is no error here: its
    /// end is told by [`Executor::watch`].
    async fn await_program(&self, container: &str, pid: i64) -> Result<Health, Failure>;

    /// How the container is.
    ///
    /// # Errors
    /// When the executor does not answer.
    async fn inspect(&self, container: &str) -> Result<Observation, Failure>;

    /// Sends the stop signal, waits `grace`, kills; answers the exit status. One that does not run
    /// stays as it is.
    ///
    /// # Errors
    /// When the executor does not answer.
    async fn stop(&self, container: &str, grace: Duration) -> Result<i64, Failure>;

    /// Removes the task's container, running or not, and what lay beside it. One that is not there
    /// is no error.
    ///
    /// # Errors
    /// When the executor does not answer or refuses.
    async fn remove(&self, task: TaskId, container: Option<&str>) -> Result<(), Failure>;

    /// All containers of tasks, running or not.
    ///
    /// # Errors
    /// When the executor does not answer.
    async fn list(&self) -> Result<Vec<Found>, Failure>;

    /// Tells of containers that end and of probes' verdicts, from now on. The first item is
    /// [`Change::Resync`], and so is the item after each gap.
    async fn watch(&self) -> mpsc::Receiver<Change>;

    /// Lines of a container's log; ends with the log, or with the container if `follow`. A failure is
    /// the last item.
    ///
    /// # Errors
    /// When the executor does not answer, or keeps no log that can be read.
    async fn logs(
        &self,
        container: &str,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<Result<LogEntry, Failure>>, Failure>;
}

impl Failure {
    /// A failure that trying again may mend.
    #[must_use]
    pub fn passing(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            passing: true,
        }
    }

    /// A failure that stays.
    #[must_use]
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            passing: false,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}
