//! Labels of a service that say which of its tasks answers whom: `weft.…`.
//!
//! | label | example | meaning |
//! |---|---|---|
//! | `weft.affinity` | `300s` | a client address stays with its task for so long after its last flow |
//! | `weft.prefer` | `local,zone` | tasks of the node that was asked first, or of its zone, the others when it has none |
//! | `weft.choice` | `leastconn` | of two tasks that the hash names, the one with fewer connections |
//! | `weft.weights` | `n1=3,n2=1` | shares of nodes by host name, 1 to 100; 1 for those not named |
//! | `weft.listen`, `weft.listen.PORT` | `192.0.2.0/24,eth0` | addresses and interfaces of nodes that published ports answer on, all or one |
//! | `weft.allow` | `198.51.100.0/24` | clients that may ask; all others are dropped |
//! | `weft.cap` | `100mbit` | traffic per node and direction, policed |
//!
//! Anything else that begins with `weft.` is refused: a misspelt label must not pass for one that
//! is followed.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnetwork::IpNetwork;

use crate::Labels;

/// What labels of our own begin with.
pub const PREFIX: &str = "weft.";

/// The longest affinity.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Where on a node a published port answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listen {
    /// At the node's addresses in this prefix.
    Net(IpNetwork),
    /// At the addresses that the node's interface of this name has at the time, link-local ones left
    /// out; nowhere while it has none.
    Interface(String),
}

/// How the tasks of a service are chosen among, and who may ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steering {
    /// How long a client's address stays with its task; none: each flow is chosen anew.
    pub affinity: Option<Duration>,
    /// Whether tasks of the node that was asked go before others.
    pub prefer_local: bool,
    /// Whether tasks in the zone of the node that was asked go before others, after its own where
    /// those are preferred too.
    pub prefer_zone: bool,
    /// Whether connections go to the less busy of two tasks.
    pub least: bool,
    /// Shares of nodes by host name; 1 for those not named.
    pub weights: BTreeMap<String, u32>,
    /// Where a published port answers, by port; under `None` those of all ports that are not named.
    /// None at all: every address of every node.
    pub listen: BTreeMap<Option<u16>, Vec<Listen>>,
    /// Clients that may ask; empty: all.
    pub allow: Vec<IpNetwork>,
    /// Bytes a second, per node and direction.
    pub cap: Option<u64>,
}

impl Steering {
    /// What a service's labels say.
    ///
    /// # Errors
    /// A sentence that names the label which cannot be followed, and what it may say.
    pub fn of(labels: &Labels) -> Result<Self, String> {
        let mut steering = Self::default();
        for (label, value) in labels {
            let Some(name) = label.strip_prefix(PREFIX) else {
                continue;
            };
            let value = value.trim();
            let wrong = |may: &str| format!("label {label}={value}: {may}");
            match name {
                "affinity" => {
                    let time = duration(value).filter(|time| (SECOND..=LONGEST).contains(time));
                    let may = "name a time from 1s to 24h, such as 300s, 5m or 1h";
                    steering.affinity = Some(time.ok_or_else(|| wrong(may))?);
                }
                "prefer" => match value {
                    "local" => steering.prefer_local = true,
                    "zone" => steering.prefer_zone = true,
                    "local,zone" => (steering.prefer_local, steering.prefer_zone) = (true, true),
                    _ => return Err(wrong("name local, zone, or local,zone")),
                },
                "weights" => {
                    let may = "name shares from 1 to 100 by host name, such as n1=3,n2=1";
                    steering.weights = weights(value).ok_or_else(|| wrong(may))?;
                }
                "allow" => {
                    let may = "name addresses or prefixes, such as 198.51.100.0/24,2001:db8::/32";
                    steering.allow = nets(value).ok_or_else(|| wrong(may))?;
                }
                "cap" => {
                    let may = "name a rate from 8kbit to 100gbit, such as 100mbit";
                    steering.cap = Some(rate(value).ok_or_else(|| wrong(may))?);
                }
                "choice" => match value {
                    "ring" => {}
                    "leastconn" => steering.least = true,
                    _ => return Err(wrong("name ring or leastconn")),
                },
                _ => match name.strip_prefix("listen") {
                    Some(rest) => {
                        let may = "weft.listen or weft.listen.PORT names addresses, prefixes or interfaces of nodes, such as 192.0.2.0/24,127.0.0.1,eth0; of an interface whose name begins with no letter name the address";
                        let port = match rest.strip_prefix('.') {
                            None if rest.is_empty() => None,
                            port => Some(port.and_then(decimal).ok_or_else(|| wrong(may))?),
                        };
                        let places = places(value).ok_or_else(|| wrong(may))?;
                        steering.listen.insert(port, places);
                    }
                    None => {
                        return Err(wrong(
                            "weft has no such label: it follows weft.affinity, weft.prefer, weft.choice, weft.weights, weft.listen, weft.allow and weft.cap",
                        ));
                    }
                },
            }
        }
        if steering.least && steering.affinity.is_some() {
            return Err(
                "labels weft.choice=leastconn and weft.affinity contradict each other: a client cannot both stay with its task and go to the less busy one"
                    .to_owned(),
            );
        }
        Ok(steering)
    }

