//! Which hosts answer: judged by this node alone, so that a dead host leaves the rings while every
//! manager is dead.
//!
//! A probe is an echo request to the host's data path address, answered by the other host's kernel:
//! a host whose agent is stopped is not dead. Silence is counted in probes, not in time: a process
//! that was not scheduled must not take that for everybody's death.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// Pause between two turns; a host that did not answer is probed in every turn.
pub(crate) const TURN: Duration = Duration::from_millis(60);

/// Turns that a host which answers is left alone after each probe.
const REST: u32 = 1;

/// A host is dead when more probes in a row than these are unanswered: within 0.5 s.
const LIMIT: u32 = 5;

/// Which hosts live, as far as this node can tell by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    /// Hosts that used to answer and do not any more.
    pub(crate) dead: BTreeSet<u32>,
    /// Hosts that answer, whatever managers hear of their agents.
    pub(crate) living: BTreeSet<u32>,
}

/// Hosts and their answers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<u32, Peer>,
}

#[derive(Debug)]
struct Peer {
    addr: IpAddr,
    /// Whether it ever answered. One that never did may be behind a filter: managers know better.
    has_answered: bool,
    unanswered: u32,
    /// Turns until its next probe, while it answers.
    rest: u32,
}

impl Peers {
    /// Takes over who is to be probed: node numbers and addresses.
    pub(crate) fn follow(&mut self, wanted: &BTreeMap<u32, IpAddr>) {
        self.peers
            .retain(|node, peer| wanted.get(node) == Some(&peer.addr));
        for (node, addr) in wanted {
            self.peers.entry(*node).or_insert(Peer {
                addr: *addr,
                has_answered: false,
                unanswered: 0,
                rest: 0,
            });
        }
    }

    /// Whom to send a probe in this turn; each counts as unanswered until it is. Once one is, its host
    /// rests; after a miss every turn brings the next, so that a death is found soon and nobody is
    /// asked often meanwhile.
    pub(crate) fn probe(&mut self) -> Vec<(u32, IpAddr)> {
        let mut now = Vec::new();
        for (node, peer) in &mut self.peers {
            if peer.unanswered == 0 && peer.rest > 0 {
                peer.rest -= 1;
                continue;
            }
            peer.rest = REST;
            peer.unanswered = peer.unanswered.saturating_add(1);
            now.push((*node, peer.addr));
        }
        now
    }

    /// A host answered from this address.
    pub(crate) fn answered(&mut self, node: u32, from: IpAddr) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.addr == from
        {
            peer.has_answered = true;
            peer.unanswered = 0;
        }
    }

    /// What is known of those that have ever answered.
    pub(crate) fn verdicts(&self) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (node, peer) in self.peers.iter().filter(|(_, peer)| peer.has_answered) {
            if peer.unanswered > LIMIT {
                verdicts.dead.insert(*node);
            } else {
                verdicts.living.insert(*node);
            }
        }
        verdicts
    }
}

/// The internet checksum of some bytes, ready to be written.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0_u32;
    for (place, byte) in bytes.iter().enumerate() {
        sum += u32::from(*byte) << if place % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

/// A probe: an echo request with this identity and the node's number in it. The kernel fills in an
/// ICMPv6 checksum, because it knows the addresses.
pub(crate) fn request(is_ipv4: bool, identity: u16, node: u32, sequence: u16) -> Vec<u8> {
    let mut echo = vec![if is_ipv4 { ECHO_V4 } else { ECHO_V6 }, 0, 0, 0];
    echo.extend(identity.to_be_bytes());
    echo.extend(sequence.to_be_bytes());
    echo.extend(node.to_be_bytes());
    if is_ipv4 {
        let sum = checksum(&echo);
        echo[2..4].copy_from_slice(&sum);
    }
    echo
}

/// The node whose answer an ICMP message (from its type on) is, if it answers a probe of this
/// identity.
pub(crate) fn answer(message: &[u8], is_ipv4: bool, identity: u16) -> Option<u32> {
    let reply = if is_ipv4 { 0 } else { 129 };
    let node = message.get(8..12)?;
    let ours = message[0] == reply && message[4..6] == identity.to_be_bytes();
    ours.then(|| u32::from_be_bytes([node[0], node[1], node[2], node[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        let mut peers = Peers::default();
        peers.follow(&BTreeMap::from([(2, addr(2)), (3, addr(3))]));
        peers
    }

    fn addr(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_host_that_stops_answering_is_dead_until_it_answers() {
        let mut peers = peers();
        for _ in 0..3 {
            assert_eq!(peers.probe().len(), 2);
            peers.answered(2, addr(2));
            for _ in 0..REST {
                assert_eq!(peers.probe(), [(3, addr(3))], "the other rests");
            }
        }
        for _ in 0..LIMIT {
            peers.probe();
            assert!(peers.verdicts().dead.is_empty());
        }
        peers.probe();
        assert_eq!(peers.verdicts().dead, BTreeSet::from([2]));
        peers.answered(2, addr(2));
        assert!(peers.verdicts().dead.is_empty());
    }

    #[test]
    fn a_host_that_never_answered_is_left_to_the_managers() {
        let mut peers = peers();
        for _ in 0..100 {
            peers.probe();
            peers.answered(3, addr(9));
        }
        assert_eq!(
            peers.verdicts(),
            Verdicts::default(),
            "an answer from elsewhere counts for nobody"
        );
    }

    #[test]
    fn a_host_that_moved_begins_anew() {
        let mut peers = peers();
        peers.answered(2, addr(2));
        for _ in 0..=LIMIT {
            peers.probe();
        }
        assert_eq!(peers.verdicts().dead, BTreeSet::from([2]));
        peers.follow(&BTreeMap::from([(2, addr(22))]));
        assert!(peers.verdicts().dead.is_empty());
    }

    #[test]
    fn requests_have_valid_checksums() {
        let request = request(true, 7, 9, 1);
        assert_eq!(checksum(&request), [0, 0]);
        assert_eq!(answer(&request, true, 7), None, "a request is no answer");
    }

    #[test]
    fn only_answers_to_own_requests_count() {
        let mut message = vec![0, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 9];
        assert_eq!(answer(&message, true, 7), Some(9));
        assert_eq!(answer(&message, true, 8), None);
        assert_eq!(answer(&message[..11], true, 7), None);
        message[0] = 8;
        assert_eq!(answer(&message, true, 7), None, "a request is no answer");
    }
}
