//! Which hosts answer: judged by this node alone, so that a dead host leaves the rings while every
//! manager is dead.
//!
//! A probe is an echo request that travels as traffic does, in a tunnelled packet, and is answered by
//! the other host's kernel: a host whose agent is stopped is not dead. Silence is counted in probes,
//! not in time: a process that was not scheduled must not take that for everybody's death.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// Pause between two probes of one host.
pub(crate) const PERIOD: Duration = Duration::from_millis(150);

/// Unanswered probes in a row after which a host is dead: 0.75 s at [`PERIOD`].
const LIMIT: u32 = 5;

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
            });
        }
    }

    /// Whom to send a probe now. Every call counts one more probe as unanswered.
    pub(crate) fn probe(&mut self) -> Vec<(u32, IpAddr)> {
        let each = self.peers.iter_mut().map(|(node, peer)| {
            peer.unanswered = peer.unanswered.saturating_add(1);
            (*node, peer.addr)
        });
        each.collect()
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

    /// Hosts that used to answer and do not any more.
    pub(crate) fn dead(&self) -> BTreeSet<u32> {
        let silent = |peer: &Peer| peer.has_answered && peer.unanswered > LIMIT;
        let dead = self.peers.iter().filter(|(_, peer)| silent(peer));
        dead.map(|(node, _)| *node).collect()
    }
}

/// The internet checksum of some bytes, ready to be written.
fn checksum(bytes: impl Iterator<Item = u8>) -> [u8; 2] {
    let mut sum = 0_u32;
    for (place, byte) in bytes.enumerate() {
        sum += u32::from(byte) << if place % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

/// The inner IP packet of a probe: an echo request with this identity and the node's number in it.
/// `None` when the addresses are of two families.
pub(crate) fn request(
    from: IpAddr,
    to: IpAddr,
    identity: u16,
    node: u32,
    sequence: u16,
) -> Option<Vec<u8>> {
    let kind = if from.is_ipv4() { ECHO_V4 } else { ECHO_V6 };
    let mut echo = vec![kind, 0, 0, 0];
    echo.extend(identity.to_be_bytes());
    echo.extend(sequence.to_be_bytes());
    echo.extend(node.to_be_bytes());
    let length = echo.len() as u8;
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let sum = checksum(echo.iter().copied());
            echo[2..4].copy_from_slice(&sum);
            packet.extend([0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, 64, 1, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = checksum(packet.iter().copied());
            packet[10..12].copy_from_slice(&sum);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ends = from.octets().into_iter().chain(to.octets());
            let pseudo = ends.chain([0, 0, 0, length, 0, 0, 0, 58]);
            let sum = checksum(pseudo.chain(echo.iter().copied()));
            echo[2..4].copy_from_slice(&sum);
            packet.extend([0x60, 0, 0, 0, 0, length, 58, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => return None,
    }
    packet.extend(echo);
    Some(packet)
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
        }
        for _ in 0..LIMIT {
            peers.probe();
            assert!(peers.dead().is_empty());
        }
        peers.probe();
        assert_eq!(peers.dead(), BTreeSet::from([2]));
        peers.answered(2, addr(2));
        assert!(peers.dead().is_empty());
    }

    #[test]
    fn a_host_that_never_answered_is_left_to_the_managers() {
        let mut peers = peers();
        for _ in 0..100 {
            peers.probe();
            peers.answered(3, addr(9));
        }
        assert!(
            peers.dead().is_empty(),
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
        assert_eq!(peers.dead(), BTreeSet::from([2]));
        peers.follow(&BTreeMap::from([(2, addr(22))]));
        assert!(peers.dead().is_empty());
    }

    #[test]
    fn requests_have_valid_checksums() {
        let v4 = request(addr(1), addr(2), 7, 9, 1).unwrap();
        assert_eq!(checksum(v4[..20].iter().copied()), [0, 0]);
        assert_eq!(checksum(v4[20..].iter().copied()), [0, 0]);
        let from: IpAddr = "2001:db8::1".parse().unwrap();
        let v6 = request(from, "2001:db8::2".parse().unwrap(), 7, 9, 1).unwrap();
        let pseudo = v6[8..40].iter().copied().chain([0, 0, 0, 12, 0, 0, 0, 58]);
        assert_eq!(checksum(pseudo.chain(v6[40..].iter().copied())), [0, 0]);
        assert!(request(from, addr(2), 7, 9, 1).is_none());
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
