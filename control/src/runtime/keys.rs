//! Keys of nodes for encrypted networks: a new generation when one is due, the end of the old.

use tracing::{debug, info};
use weft_types::cluster::Cluster;

use super::{Manager, clock};
use crate::{dispatcher, store::Change};

impl Manager {
    /// Takes the next step of the generations of keys, if there is one.
    pub(super) async fn tend_keys(&self) {
        if dispatcher::next_keys(&self.replica.view(), clock::now()).is_none() {
            return;
        }
        let written = self
            .propose(|view, now, _| {
                let next = dispatcher::next_keys(view, now);
                let cluster = view.cluster().zip(next).map(|(cluster, keys)| Cluster {
                    keys,
                    ..Cluster::clone(cluster)
                });
                Ok((cluster.into_iter().map(Change::put).collect(), next))
            })
            .await;
        match written {
            Ok(Some(keys)) => {
                let generations = keys.generations;
                info!(
                    newest = generations.newest,
                    oldest = generations.oldest,
                    "generations of keys for encrypted networks"
                );
            }
            Ok(None) => {}
            Err(error) => debug!(%error, "the change of keys for encrypted networks waits"),
        }
    }
}
