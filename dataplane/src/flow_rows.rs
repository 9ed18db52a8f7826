//! Flows as people read them: who talks to which service, how much, since when.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use weft_abi::{Addr, Flow, flow, tcp};

use crate::{
    DataplaneError,
    desired::Desired,
    explain::protocol_name,
    flows::{Pair, pairs},
    keeper::Keeper,
    kernel::{clock, door::Kernel},
};

/// One flow of a task of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Who asked.
    pub client: SocketAddr,
    /// Its service, or its task's name, when it is a task.
    pub client_name: Option<String>,
    /// Which service it asked.
    pub service: Option<String>,
    /// Where it asked.
    pub asked: SocketAddr,
    /// Who answers.
    pub task: SocketAddr,
    /// Its name.
    pub task_name: Option<String>,
    /// `tcp`, `udp`, `sctp`, or a number.
    pub protocol: String,
    /// The node it came in by, when that is another one.
    pub ingress: Option<IpAddr>,
    /// Packets and bytes to the task, large segments counted as one packet.
    pub to_task: (u64, u64),
    /// Packets and bytes to the client.
    pub to_client: (u64, u64),
    /// Since it began.
    pub age: Duration,
    /// Since its last packet.
    pub idle: Duration,
    /// How far it is.
    pub state: FlowState,
}

/// How far a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FlowState {
    /// The task has not answered yet.
    Opening,
    /// Both sides speak.
    Open,
    /// One side has said its last word.
    Closing,
    /// Both sides have, or one reset it.
    Closed,
}

impl FlowState {
    /// One word for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    fn of(pair: &Pair, accepted: bool) -> Self {
        let said_last = |entry: &Option<(_, Flow)>| {
            entry.is_some_and(|(_, flow): (_, Flow)| flow.tcp & tcp::FIN != 0)
        };
        if pair.is_closed() {
            Self::Closed
        } else if said_last(&pair.wire) || said_last(&pair.reply) {
            Self::Closing
        } else if accepted {
            Self::Open
        } else {
            Self::Opening
        }
    }
}

/// All flows from one service's tasks, or from outside, to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPair {
    /// The asking service or task; none for clients outside the cluster.
    pub client: Option<String>,
    /// The service asked.
    pub service: Option<String>,
    /// How many.
    pub flows: usize,
    /// Packets both ways.
    pub packets: u64,
    /// Bytes both ways.
    pub bytes: u64,
    /// Age of the oldest.
    pub oldest: Duration,
}

/// Adds flows up by who asks whom, the busiest first.
#[must_use]
pub fn flow_pairs(rows: &[FlowRow]) -> Vec<FlowPair> {
    let mut pairs: BTreeMap<_, FlowPair> = BTreeMap::new();
    for row in rows {
        let key = (row.client_name.clone(), row.service.clone());
        let pair = pairs.entry(key).or_insert_with(|| FlowPair {
            client: row.client_name.clone(),
            service: row.service.clone(),
            flows: 0,
            packets: 0,
            bytes: 0,
            oldest: Duration::ZERO,
        });
        pair.flows += 1;
        pair.packets += row.to_task.0 + row.to_client.0;
        pair.bytes += row.to_task.1 + row.to_client.1;
        pair.oldest = pair.oldest.max(row.age);
    }
    let mut pairs: Vec<FlowPair> = pairs.into_values().collect();
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.bytes));
    pairs
}

/// Whom a flow's numbers and addresses belong to.
struct Names<'a> {
    desired: Option<&'a Desired>,
    /// Task by network and address.
    tasks: BTreeMap<(u32, IpAddr), &'a crate::desired::Endpoint>,
}

impl<'a> Names<'a> {
    fn of(desired: Option<&'a Desired>) -> Self {
        let endpoints = desired
            .into_iter()
            .flat_map(|desired| desired.endpoints.values());
        let tasks = endpoints.flat_map(|endpoint| {
            let addresses = endpoint.addresses.iter();
            addresses.map(move |addr| ((endpoint.net, *addr), endpoint))
        });
        Self {
            desired,
            tasks: tasks.collect(),
        }
    }

