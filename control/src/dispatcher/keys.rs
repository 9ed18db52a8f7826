//! Keys of nodes for encrypted networks, in generations.
//!
//! A generation is only a number here: each node makes its own key for it and tells the public half. A
//! new one begins on schedule or when it is asked for. While nodes move to it they answer to the one
//! before as well; that ends when every node has moved, or patience does.

use std::time::Duration;

use weft_types::{
    Timestamp,
    cluster::{Cluster, KeyRotation},
    netstate::{KeyGenerations, WireGuardPeer},
    node::Node,
};

use crate::store::View;

/// How long keys of a generation are answered to at most after the next began: a node that has not moved
/// by then is down, or cannot speak with another.
pub const KEYS_PATIENCE: Duration = Duration::from_secs(3600);

/// Where the cluster's generations of keys must go from here; `None` when they are as they should be.
#[must_use]
pub fn next_keys(view: &View, now: Timestamp) -> Option<KeyRotation> {
    let cluster = view.cluster()?;
    step(cluster, view.nodes().map(|node| &**node), now)
}

fn step<'a>(
    cluster: &Cluster,
    mut nodes: impl Iterator<Item = &'a Node>,
    now: Timestamp,
) -> Option<KeyRotation> {
    let keys = cluster.keys;
    let asked = cluster.spec.ca_config.force_rotate;
    if keys.since.is_zero() {
        // Of a cluster from before there were generations.
        return Some(KeyRotation {
            since: now,
            asked,
            ..keys
        });
    }
    let KeyGenerations { newest, oldest } = keys.generations;
    if oldest < newest {
        let waits =
            keys.since.after(KEYS_PATIENCE) > now && nodes.any(|node| is_moving(node, newest));
        return (!waits).then_some(KeyRotation {
            generations: KeyGenerations {
                newest,
                oldest: newest,
            },
            ..keys
        });
    }
    // Keys live as long as the nodes' certificates may.
    let is_due = keys.since.after(cluster.spec.ca_config.validity()) <= now || keys.asked != asked;
    is_due.then_some(KeyRotation {
        generations: KeyGenerations {
            newest: newest + 1,
            oldest: newest,
        },
        since: now,
        asked,
    })
}

/// Whether a node may still use a key older than this generation. Who never told a key takes no part. Who
/// is down is waited for like all others, because its tasks go on speaking when it only lost its managers.
fn is_moving(node: &Node, newest: u64) -> bool {
    let has_moved = |peer: WireGuardPeer| peer.generation == newest && peer.settled;
    node.wireguard.is_some_and(|peer| !has_moved(peer))
}

#[cfg(test)]
mod tests {
    use weft_types::node::NodeState;

    use super::*;
    use crate::fixture;

    const BEGIN: Timestamp = Timestamp(1_795_219_200_000_000_000);

    /// A cluster whose keys of generation 3 began at [`BEGIN`].
    fn cluster() -> Cluster {
        let mut cluster = fixture::cluster();
        cluster.keys = KeyRotation {
            generations: KeyGenerations {
                newest: 3,
                oldest: 3,
            },
            since: BEGIN,
            asked: 0,
        };
        cluster
    }

    fn node(number: u32, generation: u64, settled: bool) -> Node {
        let mut node = fixture::node(number);
        node.wireguard = Some(WireGuardPeer {
            generation,
            settled,
            ..WireGuardPeer::default()
        });
        node
    }

    fn after(cluster: &Cluster, nodes: &[Node], seconds: u64) -> Option<KeyRotation> {
        step(
            cluster,
            nodes.iter(),
            BEGIN.after(Duration::from_secs(seconds)),
        )
    }

    #[test]
    fn keys_are_as_old_as_certificates_at_most() {
        let mut cluster = cluster();
        let nodes = [node(1, 3, true)];
        let days = 24 * 3600;
        assert_eq!(after(&cluster, &nodes, 89 * days), None);
        let begun = after(&cluster, &nodes, 90 * days).unwrap();
        let wanted = KeyGenerations {
            newest: 4,
            oldest: 3,
        };
        assert_eq!(begun.generations, wanted);
        cluster.spec.ca_config.node_cert_expiry = 3600 * 1_000_000_000;
        assert_eq!(after(&cluster, &nodes, 3599), None);
        assert!(after(&cluster, &nodes, 3600).is_some());
    }

    #[test]
    fn they_change_when_asked_once_for_each_asking() {
        let mut cluster = cluster();
        cluster.spec.ca_config.force_rotate = 1;
        cluster.keys = after(&cluster, &[], 1).unwrap();
        assert_eq!(
            (cluster.keys.asked, cluster.keys.generations.newest),
            (1, 4)
        );
        // Asked for again while nodes move: that comes afterwards.
        cluster.spec.ca_config.force_rotate = 2;
        let moving = [node(1, 3, true)];
        assert_eq!(after(&cluster, &moving, 2), None);
        let moved = [node(1, 4, true)];
        cluster.keys = after(&cluster, &moved, 3).unwrap();
        assert_eq!(cluster.keys.generations.oldest, 4);
        cluster.keys = after(&cluster, &moved, 4).unwrap();
        assert_eq!(
            (cluster.keys.asked, cluster.keys.generations.newest),
            (2, 5)
        );
    }

    #[test]
    fn the_old_ones_go_when_every_node_has_moved_or_patience_ends() {
        let mut cluster = cluster();
        cluster.keys.generations.newest = 4;
        let retired = |nodes: &[Node], seconds| {
            let next = after(&cluster, nodes, seconds);
            next.is_some_and(|keys| keys.generations.oldest == 4)
        };
        let hour = KEYS_PATIENCE.as_secs();
        assert!(
            !retired(&[node(1, 4, true), node(2, 3, true)], 1),
            "no key yet"
        );
        assert!(
            !retired(&[node(1, 4, true), node(2, 4, false)], 1),
            "not used yet"
        );
        assert!(retired(&[node(1, 4, true), node(2, 4, true)], 1));
        assert!(
            retired(&[node(1, 4, true), fixture::node(2)], 1),
            "it has no keys at all"
        );
        let mut down = node(2, 3, true);
        down.status.state = NodeState::Down;
        let with_down = [node(1, 4, true), down];
        assert!(
            !retired(&with_down, hour - 1),
            "tasks of a node that lost its managers speak on"
        );
        assert!(retired(&with_down, hour));
    }

    #[test]
    fn a_cluster_from_before_there_were_generations_goes_on() {
        let mut cluster = fixture::cluster();
        cluster.spec.ca_config.force_rotate = 7;
        let keys = after(&cluster, &[], 0).unwrap();
        assert_eq!(keys.generations, KeyGenerations::default());
        cluster.keys = keys;
        assert_eq!(after(&cluster, &[], 1), None);
    }
}
