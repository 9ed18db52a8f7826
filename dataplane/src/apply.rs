//! The data plane of one node.

use std::collections::BTreeSet;

use weft_types::{BackendId, TaskId};

use crate::{
    Config, DataplaneError, Desired, DropCount, NetnsRef, Repairs, ResolverSockets, Sandbox, SandboxSpec, Status,
};

/// The data plane of one node: a handle, cheap to clone, usable from any task. Work that blocks is
/// done on threads of its own.
#[derive(Debug, Clone)]
pub struct Dataplane {}

/// What the kernel holds after [`Dataplane::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Revision of the state, read back.
    pub revision: u64,
    /// Entries, routes, links written because the desire changed.
    pub changes: u64,
    /// Differences mended that no change of desire explains.
    pub repairs: Repairs,
}

impl Dataplane {
    /// Loads or re-adopts programs, links and maps, makes the overlay device, and begins to follow
    /// this host's links and addresses. Call on a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses a part; what was made stays pinned for the next try.
    pub async fn start(config: Config) -> Result<Self, DataplaneError> {
        Err(DataplaneError::Refused(format!("not yet: {config:?}")))
    }

    /// Makes the kernel hold `desired`, reading back what it holds now. Calls queue; the last one
    /// wins. Also mends what drifted, so call it again from time to time with the same desire.
    ///
    /// # Errors
    /// When the kernel refuses a part; the rest is applied nevertheless.
    pub async fn apply(&self, desired: Desired) -> Result<Applied, DataplaneError> {
        Err(DataplaneError::Refused(format!("not yet: {}", desired.revision)))
    }

    /// Makes a task's interfaces and returns when they are up and its programs are attached.
    /// Repeatable: a sandbox that is there is checked and mended.
    ///
    /// # Errors
    /// When the namespace is gone or the kernel refuses; nothing is left behind then.
    pub async fn create_sandbox(&self, spec: SandboxSpec, netns: NetnsRef) -> Result<Sandbox, DataplaneError> {
        Err(DataplaneError::Refused(format!("not yet: {spec:?} {netns:?}")))
    }

    /// Removes a task's interfaces and flows. Unknown tasks are fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_sandbox(&self, task: TaskId) -> Result<(), DataplaneError> {
        Err(DataplaneError::Refused(format!("not yet: {task}")))
    }

    /// Forgets sandboxes found at start that belong to none of `tasks`. Call once after a restart,
    /// when all living tasks were given to [`Self::create_sandbox`] again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn retain_sandboxes(&self, tasks: BTreeSet<TaskId>) -> Result<(), DataplaneError> {
        Err(DataplaneError::Refused(format!("not yet: {tasks:?}")))
    }

    /// Flows that this backend of this node holds now: a drain is over at 0.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn flows(&self, backend: BackendId) -> Result<usize, DataplaneError> {
        Err(DataplaneError::Refused(format!("not yet: {backend:?}")))
    }

    /// Every reason for which a packet was dropped, with the last sample.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub async fn drops(&self) -> Result<Vec<DropCount>, DataplaneError> {
        Ok(Vec::new())
    }

    /// The state at a glance.
    pub async fn status(&self) -> Status {
        Status::default()
    }

    /// Removes everything that was ever made here: programs, links, maps, pins, devices, routes,
    /// firewall table. Sandboxes lose their interfaces.
    ///
    /// # Errors
    /// When a part cannot be removed; the rest is removed nevertheless.
    pub async fn uninstall(self) -> Result<(), DataplaneError> {
        Ok(())
    }
}

impl Sandbox {
    /// Opens UDP and TCP sockets at 127.0.0.11:53 inside the sandbox. Do it last: the gate in the
    /// task waits for the TCP one.
    ///
    /// # Errors
    /// When the namespace is gone or the address is taken.
    pub async fn open_resolver(&self) -> Result<ResolverSockets, DataplaneError> {
        Err(DataplaneError::Refused(format!("not yet: {:?}", self.netns)))
    }
}
