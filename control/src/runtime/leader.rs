//! What a leader does as long as it leads.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use weft_proto::{ControlError, dial, dispatcher::ManagerMessage};
use weft_types::{NodeId, TaskId, Timestamp, task::TaskStatus};

use super::{
    Manager, clock,
    propose::ProposeError,
    session::{GRACE, Report},
};
use crate::{dispatcher, settle::Settler};

/// Commits within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// How often the silence of nodes is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often the members of the consensus group are compared with the nodes' roles.
const MEMBERS_TICK: Duration = Duration::from_millis(500);

/// Pause after a proposal that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How long nodes may take to come to the only manager that is left: they dial those who are gone too, one after the
/// other, and a host that vanished keeps each dial waiting.
const REVIVED_GRACE: Duration = Duration::from_secs(30);

/// Reports within this time are written together.
const REPORT_BATCH: Duration = Duration::from_millis(50);

/// Task states in one transaction, at most.
const REPORT_UPDATES: usize = 2_000;

impl Manager {
    /// Leads whenever it is this manager's turn, until it stops.
    pub(super) async fn lead(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        loop {
            let term = {
                let metrics = metrics.borrow_and_update();
                (metrics.state == ServerState::Leader).then_some(metrics.current_term)
            };
            if let Some(term) = term {
                tokio::select! {
                    () = self.reign(term) => {}
                    () = self.stop.cancelled() => {}
                }
                self.reigns.send_replace(false);
                self.sessions.drop_all();
                debug!(node = %self.node, term, "not leading");
                if self.stop.is_cancelled() {
                    return;
                }
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Comes back when this manager leads and its term has begun: what says hello from then on is
    /// not forgotten again by the term's beginning.
    pub(super) async fn term_begun(&self) {
        // The sender lives as long as this manager.
        let _ = self.reigns.subscribe().wait_for(|reigns| *reigns).await;
    }

    /// Whether the term goes on: a leader that was cut off holds it until it hears of the next
    /// one, but without its majority it has nothing to say, and the nodes that still reach it are
    /// to look for somebody else.
    fn still_reigns(&self, term: u64) -> bool {
        let reigns = self.still_leads(term) && self.has_majority();
        if !reigns {
            info!(node = %self.node, term, "not leading any more");
        }
        reigns
    }

    fn still_leads(&self, term: u64) -> bool {
        let metrics = self.metrics();
        metrics.state == ServerState::Leader && metrics.current_term == term
    }

    /// One term: returns when it is over.
    async fn reign(self: &Arc<Self>, term: u64) {
        while self.confirm().await.is_err() {
            if !self.still_leads(term) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        info!(node = %self.node, term, "leading");
        let begun = Instant::now();
        while let Err(error) = self
            .propose(|view, now, _| Ok((dispatcher::unknown(view, now), ())))
            .await
        {
            debug!(%error, "cannot begin the term");
            if !self.still_leads(term) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.reigns.send_replace(true);
        let mut views = self.replica.follow();
        let mut members_due = Instant::now();
        let mut down_due = Instant::now();
        let mut settler = Settler::default();
        let mut wake_at = None;
        let mut seen = None;
        loop {
            let now_seen = (views.borrow_and_update().index(), self.sessions.acks());
            let is_due = wake_at.is_some_and(|at: Timestamp| at <= clock::now());
            if is_due || seen.as_ref() != Some(&now_seen) {
                let (decided, due) = self.decide(&mut settler).await;
                wake_at = due;
                // What could not be decided is due again.
                seen = decided.then_some(now_seen);
            }
            if down_due <= Instant::now() {
                self.notice_silence(begun).await;
                down_due = Instant::now() + TICK;
            }
            if members_due <= Instant::now() {
                self.tend_members().await;
                self.tend_rotation().await;
                self.tend_keys().await;
                members_due = Instant::now() + MEMBERS_TICK;
            }
            if !self.still_reigns(term) {
                return;
            }
            let next = wake_at.map_or(TICK, |at| at.since(clock::now()).min(TICK));
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(next) => continue,
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    /// Asks all loops what must change, and changes it. Says whether that worked, and when they
    /// want to be asked again although nothing changed.
    async fn decide(&self, settler: &mut Settler) -> (bool, Option<Timestamp>) {
        let acks = self.sessions.acks();
        let decided = self
            .propose(|view, now, ids| {
                let outcome = settler.decide(view, now, ids, &acks);
                Ok((outcome.changes, outcome.wake_at))
            })
            .await;
        match decided {
            Ok(wake_at) => (true, wake_at),
            Err(ProposeError::NotLeader) => (false, None),
            Err(ProposeError::Refused(error)) => {
                warn!(%error, "the loops' changes were refused");
                tokio::time::sleep(PAUSE).await;
                (false, None)
            }
        }
    }

    /// Marks nodes down that have been silent for too long, and those that have left. In a new
    /// term, nodes that have not come yet get twice the time, or what it takes to find out that the
    /// leader before is gone, whose host may have vanished without a word.
    async fn notice_silence(&self, begun: Instant) {
        let sounds = self.sessions.sounds();
        let view = self.replica.view();
        for node in dispatcher::misknown(&view, &sounds) {
            self.sessions.drop_node(node);
        }
        let grace = GRACE * self.period();
        let is_sought = self
            .revived_at
            .is_some_and(|at| at.elapsed() < REVIVED_GRACE);
        let all_should_be_here =
            !is_sought && begun.elapsed() > (2 * grace).max(dial::SESSION_SILENCE + grace);
        let lost = dispatcher::lost(&view, &sounds, all_should_be_here);
        for (node, why) in lost {
            self.sessions.drop_node(node);
            self.set_down(node, why).await;
        }
    }

    /// Writes down that a node is down.
    pub(crate) async fn set_down(&self, node: NodeId, why: &str) {
        info!(%node, why, "node is down");
        let written = self
            .propose(|view, now, _| Ok((dispatcher::down(view, now, node, why), ())))
            .await;
        if let Err(error) = written {
            // The next tick finds the node silent again.
            debug!(%node, %error, "cannot mark the node down");
        }
    }

    /// Writes what nodes report of their tasks, and tells them that it is written.
    pub(super) async fn write_reports(self: Arc<Self>, mut reports: mpsc::Receiver<Report>) {
        loop {
            let first = tokio::select! {
                report = reports.recv() => report,
                () = self.stop.cancelled() => None,
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            let until = tokio::time::Instant::now() + REPORT_BATCH;
            let mut updates = batch[0].updates.len();
            while updates < REPORT_UPDATES {
                match tokio::time::timeout_at(until, reports.recv()).await {
                    Ok(Some(report)) => {
                        updates += report.updates.len();
                        batch.push(report);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            let mut by_node: BTreeMap<NodeId, Vec<(TaskId, TaskStatus)>> = BTreeMap::new();
            for report in &mut batch {
                let updates = std::mem::take(&mut report.updates);
                by_node.entry(report.node).or_default().extend(updates);
            }
            let written = self
                .propose(|view, now, _| {
                    let changes = by_node.iter();
                    let changes = changes
                        .flat_map(|(node, updates)| dispatcher::status(view, now, *node, updates));
                    Ok((changes.collect(), ()))
                })
                .await;
            match written {
                Ok(()) => {
                    for report in batch {
                        let stored = ManagerMessage::StatusStored(report.sequence);
                        // A node that does not hear it reports again.
                        let _ = report.outbox.try_send(Ok(stored));
                    }
                }
                Err(ProposeError::NotLeader) => {}
                Err(ProposeError::Refused(error)) => log_refused(&error),
            }
        }
    }
}

fn log_refused(error: &ControlError) {
    warn!(%error, "reports of tasks were not stored; their nodes will report again");
}
