//! By which keys a node is spoken to.

use super::{
    BTreeMap, BTreeSet, DEVICES, Desired, Ipv4Addr, WireGuard, address, half, own_generations,
};

/// How packets of encrypted networks go to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// This node's address there.
    pub(crate) from: Ipv4Addr,
    /// The other node's, which is where they are tunnelled to.
    pub(crate) to: Ipv4Addr,
}

/// How packets of encrypted networks go to all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ways {
    /// By number of the node.
    pub(crate) all: BTreeMap<u32, Way>,
    /// Ways by newer keys than those in use, on which a handshake is to be brought about.
    pub(crate) coming: BTreeMap<u32, Way>,
    /// The newest generation of this node's keys, once no living node that has it is spoken to by another.
    pub(crate) settled: Option<u64>,
}

/// How far a node is with its keys for encrypted networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyState {
    /// The newest generation of its keys that others may use to it.
    pub usable: Option<u64>,
    /// The newest generation, once no living node that has it is spoken to by another.
    pub settled: Option<u64>,
}

/// This node's keys whose devices are `up`, oldest first.
fn keys_up<'a>(desired: &'a Desired, up: &[&str]) -> Vec<&'a WireGuard> {
    let mut own = own_generations(desired);
    own.retain(|own| up.contains(&DEVICES[half(own.generation)]));
    own
}

/// The newest generation of this node's keys whose device is `up`.
pub(crate) fn newest_up(desired: &Desired, up: &[&str]) -> Option<u64> {
    keys_up(desired, up).last().map(|own| own.generation)
}

/// The ways by which packets go. Of this node's devices these are `up`. `live` are the public keys with which this node has a session now, and
/// `tried` those with which it has had one: who was spoken to by a newer key once is not again by an older
/// one. `dead` nodes hold nobody up.
///
/// Where neither key has a session, which is so before the first packet, the newer one gets it.
pub(crate) fn ways(
    desired: &Desired,
    up: &[&str],
    live: &BTreeSet<[u8; 32]>,
    tried: &BTreeSet<[u8; 32]>,
    dead: &BTreeSet<u32>,
) -> Ways {
    let mut ways = Ways::default();
    if desired.ciphered.is_empty() {
        return ways;
    }
    let own = keys_up(desired, up);
    let way = |own: &WireGuard, index: u32| {
        Some(Way {
            from: address(desired.node, own.generation)?,
            to: address(index, own.generation)?,
        })
    };
    let mut is_settled = true;
    for (index, node) in &desired.nodes {
        let key = |own: &WireGuard| node.wireguard?.of(own.generation).map(|(key, _)| key);
        let mut common = own
            .iter()
            .rev()
            .filter_map(|own| Some((key(own)?, way(own, *index)?)));
        let Some((newer_key, newer)) = common.next() else {
            continue;
        };
        let older = common.next().filter(|(older_key, _)| {
            *index != desired.node && live.contains(older_key) && !tried.contains(&newer_key)
        });
        match older {
            Some((_, older)) => {
                ways.all.insert(*index, older);
                ways.coming.insert(*index, newer);
                is_settled &= node.dead || dead.contains(index);
            }
            None => {
                ways.all.insert(*index, newer);
            }
        }
    }
    let newest = own.last().map(|own| own.generation);
    ways.settled = newest.filter(|_| is_settled);
    ways
}
