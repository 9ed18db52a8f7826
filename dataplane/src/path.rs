//! What the way to another host carries: whether the tunnel's port is open, how long packets may be,
//! whether checksums arrive as they were made. Pure: packets to send, answers to read, and what
//! follows from them.
//!
//! Everything goes through the tunnel as tasks' packets do, and is answered by the other host's
//! kernel, so that it says nothing about agents and all about the underlay.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use weft_abi::{Leg, task_mac, wire_mac};

use crate::probe::checksum;

/// What is known of the way to one other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// The node's number.
    pub node: u32,
    /// Its host name.
    pub name: String,
    /// Its data path address.
    pub addr: IpAddr,
    /// What was found last.
    pub state: PathState,
    /// Longest packet of a task that the tunnel carries to it whole, in bytes; none when not measured.
    pub mtu_bytes: Option<u16>,
    /// What is wrong, with its reason and what to do, for people.
    pub faults: Vec<String>,
}

/// What was found of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum PathState {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// The host does not answer at all.
    Silent,
    /// It answers, but nothing comes through the tunnel.
    Closed,
    /// Everything comes through.
    Open,
}

/// What one look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Findings {
    /// A plain echo was answered.
    pub(crate) answers: bool,
    /// Longest packet that came through the tunnel whole; none when not even a short one did.
    pub(crate) longest: Option<u16>,
    /// A datagram whose checksum this program made was received.
    pub(crate) takes_made: bool,
    /// One whose checksum kernel or network card made was received.
    pub(crate) takes_offloaded: bool,
}

/// Where and how a path is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) node: u32,
    pub(crate) name: String,
    /// This node's data path address and the other's: inner addresses.
    pub(crate) own: IpAddr,
    pub(crate) addr: IpAddr,
    /// Outer addresses: the same, or those inside the encrypted underlay.
    pub(crate) outer_own: IpAddr,
    pub(crate) outer: IpAddr,
    /// UDP port of VXLAN, host order.
    pub(crate) port: u16,
    /// VNI of the ingress network.
    pub(crate) mesh: u32,
    /// Longest packet that this host's own link should let through, in bytes.
    pub(crate) promised: u16,
    /// Name of that link.
    pub(crate) link: String,
}

impl Route {
    pub(crate) fn is_encrypted(&self) -> bool {
        self.outer != self.addr
    }
}

/// Looks in a row that must fail before anybody is told: a host that just joined does not know us yet.
const PATIENCE: u32 = 2;

impl PathReport {
    pub(crate) fn unknown(route: &Route) -> Self {
        Self {
            node: route.node,
            name: route.name.clone(),
            addr: route.addr,
            state: PathState::Unknown,
            mtu_bytes: None,
            faults: Vec::new(),
        }
    }

    /// What follows from what was found; `failures` counts looks in a row, this one included, in which
    /// nothing came through.
    pub(crate) fn of(route: &Route, found: &Findings, failures: u32) -> Self {
        let mut report = Self::unknown(route);
        let (name, addr, port) = (&route.name, route.addr, route.port);
        let Some(longest) = found.longest else {
            if failures < PATIENCE {
                return report;
            }
            report.state = if found.answers {
                PathState::Closed
            } else {
                PathState::Silent
            };
            if found.answers {
                report.faults.push(format!(
                    "UDP port {port} is closed on the way to {name} ({addr}): the host answers, but no tunnelled \
                     packet arrives; open the port in firewalls and security groups, or choose another with \
                     `docker swarm init --data-path-port`"
                ));
            }
            return report;
        };
        report.state = PathState::Open;
        report.mtu_bytes = Some(longest);
        if longest < route.promised {
            report.faults.push(format!(
                "the way to {name} ({addr}) carries packets of at most {longest} bytes in the tunnel, while the MTU \
                 of {} promises {}: containers get the smaller MTU; set the link's MTU to what the network carries",
                route.link, route.promised
            ));
        }
        if longest < 1280 {
            report.faults.push(format!(
                "the way to {name} ({addr}) is too narrow for IPv6, which needs 1280 bytes"
            ));
        }
        if found.takes_made && !found.takes_offloaded {
            report.faults.push(format!(
                "checksums that {} makes for tunnelled packets arrive wrong at {name} ({addr}): turn them off with \
                 `ethtool -K {} tx off`, or choose another port with `docker swarm init --data-path-port`",
                route.link, route.link
            ));
        }
        report
    }
}

/// Looks for the longest packet that comes through, many sizes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Search {
    /// Came through.
    good: u16,
    /// Did not.
    bad: u16,
}

/// Sizes tried side by side.
const WIDTH: u32 = 8;

impl Search {
    /// Between one size that came through and a longer one that did not.
    pub(crate) fn between(good: u16, bad: u16) -> Self {
        Self {
            good,
            bad: bad.max(good),
        }
    }

