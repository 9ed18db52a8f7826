//! What must hold, one file each, and what is remembered to check it.
//!
//! Those of the store alone are [`weft_control::invariant`]; here are those that need more than
//! one commit, more than one manager, or the nodes.

mod acknowledged_writes_stay;
mod managers_agree;
mod reports_rise;
mod rings_point_to_tasks;
pub(crate) mod settled_is_quiet;
mod stops_wait_for_rings;
mod tables_name_own_networks;
mod updates_keep_parallelism;

use std::collections::{BTreeMap, BTreeSet};

use weft_control::{
    invariant::{self, Broken},
    store::View,
};
use weft_types::{
    NodeId, TaskId, TaskState,
    netstate::NetState,
    node::NodeState,
    task::{Task, TaskStatus},
};

use crate::{Millis, host::Host, seat::host_of, wire::HostId};

/// Views that are kept: a node holds no revision older than the commits of some minutes.
const VIEWS: usize = 600;

/// Everything that a life's invariants must remember.
#[derive(Default)]
pub(crate) struct Record {
    history: acknowledged_writes_stay::History,
    snapshots: managers_agree::Snapshots,
    updates: updates_keep_parallelism::Updates,
    reported: BTreeMap<TaskId, TaskState>,
    views: BTreeMap<u64, View>,
    newest: View,
    /// When tasks were first told to stop.
    leaving: BTreeMap<TaskId, Millis>,
    stops: Vec<stops_wait_for_rings::Stop>,
    /// Hosts that were down and have not taken the network over again, and when they were last.
    stale: BTreeMap<HostId, u64>,
    /// Tasks that leaders waited for as long as their grace period, by their own clocks.
    waited_out: BTreeSet<TaskId>,
    pub(crate) commits: u64,
}

fn must(result: Result<(), Broken>) {
    if let Err(broken) = result {
        panic!("{broken}");
    }
}

impl Record {
    /// The newest state that any manager has applied.
    pub(crate) fn newest(&self) -> &View {
        &self.newest
    }

    /// A manager applied an entry.
    pub(crate) fn applies(
        &mut self,
        host: HostId,
        index: u64,
        mark: u64,
        before: &View,
        after: &View,
        now: Millis,
    ) {
        let is_first = match self.history.applies(host, index, mark) {
            Ok(is_first) => is_first,
            Err(broken) => panic!("{broken}"),
        };
        if !is_first {
            if let Some(known) = self.views.get(&after.index()) {
                must(managers_agree::check(host, known, after));
            }
            return;
        }
        self.commits += 1;
        must(invariant::check(before, after));
        must(self.updates.check(before, after));
        for task in after.tasks_leaving() {
            self.leaving.entry(task.id).or_insert(now);
        }
        for task in before.tasks_leaving() {
            let now = after.task(task.id).filter(|task| task.withdrawn);
            // When that was written, by the clock of the leader that wrote it.
            let waited = now.map(|task| task.meta.updated_at.since(task.desired_since));
            if waited >= Some(stops_wait_for_rings::GRACE_PERIOD) {
                self.waited_out.insert(task.id);
            }
        }
        for node in after
            .nodes()
            .filter(|node| node.status.state == NodeState::Down)
        {
            self.stale
                .extend(host_of(node.id).map(|host| (host, after.index())));
        }
        self.views.insert(after.index(), after.clone());
        while self.views.len() > VIEWS {
            self.views.pop_first();
        }
        self.newest = after.clone();
    }

    /// A manager made a snapshot.
    pub(crate) fn snapshots(&mut self, host: HostId, index: u64, bytes: &[u8]) {
        must(self.snapshots.check(host, index, bytes));
    }

    /// A manager took another's snapshot.
    pub(crate) fn installs(&mut self, host: HostId, index: u64, bytes: &[u8]) {
        must(self.snapshots.check(host, index, bytes));
    }

    /// A user was told that his wish is written.
    pub(crate) fn acknowledges(&mut self, index: u64, mark: u64) {
        must(self.history.acknowledges(index, mark));
    }

    /// The last entry that somebody was told is written.
    pub(crate) fn last_acknowledged(&self) -> u64 {
        self.history.last_acknowledged()
    }

    /// A node sends a report.
    pub(crate) fn reports(&mut self, node: NodeId, updates: &[(TaskId, TaskStatus)]) {
        must(reports_rise::check(&mut self.reported, node, updates));
    }

    /// A node's kernel holds what it was told.
    pub(crate) fn kernel_holds(&mut self, host: HostId, node: NodeId, state: &NetState) {
        if self
            .stale
            .get(&host)
            .is_some_and(|down| *down < state.revision)
        {
            self.stale.remove(&host);
        }
        if let Some(view) = self.views.get(&state.revision) {
            must(tables_name_own_networks::check(node, state, view));
            must(rings_point_to_tasks::check(node, state, view));
        }
    }

    /// The kernel of a host is empty.
    pub(crate) fn kernel_is_empty(&mut self, host: HostId) {
        self.stale.remove(&host);
    }

    /// A program that served is told to stop.
    pub(crate) fn stop_signal(&mut self, host: HostId, task: &Task, now: Millis) {
        self.stops.push(stops_wait_for_rings::Stop {
            host,
            task: task.id,
            name: task.name.clone(),
            at: now,
        });
    }

    /// Checks what needs all hosts.
    pub(crate) fn check_hosts(&mut self, hosts: &[Host]) {
        for stop in std::mem::take(&mut self.stops) {
            if self.waited_out.contains(&stop.task) {
                continue;
            }
            let since = self.leaving.get(&stop.task).copied();
            // A host that was removed is no part of it any more.
            let hosts = hosts
                .iter()
                .filter(|host| self.newest.node(host.node()).is_some());
            must(stops_wait_for_rings::check(
                &stop,
                since,
                hosts,
                &self.stale,
            ));
        }
    }
}
