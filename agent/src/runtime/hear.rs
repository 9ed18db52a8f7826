//! Listening to the engine, and keeping the kernel at the last word.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use weft_types::{TaskId, netstate::NetState};

use super::Input;
use crate::{executor::Executor, guest::keep::Sandboxes, network::Wiring};

/// The same revision is applied again after so long, which mends what drifted.
const MEND_PERIOD: Duration = Duration::from_secs(10);
/// Between two tries of a revision that the kernel refused.
const RETRY: Duration = Duration::from_millis(500);
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
        sleep(RETRY).await;
    }
}

/// Keeps the kernel at the last network state.
pub(super) async fn keep_network(
    wiring: Arc<dyn Wiring>,
    mut states: watch::Receiver<Arc<NetState>>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        let state = states.borrow_and_update().clone();
        let pause = if state.revision == 0 {
            MEND_PERIOD
        } else {
            match wiring.apply(&state).await {
                Ok(revision) => {
                    if inputs.send(Input::Applied(revision)).await.is_err() {
                        return;
                    }
                    MEND_PERIOD
                }
                Err(failure) => {
                    tracing::warn!(%failure, "cannot make the network what it should be; trying again");
                    RETRY
                }
            }
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