    /// What to try next; nothing when it is found.
    pub(crate) fn sizes(&self) -> Vec<u16> {
        let (good, bad) = (u32::from(self.good), u32::from(self.bad));
        let between = (1..=WIDTH).map(|step| good + (bad - good) * step / (WIDTH + 1));
        let sizes: BTreeSet<u16> = between
            .filter(|size| *size > good && *size < bad)
            .map(|size| size as u16)
            .collect();
        sizes.into_iter().collect()
    }

    /// Takes over which of [`Self::sizes`] came through.
    pub(crate) fn learn(&mut self, through: &BTreeSet<u16>) {
        let tried = self.sizes();
        if let Some(best) = tried.iter().rev().find(|size| through.contains(size)) {
            self.good = *best;
        }
        if let Some(worst) = tried.iter().find(|size| **size > self.good) {
            self.bad = *worst;
        } else if tried.is_empty() {
            self.bad = self.good;
        }
    }

    pub(crate) fn best(&self) -> u16 {
        self.good
    }
}

/// What another host's kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It echoes: the sequence number.
    Echo(u16),
    /// Nobody listens where a datagram from this port went, whose checksum was right.
    NobodyListens(u16),
}

/// Reads an ICMP message, from its type on.
pub(crate) fn hear(message: &[u8], is_ipv4: bool, identity: u16) -> Option<Heard> {
    let word = |at: usize| {
        Some(u16::from_be_bytes(
            message.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let (echo, unreachable, inner) = if is_ipv4 {
        (0, [3, 3], 20)
    } else {
        (129, [1, 4], 40)
    };
    if *message.first()? == echo {
        return (word(4)? == identity).then_some(Heard::Echo(word(6)?));
    }
    (message.get(..2)? == unreachable)
        .then(|| word(8 + inner))
        .flatten()
        .map(Heard::NobodyListens)
}

const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const UDP: u8 = 17;

/// Sum over a transport header with its payload and the addresses.
fn transport_sum(own: IpAddr, to: IpAddr, proto: u8, segment: &[u8]) -> [u8; 2] {
    let mut summed = Vec::with_capacity(segment.len() + 40);
    for addr in [own, to] {
        match addr {
            IpAddr::V4(addr) => summed.extend(addr.octets()),
            IpAddr::V6(addr) => summed.extend(addr.octets()),
        }
    }
    summed.extend([0, proto]);
    summed.extend((segment.len() as u16).to_be_bytes());
    summed.extend(segment);
    checksum(&summed)
}

/// A whole IP packet around a transport segment.
fn packet(own: IpAddr, to: IpAddr, proto: u8, segment: &[u8]) -> Vec<u8> {
    let length = segment.len() as u16;
    let mut packet = match (own, to) {
        (IpAddr::V4(own), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, proto, 0, 0]);
            header.extend(own.octets());
            header.extend(to.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            header
        }
        _ => {
            let six = |addr: IpAddr| match addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
                IpAddr::V6(addr) => addr.octets(),
            };
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([proto, 64]);
            header.extend(six(own));
            header.extend(six(to));
            header
        }
    };
    packet.extend(segment);
    packet
}

/// A UDP datagram to the other host's tunnel port with a packet for that host's own stack in it. Its
/// checksum is left to the socket, or out.
fn tunnelled(route: &Route, from: u16, inner: &[u8]) -> Vec<u8> {
    let length = 8 + 8 + 14 + inner.len() as u16;
    let mut datagram = Vec::with_capacity(usize::from(length));
    for word in [from, route.port, length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend([8, 0, 0, 0]);
    datagram.extend((route.mesh << 8).to_be_bytes());
    datagram.extend(task_mac(0));
    datagram.extend(wire_mac(Leg::Host, 0));
    datagram.extend(if route.own.is_ipv4() {
        [8, 0]
    } else {
        [0x86, 0xdd]
    });
    datagram.extend(inner);
    datagram
}

/// An echo request of this sequence number, as ICMP wants it, in a packet of `size` bytes.
pub(crate) fn echo(route: &Route, identity: u16, sequence: u16, size: u16) -> Vec<u8> {
    let is_ipv4 = route.own.is_ipv4();
    let header = if is_ipv4 { 20 } else { 40 };
    let mut message = vec![if is_ipv4 { 8 } else { 128 }, 0, 0, 0];
    message.extend(identity.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(route.node.to_be_bytes());
    message.resize(
        usize::from(size).saturating_sub(header).max(message.len()),
        0x77,
    );
    let sum = if is_ipv4 {
        checksum(&message)
    } else {
        transport_sum(route.own, route.addr, ICMP6, &message)
    };
    message[2..4].copy_from_slice(&sum);
    message
}

/// The same, ready for a raw UDP socket, through the tunnel.
pub(crate) fn tunnelled_echo(route: &Route, identity: u16, sequence: u16, size: u16) -> Vec<u8> {
    let proto = if route.own.is_ipv4() { ICMP } else { ICMP6 };
    let message = echo(route, identity, sequence, size);
    // Another source port for each: where a network spreads flows over links, all are tried.
    let from = 0xc000 | (sequence & 0x3fff);
    tunnelled(route, from, &packet(route.own, route.addr, proto, &message))
}

/// Ports where hardly anybody listens: as a route tracer takes them.
const CLOSED: u16 = 33434;

/// Where to send the datagram of a turn whose checksum is looked at.
pub(crate) fn closed_port(route: &Route, turn: u16) -> SocketAddr {
    SocketAddr::new(route.addr, CLOSED + turn)
}

/// Bytes of such a datagram: long enough that a wrong sum does not come out right.
pub(crate) const PAYLOAD: [u8; 300] = [0x5a; 300];

/// Such a datagram through the tunnel, with a right checksum.
pub(crate) fn tunnelled_datagram(route: &Route, from: u16, turn: u16) -> Vec<u8> {
    let to = closed_port(route, turn).port();
    let length = 8 + PAYLOAD.len() as u16;
    let mut segment = Vec::with_capacity(usize::from(length));
    for word in [from, to, length, 0] {
        segment.extend(word.to_be_bytes());
    }
    segment.extend(PAYLOAD);
    let sum = transport_sum(route.own, route.addr, UDP, &segment);
    segment[6..8].copy_from_slice(&sum);
    tunnelled(route, from, &packet(route.own, route.addr, UDP, &segment))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(v4: bool) -> Route {
        let addr = |last: u8| -> IpAddr {
            if v4 {
                [192, 0, 2, last].into()
            } else {
                format!("2001:db8::{last}").parse().unwrap()
            }
        };
        Route {
            node: 2,
            name: "n2".to_owned(),
            own: addr(11),
            addr: addr(12),
            outer_own: addr(11),
            outer: addr(12),
            port: 4789,
            mesh: 4096,
            promised: 1450,
            link: "eth0".to_owned(),
        }
    }

    proptest! {
        #[test]
        fn the_longest_size_is_found(least in 1_u16..2000, real in 0_u16..9000, most in 0_u16..9000) {
            let (real, bad) = (least + real % 7000, least + most);
            let mut search = Search::between(least, bad);
            for _ in 0..8 {
                let sizes = search.sizes();
                search.learn(&sizes.into_iter().filter(|size| *size <= real).collect());
            }
            prop_assert!(search.sizes().is_empty());
            let expected = if bad > least { real.min(bad - 1).max(least) } else { least };
            prop_assert_eq!(search.best(), expected);
        }

        #[test]
        fn no_bytes_confuse_the_ear(bytes in prop::collection::vec(any::<u8>(), 0..80), v4 in any::<bool>()) {
            let _ = hear(&bytes, v4, 7);
        }

        #[test]
        fn an_echo_has_the_size_that_was_asked_for(size in 64_u16..9000, v4 in any::<bool>()) {
            let datagram = tunnelled_echo(&route(v4), 7, 9, size);
            prop_assert_eq!(datagram.len(), 8 + 8 + 14 + usize::from(size));
            let header = 30 + if v4 { 20 } else { 40 };
            let mut answer = datagram[header..].to_vec();
            answer[0] = if v4 { 0 } else { 129 };
            prop_assert_eq!(hear(&answer, v4, 7), Some(Heard::Echo(9)));
            prop_assert_eq!(hear(&answer, v4, 8), None);
        }
    }

    #[test]
    fn a_refusal_names_the_port_that_asked() {
        for v4 in [true, false] {
            let datagram = tunnelled_datagram(&route(v4), 40_000, 0);
            let mut message = if v4 { vec![3, 3] } else { vec![1, 4] };
            message.resize(8, 0);
            message.extend(&datagram[30..]);
            assert_eq!(hear(&message, v4, 7), Some(Heard::NobodyListens(40_000)));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = Findings {
            answers: true,
            longest: Some(1450),
            takes_made: true,
            takes_offloaded: true,
        };
        let report = |found: Findings, failures| PathReport::of(&route(true), &found, failures);
        assert_eq!(report(good, 0).faults, [""; 0]);
        assert_eq!(report(good, 0).state, PathState::Open);
        let closed = Findings {
            longest: None,
            ..good
        };
        assert_eq!(
            report(closed, 1).state,
            PathState::Unknown,
            "it may have joined just now"
        );
        assert_eq!(report(closed, 2).state, PathState::Closed);
        assert!(report(closed, 2).faults[0].contains("UDP port 4789 is closed"));
        assert_eq!(report(Findings::default(), 2).state, PathState::Silent);
        let narrow = report(
            Findings {
                longest: Some(1200),
                ..good
            },
            0,
        );
        assert!(
            narrow.faults[0].contains("at most 1200 bytes")
                && narrow.faults[0].contains("eth0 promises 1450")
        );
        assert!(narrow.faults[1].contains("too narrow for IPv6"));
        let wrong = report(
            Findings {
                takes_offloaded: false,
                ..good
            },
            0,
        );
        assert!(wrong.faults[0].contains("ethtool -K eth0 tx off"));
        // A firewall that refuses all datagrams says nothing about checksums.
        let filtered = Findings {
            takes_made: false,
            takes_offloaded: false,
            ..good
        };
        assert_eq!(report(filtered, 0).faults, [""; 0]);
    }
}
