//! Containers that are made anew elsewhere when their host fails, if their owner asked for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{host::Host, wish::is_rescheduled};

/// Label of a container made anew: ids of those that it stands for, with commas.
pub const INSTEAD_OF: &str = "io.weft.instead-of";

/// How long a host must be down: an agent that starts again is no failed host.
pub const GRACE: Duration = Duration::from_secs(5);

/// Between two tries to make one container anew.
pub const RETRY: Duration = Duration::from_secs(10);

/// A host as last seen, with what was on it then.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// It and its containers.
    pub host: Host,
    /// Since when it is down; `None` while it is not.
    pub down_since: Option<Duration>,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// Make the container of a failed host anew on another.
    Anew {
        /// Id of the failed host.
        host: String,
        /// Id of its container.
        container: String,
    },
    /// Remove the container of a host that came back: another stands for it.
    Remove {
        /// Id of the host.
        host: String,
        /// Id of its container.
        container: String,
    },
}

/// What to do `now`, and when to ask again if nothing changes. `replaced` are ids of containers for
/// which another was made; `tried` says when each was last tried in vain.
#[must_use]
pub fn moves(
    seen: &[Seen],
    replaced: &BTreeSet<String>,
    tried: &BTreeMap<String, Duration>,
    now: Duration,
) -> (Vec<Move>, Option<Duration>) {
    let all = || seen.iter().flat_map(|seen| &seen.host.containers);
    let named = all().filter_map(|container| container.labels.get(INSTEAD_OF));
    let mut stood_for: BTreeSet<&str> = named.flat_map(|ids| ids.split(',')).collect();
    stood_for.extend(replaced.iter().map(String::as_str));
    let mut moves = Vec::new();
    let mut wake: Option<Duration> = None;
    for Seen { host, down_since } in seen {
        for container in &host.containers {
            let id = container.id.as_str();
            let is_replaced = stood_for.contains(id);
            match down_since {
                None if is_replaced => moves.push(Move::Remove {
                    host: host.id.clone(),
                    container: id.to_owned(),
                }),
                Some(since) if !is_replaced && is_rescheduled(&container.labels) => {
                    let retry = tried.get(id).map_or(Duration::ZERO, |at| *at + RETRY);
                    let due = (*since + GRACE).max(retry);
                    if due <= now {
                        moves.push(Move::Anew {
                            host: host.id.clone(),
                            container: id.to_owned(),
                        });
                    } else {
                        wake = Some(wake.map_or(due, |wake| wake.min(due)));
                    }
                }
                _ => {}
            }
        }
    }
    moves.sort();
    (moves, wake)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        host::Container,
        wish::{ON_NODE_FAILURE, RESCHEDULE},
    };

    fn container(id: &str, asks: bool, instead_of: &str) -> Container {
        let mut container = Container {
            id: id.to_owned(),
            ..Container::default()
        };
        if asks {
            let policy = format!("[\"{ON_NODE_FAILURE}\"]");
            container.labels.insert(RESCHEDULE.to_owned(), policy);
        }
        if !instead_of.is_empty() {
            let ids = instead_of.to_owned();
            container.labels.insert(INSTEAD_OF.to_owned(), ids);
        }
        container
    }

    fn seen(name: &str, down: Option<u64>, containers: Vec<Container>) -> Seen {
        Seen {
            host: Host {
                id: name.to_owned(),
                containers,
                ..Host::default()
            },
            down_since: down.map(Duration::from_secs),
        }
    }

    fn decide(seen: &[Seen], now: u64) -> (Vec<Move>, Option<Duration>) {
        let now = Duration::from_secs(now);
        moves(seen, &BTreeSet::new(), &BTreeMap::new(), now)
    }

    fn anew(host: &str, container: &str) -> Move {
        Move::Anew {
            host: host.to_owned(),
            container: container.to_owned(),
        }
    }

    fn remove(host: &str, container: &str) -> Move {
        Move::Remove {
            host: host.to_owned(),
            container: container.to_owned(),
        }
    }

    #[test]
    fn who_asked_is_made_anew_after_the_grace() {
        let hosts = [
            seen(
                "n1",
                Some(10),
                vec![container("a", true, ""), container("b", false, "")],
            ),
            seen("n2", None, vec![container("c", true, "")]),
        ];
        assert_eq!(decide(&hosts, 11), (vec![], Some(Duration::from_secs(15))));
        assert_eq!(decide(&hosts, 15), (vec![anew("n1", "a")], None));
    }

    #[test]
    fn who_is_stood_for_is_removed_when_its_host_comes_back() {
        let stand_in = container("a2", true, "a");
        let down = [
            seen("n1", Some(0), vec![container("a", true, "")]),
            seen("n2", None, vec![stand_in.clone()]),
        ];
        assert_eq!(decide(&down, 99), (vec![], None));
        let back = [
            seen("n1", None, vec![container("a", true, "")]),
            seen("n2", None, vec![stand_in]),
        ];
        assert_eq!(decide(&back, 99), (vec![remove("n1", "a")], None));
    }

    #[test]
    fn one_of_a_chain_moves_on() {
        let hosts = [
            seen("n1", Some(0), vec![container("a", true, "")]),
            seen("n2", Some(50), vec![container("a2", true, "a")]),
        ];
        assert_eq!(decide(&hosts, 99), (vec![anew("n2", "a2")], None));
        // The last of them stands for all when their hosts come back.
        let back = [
            seen("n1", None, vec![container("a", true, "")]),
            seen("n2", None, vec![container("a2", true, "a")]),
            seen("n3", None, vec![container("a3", true, "a,a2")]),
        ];
        let removed = vec![remove("n1", "a"), remove("n2", "a2")];
        assert_eq!(decide(&back, 99), (removed, None));
    }

    #[test]
    fn what_its_owner_removed_stays_away() {
        let hosts = [seen("n1", Some(0), vec![container("a", true, "")])];
        let replaced = BTreeSet::from(["a".to_owned()]);
        let now = Duration::from_secs(99);
        assert_eq!(moves(&hosts, &replaced, &BTreeMap::new(), now).0, []);
        let tried = BTreeMap::from([("a".to_owned(), Duration::from_secs(95))]);
        assert_eq!(
            moves(&hosts, &BTreeSet::new(), &tried, now),
            (vec![], Some(Duration::from_secs(105)))
        );
    }

    proptest! {
        #[test]
        fn only_who_asked_and_only_once(
            rows in prop::collection::vec((prop::option::of(0..20u64), prop::collection::vec((any::<bool>(), 0..6usize), 0..4)), 0..4),
            now in 0..40u64,
        ) {
            let mut number = 0;
            let hosts: Vec<Seen> = rows.iter().enumerate().map(|(host, (down, containers))| {
                let containers = containers.iter().map(|(asks, before)| {
                    number += 1;
                    let instead_of = if *before > 0 { format!("c{before}") } else { String::new() };
                    container(&format!("c{number}"), *asks, &instead_of)
                });
                seen(&format!("n{host}"), *down, containers.collect())
            }).collect();
            let (moves, _) = decide(&hosts, now);
            let distinct: BTreeSet<_> = moves.iter().collect();
            prop_assert_eq!(distinct.len(), moves.len());
            for one in &moves {
                let (id, host, is_anew) = match one {
                    Move::Anew { host, container } => (container, host, true),
                    Move::Remove { host, container } => (container, host, false),
                };
                let seen = hosts.iter().find(|seen| seen.host.id == *host).expect("a host");
                let found = seen.host.containers.iter().find(|c| c.id == *id).expect("a container");
                prop_assert_eq!(seen.down_since.is_some(), is_anew);
                prop_assert!(!is_anew || is_rescheduled(&found.labels));
            }
        }
    }
}
