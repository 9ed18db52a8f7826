//! Flows that tasks of this node hold: counted for drains, forgotten when dead.

use std::{collections::HashMap, time::Duration};

use weft_abi::{Addr, Be16, Counter, Drop, Flow, FlowKey, Program, counter_index, flow, tcp};
use weft_types::BackendId;

use crate::{DataplaneError, DropCount, keeper::Keeper};

/// Both directions of one flow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pair {
    pub(crate) wire: Option<(FlowKey, Flow)>,
    pub(crate) reply: Option<(FlowKey, Flow)>,
}

/// What both entries of a flow have in common.
type Identity = (Addr, Addr, u32, Be16, Be16, u8);

/// Puts the two entries of each flow together.
pub(crate) fn pairs(entries: Vec<(FlowKey, Flow)>) -> impl Iterator<Item = Pair> {
    let mut pairs: HashMap<Identity, Pair> = HashMap::new();
    for (key, value) in entries {
        let identity = (value.client, value.service, value.net, value.cport, value.port, value.proto);
        let pair = pairs.entry(identity).or_default();
        if key.side == flow::REPLY {
            pair.reply = Some((key, value));
        } else {
            pair.wire = Some((key, value));
        }
    }
    pairs.into_values()
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

    pub(crate) fn backend(&self) -> u32 {
        self.each().map(|(_, flow)| flow.backend).next().unwrap_or(0)
    }

    pub(crate) fn is_udp(&self) -> bool {
        self.each().all(|(_, flow)| flow.proto == UDP)
    }

    fn tcp(&self, bit: u8) -> usize {
        self.each().filter(|(_, flow)| flow.tcp & bit != 0).count()
    }

    /// Both sides closed it, or one reset it.
    pub(crate) fn is_closed(&self) -> bool {
        self.tcp(tcp::RST) > 0 || self.tcp(tcp::FIN) == 2
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
        let last = self.each().map(|(_, flow)| flow.last.max(flow.since)).max().unwrap_or(0);
        now.saturating_sub(Duration::from_nanos(last)) > self.patience()
    }
}

impl Keeper {
    /// Open flows of a backend of this node.
    pub(crate) fn flows(&mut self, backend: BackendId) -> Result<usize, DataplaneError> {
        let entries = self.programs.maps.flow.entries()?;
        let open = pairs(entries).filter(|pair| pair.backend() == backend.0 && !pair.is_closed());
        Ok(open.count())
    }

    /// Drop counters that are not zero.
    pub(crate) fn drops(&mut self) -> Result<Vec<DropCount>, DataplaneError> {
        let mut drops = Vec::new();
        for program in Program::ALL {
            for reason in Drop::ALL {
                let index = counter_index(program, *reason as u8);
                let each = self.programs.maps.counters.get_per_cpu(&index)?;
                let total = each.iter().fold(Counter::default(), |sum, counter| Counter {
                    packets: sum.packets + counter.packets,
                    bytes: sum.bytes + counter.bytes,
                });
                if total.packets > 0 {
                    drops.push(DropCount {
                        reason: reason.text(),
                        program: program.name(),
                        packets: total.packets,
                        bytes: total.bytes,
                        sample: None,
                    });
                }
            }
        }
        Ok(drops)
    }
}
