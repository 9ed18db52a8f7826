//! Flows that tasks of this node hold: counted for drains, forgotten when dead.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use weft_abi::{Addr, Be16, Drop, Event, Flow, FlowKey, Program, counter_index, flow, tcp};
use weft_types::BackendId;

use crate::{
    DataplaneError, DropCount, DropSample,
    keeper::Keeper,
    kernel::{clock, door::Kernel},
};

/// Both directions of one flow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pair {
    pub(crate) wire: Option<(FlowKey, Flow)>,
    pub(crate) reply: Option<(FlowKey, Flow)>,
}

/// What both entries of a flow have in common.
type Identity = (Addr, Addr, u32, Be16, Be16, u8);

fn identity(flow: &Flow) -> Identity {
    (
        flow.client,
        flow.service,
        flow.net,
        flow.cport,
        flow.port,
        flow.proto,
    )
}

/// Puts the two entries of each flow together.
pub(crate) fn pairs(entries: Vec<(FlowKey, Flow)>) -> impl Iterator<Item = Pair> {
    let mut pairs: HashMap<Identity, Pair> = HashMap::new();
    for (key, value) in entries {
        let pair = pairs.entry(identity(&value)).or_default();
        if key.side == flow::REPLY {
            pair.reply = Some((key, value));
        } else {
            pair.wire = Some((key, value));
        }
    }
    pairs.into_values()
}

/// Connections that are open at the backends that are `here`, of services that choose by that: of those with
/// any, and of those that are `known` to have had some, so that none keeps a count of what is over.
pub(crate) fn open_connections(
    known: impl IntoIterator<Item = u32>,
    here: &BTreeSet<u32>,
    flows: &[Pair],
) -> BTreeMap<u32, u32> {
    let known = known.into_iter().filter(|backend| here.contains(backend));
    let mut open: BTreeMap<u32, u32> = known.map(|backend| (backend, 0)).collect();
    for pair in flows {
        if pair.flags() & flow::COUNTED != 0 && !pair.is_closed() {
            *open.entry(pair.backend()).or_default() += 1;
        }
    }
    open
}

/// Silence after which a TCP connection that neither side ended is taken for dead. No smaller than
/// two hours: that is how long a host's own keep-alive waits.
const TCP_IDLE: Duration = Duration::from_secs(5 * 24 * 3600);
/// A connection that one side closed.
const TCP_HALF_CLOSED: Duration = Duration::from_secs(2 * 3600);
/// A connection that both sides closed, or that was reset: late segments still find their way.
const TCP_CLOSED: Duration = Duration::from_secs(10);
/// Datagrams without an answer.
const UDP_UNREPLIED: Duration = Duration::from_secs(30);
/// Datagrams both ways.
const UDP_REPLIED: Duration = Duration::from_secs(180);

const TCP: u8 = 6;
const UDP: u8 = 17;

