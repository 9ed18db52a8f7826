//! From hosts and a wish to a host.

use crate::{filter::Filter, host::Host, strategy::Strategy, wish::Wish};

/// How containers are placed; the same for all.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Which of the hosts that may.
    pub strategy: Strategy,
    /// What is asked of hosts, in order.
    pub filters: Vec<Filter>,
    /// By which part hosts promise more memory and CPUs than they have.
    pub overcommit: f64,
}

impl Default for Policy {
    /// As classic Swarm was, out of its box.
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            filters: Filter::ALL.to_vec(),
            overcommit: 0.05,
        }
    }
}

/// Why a container has no place; classic Swarm's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// No host answers and takes containers.
    #[error("No healthy node available in the cluster")]
    NoHealthyNode,
    /// A port is taken everywhere.
    #[error("unable to find a node with port {0} available")]
    Port(u16),
    /// The same among containers that use their host's network.
    #[error("unable to find a node with port {0} available in the Host mode")]
    HostPort(String),
    /// All hosts are full, by their labels.
    #[error("No node with enough open slots available in the cluster")]
    NoSlot,
    /// What it needs beside it is nowhere, or not on one host.
    #[error("Unable to find a node fulfilling all dependencies: {0}")]
    Dependency(String),
    /// A rule that no host fulfils: kind and text.
    #[error("unable to find a node that satisfies the {0} {1}")]
    Rule(&'static str, String),
    /// It is larger than what is left on any host.
    #[error("no resources available to schedule container")]
    NoResources,
}

