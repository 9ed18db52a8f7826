//! The one way to change the state, and the one way to read it fresh.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use openraft::{LinearizerOption, errors::ClientWriteError};
use tokio::runtime::{Handle, RuntimeFlavor};
use weft_proto::ControlError;
use weft_types::Timestamp;

use super::{Manager, clock, route::in_doubt};
use crate::{
    raft::Proposal,
    store::{ApplyError, Change, IdSource, Transaction, View},
};

/// How often a decision is thought again when somebody wrote in between.
const TRIES: usize = 5;

/// How long a leader looks for its majority before it says that it has none.
const MAJORITY_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two looks at whether the majority is still there.
const MAJORITY_LOOK: Duration = Duration::from_millis(100);

/// From so many tasks on a thought may take long enough to keep heartbeats waiting.
const LONG_THOUGHT: usize = 5_000;

/// Why something was not done here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// This manager does not lead, or has lost its majority. Nothing was done: ask the leader.
    #[error("this manager does not lead")]
    NotLeader,
    /// The request was refused, or its fate is unknown.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

/// Docker's words for a refused transaction.
fn refusal(error: &ApplyError) -> ControlError {
    match error {
        ApplyError::OutOfSequence { .. } => ControlError::aborted(error.to_string()),
        ApplyError::NameTaken { .. } => ControlError::exists(error.to_string()),
        ApplyError::Taken { .. } => ControlError::aborted(error.to_string()),
        ApplyError::Twice(_) => ControlError::unknown(error.to_string()),
    }
}

/// Does `work` in a cluster of so many tasks; where that may take a while, other tasks of this thread do not wait for
/// it.
fn think<T>(tasks: usize, work: impl FnOnce() -> T) -> T {
    // Stepping aside wakes another thread, and starts one when all are behind: hundreds of short thoughts a second
    // would end in as many threads as the runtime may have, each with its own part of the allocator.
    let aside = tasks >= LONG_THOUGHT;
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread if aside => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Manager {
    /// Makes sure that this manager leads, has its majority, and has applied all that any leader
    /// before it has acknowledged.
    pub(crate) async fn confirm(&self) -> Result<(), ProposeError> {
        if self.metrics().running_state.is_err() {
            return Err(ProposeError::NotLeader);
        }
        let quick = LinearizerOption::new(None, false).with_wait_timeout(Duration::ZERO);
        if self.raft.ensure_linearizable(quick).await.is_ok() {
            return Ok(());
        }
        let thorough =
            LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(MAJORITY_PATIENCE);
        match self.raft.ensure_linearizable(thorough).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ProposeError::NotLeader),
        }
    }

    /// The newest state, with every acknowledged write in it.
    pub(crate) async fn fresh_view(&self) -> Result<View, ProposeError> {
        self.confirm().await?;
        Ok(self.replica.view())
    }

    /// Waits until this manager has led without its majority for so long that nobody should wait
    /// for it any more; says so.
    async fn majority_lost(&self) -> &'static str {
        loop {
            tokio::time::sleep(MAJORITY_LOOK).await;
            if !self.has_majority() {
                return "this manager does not reach a majority of the managers";
            }
        }
    }

    /// Decides on the newest state and commits what was decided. `decide` is asked again if
    /// somebody else wrote first; an empty answer commits nothing.
    pub(crate) async fn propose<T>(
        &self,
        mut decide: impl FnMut(
            &View,
            Timestamp,
            &mut IdSource,
        ) -> Result<(Vec<Change>, T), ControlError>,
    ) -> Result<T, ProposeError> {
        let _turn = self.turn.lock().await;
        let mut last = None;
        for _ in 0..TRIES {
            let view = self.fresh_view().await?;
            let now = clock::now();
            let (changes, answer) = {
                let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                think(view.task_count(), || decide(&view, now, &mut ids))?
            };
            if changes.is_empty() {
                return Ok(answer);
            }
            let transaction = Arc::new(Transaction { now, changes });
            let written = tokio::select! {
                written = self.raft.client_write(Proposal(transaction)) => written,
                why = self.majority_lost() => return Err(in_doubt(why).into()),
            };
            match written {
                Ok(written) => match written.data {
                    Ok(()) => return Ok(answer),
                    Err(error) if error.is_race() => last = Some(error),
                    Err(error) => return Err(refusal(&error).into()),
                },
                Err(error) => match error.api_error() {
                    Some(ClientWriteError::ForwardToLeader(_)) => {
                        return Err(ProposeError::NotLeader);
                    }
                    _ => return Err(in_doubt(error).into()),
                },
            }
        }
        Err(last
            .as_ref()
            .map_or_else(|| ControlError::aborted("update out of sequence"), refusal)
            .into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_long_thought_keeps_nobody_waiting() {
        let (said, heard) = mpsc::channel();
        // On the only thread there is: who does not step aside waits here in vain.
        let thought = tokio::spawn(async move {
            tokio::spawn(async move { said.send("heartbeat") });
            think(LONG_THOUGHT, || heard.recv_timeout(Duration::from_secs(10)))
        });
        assert_eq!(thought.await.expect("no panic"), Ok("heartbeat"));
    }

    #[test]
    fn short_thoughts_start_no_threads() {
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || {
                count.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .expect("a runtime");
        let thoughts = runtime.spawn(async {
            for _ in 0..100 {
                think(LONG_THOUGHT - 1, || ());
                tokio::task::yield_now().await;
            }
        });
        runtime.block_on(thoughts).expect("no panic");
        // All that were started have said so when the runtime is gone.
        drop(runtime);
        assert_eq!(started.load(Ordering::SeqCst), 1);
    }
}