    fn row(&self, pair: &Pair, accepted: bool, now: Duration) -> Option<FlowRow> {
        let (_, any) = pair.wire.or(pair.reply)?;
        let at = |addr: Addr, port: weft_abi::Be16| SocketAddr::new(addr.into(), port.get());
        let amount = |entry: Option<(_, Flow)>| {
            entry.map_or((0, 0), |(_, flow): (_, Flow)| (flow.packets, flow.bytes))
        };
        let each = || [pair.wire, pair.reply].into_iter().flatten();
        let since = each().map(|(_, flow)| flow.since).min()?;
        let last = each().map(|(_, flow)| flow.last.max(flow.since)).max()?;
        let past = |then: u64| now.saturating_sub(Duration::from_nanos(then));
        let client = at(any.client, any.cport);
        let asking = (any.flags & flow::FROM_TASK != 0)
            .then(|| self.tasks.get(&(any.net, client.ip())))
            .flatten();
        let answering = self
            .desired
            .and_then(|desired| desired.endpoints.get(&weft_types::BackendId(any.backend)));
        let service = self
            .desired
            .and_then(|desired| desired.service_names.get(&any.front).cloned());
        Some(FlowRow {
            client,
            client_name: asking.map(|task| task.service.clone().unwrap_or(task.name.clone())),
            service: service.or_else(|| answering?.service.clone()),
            asked: at(any.service, any.port),
            task: at(any.task, any.task_port),
            task_name: answering.map(|task| task.name.clone()),
            protocol: protocol_name(any.proto),
            ingress: self.desired.and_then(|desired| {
                let other = any.ingress != desired.node;
                other.then(|| Some(desired.nodes.get(&any.ingress)?.addr))?
            }),
            to_task: amount(pair.wire),
            to_client: amount(pair.reply),
            age: past(since),
            idle: past(last),
            state: FlowState::of(pair, accepted),
        })
    }
}

impl<K: Kernel> Keeper<K> {
    /// All flows of this node, accepted and not yet accepted.
    pub(crate) fn flow_rows(&mut self) -> Result<Vec<FlowRow>, DataplaneError> {
        let accepted = self.kernel.flows()?;
        let embryos = self.kernel.embryos()?;
        let now = clock::monotonic();
        let names = Names::of(self.desired());
        let rows = |entries, accepted| {
            let names = &names;
            pairs(entries).filter_map(move |pair| names.row(&pair, accepted, now))
        };
        Ok(rows(accepted, true).chain(rows(embryos, false)).collect())
    }
}

#[cfg(test)]
mod tests {
    use weft_abi::{Be16, FlowKey};

    use super::*;
    use crate::desired::Endpoint;

    const CLIENT: Addr = Addr::v4([192, 0, 2, 100]);

    fn entry(side: u8, flow: Flow) -> (FlowKey, Flow) {
        let key = FlowKey {
            side,
            ..FlowKey::default()
        };
        (key, flow)
    }

    fn desired() -> Desired {
        let endpoint = |name: &str, service: Option<&str>| Endpoint {
            name: name.to_owned(),
            service: service.map(str::to_owned),
            net: 9,
            node: 1,
            addresses: vec![[10, 0, 0, if service.is_some() { 5 } else { 6 }].into()],
            draining: false,
        };
        Desired {
            node: 1,
            endpoints: [
                (weft_types::BackendId(7), endpoint("web.1.x", Some("web"))),
                (weft_types::BackendId(8), endpoint("debug", None)),
            ]
            .into(),
            service_names: [(3, "web".to_owned())].into(),
            ..Desired::default()
        }
    }

    fn flow(client: Addr, flags: u16) -> Flow {
        Flow {
            client,
            service: Addr::v4([192, 0, 2, 11]),
            task: Addr::v4([10, 0, 0, 5]),
            cport: Be16::new(4711),
            port: Be16::new(8000),
            task_port: Be16::new(80),
            packets: 3,
            bytes: 300,
            since: 1_000_000_000,
            last: 4_000_000_000,
            net: 9,
            backend: 7,
            ingress: 1,
            front: 3,
            flags,
            proto: 6,
            ..Flow::default()
        }
    }

