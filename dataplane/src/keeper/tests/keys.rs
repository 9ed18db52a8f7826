//! Keys of encrypted networks: which device packets take while nodes move from one to the next.

use super::*;
use crate::{KeyState, WireGuard, WireGuardKey};

/// Keys of a node, oldest first.
fn keys(node: u8, generations: &[u64]) -> Vec<WireGuard> {
    let key = |generation: &u64| WireGuard {
        generation: *generation,
        key: WireGuardKey::from_bytes([node * 16 + *generation as u8; 32]),
        port: WireGuard::port_of(1000, *generation),
    };
    generations.iter().map(key).collect()
}

/// Two nodes with keys of these generations, and an encrypted network.
fn encrypted(own: &[u64], others: &[u64]) -> Desired {
    let mut desired = desired(1, &[]);
    desired.ciphered.insert(4097);
    desired.keys = keys(1, own);
    for (index, keys) in [(1, keys(1, own)), (2, keys(2, others))] {
        let node = Node {
            name: String::new(),
            addr: IpAddr::from([192, 0, 2, 10 + index as u8]),
            addresses: BTreeSet::new(),
            zone: String::new(),
            missed: false,
            dead: false,
            wireguard: WireGuard::told(&keys, None),
        };
        desired.nodes.insert(index, node);
    }
    desired
}

/// Where packets of encrypted networks for the other node are tunnelled to.
fn way(keeper: &Keeper<Fake>) -> String {
    let row = keeper.kernel.tables.nodes[&2].encrypted;
    IpAddr::from(row).to_string()
}

fn public(node: u8, generation: u64) -> [u8; 32] {
    keys(node, &[generation])[0].key.public()
}

#[test]
fn packets_take_the_newer_keys_when_a_session_by_them_stands() {
    let mut keeper = keeper(Fake::host(HERE));
    keeper.apply(encrypted(&[0], &[0])).unwrap();
    assert_eq!(way(&keeper), "198.18.0.2");
    keeper.kernel.sessions.insert(public(2, 0));

    keeper.apply(encrypted(&[0, 1], &[0])).unwrap();
    assert_eq!(way(&keeper), "198.18.0.2");
    assert!(
        keeper.kernel.knocks.is_empty(),
        "there is nobody to knock at"
    );

    keeper.apply(encrypted(&[0, 1], &[0, 1])).unwrap();
    assert_eq!(way(&keeper), "198.18.0.2");
    assert_eq!(keeper.kernel.knocks.len(), 1, "who hears of it begins");
    let waits = KeyState {
        usable: Some(1),
        settled: None,
    };
    assert_eq!(keeper.key_state(), waits);
    keeper.tick();
    assert_eq!(keeper.kernel.knocks.len(), 2, "and does not give up");
    assert_eq!(way(&keeper), "198.18.0.2");

    keeper.kernel.sessions.insert(public(2, 1));
    keeper.tick();
    assert_eq!(way(&keeper), "198.19.0.2");
    assert_eq!(keeper.key_state().settled, Some(1));
    // A session that ends is no reason to go back.
    keeper.kernel.sessions.remove(&public(2, 1));
    keeper.apply(encrypted(&[0, 1], &[0, 1])).unwrap();
    assert_eq!(way(&keeper), "198.19.0.2");

    keeper.apply(encrypted(&[1], &[1])).unwrap();
    let devices: Vec<_> = keeper
        .kernel
        .cipher
        .iter()
        .map(|plan| plan.device)
        .collect();
    assert_eq!(
        (devices, way(&keeper).as_str()),
        (vec!["weft-wg1"], "198.19.0.2")
    );
}

#[test]
fn who_has_no_encrypted_network_holds_nobody_up() {
    let mut keeper = keeper(Fake::host(HERE));
    let mut desired = encrypted(&[0, 1], &[0]);
    desired.ciphered.clear();
    keeper.apply(desired).unwrap();
    let done = KeyState {
        usable: Some(1),
        settled: Some(1),
    };
    assert_eq!(keeper.key_state(), done);
    assert!(keeper.kernel.cipher.is_empty());
}
