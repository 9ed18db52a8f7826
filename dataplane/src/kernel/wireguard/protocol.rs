//! WireGuard between this node and its peers: which packet is whose, and what it becomes. No sockets.
//!
//! Handshakes, sessions and their timers are gotatun's [`Tunn`]; here is what stands around one: finding
//! it by key, address or session, and the rule that a peer sends from its own address alone.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use gotatun::{
    noise::{
        Tunn, TunnResult, handshake::parse_handshake_anon, index_table::IndexTable,
        rate_limiter::RateLimiter,
    },
    packet::{Packet, WgKind},
    tun::MtuWatcher,
    x25519::{PublicKey, StaticSecret},
};

use crate::cipher::{Changes, Peer, WireGuardKey};

/// Handshakes a second from one address before it has to prove that it is there.
const HANDSHAKES: u64 = 100;

/// Datagrams and where they go.
pub(super) type Outgoing = Vec<(Packet, SocketAddr)>;

/// A node's part in the protocol.
pub(super) struct Protocol {
    secret: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    indices: IndexTable,
    mtu: MtuWatcher,
    known: RwLock<Known>,
    /// Whose session an index of ours is.
    sessions: Mutex<HashMap<u32, Arc<Party>>>,
}

#[derive(Default)]
struct Known {
    by_key: HashMap<[u8; 32], Arc<Party>>,
    by_address: HashMap<Ipv4Addr, Arc<Party>>,
}

/// A peer.
pub(super) struct Party {
    address: Ipv4Addr,
    talk: Mutex<Talk>,
}

struct Talk {
    tunnel: Tunn,
    /// Where it is: told, or learnt from its authenticated packets.
    endpoint: SocketAddr,
}

