use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use proptest::prelude::*;
use weft_types::netstate::{FormerKey, WireGuardPeer};

use super::*;
use crate::desired::Node;

fn own(generation: u64) -> WireGuard {
    WireGuard {
        generation,
        key: WireGuardKey::from_bytes([7 + generation as u8; 32]),
        port: WireGuard::port_of(WIREGUARD_PORT, generation),
    }
}

/// The public key of a node's generation, as these tests make it up.
fn key(node: u32, generation: u64) -> [u8; 32] {
    [(node * 16) as u8 + generation as u8; 32]
}

/// A node whose newest key is of this generation, and that has the one before too or not.
fn told(node: u32, newest: u64, has_former: bool) -> WireGuardPeer {
    let former = |newest: u64| FormerKey {
        key: key(node, newest - 1),
        port: 999,
    };
    WireGuardPeer {
        key: key(node, newest),
        port: 1000,
        generation: newest,
        before: has_former.then(|| former(newest)),
        settled: false,
    }
}

fn node(index: u32, wireguard: Option<WireGuardPeer>) -> Node {
    Node {
        name: String::new(),
        addr: IpAddr::from([192, 0, 2, index as u8]),
        addresses: BTreeSet::new(),
        zone: String::new(),
        missed: false,
        dead: false,
        wireguard,
    }
}

/// Node 1 with keys of these generations among others, on an encrypted network.
fn desired(generations: &[u64], others: &[(u32, Option<WireGuardPeer>)]) -> Desired {
    let keys: Vec<_> = generations.iter().map(|number| own(*number)).collect();
    let mut nodes: BTreeMap<u32, Node> = others
        .iter()
        .map(|(index, peer)| (*index, node(*index, *peer)))
        .collect();
    nodes.insert(1, node(1, WireGuard::told(&keys, None)));
    Desired {
        node: 1,
        nodes,
        keys,
        ciphered: BTreeSet::from([9]),
        ..Desired::default()
    }
}

const AT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn clear_networks_need_no_device() {
    let mut desired = desired(&[0], &[]);
    assert_eq!(plans(&desired, AT, 1500, 4789).len(), 1);
    desired.ciphered.clear();
    assert_eq!(plans(&desired, AT, 1500, 4789), []);
    assert_eq!(
        ways(&desired, &DEVICES, &no_keys(), &no_keys(), &BTreeSet::new()),
        Ways::default()
    );
    desired.ciphered.insert(4097);
    desired.keys.clear();
    assert_eq!(plans(&desired, AT, 1500, 4789), [], "no key, no device");
}

#[test]
fn peers_are_all_others_that_have_a_key() {
    let desired = desired(&[0], &[(2, Some(told(2, 0, false))), (3, None)]);
    let [plan] = &plans(&desired, AT, 1500, 4789)[..] else {
        panic!("one device");
    };
    assert_eq!(plan.address, Ipv4Addr::new(198, 18, 0, 1));
    assert_eq!(
        (plan.device, plan.mtu, plan.own.port),
        ("weft-wg", 1440, WIREGUARD_PORT)
    );
    let peer = Peer {
        address: Ipv4Addr::new(198, 18, 0, 2),
        endpoint: "192.0.2.2:1000".parse().unwrap(),
    };
    assert_eq!(plan.peers, BTreeMap::from([(key(2, 0), peer)]));
}

#[test]
fn each_generation_has_its_own_device_port_address_and_peers() {
    let others = [
        (2, Some(told(2, 5, true))),
        (3, Some(told(3, 4, false))),
        (4, Some(told(4, 5, false))),
    ];
    let desired = desired(&[4, 5], &others);
    let [old, new] = &plans(&desired, AT, 1500, 4789)[..] else {
        panic!("two devices");
    };
    assert_eq!((old.device, new.device), ("weft-wg", "weft-wg1"));
    assert_eq!(ports(&desired), [WIREGUARD_PORT, WIREGUARD_PORT + 1]);
    assert_eq!(new.address, Ipv4Addr::new(198, 19, 0, 1));
    assert!(old.peers.keys().eq([&key(2, 4), &key(3, 4)]));
    assert!(new.peers.keys().eq([&key(2, 5), &key(4, 5)]));
    assert_eq!(old.peers[&key(2, 4)].endpoint.port(), 999);
    assert_eq!(new.peers[&key(2, 5)].address, Ipv4Addr::new(198, 19, 0, 2));
}