impl Pair {
    fn each(&self) -> impl Iterator<Item = &(FlowKey, Flow)> {
        self.wire.iter().chain(self.reply.iter())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &FlowKey> {
        self.each().map(|(key, _)| key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.each().next().is_none()
    }

    /// Whether an entry is of the same wire tuple.
    pub(crate) fn is_of(&self, entry: &Flow) -> bool {
        self.each()
            .any(|(_, flow)| identity(flow) == identity(entry))
    }

    /// Key of the client's entry, whether that is known or not.
    pub(crate) fn wire_key(&self) -> Option<FlowKey> {
        let (_, known) = self.each().next()?;
        Some(FlowKey {
            src: known.client,
            dst: known.service,
            net: known.net,
            sport: known.cport,
            dport: known.port,
            proto: known.proto,
            side: flow::WIRE,
            pad: [0; 2],
        })
    }

    pub(crate) fn backend(&self) -> u32 {
        self.each()
            .map(|(_, flow)| flow.backend)
            .next()
            .unwrap_or(0)
    }

    /// See [`flow`].
    pub(crate) fn flags(&self) -> u16 {
        self.each().map(|(_, flow)| flow.flags).next().unwrap_or(0)
    }

    pub(crate) fn is_udp(&self) -> bool {
        self.each().all(|(_, flow)| flow.proto == UDP)
    }

    fn tcp(&self, bit: u8) -> usize {
        self.each().filter(|(_, flow)| flow.tcp & bit != 0).count()
    }

    /// Both sides closed it, or one reset it.
    pub(crate) fn is_closed(&self) -> bool {
        let bits = |entry: Option<(FlowKey, Flow)>| entry.map_or(0, |(_, flow)| flow.tcp);
        tcp::is_over(bits(self.wire), bits(self.reply))
    }

    fn patience(&self) -> Duration {
        match self.each().map(|(_, flow)| flow.proto).next() {
            Some(TCP) if self.is_closed() => TCP_CLOSED,
            Some(TCP) if self.tcp(tcp::FIN) > 0 => TCP_HALF_CLOSED,
            Some(TCP) => TCP_IDLE,
            _ if self.reply.is_some_and(|(_, flow)| flow.packets > 0) => UDP_REPLIED,
            _ => UDP_UNREPLIED,
        }
    }

    /// Whether nothing can be expected of it any more; `now` on the clock of [`Flow::last`].
    pub(crate) fn is_dead(&self, now: Duration) -> bool {
        let last = self
            .each()
            .map(|(_, flow)| flow.last.max(flow.since))
            .max()
            .unwrap_or(0);
        now.saturating_sub(Duration::from_nanos(last)) > self.patience()
    }
}

impl<K: Kernel> Keeper<K> {
    /// Open flows of a backend of this node.
    pub(crate) fn flows(&mut self, backend: BackendId) -> Result<usize, DataplaneError> {
        let entries = self.kernel.flows()?;
        let open = pairs(entries).filter(|pair| pair.backend() == backend.0 && !pair.is_closed());
        Ok(open.count())
    }

    /// Drop counters that are not zero.
    pub(crate) fn drops(&mut self) -> Result<Vec<DropCount>, DataplaneError> {
        let mut drops = Vec::new();
        for program in Program::ALL {
            for reason in Drop::ALL {
                let index = counter_index(program, *reason as u8);
                let total = self.kernel.counter(index)?;
                if total.packets > 0 {
                    drops.push(DropCount {
                        reason: reason.text(),
                        program: program.name(),
                        packets: total.packets,
                        bytes: total.bytes,
                        sample: self.sample(program, *reason),
                    });
                }
            }
        }
        Ok(drops)
    }

    fn sample(&self, program: Program, reason: Drop) -> Option<DropSample> {
        let samples = self.collector.as_ref()?.samples.lock().ok()?;
        let event: &Event = samples.get(&(program as u8, reason as u8))?;
        Some(DropSample {
            age: clock::monotonic().saturating_sub(Duration::from_nanos(event.at)),
            source: (event.src.into(), event.sport.get()),
            destination: (event.dst.into(), event.dport.get()),
            protocol: event.proto,
            vni: event.net,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(side: u8, proto: u8, bits: u8, last: Duration) -> (FlowKey, Flow) {
        let value = Flow {
            proto,
            tcp: bits,
            last: last.as_nanos() as u64,
            packets: 1,
            backend: 7,
            ..Flow::default()
        };
        (
            FlowKey {
                side,
                proto,
                ..FlowKey::default()
            },
            value,
        )
    }

    fn pair(proto: u8, bits: [u8; 2]) -> Pair {
        let last = Duration::from_secs(1000);
        let entries = vec![
            entry(flow::WIRE, proto, bits[0], last),
            entry(flow::REPLY, proto, bits[1], last),
        ];
        let mut pairs = pairs(entries);
        let pair = pairs.next().expect("one flow");
        assert!(pairs.next().is_none(), "two entries are one flow");
        pair
    }

    #[test]
    fn the_same_ends_on_two_networks_are_two_flows() {
        let on = |net| {
            let (key, value) = entry(flow::WIRE, TCP, 0, Duration::ZERO);
            (FlowKey { net, ..key }, Flow { net, ..value })
        };
        assert_eq!(pairs(vec![on(1), on(2)]).count(), 2);
    }

    #[test]
    fn an_idle_connection_lives_longer_than_keep_alive() {
        let open = pair(TCP, [tcp::SYN | tcp::DATA; 2]);
        assert!(!open.is_dead(Duration::from_secs(1000 + 24 * 3600)));
        assert!(open.is_dead(Duration::from_secs(1000) + TCP_IDLE + Duration::from_secs(1)));
    }

    #[test]
    fn a_connection_is_closed_by_both_sides_or_by_a_reset() {
        assert!(!pair(TCP, [tcp::FIN, tcp::DATA]).is_closed());
        assert!(pair(TCP, [tcp::FIN, tcp::FIN]).is_closed());
        assert!(pair(TCP, [tcp::DATA, tcp::RST]).is_closed());
        assert!(pair(TCP, [tcp::FIN, tcp::FIN]).is_dead(Duration::from_secs(1011)));
    }

    #[test]
    fn open_connections_are_counted_and_what_is_over_is_not() {
        let counted = |bits| {
            let mut pair = pair(TCP, bits);
            for (_, flow) in pair.wire.iter_mut().chain(&mut pair.reply) {
                flow.flags = flow::COUNTED;
            }
            pair
        };
        let open = [tcp::SYN | tcp::DATA; 2];
        let flows = [
            counted(open),
            counted([tcp::FIN, tcp::DATA]),
            counted([tcp::FIN, tcp::FIN]),
            // Of a service that does not choose by it.
            pair(TCP, open),
        ];
        let here = BTreeSet::from([7, 8]);
        let count = |known: &[u32], flows| open_connections(known.iter().copied(), &here, flows);
        assert_eq!(count(&[], &flows), BTreeMap::from([(7, 2)]));
        // Whose connections all ended has none, and who is not here any more has no count.
        let ended = BTreeMap::from([(7, 0), (8, 0)]);
        assert_eq!(count(&[7, 8, 9], &flows[2..]), ended);
    }

    #[test]
    fn a_closed_connection_is_kept_for_late_segments_and_a_half_closed_one_for_hours() {
        let closed = pair(TCP, [tcp::FIN, tcp::FIN]);
        assert!(!closed.is_dead(Duration::from_secs(1009)));
        let half = pair(TCP, [tcp::FIN, tcp::DATA]);
        assert!(!half.is_dead(Duration::from_secs(1000 + 2 * 3600 - 1)));
        assert!(half.is_dead(Duration::from_secs(1000 + 2 * 3600 + 1)));
    }

    #[test]
    fn the_younger_side_keeps_a_flow_alive_and_a_flow_without_packets_counts_from_its_begin() {
        let mut flow = pair(UDP, [0, 0]);
        if let Some((_, reply)) = &mut flow.reply {
            reply.last = Duration::from_secs(1150).as_nanos() as u64;
        }
        assert!(!flow.is_dead(Duration::from_secs(1329)));
        assert!(flow.is_dead(Duration::from_secs(1331)));
        let mut fresh = pair(UDP, [0, 0]);
        fresh.reply = None;
        if let Some((_, wire)) = &mut fresh.wire {
            wire.last = 0;
            wire.since = Duration::from_secs(1000).as_nanos() as u64;
        }
        assert!(!fresh.is_dead(Duration::from_secs(1029)));
    }

    #[test]
    fn datagrams_are_remembered_as_long_as_they_are_answered() {
        let answered = pair(UDP, [0, 0]);
        assert!(!answered.is_dead(Duration::from_secs(1100)));
        let alone = Pair {
            reply: None,
            ..answered
        };
        assert!(alone.is_dead(Duration::from_secs(1031)));
    }
}
