//! The encrypted underlay: who is in it, at which address, with which key. Pure.
//!
//! Each node has an address in `198.18.0.0/15`, made from its number, on a WireGuard device of its
//! own. Packets of an encrypted network are tunnelled as all others are, but to that address: so
//! encrypting a network is an entry in a table, and WireGuard proves who sent what. Addresses of the
//! range never appear on a wire in clear, and packets to it have no other way than the device.
//!
//! Keys come in generations. While nodes move from one to the next, each has two devices with a key, a
//! port and an address each; even generations have one half of the range, odd ones the other. Which of
//! them a packet takes is the address it is tunnelled to, so moving is a row in a table too. A pair of
//! nodes moves when a handshake by the new keys has shown that either answers to the other's.

mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnetwork::{IpNetwork, Ipv4Network};
use weft_types::netstate::{FormerKey, WireGuardPeer};

pub use self::ways::KeyState;
pub(crate) use self::ways::{Way, Ways, newest_up, ways};
use crate::desired::Desired;

/// Names of the WireGuard devices, of even and of odd generations of keys.
pub(crate) const DEVICES: [&str; 2] = ["weft-wg", "weft-wg1"];

/// UDP port of WireGuard unless told otherwise; odd generations of keys have the next one.
pub const WIREGUARD_PORT: u16 = 51871;

/// WireGuard uses no session longer after its handshake.
const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// Set aside for measurements (RFC 2544), so that nobody routes it: addresses inside the encrypted
/// underlay.
pub(crate) const RANGE: Ipv4Network =
    match Ipv4Network::new_checked(Ipv4Addr::new(198, 18, 0, 0), 15) {
        Some(range) => range,
        None => unreachable!(),
    };

/// Which of the two devices, ports and halves of the range a generation of keys has.
fn half(generation: u64) -> usize {
    usize::from(!generation.is_multiple_of(2))
}

/// Prefix length of each half of [`RANGE`].
const HALF: u8 = 16;

/// The address of a node inside the encrypted underlay by its keys of this generation; none when its
/// number is beyond the range.
pub(crate) fn address(node: u32, generation: u64) -> Option<Ipv4Addr> {
    let half = u32::from(half(generation) != 0) << HALF;
    (node != 0 && node < (1 << HALF) - 1)
        .then(|| Ipv4Addr::from_bits(RANGE.network().to_bits() | half | node))
}

/// All addresses that a node may have inside the encrypted underlay.
pub(crate) fn addresses(node: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..2).filter_map(move |generation| address(node, generation))
}

/// Whether a session that is so old is used still.
pub(crate) fn is_live(age: Option<Duration>) -> bool {
    age.is_some_and(|age| age < SESSION_LIFETIME)
}

/// Bytes that encryption takes from a packet over this underlay.
pub(crate) fn overhead(data_path: IpAddr) -> u32 {
    if data_path.is_ipv4() { 60 } else { 80 }
}

/// Container MTU of an encrypted network where clear ones have `clear`.
pub(crate) fn container_mtu(clear: u32, data_path: IpAddr) -> u32 {
    // The inner tunnel is IPv4 whatever the underlay is.
    let inner = if data_path.is_ipv4() { 0 } else { 20 };
    // Below 1280 there is no IPv6.
    (clear + inner)
        .saturating_sub(overhead(data_path))
        .max(1280)
}

/// A node's private key for encrypted networks.
#[derive(Clone, PartialEq, Eq)]
pub struct WireGuardKey([u8; 32]);

impl fmt::Debug for WireGuardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireGuardKey(…)")
    }
}

impl WireGuardKey {
    /// A key from its 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes; whoever has them can read the node's traffic.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// What others must know.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        let secret = gotatun::x25519::StaticSecret::from(self.0);
        gotatun::x25519::PublicKey::from(&secret).to_bytes()
    }
}

/// A node's own part in the encrypted underlay, by its key of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireGuard {
    /// Which generation.
    pub generation: u64,
    /// Its private key.
    pub key: WireGuardKey,
    /// UDP port it listens on, host order.
    pub port: u16,
}

impl WireGuard {
    /// The port of a generation, where that of the even ones is `base`.
    #[must_use]
    pub fn port_of(base: u16, generation: u64) -> u16 {
        let odd = half(generation) != 0;
        // There is none above the highest.
        base.checked_add(u16::from(odd)).unwrap_or(base - 1)
    }

    /// What the other nodes must be told of a node that has this key alone.
    #[must_use]
    pub fn peer(&self) -> WireGuardPeer {
        WireGuardPeer {
            key: self.key.public(),
            port: self.port,
            generation: self.generation,
            before: None,
            settled: false,
        }
    }