/// The hosts that may have what `wish` is about, best first; one at least. Soft rules are given up
/// together if no host fulfils them all. `dice` is any number; it counts for [`Strategy::Random`].
///
/// # Errors
/// Why there is none.
pub fn place<'a>(
    hosts: &'a [Host],
    wish: &Wish,
    policy: &Policy,
    dice: u64,
) -> Result<Vec<&'a Host>, Unplaced> {
    let attempt = |soft: bool| {
        let mut left: Vec<&Host> = hosts.iter().collect();
        for filter in &policy.filters {
            left = filter.pass(left, wish, soft)?;
        }
        if left.is_empty() {
            return Err(Unplaced::NoHealthyNode);
        }
        policy.strategy.rank(left, wish, policy.overcommit, dice)
    };
    attempt(true).or_else(|_| attempt(false))
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, strategy::Strategy as _};

    use super::*;
    use crate::{
        expression::Expression,
        host::{Container, Facts, Image, Port},
        strategy::Strategy,
    };

    const GIB: i64 = 1 << 30;

    fn host(number: usize) -> Host {
        Host {
            id: format!("id{number}"),
            name: format!("n{number}"),
            is_ready: true,
            nano_cpus: 4_000_000_000,
            memory_bytes: 4 * GIB,
            ..Host::default()
        }
    }

    fn container(name: &str) -> Container {
        Container {
            id: format!("{name:0>64}"),
            names: vec![name.to_owned()],
            ..Container::default()
        }
    }

    fn rules(texts: &[&str]) -> Vec<Expression> {
        let parsed = texts.iter().map(|text| Expression::parse(text));
        parsed.collect::<Result<_, _>>().expect("rules")
    }

    fn named(hosts: &[Host], wish: &Wish) -> Result<String, String> {
        let placed = place(hosts, wish, &Policy::default(), 0);
        placed
            .map(|hosts| hosts[0].name.clone())
            .map_err(|why| why.to_string())
    }

    #[test]
    fn constraints_name_hosts_and_labels() {
        let mut hosts = [host(1), host(2), host(3)];
        hosts[1].labels.insert("storage".into(), "ssd".into());
        hosts[2].labels.insert("Rack".into(), "r3".into());
        let asked = |texts: &[&str]| {
            let constraints = rules(texts);
            named(
                &hosts,
                &Wish {
                    constraints,
                    ..Wish::default()
                },
            )
        };
        assert_eq!(asked(&["storage==ssd"]), Ok("n2".into()));
        assert_eq!(asked(&["rack==r3"]), Ok("n3".into()), "letter case of keys");
        assert_eq!(asked(&["node==n3"]), Ok("n3".into()));
        assert_eq!(asked(&["node==id3"]), Ok("n3".into()));
        assert_eq!(asked(&["node!=/n[13]/"]), Ok("n2".into()));
        assert_eq!(asked(&["storage!=ssd", "node!=n1"]), Ok("n3".into()));
        assert_eq!(asked(&["storage==~disk"]), Ok("n1".into()));
        assert_eq!(asked(&["storage==~ssd"]), Ok("n2".into()));
        assert_eq!(
            asked(&["storage==disk"]),
            Err("unable to find a node that satisfies the constraint storage==disk".into())
        );
    }

    #[test]
    fn affinities_look_at_what_is_there() {
        let mut hosts = [host(1), host(2), host(3)];
        let mut web = container("web");
        web.id = "abcdef0123456789".repeat(4);
        web.labels.insert("tier".into(), "front".into());
        web.labels.insert("Team".into(), "blue".into());
        hosts[1].containers.push(web);
        hosts[2].images.push(Image {
            id: "sha256:abc".into(),
            tags: vec!["registry:5000/redis:7".into()],
        });
        let asked = |text: &str| {
            let affinities = rules(&[text]);
            named(
                &hosts,
                &Wish {
                    affinities,
                    ..Wish::default()
                },
            )
        };
        assert_eq!(asked("container==web"), Ok("n2".into()));
        assert_eq!(asked("container!=web"), Ok("n1".into()));
        assert_eq!(asked("container==abcdef012345"), Ok("n2".into()));
        let by_chance = asked("container==*bcd*");
        assert!(by_chance.is_err(), "an id matched a pattern: {by_chance:?}");
        assert!(asked("image==/^a/").is_err());
        assert_eq!(asked("tier==front"), Ok("n2".into()));
        assert_eq!(asked("team==blue"), Ok("n2".into()), "letter case of keys");
        assert_eq!(asked("image==registry:5000/redis"), Ok("n3".into()));
        assert_eq!(asked("image==*redis:7"), Ok("n3".into()));
        assert_eq!(
            asked("image==mysql"),
            Err("unable to find a node that satisfies the affinity image==mysql".into())
        );
    }

    #[test]
    fn ports_and_slots_and_needs() {
        let mut hosts = [host(1), host(2)];
        let port = |port, ip: &str| Port {
            ip: ip.into(),
            port,
            protocol: "tcp".into(),
        };
        let mut taken = container("taken");
        taken.facts.ports.push(port(80, "192.0.2.1"));
        hosts[0].containers.push(taken);
        let asked = |port: Port| Wish {
            facts: Facts {
                ports: vec![port],
                ..Facts::default()
            },
            ..Wish::default()
        };
        assert_eq!(named(&hosts, &asked(port(80, ""))), Ok("n2".into()));
        assert_eq!(
            named(&hosts[..1], &asked(port(80, "192.0.2.9"))),
            Ok("n1".into())
        );
        assert_eq!(
            named(&hosts[..1], &asked(port(80, "0.0.0.0"))),
            Err("unable to find a node with port 80 available".into())
        );
        assert_eq!(named(&hosts[..1], &asked(port(0, ""))), Ok("n1".into()));
        let needs = |name: &str| Wish {
            dependencies: vec![(name.into(), format!("--link={name}"))],
            ..Wish::default()
        };
        assert_eq!(named(&hosts, &needs("taken")), Ok("n1".into()));
        assert_eq!(named(&hosts, &needs("n1/taken")), Ok("n1".into()));
        assert_eq!(
            named(&hosts, &needs("n2/taken")),
            Err("Unable to find a node fulfilling all dependencies: --link=n2/taken".into())
        );
        let on = |network: &str| Wish {
            network: network.into(),
            ..Wish::default()
        };
        hosts[0].networks.push("only-here".into());
        assert_eq!(
            named(&hosts, &on("only-here")),
            Ok("n1".into()),
            "though it has more"
        );
        hosts[1].networks.push("back".into());
        assert_eq!(named(&hosts, &on("back")), Ok("n2".into()));
        hosts[0].networks.push("back".into());
        assert_eq!(named(&hosts[..1], &on("back")), Ok("n1".into()));
        assert_eq!(named(&hosts[..1], &on("nowhere")), Ok("n1".into()));
        hosts[1].labels.insert("containerslots".into(), "1".into());
        assert_eq!(named(&hosts, &Wish::default()), Ok("n2".into()));
        hosts[1].containers.push(container("one"));
        assert_eq!(
            named(&hosts[1..], &Wish::default()),
            Err(Unplaced::NoSlot.to_string())
        );
        hosts[0].is_ready = false;
        assert_eq!(
            named(&hosts[..1], &Wish::default()),
            Err("No healthy node available in the cluster".into())
        );
    }

    #[test]
    fn what_is_exposed_is_taken_on_the_host_s_network_alone() {
        let serving = |is_on_host_network| Facts {
            is_on_host_network,
            exposed: vec!["80/tcp".into()],
            ..Facts::default()
        };
        let mut one = host(1);
        one.containers.push(container("inside"));
        one.containers[0].facts = serving(false);
        let wish = Wish {
            facts: serving(true),
            ..Wish::default()
        };
        assert_eq!(named(&[one.clone()], &wish), Ok("n1".into()));
        one.containers[0].facts = serving(true);
        assert_eq!(
            named(&[one], &wish),
            Err("unable to find a node with port 80/tcp available in the Host mode".into())
        );
    }

    #[test]
    fn hosts_promise_a_little_more_than_they_have() {
        let asks = |bytes| Wish {
            facts: Facts {
                memory_bytes: bytes,
                ..Facts::default()
            },
            ..Wish::default()
        };
        assert_eq!(named(&[host(1)], &asks(4 * GIB + GIB / 6)), Ok("n1".into()));
        let too_much = Unplaced::NoResources.to_string();
        assert_eq!(named(&[host(1)], &asks(4 * GIB + GIB / 4)), Err(too_much));
    }

    #[test]
    fn strategies_weigh_what_is_reserved() {
        let mut hosts = [host(1), host(2), host(3)];
        let mut heavy = container("heavy");
        heavy.facts.memory_bytes = 3 * GIB;
        hosts[0].containers.push(heavy);
        hosts[1].containers.extend([container("a"), container("b")]);
        let wish = |gib: i64| Wish {
            facts: Facts {
                memory_bytes: gib * GIB,
                ..Facts::default()
            },
            ..Wish::default()
        };
        let by = |strategy, gib| {
            let policy = Policy {
                strategy,
                ..Policy::default()
            };
            place(&hosts, &wish(gib), &policy, 0).map(|hosts| hosts[0].name.clone())
        };
        assert_eq!(by(Strategy::Spread, 1), Ok("n3".into()));
        assert_eq!(by(Strategy::Spread, 0), Ok("n3".into()));
        assert_eq!(by(Strategy::Binpack, 1), Ok("n1".into()));
        assert_eq!(by(Strategy::Binpack, 2), Ok("n2".into()));
        assert_eq!(by(Strategy::Spread, 5), Err(Unplaced::NoResources));
        let policy = Policy {
            strategy: Strategy::Random,
            ..Policy::default()
        };
        let any: Vec<_> = (0..3)
            .map(|dice| {
                place(&hosts, &wish(0), &policy, dice).expect("a place")[0]
                    .name
                    .clone()
            })
            .collect();
        assert_eq!(any, ["n1", "n2", "n3"]);
    }

    fn some_hosts() -> impl proptest::strategy::Strategy<Value = Vec<Host>> {
        let one = (any::<bool>(), 0..4usize, 0..3u8);
        prop::collection::vec(one, 0..6).prop_map(|rows| {
            let rows = rows.into_iter().enumerate();
            rows.map(|(number, (is_ready, containers, label))| {
                let mut host = host(number);
                host.is_ready = is_ready;
                host.labels.insert("zone".into(), format!("z{label}"));
                host.containers = (0..containers)
                    .map(|c| container(&format!("c{number}x{c}")))
                    .collect();
                host
            })
            .collect()
        })
    }

    proptest! {
        #[test]
        fn every_place_fulfils_every_demand(
            hosts in some_hosts(),
            texts in prop::collection::vec("(zone|node)(==|!=)(z[0-3]|z\\*|n[0-3]|/[zn][01]/)", 0..3),
            dice in any::<u64>(),
            which in 0..3usize,
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let wish = Wish { constraints: rules(&texts), ..Wish::default() };
            let strategy = [Strategy::Spread, Strategy::Binpack, Strategy::Random][which];
            let policy = Policy { strategy, ..Policy::default() };
            let fits = |host: &Host| {
                host.is_ready && wish.constraints.iter().all(|rule| match rule.key() {
                    "node" => rule.holds_of([host.id.as_str()], [host.name.as_str()]),
                    key => rule.holds(host.labels.get(key).map(String::as_str)),
                })
            };
            match place(&hosts, &wish, &policy, dice) {
                Ok(found) => {
                    prop_assert!(found.iter().all(|host| fits(host)));
                    prop_assert_eq!(found.len(), hosts.iter().filter(|host| fits(host)).count());
                    let counts: Vec<usize> = found.iter().map(|host| host.containers.len()).collect();
                    match strategy {
                        Strategy::Spread => prop_assert!(counts.is_sorted()),
                        Strategy::Binpack => prop_assert!(counts.iter().rev().is_sorted()),
                        Strategy::Random => {}
                    }
                }
                Err(_) => prop_assert!(!hosts.iter().any(fits)),
            }
        }

        #[test]
        fn wishes_never_cost_a_place(hosts in some_hosts(), text in "zone==~z[0-5]") {
            let soft = Wish { constraints: rules(&[&text]), ..Wish::default() };
            let with = place(&hosts, &soft, &Policy::default(), 0).is_ok();
            let without = place(&hosts, &Wish::default(), &Policy::default(), 0).is_ok();
            prop_assert_eq!(with, without);
        }
    }
}