/// What a thread that panicked left behind is as good as any: peers' state is checked by the protocol.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Protocol {
    /// `mtu` is the longest packet inside: padding does not go beyond it.
    pub(super) fn new(key: &WireGuardKey, mtu: u16) -> Self {
        let secret = StaticSecret::from(key.to_bytes());
        let public = PublicKey::from(&secret);
        Self {
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES)),
            secret,
            public,
            indices: IndexTable::from_os_rng(),
            mtu: MtuWatcher::new(mtu),
            known: RwLock::default(),
            sessions: Mutex::default(),
        }
    }

    /// Removes and adds peers. One that stays keeps its sessions, unless its address changed.
    pub(super) fn change(&self, changes: &Changes) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for key in &changes.remove {
            known.remove(key);
        }
        for (key, peer) in &changes.put {
            match known.by_key.get(key) {
                Some(party) if party.address == peer.address => {
                    held(&party.talk).endpoint = peer.endpoint;
                }
                _ => {
                    known.remove(key);
                    known.add(*key, Arc::new(self.party(key, peer)));
                }
            }
        }
        let still = |party: &Arc<Party>| {
            let at = known.by_address.get(&party.address);
            at.is_some_and(|other| Arc::ptr_eq(other, party))
        };
        held(&self.sessions).retain(|_, party| still(party));
    }

    /// The public keys of all peers, and how long ago the last handshake with each was.
    pub(super) fn peers(&self) -> Vec<([u8; 32], Option<Duration>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let told = known.by_key.iter();
        told.map(|(key, party)| (*key, held(&party.talk).tunnel.stats().0))
            .collect()
    }

    fn party(&self, key: &[u8; 32], peer: &Peer) -> Party {
        let tunnel = Tunn::new(
            self.secret.clone(),
            PublicKey::from(*key),
            None,
            None,
            self.indices.clone(),
            self.limiter.clone(),
        );
        let talk = Talk {
            tunnel,
            endpoint: peer.endpoint,
        };
        Party {
            address: peer.address,
            talk: Mutex::new(talk),
        }
    }

    /// The peer that has this address.
    pub(super) fn at(&self, address: Ipv4Addr) -> Option<Arc<Party>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_address.get(&address).cloned()
    }

    /// Encrypts a packet for a peer. While there is no session, it waits inside, and a handshake goes out.
    pub(super) fn seal(&self, party: &Arc<Party>, packet: Packet, out: &mut Outgoing) {
        let mut talk = held(&party.talk);
        let sealed = talk
            .tunnel
            .handle_outgoing_packet(packet, Some(&mut self.mtu.clone()));
        let endpoint = talk.endpoint;
        drop(talk);
        if let Some(sealed) = sealed {
            self.send(party, sealed, endpoint, out);
        }
    }

    fn send(&self, party: &Arc<Party>, packet: WgKind, to: SocketAddr, out: &mut Outgoing) {
        let begun = match &packet {
            WgKind::HandshakeInit(packet) => Some(packet.sender_idx.get()),
            WgKind::HandshakeResp(packet) => Some(packet.sender_idx.get()),
            WgKind::CookieReply(_) | WgKind::Data(_) => None,
        };
        if let Some(index) = begun {
            held(&self.sessions).insert(index, party.clone());
        }
        out.push((packet.into(), to));
    }

    fn party_of(&self, packet: &WgKind) -> Option<Arc<Party>> {
        let index = match packet {
            WgKind::HandshakeInit(packet) => {
                let half = parse_handshake_anon(&self.secret, &self.public, packet).ok()?;
                let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
                return known.by_key.get(&half.peer_static_public).cloned();
            }
            WgKind::HandshakeResp(packet) => packet.receiver_idx,
            WgKind::CookieReply(packet) => packet.receiver_idx,
            WgKind::Data(packet) => packet.header.receiver_idx,
        };
        held(&self.sessions).get(&index.get()).cloned()
    }

    /// Takes a datagram. `inside` is given the packet in it, if it is a peer's, whole, and from its own
    /// address; `out` what must be answered.
    pub(super) fn open(
        &self,
        datagram: Packet,
        from: SocketAddr,
        out: &mut Outgoing,
        inside: impl FnOnce(&[u8]),
    ) {
        let packet = match self.limiter.verify_packet(from, datagram) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => return out.push((cookie.into(), from)),
            Err(_) => return,
        };
        let Some(party) = self.party_of(&packet) else {
            return;
        };
        let mut talk = held(&party.talk);
        match talk.tunnel.handle_incoming_packet(packet) {
            TunnResult::WriteToNetwork(answer) => {
                talk.endpoint = from;
                self.send(&party, answer, from, out);
                let mut mtu = self.mtu.clone();
                let waited = talk.tunnel.get_queued_packets(&mut mtu);
                waited.for_each(|packet| self.send(&party, packet, from, out));
            }
            TunnResult::WriteToTunnel(packet) => {
                talk.endpoint = from;
                drop(talk);
                if let Some(packet) = packet_from(party.address, &packet) {
                    inside(packet);
                }
            }
            TunnResult::Done | TunnResult::Err(_) => {}
        }
    }

    /// Handshakes that are due again, signs of life, sessions that are over. To be called a few times
    /// a second.
    pub(super) fn tick(&self, out: &mut Outgoing) {
        held(&self.sessions).retain(|index, _| self.indices.in_use(*index));
        self.limiter.try_reset_count();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let parties: Vec<Arc<Party>> = known.by_key.values().cloned().collect();
        drop(known);
        for party in parties {
            let mut talk = held(&party.talk);
            let due = talk.tunnel.update_timers();
            let endpoint = talk.endpoint;
            drop(talk);
            // An error says that nobody answered for long: the next packet begins anew.
            if let Ok(Some(packet)) = due {
                self.send(&party, packet, endpoint, out);
            }
        }
    }
}

impl Known {
    fn add(&mut self, key: [u8; 32], party: Arc<Party>) {
        self.by_address.insert(party.address, party.clone());
        self.by_key.insert(key, party);
    }

    fn remove(&mut self, key: &[u8; 32]) {
        let Some(party) = self.by_key.remove(key) else {
            return;
        };
        let at = self.by_address.get(&party.address);
        if at.is_some_and(|other| Arc::ptr_eq(other, &party)) {
            self.by_address.remove(&party.address);
        }
    }
}

/// The IPv4 packet without the padding behind it; none when it is not whole, or from another address.
fn packet_from(address: Ipv4Addr, padded: &[u8]) -> Option<&[u8]> {
    let header: &[u8; 20] = padded.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_its_own = header[0] >> 4 == 4 && header[12..16] == address.octets();
    padded.get(..length).filter(|_| is_its_own && length >= 20)
}

#[cfg(test)]
mod tests;
