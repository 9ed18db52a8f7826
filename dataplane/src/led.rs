//! Sockets that hooks led to a task which is gone: which of them end.
//!
//! A socket hook leads a UDP socket once, when it connects. When the task goes the socket stays, and whatever it sends
//! is refused for ever; what would be led elsewhere is the next `connect`. So such a socket is ended: its process hears
//! at once, also where it only waits, that the connection was aborted, and connects anew. TCP needs nothing, for it hears
//! a reset with its next packet; and a socket that is not connected is led anew with its next datagram.
//!
//! Nothing is followed, everything compared: the hooks' own table says which sockets were led where, the tables that the
//! programs read say who is there. So it does not matter when a task went, or whether anybody was looking.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use weft_abi::{Addr, Be16, SockKey, SockOrigin, node};

use crate::tables::Tables;

/// A socket that a hook led: who and where to, and what it had asked for.
pub(crate) type Led = (SockKey, SockOrigin);

const UDP: u8 = libc::IPPROTO_UDP as u8;

/// A hook tells where it leads a socket a moment before the socket is connected: one that was not found so soon is
/// looked for once more after this time.
const SETTLED: Duration = Duration::from_secs(1);

/// A UDP socket that is connected, as the kernel tells of it: an IPv6 socket that speaks IPv4 has mapped addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) cookie: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Index of the link that it is bound to, or 0.
    pub(crate) link: u32,
}

/// Addresses of tasks that may be heard from: those that drain are, those of dead nodes are not.
pub(crate) fn living(tables: &Tables) -> BTreeSet<Addr> {
    let is_dead = |node: &u32| {
        let row = tables.nodes.get(node);
        row.is_some_and(|row| row.flags & node::DEAD != 0)
    };
    let there = tables.backends.values().filter(|row| !is_dead(&row.node));
    let addresses = there.flat_map(|row| [row.addr4, row.addr6]);
    addresses.filter(|addr| !addr.is_any()).collect()
}

/// Those of the led sockets that a task on these networks may have: it can ask for services of them only.
pub(crate) fn of_task(
    led: &[Led],
    nets: &BTreeSet<u32>,
    subnets: &BTreeMap<IpNetwork, u32>,
) -> Vec<Led> {
    let own = |origin: &SockOrigin| {
        let asked = IpAddr::from(origin.addr);
        let mut known = subnets.iter();
        known.any(|(subnet, net)| nets.contains(net) && subnet.contains(asked))
    };
    let led = led.iter().filter(|(_, origin)| own(origin));
    led.copied().collect()
}

/// Those of the connected sockets that still are where they were led.
pub(crate) fn still_there(led: &[Led], connected: Vec<Connected>) -> Vec<Connected> {
    let led: HashSet<(u64, Addr, Be16)> = led
        .iter()
        .map(|(key, _)| (key.cookie, key.addr, key.port))
        .collect();
    let is_led = |socket: &Connected| {
        let (addr, port) = (socket.to.ip().into(), Be16::new(socket.to.port()));
        led.contains(&(socket.cookie, addr, port))
    };
    connected.into_iter().filter(is_led).collect()
}

/// What is remembered between looks, so that few are needed: tables of sockets are long.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    /// Who can be heard from, of whom nobody went without a look that came to its end.
    living: Option<BTreeSet<Addr>>,
    /// Entries that name nobody who is there, with the time at which that was seen; without one when their sockets
    /// have been looked for late enough. They stay in the hooks' table until others need the room.
    lost: HashMap<SockKey, Option<Instant>>,
    /// Whether a look has begun and not come to its end.
    begun: bool,
}

impl Lookout {
    /// Whether a look is due though nobody went since the last.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        let mut since = self.lost.values().flatten();
        self.begun || since.any(|since| now >= *since + SETTLED)
    }

    /// Begins a look, if one is due.
    pub(crate) fn begin(&mut self, living: &BTreeSet<Addr>, now: Instant) -> bool {
        let known = self.living.as_ref();
        let is_due = known.is_none_or(|known| !known.is_subset(living)) || self.is_open(now);
        self.begun |= is_due;
        if !is_due && known != Some(living) {
            // Who came may go before the next look.
            self.living = Some(living.clone());
        }
        is_due
    }

    /// Those of the led sockets that must be looked for, for what they were led to is gone.
    pub(crate) fn lost(
        &mut self,
        living: &BTreeSet<Addr>,
        led: Vec<Led>,
        now: Instant,
    ) -> Vec<Led> {
        let is_lost = |(key, origin): &Led| {
            (origin.proto == UDP || origin.proto == 0) && !living.contains(&key.addr)
        };
        let lost: Vec<Led> = led.into_iter().filter(is_lost).collect();
        let before = std::mem::take(&mut self.lost);
        let since = |key: &SockKey| before.get(key).copied().unwrap_or(Some(now));
        self.lost = lost.iter().map(|(key, _)| (*key, since(key))).collect();
        let is_open = |(key, _): &Led| self.lost.get(key).is_some_and(Option::is_some);
        lost.into_iter().filter(is_open).collect()
    }

    /// Ends the look of this time: all that were to be looked for have been.
    pub(crate) fn finish(&mut self, living: BTreeSet<Addr>, at: Instant) {
        self.living = Some(living);
        self.begun = false;
        for since in self.lost.values_mut() {
            since.take_if(|since| at >= *since + SETTLED);
        }
    }

    /// Forgets what was looked for: there is another place to look in.
    pub(crate) fn start_over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
pub(crate) mod tests;