    #[test]
    fn a_row_says_who_talks_to_whom_how_much_and_since_when() {
        let desired = desired();
        let names = Names::of(Some(&desired));
        let pair = Pair {
            wire: Some(entry(flow::WIRE, flow(CLIENT, 0))),
            reply: Some(entry(flow::REPLY, flow(CLIENT, 0))),
        };
        let row = names.row(&pair, true, Duration::from_secs(5)).unwrap();
        assert_eq!(row.client, "192.0.2.100:4711".parse().unwrap());
        assert_eq!(row.client_name, None);
        assert_eq!(row.service.as_deref(), Some("web"));
        assert_eq!(row.task_name.as_deref(), Some("web.1.x"));
        assert_eq!(row.task, "10.0.0.5:80".parse().unwrap());
        assert_eq!((row.to_task, row.to_client), ((3, 300), (3, 300)));
        assert_eq!((row.age.as_secs(), row.idle.as_secs()), (4, 1));
        assert_eq!((row.state, row.ingress), (FlowState::Open, None));
    }

    #[test]
    fn a_flow_is_as_old_as_its_first_packet_and_idle_since_its_last_of_either_side() {
        let names = Names::of(None);
        let older = Flow {
            since: 1_000_000_000,
            last: 2_000_000_000,
            ..flow(CLIENT, 0)
        };
        let younger = Flow {
            since: 3_000_000_000,
            last: 7_000_000_000,
            packets: 1,
            bytes: 50,
            ..flow(CLIENT, 0)
        };
        for (wire, reply) in [(older, younger), (younger, older)] {
            let pair = Pair {
                wire: Some(entry(flow::WIRE, wire)),
                reply: Some(entry(flow::REPLY, reply)),
            };
            let row = names.row(&pair, true, Duration::from_secs(9)).unwrap();
            assert_eq!((row.age.as_secs(), row.idle.as_secs()), (8, 2));
            assert_eq!(row.to_task, (wire.packets, wire.bytes));
            assert_eq!(row.to_client, (reply.packets, reply.bytes));
        }
    }

    #[test]
    fn a_flow_closes_with_one_last_word_and_is_closed_with_two_or_a_reset() {
        let names = Names::of(None);
        let state = |sides: [u8; 2], accepted| {
            let with = |tcp| Flow {
                tcp,
                ..flow(CLIENT, 0)
            };
            let pair = Pair {
                wire: Some(entry(flow::WIRE, with(sides[0]))),
                reply: Some(entry(flow::REPLY, with(sides[1]))),
            };
            let row = names.row(&pair, accepted, Duration::from_secs(9)).unwrap();
            row.state
        };
        let rows = [
            ([tcp::SYN, 0], false, FlowState::Opening),
            ([tcp::DATA, tcp::DATA], true, FlowState::Open),
            ([tcp::FIN, tcp::DATA], true, FlowState::Closing),
            ([tcp::DATA, tcp::FIN], true, FlowState::Closing),
            ([tcp::FIN, tcp::FIN], true, FlowState::Closed),
            ([tcp::RST, tcp::DATA], true, FlowState::Closed),
            ([tcp::DATA, tcp::RST], true, FlowState::Closed),
        ];
        for (sides, accepted, expected) in rows {
            assert_eq!(state(sides, accepted), expected, "{sides:?}");
        }
        let words = rows.map(|(_, _, state)| state.text());
        assert_eq!(
            words[..5],
            ["opening", "open", "closing", "closing", "closed"]
        );
    }

    #[test]
    fn a_row_names_the_node_it_came_in_by_only_when_that_is_another() {
        let mut desired = desired();
        let other = crate::desired::Node {
            name: "n2".to_owned(),
            addr: [192, 0, 2, 12].into(),
            addresses: [].into(),
            zone: String::new(),
            missed: false,
            dead: false,
            wireguard: None,
        };
        desired.nodes.insert(1, other.clone());
        desired.nodes.insert(2, other);
        let names = Names::of(Some(&desired));
        let row = |ingress| {
            let value = Flow {
                ingress,
                ..flow(CLIENT, 0)
            };
            let pair = Pair {
                wire: Some(entry(flow::WIRE, value)),
                reply: None,
            };
            names.row(&pair, true, Duration::from_secs(5)).unwrap()
        };
        assert_eq!(row(2).ingress, Some([192, 0, 2, 12].into()));
        assert_eq!(row(1).ingress, None);
    }