#[test]
fn keys_older_than_the_one_before_the_newest_are_not_used() {
    let desired = desired(&[2, 5], &[]);
    let plans = plans(&desired, AT, 1500, 4789);
    assert_eq!(plans.len(), 1);
    assert_eq!(plans[0].own.generation, 5);
    assert_eq!(WireGuard::told(&desired.keys, None).unwrap().before, None);
}

fn no_keys() -> BTreeSet<[u8; 32]> {
    BTreeSet::new()
}

/// The halves of the range by which nodes are spoken to.
fn halves(ways: &Ways) -> Vec<(u32, u8)> {
    let all = ways.all.iter().filter(|(index, _)| **index != 1);
    all.map(|(index, way)| (*index, way.to.octets()[1] - 18))
        .collect()
}

#[test]
fn a_pair_moves_when_its_new_keys_have_shaken_hands() {
    let all = [(2, Some(told(2, 1, true))), (3, Some(told(3, 1, true)))];
    let desired = desired(&[0, 1], &all);
    let none = BTreeSet::new();
    // Before any packet there is nothing to lose.
    assert_eq!(
        halves(&ways(&desired, &DEVICES, &no_keys(), &no_keys(), &none)),
        [(2, 1), (3, 1)]
    );

    let old = BTreeSet::from([key(2, 0), key(3, 0)]);
    let waits = ways(&desired, &DEVICES, &old, &no_keys(), &none);
    assert_eq!(
        (halves(&waits), waits.settled),
        (vec![(2, 0), (3, 0)], None)
    );
    assert_eq!(waits.coming[&2].from, Ipv4Addr::new(198, 19, 0, 1));
    assert_eq!(waits.coming[&2].to, Ipv4Addr::new(198, 19, 0, 2));

    let tried = BTreeSet::from([key(2, 1)]);
    let half = ways(&desired, &DEVICES, &old, &tried, &none);
    assert_eq!((halves(&half), half.settled), (vec![(2, 1), (3, 0)], None));
    assert!(half.coming.keys().eq([&3]));

    let tried = BTreeSet::from([key(2, 1), key(3, 1)]);
    let moved = ways(&desired, &DEVICES, &old, &tried, &none);
    assert_eq!(
        (halves(&moved), moved.settled),
        (vec![(2, 1), (3, 1)], Some(1))
    );
    assert!(moved.coming.is_empty());
}

#[test]
fn who_has_no_newer_key_is_spoken_to_by_the_older() {
    let desired = desired(&[0, 1], &[(2, Some(told(2, 0, false)))]);
    let old = BTreeSet::from([key(2, 0)]);
    let ways = ways(&desired, &DEVICES, &old, &no_keys(), &BTreeSet::new());
    assert_eq!(halves(&ways), [(2, 0)]);
    assert_eq!(ways.settled, Some(1), "the managers see who has none");
}

#[test]
fn a_device_that_cannot_be_had_is_not_used() {
    let desired = desired(&[0, 1], &[(2, Some(told(2, 1, true)))]);
    let up = ["weft-wg"];
    let ways = ways(&desired, &up, &no_keys(), &no_keys(), &BTreeSet::new());
    assert_eq!(halves(&ways), [(2, 0)]);
    assert_eq!(
        (newest_up(&desired, &up), newest_up(&desired, &DEVICES)),
        (Some(0), Some(1))
    );
}

#[test]
fn the_dead_hold_nobody_up() {
    let desired = desired(&[0, 1], &[(2, Some(told(2, 1, true)))]);
    let old = BTreeSet::from([key(2, 0)]);
    let settled = |dead: &[u32]| {
        let dead = dead.iter().copied().collect();
        ways(&desired, &DEVICES, &old, &no_keys(), &dead).settled
    };
    assert_eq!((settled(&[]), settled(&[2])), (None, Some(1)));
}