    /// What the other nodes must be told of a node with these keys, oldest first, that uses only those of
    /// generation `settled` with everybody, if any.
    #[must_use]
    pub fn told(keys: &[Self], settled: Option<u64>) -> Option<WireGuardPeer> {
        let newest = keys.last()?;
        let is_former = |own: &&Self| own.generation.checked_add(1) == Some(newest.generation);
        let former = keys.iter().find(is_former);
        Some(WireGuardPeer {
            before: former.map(|own| FormerKey {
                key: own.key.public(),
                port: own.port,
            }),
            settled: settled == Some(newest.generation),
            ..newest.peer()
        })
    }
}

/// Another node, as the device must know it. Keyed by public key in [`Plan::peers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The only address that packets from it may bear, and that lead to it.
    pub(crate) address: Ipv4Addr,
    /// Where to find it before it was heard of.
    pub(crate) endpoint: SocketAddr,
}

/// What the device of one generation of keys must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its name.
    pub(crate) device: &'static str,
    /// This node's part.
    pub(crate) own: WireGuard,
    /// This node's address on it.
    pub(crate) address: Ipv4Addr,
    /// Size of packets inside.
    pub(crate) mtu: u32,
    /// UDP port of the tunnels inside, host order.
    pub(crate) vxlan_port: u16,
    /// All other nodes that told their key of this generation.
    pub(crate) peers: BTreeMap<[u8; 32], Peer>,
}

/// What the devices must be for `desired`, oldest generation first; none while no network is encrypted, or
/// this node has no key. `mtu` is that of the link with the data path address, `vxlan_port` where tunnels
/// lead.
pub(crate) fn plans(desired: &Desired, data_path: IpAddr, mtu: u32, vxlan_port: u16) -> Vec<Plan> {
    if desired.ciphered.is_empty() {
        return Vec::new();
    }
    let generations = own_generations(desired);
    let plan = |own: &WireGuard| {
        Some(Plan {
            device: DEVICES[half(own.generation)],
            own: own.clone(),
            address: address(desired.node, own.generation)?,
            mtu: mtu.saturating_sub(overhead(data_path)).max(1280),
            vxlan_port,
            peers: peers(desired, own.generation),
        })
    };
    generations.into_iter().filter_map(plan).collect()
}

/// This node's keys that count, oldest first: the newest and the one before.
fn own_generations(desired: &Desired) -> Vec<&WireGuard> {
    let newest = desired.keys.iter().map(|own| own.generation).max();
    let newest = newest.unwrap_or_default();
    let counts = |own: &&WireGuard| newest - own.generation <= 1;
    let mut all: Vec<_> = desired.keys.iter().filter(counts).collect();
    all.sort_by_key(|own| own.generation);
    all
}

/// All other nodes that told their key of this generation.
fn peers(desired: &Desired, generation: u64) -> BTreeMap<[u8; 32], Peer> {
    let others = desired.nodes.iter();
    let others = others.filter(|(index, _)| **index != desired.node);
    let peers = others.filter_map(|(index, node)| {
        let (key, port) = node.wireguard?.of(generation)?;
        let peer = Peer {
            address: address(*index, generation)?,
            endpoint: SocketAddr::new(node.addr, port),
        };
        (port != 0).then_some((key, peer))
    });
    peers.collect()
}

/// Ports that WireGuard listens on for `desired`.
pub(crate) fn ports(desired: &Desired) -> Vec<u16> {
    if desired.ciphered.is_empty() {
        return Vec::new();
    }
    let own = own_generations(desired).into_iter();
    own.map(|own| own.port).collect()
}

impl Plan {
    /// The address with the prefix that leads to all others.
    pub(crate) fn network(&self) -> IpNetwork {
        IpNetwork::new(self.address.into(), HALF).unwrap_or(IpNetwork::V4(RANGE))
    }
}

/// Differences between two sets of peers: to add or change, and to remove.
pub(crate) struct Changes {
    pub(crate) put: Vec<([u8; 32], Peer)>,
    pub(crate) remove: Vec<[u8; 32]>,
}

/// What leads from the peers that the device `has` to those it should have. An endpoint learnt from
/// authenticated packets is left alone: the peer may sit behind a translator.
pub(crate) fn changes(
    has: &BTreeMap<[u8; 32], Peer>,
    wanted: &BTreeMap<[u8; 32], Peer>,
    there: impl Fn(&[u8; 32]) -> bool,
) -> Changes {
    let differs = |key: &[u8; 32], peer: &Peer| has.get(key) != Some(peer) || !there(key);
    let put = wanted.iter().filter(|(key, peer)| differs(key, peer));
    Changes {
        put: put.map(|(key, peer)| (*key, *peer)).collect(),
        remove: has
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .copied()
            .collect(),
    }
}

#[cfg(test)]
mod tests;
