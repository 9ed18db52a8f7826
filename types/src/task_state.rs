//! Where a task is, and where it should be.

use serde::{Deserialize, Serialize};

/// A task's place in life. Ordered: an observed state may only grow.
///
/// The numbers are SwarmKit's, and only their order means anything.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Made by the orchestrator.
    #[default]
    New = 0,
    /// Has its addresses and ports; waits for a node.
    Pending = 64,
    /// Has a node.
    Assigned = 192,
    /// The node's agent has it.
    Accepted = 256,
    /// Image and container are being made.
    Preparing = 320,
    /// Container made, not started; waits until it is desired running.
    Ready = 384,
    /// Started; waits for its first healthy probe if it has one.
    Starting = 448,
    /// Running, and healthy if that is probed.
    Running = 512,
    /// Ended by itself with status 0.
    Complete = 576,
    /// Ended because it was asked to.
    Shutdown = 640,
    /// Ended in error after it was started.
    Failed = 704,
    /// Ended in error before it was started.
    Rejected = 768,
    /// Only desired: stop it, then forget it.
    Remove = 800,
    /// Its node is gone for good.
    Orphaned = 832,
}

impl TaskState {
    /// The state's name in Docker's JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// Whether nothing will run any more: later than running.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
