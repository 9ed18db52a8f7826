//! A machine: what outlives the process of weft on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use weft_agent::task::{Health, Observation};
use weft_types::{
    NodeId, TaskId, Timestamp,
    netstate::NetState,
    task::{Task, TaskStatus},
};

use crate::{Millis, agent::Agent, disk::Disk, manager::Manager, seat::Seat, wire::HostId};

/// When worlds begin.
const BEGIN: Timestamp = Timestamp(1_800_000_000_000_000_000);

/// A container of the pretend engine.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) observation: Observation,
    /// When it ends by itself or by a signal, and how.
    pub(crate) ends: Option<(Millis, i64)>,
    /// When its probe fails.
    pub(crate) ails: Option<Millis>,
}

impl Container {
    pub(crate) fn runs(&self) -> bool {
        matches!(self.observation, Observation::Running { .. })
    }
}

/// What the pretend kernel holds.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) state: NetState,
    /// What it is being changed to, and when that is done.
    pub(crate) becomes: Option<(Millis, NetState)>,
    pub(crate) sandboxes: BTreeSet<TaskId>,
}

/// The agent's files.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) tasks: BTreeMap<TaskId, (Task, TaskStatus)>,
    pub(crate) net: NetState,
    pub(crate) managers: Vec<(Option<NodeId>, String)>,
}

/// What outlives the process.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) containers: BTreeMap<TaskId, Container>,
    pub(crate) kernel: Kernel,
    pub(crate) journal: Journal,
    /// Its clock, in milliseconds off the true time.
    pub(crate) off: i64,
    /// Until when its kernel refuses.
    pub(crate) refuses_until: Millis,
}

impl Machine {
    /// The time by its clock.
    pub(crate) fn clock(&self, now: Millis) -> Timestamp {
        let millis = i64::try_from(now)
            .unwrap_or(i64::MAX)
            .saturating_add(self.off);
        Timestamp(BEGIN.0.saturating_add(millis.saturating_mul(1_000_000)))
    }

    /// Containers that end or fall ill by now.
    pub(crate) fn tick(&mut self, now: Millis) -> Vec<(TaskId, Observation)> {
        let mut told = Vec::new();
        for (task, container) in &mut self.containers {
            let Observation::Running { pid, .. } = container.observation else {
                continue;
            };
            if let Some((at, code)) = container.ends
                && at <= now
            {
                container.ends = None;
                container.observation = Observation::Exited {
                    code,
                    error: String::new(),
                };
                told.push((*task, container.observation.clone()));
            } else if container.ails.is_some_and(|at| at <= now) {
                container.ails = None;
                container.observation = Observation::Running {
                    pid,
                    health: Health::Unhealthy,
                };
                told.push((*task, container.observation.clone()));
            }
        }
        told
    }

    /// The node leaves: nothing of the cluster stays but its clock.
    pub(crate) fn wipe(&mut self) {
        self.containers.clear();
        self.kernel = Kernel::default();
        self.journal = Journal::default();
    }

    /// The power goes.
    pub(crate) fn reboot(&mut self) {
        self.kernel = Kernel::default();
        for container in self.containers.values_mut() {
            container.ends = None;
            container.ails = None;
            if container.runs() {
                container.observation = Observation::Exited {
                    code: 255,
                    error: String::new(),
                };
            }
        }
    }
}

/// A host.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) machine: Machine,
    pub(crate) agent: Option<Agent>,
    pub(crate) manager: Option<Manager>,
    /// What it is in the cluster.
    pub(crate) seat: Seat,
    /// When the process comes back.
    pub(crate) back: Option<Millis>,
    /// How often it began.
    pub(crate) lives: u64,
}

impl Host {
    /// Its manager's disk, if it has one.
    pub(crate) fn disk_mut(&mut self) -> Option<&mut Disk> {
        let manager = self.manager.as_mut();
        manager
            .map(|manager| &mut manager.member.disk)
            .or(self.seat.disk.as_mut())
    }

    /// The node that it is.
    pub(crate) fn node(&self) -> NodeId {
        self.seat.node(self.id)
    }
}

/// Where the manager of a host listens.
pub(crate) fn addr(host: HostId) -> SocketAddr {
    let last = u8::try_from(10 + host).unwrap_or(u8::MAX);
    SocketAddr::from(([192, 0, 2, last], 2377))
}

/// The host that listens there.
pub(crate) fn host_at(addr: SocketAddr) -> HostId {
    match addr.ip() {
        std::net::IpAddr::V4(ip) => u32::from(ip.octets()[3]).saturating_sub(10),
        std::net::IpAddr::V6(_) => 0,
    }
}