#[test]
fn container_packets_fit() {
    assert_eq!(container_mtu(1450, AT), 1500 - 50 - 60);
    let v6 = "2001:db8::1".parse().unwrap();
    assert_eq!(container_mtu(1430, v6), 1500 - 50 - 80);
}

#[test]
fn a_session_lives_three_minutes() {
    let old = |seconds| is_live(Some(Duration::from_secs(seconds)));
    assert!(old(0) && old(179) && !old(180) && !is_live(None));
}

/// A node's keys: newest generation, and whether it has the one before.
fn any_peer() -> impl Strategy<Value = Option<(u64, bool)>> {
    prop::option::of((1u64..4, any::<bool>()))
}

proptest! {
    #[test]
    fn addresses_are_inside_and_differ(a in (1u32..65_535, 0u64..4), b in (1u32..65_535, 0u64..4)) {
        let (one, other) = (address(a.0, a.1).unwrap(), address(b.0, b.1).unwrap());
        prop_assert!(RANGE.contains(one));
        prop_assert!(weft_abi::Addr::from(IpAddr::V4(one)).is_ciphered());
        prop_assert_eq!((a.0, a.1 % 2) == (b.0, b.1 % 2), one == other);
        prop_assert!(addresses(a.0).any(|address| address == one));
    }

    /// Whatever has been told and tried: a node is spoken to by a key that both have, on a device that is
    /// there and knows it, and never again by the older after the newer was tried.
    #[test]
    fn ways_lead_where_both_have_keys(
        newest in 1u64..4,
        has_former in any::<bool>(),
        others in prop::collection::btree_map(2u32..6, any_peer(), 0..4),
        live in prop::collection::btree_set((2u32..6, 0u64..4), 0..8),
        tried in prop::collection::btree_set((2u32..6, 0u64..4), 0..8),
    ) {
        let generations: Vec<u64> = if has_former { vec![newest - 1, newest] } else { vec![newest] };
        let others: Vec<_> = others
            .into_iter()
            .map(|(index, peer)| (index, peer.map(|(newest, former)| told(index, newest, former))))
            .collect();
        let desired = desired(&generations, &others);
        let keys = |of: &BTreeSet<(u32, u64)>| of.iter().map(|(node, at)| key(*node, *at)).collect();
        let (live, tried): (BTreeSet<_>, BTreeSet<_>) = (keys(&live), keys(&tried));
        let plans = plans(&desired, AT, 1500, 4789);
        let ways = ways(&desired, &DEVICES, &live, &tried, &BTreeSet::new());
        for (index, peer) in &others {
            let has = |plan: &&Plan| peer.is_some_and(|peer| peer.of(plan.own.generation).is_some());
            let common: Vec<&Plan> = plans.iter().filter(has).collect();
            let Some(way) = ways.all.get(index) else {
                prop_assert!(common.is_empty());
                continue;
            };
            let plan = common.iter().find(|plan| plan.address == way.from).unwrap();
            prop_assert!(plan.peers.values().any(|peer| peer.address == way.to));
            let last = common.last().unwrap();
            if plan.own.generation != last.own.generation {
                prop_assert!(!tried.contains(&key(*index, last.own.generation)));
                prop_assert!(live.contains(&key(*index, plan.own.generation)));
                prop_assert_eq!(ways.settled, None);
            }
        }
    }

    #[test]
    fn changes_lead_there(
        has in prop::collection::btree_map(0u8..8, 1u32..4, 0..6),
        wanted in prop::collection::btree_map(0u8..8, 1u32..4, 0..6),
    ) {
        let peers = |of: BTreeMap<u8, u32>| -> BTreeMap<[u8; 32], Peer> {
            of.into_iter().map(|(key, at)| {
                let endpoint = SocketAddr::from(([192, 0, 2, at as u8], 1));
                ([key; 32], Peer { address: address(at, 0).unwrap(), endpoint })
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
