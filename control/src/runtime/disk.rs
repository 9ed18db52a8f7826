//! Keeping this manager's files as the cluster wishes them: compact, and locked or open.

use std::{sync::Arc, time::Duration};

use tracing::{debug, warn};
use weft_types::cluster::RaftConfig;

use super::{Manager, StartError, start::directory};

/// Log entries between snapshots when the user has not chosen.
const SNAPSHOT_EVERY: u64 = 10_000;

/// Log entries kept behind a snapshot for slow followers when the user has not chosen.
const KEEP_BEHIND: u64 = 500;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);

impl Manager {
    /// Tends the files until the manager stops.
    pub(super) async fn tend_disk(self: Arc<Self>) {
        let mut views = self.replica.follow();
        let mut unlock_key = None;
        loop {
            let cluster = views.borrow_and_update().cluster().cloned();
            if let Some(cluster) = cluster {
                if unlock_key.as_ref() != Some(&cluster.unlock_key)
                    && self.keep_key(cluster.unlock_key.clone()).await
                {
                    unlock_key = Some(cluster.unlock_key.clone());
                }
                self.keep_compact(&cluster.spec.raft).await;
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                () = self.stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Locks the data key with the cluster's unlock key, and the node's own key with the data key;
    /// or opens both. Whatever is interrupted here, the unlock key opens what was left.
    async fn keep_key(&self, unlock_key: String) -> bool {
        let (seal, directory) = (self.seal.clone(), directory(&self.config));
        let (credentials, state_dir) = (self.credentials.clone(), self.config.state_dir.clone());
        let locks = !unlock_key.is_empty();
        let kept = tokio::task::spawn_blocking(move || -> Result<(), StartError> {
            if locks {
                seal.keep(&directory, &unlock_key)?;
                credentials.lock(&state_dir, Some(Arc::new(seal)))?;
            } else {
                credentials.lock(&state_dir, None)?;
                seal.keep(&directory, &unlock_key)?;
            }
            Ok(())
        })
        .await;
        match kept {
            Ok(Ok(())) => {
                debug!(node = %self.node, locks, "data key kept");
                true
            }
            Ok(Err(error)) => {
                warn!(%error, "the data key is not kept as the cluster wishes");
                false
            }
            Err(_) => false,
        }
    }

    /// Makes a snapshot when it is due, and drops what it covers from the log.
    async fn keep_compact(&self, spec: &RaftConfig) {
        let every = spec.snapshot_interval.filter(|every| *every > 0);
        let every = every.unwrap_or(SNAPSHOT_EVERY);
        let behind = spec.log_entries_for_slow_followers.unwrap_or(KEEP_BEHIND);
        let metrics = self.metrics();
        let index =
            |id: Option<openraft::alias::LogIdOf<crate::raft::Types>>| id.map_or(0, |id| id.index);
        let snapshot = index(metrics.snapshot);
        if index(metrics.last_applied) >= snapshot + every {
            // An engine that has stopped has nothing to compact.
            let _ = self.raft.trigger().snapshot().await;
            return;
        }
        let due = snapshot.saturating_sub(behind);
        if due > index(metrics.purged) {
            let _ = self.raft.trigger().purge_log(due).await;
        }
    }
}