    #[test]
    fn a_flow_that_went_straight_to_a_task_is_of_its_service() {
        let desired = desired();
        let names = Names::of(Some(&desired));
        let row = |backend| {
            let value = Flow {
                front: 0,
                backend,
                ..flow(CLIENT, 0)
            };
            let pair = Pair {
                wire: Some(entry(flow::WIRE, value)),
                reply: None,
            };
            names.row(&pair, true, Duration::from_secs(5)).unwrap()
        };
        assert_eq!(row(7).service.as_deref(), Some("web"));
        assert_eq!(row(8).service, None);
    }

    #[test]
    fn half_a_flow_is_a_row_and_one_without_packets_is_idle_since_it_began() {
        let names = Names::of(None);
        let value = Flow {
            last: 0,
            since: 3_000_000_000,
            ..flow(CLIENT, 0)
        };
        for asked in [true, false] {
            let half = |wanted: bool, side| wanted.then(|| entry(side, value));
            let pair = Pair {
                wire: half(asked, flow::WIRE),
                reply: half(!asked, flow::REPLY),
            };
            let row = names.row(&pair, true, Duration::from_secs(5)).unwrap();
            assert_eq!((row.age.as_secs(), row.idle.as_secs()), (2, 2));
            let packets = if asked { (3, 0) } else { (0, 3) };
            assert_eq!((row.to_task.0, row.to_client.0), packets);
        }
    }

    #[test]
    fn a_client_has_a_name_only_as_a_task_of_that_network() {
        let mut desired = desired();
        let mut named = |task_net, flags| {
            for endpoint in desired.endpoints.values_mut() {
                endpoint.net = task_net;
            }
            let wire = Some(entry(flow::WIRE, flow(Addr::v4([10, 0, 0, 6]), flags)));
            let pair = Pair { wire, reply: None };
            let row = Names::of(Some(&desired)).row(&pair, true, Duration::from_secs(5));
            row.unwrap().client_name.is_some()
        };
        assert!(named(9, flow::FROM_TASK));
        assert!(!named(9, 0), "somebody outside with the same address");
        assert!(!named(8, flow::FROM_TASK), "another network's task");
    }

    #[test]
    fn the_busiest_come_first_and_both_ways_count() {
        let desired = desired();
        let names = Names::of(Some(&desired));
        let row = |client, flags, answered| {
            let pair = Pair {
                wire: Some(entry(flow::WIRE, flow(client, flags))),
                reply: Some(entry(
                    flow::REPLY,
                    Flow {
                        bytes: answered,
                        ..flow(client, flags)
                    },
                )),
            };
            names.row(&pair, true, Duration::from_secs(5)).unwrap()
        };
        let inside = row(Addr::v4([10, 0, 0, 6]), flow::FROM_TASK, 1000);
        let pairs = flow_pairs(&[row(CLIENT, 0, 500), inside]);
        let seen: Vec<_> = pairs
            .iter()
            .map(|pair| (pair.client.as_deref(), pair.bytes))
            .collect();
        assert_eq!(seen, [(Some("debug"), 1300), (None, 800)]);
    }

    #[test]
    fn flows_are_added_up_by_who_asks_whom() {
        let desired = desired();
        let names = Names::of(Some(&desired));
        let row = |client, flags| {
            let wire = Some(entry(flow::WIRE, flow(client, flags)));
            let pair = Pair { wire, reply: None };
            names.row(&pair, false, Duration::from_secs(5)).unwrap()
        };
        let inside = row(Addr::v4([10, 0, 0, 6]), flow::FROM_TASK);
        assert_eq!(inside.client_name.as_deref(), Some("debug"));
        assert_eq!(inside.state, FlowState::Opening);
        let mut long_ago = row(CLIENT, 0);
        long_ago.age = Duration::from_secs(60);
        let pairs = flow_pairs(&[inside, long_ago, row(CLIENT, 0)]);
        assert_eq!((pairs[0].oldest.as_secs(), pairs[0].packets), (60, 6));
        let seen: Vec<_> = pairs
            .iter()
            .map(|pair| (pair.client.as_deref(), pair.flows, pair.bytes))
            .collect();
        assert_eq!(seen, [(None, 2, 600), (Some("debug"), 1, 300)]);
    }
}
