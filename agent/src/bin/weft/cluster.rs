//! Flags of the cluster socket: all hosts behind one engine's API.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use tokio_util::sync::CancellationToken;
use weft_docker::{ClusterConfig, DoorConfig, DoorError, Filter, Policy, Strategy};

use crate::handle::Handle;

/// Where the cluster socket is, and how containers are placed through it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterFlags {
    /// Socket behind which all hosts of the swarm are one engine; answers on managers. Beside the
    /// front door, as cluster.sock, if not given; empty: none.
    #[arg(long, value_name = "PATH")]
    cluster_socket: Option<String>,
    /// Where containers made through it go: spread, binpack, random.
    #[arg(long, value_name = "NAME", default_value_t)]
    cluster_strategy: Strategy,
    /// What it asks of hosts, in this order; all of them if none is named. May be given often.
    #[arg(long = "cluster-filter", value_name = "NAME")]
    cluster_filters: Vec<Filter>,
    /// By which part hosts promise more memory and CPUs than they have.
    #[arg(long, value_name = "PART", default_value_t = 0.05, value_parser = part)]
    cluster_overcommit: f64,
}

impl ClusterFlags {
    /// Serves the socket until `stop`, which a failure cancels too: an agent without a door that it was
    /// told to have is none.
    pub(crate) async fn serve(
        &self,
        door: DoorConfig,
        node: Arc<Handle>,
        stop: CancellationToken,
    ) -> Result<(), DoorError> {
        let socket = match self.cluster_socket.as_deref() {
            Some("") => return Ok(()),
            Some(path) => PathBuf::from(path),
            None => door.socket.with_file_name("cluster.sock"),
        };
        let mut policy = Policy {
            strategy: self.cluster_strategy,
            overcommit: self.cluster_overcommit,
            ..Policy::default()
        };
        if !self.cluster_filters.is_empty() {
            policy.filters.clone_from(&self.cluster_filters);
        }
        let config = ClusterConfig {
            socket,
            group: door.group,
            door: door.socket,
            policy,
        };
        let served = weft_docker::serve_cluster(config, node, stop.cancelled()).await;
        stop.cancel();
        served
    }
}

/// A part of a whole, zero and more.
fn part(text: &str) -> Result<f64, String> {
    let part = text.parse::<f64>().ok();
    part.filter(|part| part.is_finite() && *part >= 0.0)
        .ok_or_else(|| format!("{text:?} is no part of what hosts have: 0.05 is a twentieth more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_promise_a_number_more_than_they_have() {
        assert_eq!(part("0.05"), Ok(0.05));
        assert_eq!(part("0"), Ok(0.0));
        for text in ["-7", "NaN", "inf", "5%", ""] {
            assert!(part(text).is_err(), "{text}");
        }
    }
}
