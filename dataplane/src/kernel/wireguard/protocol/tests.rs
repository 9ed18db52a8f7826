use gotatun::packet::PacketBufPool;

use super::*;
use crate::cipher::address;

/// Two nodes that know each other, and the datagrams between them.
struct Pair {
    nodes: [Protocol; 2],
    pool: PacketBufPool,
}

fn key(number: u8) -> WireGuardKey {
    WireGuardKey::from_bytes([number + 1; 32])
}

fn place(number: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number as u8], 1000))
}

fn inner(number: usize) -> Ipv4Addr {
    address(number as u32 + 1, 0).unwrap()
}

fn put(number: usize) -> Changes {
    let peer = Peer {
        address: inner(number),
        endpoint: place(number),
    };
    Changes {
        put: vec![(key(number as u8).public(), peer)],
        remove: Vec::new(),
    }
}

/// An IPv4 packet with this source.
fn packet(from: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut packet = vec![7; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&from.octets());
    packet
}

impl Pair {
    fn new() -> Self {
        let nodes = [0, 1].map(|number| Protocol::new(&key(number), 1440));
        nodes[0].change(&put(1));
        nodes[1].change(&put(0));
        Self {
            nodes,
            pool: PacketBufPool::new(16),
        }
    }

    fn of(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.pool.get();
        packet.buf_mut().clear();
        packet.buf_mut().extend_from_slice(bytes);
        packet
    }

    /// Hands all datagrams over until there are none; `out` are those of node `from`, which comes from
    /// `source`. What each node found inside.
    fn settle(&self, mut from: usize, mut out: Outgoing, source: SocketAddr) -> [Vec<Vec<u8>>; 2] {
        let mut found = [Vec::new(), Vec::new()];
        while !out.is_empty() {
            let to = 1 - from;
            let mut answers = Outgoing::new();
            for (datagram, _) in out {
                let source = if from == 0 { source } else { place(1) };
                self.nodes[to].open(datagram, source, &mut answers, |packet| {
                    found[to].push(packet.to_vec());
                });
            }
            (from, out) = (to, answers);
        }
        found
    }

    fn send(&self, from: usize, bytes: &[u8]) -> Outgoing {
        let mut out = Outgoing::new();
        let party = self.nodes[from].at(inner(1 - from)).unwrap();
        self.nodes[from].seal(&party, self.of(bytes), &mut out);
        out
    }

    fn exchange(&self, from: usize, bytes: &[u8]) -> Vec<Vec<u8>> {
        let out = self.send(from, bytes);
        let [first, second] = self.settle(from, out, place(0));
        if from == 0 { second } else { first }
    }
}

#[test]
fn what_waited_for_a_handshake_arrives_and_so_does_all_after_it() {
    let pair = Pair::new();
    for length in [20, 21, 1000, 1439, 1440] {
        for from in [0, 1] {
            let sent = packet(inner(from), length);
            assert_eq!(pair.exchange(from, &sent), [sent], "{length} from {from}");
        }
    }
}

#[test]
fn a_peer_sends_from_its_own_address_alone_and_only_whole_packets() {
    let pair = Pair::new();
    assert_eq!(pair.exchange(0, &packet(inner(0), 40)).len(), 1);
    let nothing: [Vec<u8>; 0] = [];
    assert_eq!(pair.exchange(0, &packet(inner(1), 40)), nothing);
    let mut short = packet(inner(0), 40);
    short[3] = 200;
    assert_eq!(pair.exchange(0, &short), nothing);
    let mut other = packet(inner(0), 40);
    other[0] = 0x65;
    assert_eq!(pair.exchange(0, &other), nothing);
}

#[test]
fn damaged_and_repeated_datagrams_give_nothing() {
    let pair = Pair::new();
    assert_eq!(pair.exchange(0, &packet(inner(0), 40)).len(), 1);
    let sent = pair.send(0, &packet(inner(0), 40));
    let bytes = sent[0].0.to_vec();
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut found = 0;
    for datagram in [&damaged, &bytes, &bytes] {
        let packet = pair.of(datagram);
        pair.nodes[1].open(packet, place(0), &mut Outgoing::new(), |_| found += 1);
    }
    assert_eq!(found, 1);
}

#[test]
fn a_peer_is_found_where_its_packets_come_from() {
    let pair = Pair::new();
    assert_eq!(pair.exchange(0, &packet(inner(0), 40)).len(), 1);
    let moved = place(9);
    let out = pair.send(0, &packet(inner(0), 40));
    pair.settle(0, out, moved);
    let answer = pair.send(1, &packet(inner(1), 40));
    assert_eq!(answer[0].1, moved);
    // Being told again where it is counts: whoever tells, knows better.
    pair.nodes[1].change(&put(0));
    assert_eq!(pair.send(1, &packet(inner(1), 40))[0].1, place(0));
}

#[test]
fn a_peer_that_was_removed_is_a_stranger() {
    let pair = Pair::new();
    assert_eq!(pair.exchange(0, &packet(inner(0), 40)).len(), 1);
    let gone = Changes {
        put: Vec::new(),
        remove: vec![key(0).public()],
    };
    pair.nodes[1].change(&gone);
    assert!(pair.nodes[1].peers().is_empty());
    assert!(pair.nodes[1].at(inner(0)).is_none());
    assert!(pair.exchange(0, &packet(inner(0), 40)).is_empty());
}

#[test]
fn bytes_of_anybody_do_not_panic() {
    let pair = Pair::new();
    for length in 0..200 {
        for kind in 0..6 {
            let mut bytes = vec![1; length];
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let packet = pair.of(&bytes);
            pair.nodes[1].open(packet, place(0), &mut Outgoing::new(), |_| {
                panic!("nobody sent this")
            });
        }
    }
}
