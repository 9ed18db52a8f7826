//! Listening to the engine, and keeping the kernel at the last word.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use weft_types::{TaskId, netstate::NetState};

use super::{Input, tell::Complaint};
use crate::{executor::Executor, guest::keep::Sandboxes, network::Wiring};

/// The same revision is applied again after so long, which mends what drifted.
const MEND_PERIOD: Duration = Duration::from_secs(10);
/// Between two tries of a revision that the kernel refused, the first time; twice as long each time, up
/// to [`MEND_PERIOD`]: a try may load all programs anew.
const RETRY: Duration = Duration::from_millis(500);
/// Between two tries to listen to an engine that went away.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);
/// Changes of the network that come close together are one.
const QUIET: Duration = Duration::from_millis(2);

/// Hands on what the engine tells.
pub(super) async fn engine(executor: Arc<dyn Executor>, inputs: mpsc::Sender<Input>) {
    loop {
        let mut changes = executor.watch().await;
        while let Some(change) = changes.recv().await {
            if inputs.send(Input::Engine(change)).await.is_err() {
                return;
            }
        }
        sleep(LISTEN_AGAIN).await;
    }
}

/// Keeps the kernel at the last network state.
pub(super) async fn keep_network(
    wiring: Arc<dyn Wiring>,
    mut states: watch::Receiver<Arc<NetState>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut complaint = Complaint::default();
    let mut retry = RETRY;
    loop {
        let state = states.borrow_and_update().clone();
        let pause = if state.revision == 0 {
            MEND_PERIOD
        } else {
            let (told, pause) = match wiring.apply(&state).await {
                Ok(revision) => {
                    if complaint.ends() {
                        tracing::info!(revision, "the network is what it should be again");
                    }
                    retry = RETRY;
                    (Input::Applied(revision), MEND_PERIOD)
                }
                Err(failure) => {
                    if complaint.is_due(Instant::now()) {
                        tracing::warn!(%failure, "cannot make the network what it should be; trying again");
                    }
                    let pause = retry;
                    retry = MEND_PERIOD.min(retry * 2);
                    (Input::Unapplied(failure.reason), pause)
                }
            };
            if inputs.send(told).await.is_err() {
                return;
            }
            pause
        };
        match timeout(pause, states.changed()).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) => sleep(QUIET).await,
            Err(_) => {}
        }
    }
}

/// Removes sandboxes of tasks that hold none any more; those of users' own containers are not theirs.
pub(super) async fn keep_sandboxes(
    wiring: Arc<dyn Wiring>,
    mut wished: watch::Receiver<BTreeSet<TaskId>>,
    guests: watch::Receiver<Sandboxes>,
) {
    while wished.changed().await.is_ok() {
        let mut tasks = wished.borrow_and_update().clone();
        tasks.extend(guests.borrow().values());
        wiring.retain(&tasks).await;
    }
}