    /// Whether anything is said about which task is chosen.
    #[must_use]
    pub fn chooses(&self) -> bool {
        let prefers = self.prefer_local || self.prefer_zone || self.least;
        self.affinity.is_some() || prefers || !self.weights.is_empty()
    }

    /// Where a published port answers; `None`: at every address.
    #[must_use]
    pub fn listens(&self, port: u16) -> Option<&[Listen]> {
        let places = self.listen.get(&Some(port)).or(self.listen.get(&None));
        places.map(Vec::as_slice)
    }

    /// The weight of a node.
    #[must_use]
    pub fn weight(&self, hostname: &str) -> u32 {
        self.weights.get(hostname).copied().unwrap_or(1)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A port or a count, written with digits alone.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = decimal(number)?;
    let seconds = match unit {
        "s" => number,
        "m" => number.checked_mul(60)?,
        "h" => number.checked_mul(3_600)?,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// Bytes a second; the units count bits, decimal as `tc`'s do.
fn rate(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = decimal(number)?;
    let unit = match unit {
        "kbit" => 1_000,
        "mbit" => 1_000_000,
        "gbit" => 1_000_000_000,
        _ => return None,
    };
    let bytes = number.checked_mul(unit)? / 8;
    (1_000..=12_500_000_000).contains(&bytes).then_some(bytes)
}

fn weights(text: &str) -> Option<BTreeMap<String, u32>> {
    let mut weights = BTreeMap::new();
    for share in text.split(',') {
        let (host, weight) = share.trim().split_once('=')?;
        let weight = decimal(weight).filter(|weight| (1..=100).contains(weight))?;
        if host.is_empty() || weights.insert(host.to_owned(), weight).is_some() {
            return None;
        }
    }
    Some(weights)
}

fn nets(text: &str) -> Option<Vec<IpNetwork>> {
    text.split(',').map(net).collect()
}

fn net(text: &str) -> Option<IpNetwork> {
    let text = text.trim();
    let single = text.parse::<IpAddr>().map(IpNetwork::from);
    let net = single.or_else(|_| text.parse::<IpNetwork>()).ok()?;
    // Host bits say nothing.
    IpNetwork::new(net.network(), net.prefix()).ok()
}

fn places(text: &str) -> Option<Vec<Listen>> {
    let one = |place: &str| {
        let interface = || interface(place.trim()).map(Listen::Interface);
        net(place).map(Listen::Net).or_else(interface)
    };
    text.split(',').map(one).collect()
}

/// A name that Linux takes for an interface (at most 15 bytes) and that no misspelt address has: it
/// begins with a letter.
fn interface(name: &str) -> Option<String> {
    let mut letters = name.chars();
    let begins = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = letters.all(|next| next.is_ascii_alphanumeric() || "._-".contains(next));
    (begins && goes_on && name.len() <= 15).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(labels: &[(&str, &str)]) -> Result<Steering, String> {
        let labels = labels.iter();
        Steering::of(&labels.map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    #[test]
    fn labels_say_what_the_table_says() {
        let steering = of(&[
            ("com.example", "anything"),
            ("weft.affinity", "5m"),
            ("weft.prefer", "local"),
            ("weft.weights", "n1=3, n2=1"),
            ("weft.listen", "192.0.2.1/24,127.0.0.1, eth0.100"),
            ("weft.listen.8000", "2001:db8::11"),
            ("weft.allow", "198.51.100.0/24"),
            ("weft.cap", "100mbit"),
            ("weft.choice", "ring"),
        ])
        .unwrap();
        assert_eq!(steering.affinity, Some(Duration::from_secs(300)));
        assert!(steering.prefer_local && steering.chooses());
        assert_eq!((steering.weight("n1"), steering.weight("n9")), (3, 1));
        let net = |text: &str| Listen::Net(text.parse().unwrap());
        let all = [
            net("192.0.2.0/24"),
            net("127.0.0.1/32"),
            Listen::Interface("eth0.100".to_owned()),
        ];
        assert_eq!(steering.listens(80), Some(&all[..]));
        assert_eq!(steering.listens(8000), Some(&[net("2001:db8::11/128")][..]));
        assert_eq!(steering.allow, ["198.51.100.0/24".parse().unwrap()]);
        assert_eq!(steering.cap, Some(12_500_000));
        assert_eq!(of(&[]), Ok(Steering::default()));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        for (label, value, words) in [
            (
                "weft.affinity",
                "5",
                "label weft.affinity=5: name a time from 1s to 24h, such as 300s, 5m or 1h",
            ),
            ("weft.affinity", "0s", "name a time"),
            ("weft.affinity", "25h", "name a time"),
            ("weft.prefer", "far", "name local, zone, or local,zone"),
            ("weft.choice", "random", "name ring or leastconn"),
            ("weft.weights", "n1=0", "name shares from 1 to 100"),
            ("weft.weights", "n1=1,n1=2", "name shares from 1 to 100"),
            ("weft.listen", "192.0.2.300", "names addresses, prefixes or"),
            (
                "weft.listen",
                "192.0.2.0/33",
                "names addresses, prefixes or",
            ),
            (
                "weft.listen",
                "2001:db8:::1",
                "names addresses, prefixes or",
            ),
            ("weft.listen", "eth0,", "names addresses, prefixes or"),
            ("weft.listen", "eth 0", "names addresses, prefixes or"),
            ("weft.listen", "0eth", "begins with no letter name"),
            (
                "weft.listen",
                "a-name-too-long0",
                "names addresses, prefixes or",
            ),
            ("weft.allow", "eth0", "name addresses or prefixes"),
            ("weft.listen.http", "192.0.2.1", "weft.listen.PORT"),
            ("weft.listen.70000", "192.0.2.1", "weft.listen.PORT"),
            ("weft.allow", "", "name addresses or prefixes"),
            ("weft.cap", "100", "name a rate"),
            ("weft.cap", "1kbit", "name a rate"),
            ("weft.afinity", "5m", "weft has no such label"),
        ] {
            let said = of(&[(label, value)]).unwrap_err();
            assert!(said.contains(words) && said.contains(label), "{said}");
        }
    }

    #[test]
    fn preferences_and_choice_are_told_apart() {
        let zone = of(&[("weft.prefer", "zone")]).unwrap();
        assert!(zone.prefer_zone && !zone.prefer_local && zone.chooses());
        let both = of(&[("weft.prefer", "local,zone")]).unwrap();
        assert!(both.prefer_zone && both.prefer_local);
        let least = of(&[("weft.choice", "leastconn")]).unwrap();
        assert!(least.least && least.chooses());
        let said = of(&[("weft.choice", "leastconn"), ("weft.affinity", "5m")]).unwrap_err();
        assert!(said.contains("contradict"), "{said}");
    }

    proptest! {
        #[test]
        fn nothing_that_a_label_says_makes_it_panic(name in "(weft\\.)?[a-z.]{0,12}", value in "\\PC{0,30}") {
            let _ = of(&[(&name, &value)]);
        }
    }
}
