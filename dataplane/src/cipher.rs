//! The encrypted underlay: who is in it, at which address, with which key. Pure.
//!
//! Each node has one address in `198.18.0.0/15`, made from its number, on a WireGuard device of its
//! own. Packets of an encrypted network are tunnelled as all others are, but to that address: so
//! encrypting a network is an entry in a table, and WireGuard proves who sent what. Addresses of the
//! range never appear on a wire in clear, and packets to it have no other way than the device.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ipnetwork::{IpNetwork, Ipv4Network};
use weft_types::netstate::WireGuardPeer;

use crate::desired::Desired;

/// Name of the WireGuard device.
pub(crate) const DEVICE: &str = "weft-wg";

/// UDP port of WireGuard unless told otherwise.
pub const WIREGUARD_PORT: u16 = 51871;

/// Set aside for measurements (RFC 2544), so that nobody routes it: addresses inside the encrypted
/// underlay.
pub(crate) const RANGE: Ipv4Network =
    match Ipv4Network::new_checked(Ipv4Addr::new(198, 18, 0, 0), 15) {
        Some(range) => range,
        None => unreachable!(),
    };

/// The address of a node inside the encrypted underlay; none when its number is beyond the range.
pub(crate) fn address(node: u32) -> Option<Ipv4Addr> {
    (node != 0 && node < RANGE.size() - 1)
        .then(|| Ipv4Addr::from_bits(RANGE.network().to_bits() | node))
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

/// A node's own part in the encrypted underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireGuard {
    /// Its private key.
    pub key: WireGuardKey,
    /// UDP port it listens on, host order.
    pub port: u16,
}

impl WireGuard {
    /// What the other nodes must be told.
    #[must_use]
    pub fn peer(&self) -> WireGuardPeer {
        WireGuardPeer {
            key: self.key.public(),
            port: self.port,
        }
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

/// What the device must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// This node's part.
    pub(crate) own: WireGuard,
    /// This node's address on it.
    pub(crate) address: Ipv4Addr,
    /// Size of packets inside.
    pub(crate) mtu: u32,
    /// UDP port of the tunnels inside, host order.
    pub(crate) vxlan_port: u16,
    /// All other nodes that told their key.
    pub(crate) peers: BTreeMap<[u8; 32], Peer>,
}

/// What the device must be for `desired`; none while no network is encrypted, or this node has no key.
/// `mtu` is that of the link with the data path address,
/// `vxlan_port` where tunnels lead.
pub(crate) fn plan(
    desired: &Desired,
    own: Option<&WireGuard>,
    data_path: IpAddr,
    mtu: u32,
    vxlan_port: u16,
) -> Option<Plan> {
    let own = own.filter(|_| !desired.ciphered.is_empty())?;
    let others = desired
        .nodes
        .iter()
        .filter(|(index, _)| **index != desired.node);
    let peers = others.filter_map(|(index, node)| {
        let peer = node.wireguard.filter(|peer| peer.port != 0)?;
        let endpoint = SocketAddr::new(node.addr, peer.port);
        Some((
            peer.key,
            Peer {
                address: address(*index)?,
                endpoint,
            },
        ))
    });
    Some(Plan {
        own: own.clone(),
        address: address(desired.node)?,
        mtu: mtu.saturating_sub(overhead(data_path)).max(1280),
        vxlan_port,
        peers: peers.collect(),
    })
}

impl Plan {
    /// The address with the prefix that leads to all others.
    pub(crate) fn network(&self) -> IpNetwork {
        IpNetwork::new(self.address.into(), RANGE.prefix()).unwrap_or(IpNetwork::V4(RANGE))
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
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::desired::Node;

    fn own() -> WireGuard {
        WireGuard {
            key: WireGuardKey::from_bytes([7; 32]),
            port: WIREGUARD_PORT,
        }
    }

    fn node(index: u32, key: Option<u8>) -> Node {
        Node {
            name: String::new(),
            addr: IpAddr::from([192, 0, 2, index as u8]),
            addresses: BTreeSet::new(),
            zone: String::new(),
            dead: false,
            wireguard: key.map(|byte| WireGuardPeer {
                key: [byte; 32],
                port: 1000,
            }),
        }
    }

    #[test]
    fn clear_networks_need_no_device() {
        let mut desired = Desired {
            node: 1,
            nodes: BTreeMap::from([(1, node(1, Some(1)))]),
            ..Desired::default()
        };
        let at = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(plan(&desired, Some(&own()), at, 1500, 4789), None);
        desired.ciphered.insert(4097);
        assert_eq!(
            plan(&desired, None, at, 1500, 4789),
            None,
            "no key, no device"
        );
        assert!(plan(&desired, Some(&own()), at, 1500, 4789).is_some());
    }

    #[test]
    fn peers_are_all_others_that_have_a_key() {
        let nodes = [
            (1, node(1, Some(1))),
            (2, node(2, Some(2))),
            (3, node(3, None)),
        ];
        let desired = Desired {
            node: 1,
            nodes: nodes.into(),
            ciphered: BTreeSet::from([9]),
            ..Desired::default()
        };
        let plan = plan(
            &desired,
            Some(&own()),
            IpAddr::from([192, 0, 2, 1]),
            1500,
            4789,
        )
        .unwrap();
        assert_eq!(plan.address, Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(plan.mtu, 1440);
        let peer = Peer {
            address: Ipv4Addr::new(198, 18, 0, 2),
            endpoint: "192.0.2.2:1000".parse().unwrap(),
        };
        assert_eq!(plan.peers, BTreeMap::from([([2; 32], peer)]));
    }

    #[test]
    fn container_packets_fit() {
        assert_eq!(
            container_mtu(1450, IpAddr::from([192, 0, 2, 1])),
            1500 - 50 - 60
        );
        let v6 = "2001:db8::1".parse().unwrap();
        assert_eq!(container_mtu(1430, v6), 1500 - 50 - 80);
    }

    proptest! {
        #[test]
        fn addresses_are_inside_and_differ(a in 1u32..131_070, b in 1u32..131_070) {
            let (one, other) = (address(a).unwrap(), address(b).unwrap());
            prop_assert!(RANGE.contains(one));
            prop_assert!(weft_abi::Addr::from(IpAddr::V4(one)).is_ciphered());
            prop_assert_eq!(a == b, one == other);
        }

        #[test]
        fn changes_lead_there(
            has in prop::collection::btree_map(0u8..8, 1u32..4, 0..6),
            wanted in prop::collection::btree_map(0u8..8, 1u32..4, 0..6),
        ) {
            let peers = |of: BTreeMap<u8, u32>| -> BTreeMap<[u8; 32], Peer> {
                of.into_iter().map(|(key, at)| {
                    let endpoint = SocketAddr::from(([192, 0, 2, at as u8], 1));
                    ([key; 32], Peer { address: address(at).unwrap(), endpoint })
                }).collect()
            };
            let (mut has, wanted) = (peers(has), peers(wanted));
            let changes = changes(&has, &wanted, |_| true);
            for key in &changes.remove {
                has.remove(key);
            }
            has.extend(changes.put);
            prop_assert_eq!(has, wanted);
        }
    }
}
