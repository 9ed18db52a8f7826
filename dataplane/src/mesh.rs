//! Rings: which backend a slot of a service names. The same on every node from the same state.
//!
//! Filled in rounds, as Maglev does, with two changes. A backend whose next slot is taken waits for the
//! next round instead of looking further: Maglev's search makes every later choice depend on every
//! earlier one, so that with hundreds of backends a removal moves several times its share. And a
//! backend's way is a sequence of hashes, not an arithmetic walk: two walks with nearly the same step
//! run after each other for rounds, and the rare pair that does moves half as much again. A most and a least
//! number of slots for each backend keep the shares even. Nothing but the backends' ids goes in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use weft_abi::RING_SIZES;
use weft_types::BackendId;

/// Slots of a ring, each a backend id. Shared, because a ring is swapped whole and never edited.
pub type Slots = Arc<[u32]>;

/// How long the ring before the last change is kept for flows that were chosen by it. Longer than
/// the life of most connections' silence, short enough to forget backends that are gone for good.
pub const YOUTH: Duration = Duration::from_secs(600);

/// Number of slots for this many backends: the first size that gives each a hundred.
#[must_use]
pub fn size_for(backends: usize) -> u32 {
    let wanted = backends.saturating_mul(100);
    let fits = RING_SIZES.iter().find(|size| **size as usize >= wanted);
    fits.or(RING_SIZES.last()).copied().unwrap_or(251)
}

/// The ring of these backends; empty when there are none.
#[must_use]
pub fn fill(backends: &BTreeSet<BackendId>) -> Slots {
    fill_by(backends, &BTreeMap::new())
}

/// The ring of these backends, each with its share; one that is not named has one share.
#[must_use]
pub fn fill_by(backends: &BTreeSet<BackendId>, weights: &BTreeMap<BackendId, u32>) -> Slots {
    let shares = |backend: &BackendId| weights.get(backend).copied().unwrap_or(1).max(1);
    let total: u32 = backends.iter().map(shares).fold(0, u32::saturating_add);
    if total == 0 {
        return Arc::from([]);
    }
    let size = size_for(total as usize);
    let mut slots = vec![0_u32; size as usize];
    let (above, below) = slack_percent(backends.len());
    let mut ways: Vec<Way> = backends
        .iter()
        .map(|backend| {
            let shares = shares(backend);
            let even = u64::from(size) * u64::from(shares);
            let most = (even * (100 + above)).div_ceil(100 * u64::from(total)) as u32;
            let least = (even * (100 - below) / (100 * u64::from(total))) as u32;
            Way::of(backend.0, shares, least, most)
        })
        .collect();
    let mut left = size;
    // Slots that some backends must still get.
    let mut owed: u32 = ways.iter().map(|way| way.least).sum();
    while left > 0 {
        for way in &mut ways {
            // One turn for each share.
            for _ in 0..way.shares {
                let is_owed = way.taken < way.least;
                if left == 0 || way.taken >= way.most || (!is_owed && left <= owed) {
                    break;
                }
                let slot = way.step(size);
                if slots[slot] == 0 {
                    slots[slot] = way.backend;
                    way.taken += 1;
                    left -= 1;
                    owed -= u32::from(is_owed);
                }
            }
        }
    }
    slots.into()
}

/// How many percent above and below an even share a backend's slots may be, to the next whole slot.
///
/// Few backends get exactly even shares: with a hundred slots or more for each, that is within 1 %. Many get some
/// room, which is what keeps moves few when they compete for the last slots: see decision 0013.
const fn slack_percent(backends: usize) -> (u64, u64) {
    match backends {
        0..=20 => (0, 0),
        21..=100 => (4, 8),
        _ => (8, 16),
    }
}

/// A backend's way through the slots: one hash after another.
struct Way {
    backend: u32,
    shares: u32,
    least: u32,
    most: u32,
    steps: u32,
    taken: u32,
}

impl Way {
    fn of(backend: u32, shares: u32, least: u32, most: u32) -> Self {
        Self {
            backend,
            shares,
            least,
            most,
            steps: 0,
            taken: 0,
        }
    }

    fn step(&mut self, size: u32) -> usize {
        let hash = mix(u64::from(self.backend) << 32 | u64::from(self.steps));
        self.steps = self.steps.wrapping_add(1);
        // The upper half scaled to the size: even for every size, without a division.
        (((hash >> 32) * u64::from(size)) >> 32) as usize
    }
}

/// Spreads a number over 64 bits (the finaliser of SplitMix64). Part of the ring's definition: nodes
/// of different versions must agree on it.
fn mix(number: u64) -> u64 {
    let x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The rings of a node: filled once per set of backends, with the ring before the last change while
/// that is young.
#[derive(Debug, Default)]
pub struct Rings {
    current: BTreeMap<u32, Ring>,
}

#[derive(Debug)]
struct Ring {
    backends: BTreeSet<BackendId>,
    weights: BTreeMap<BackendId, u32>,
    slots: Slots,
    before: Option<(Slots, Instant)>,
}

impl Rings {
    /// Takes over the wish `wanted`, with `weights` by ring, filling only rings whose backends or shares
    /// changed.
    pub fn update(
        &mut self,
        wanted: &BTreeMap<u32, BTreeSet<BackendId>>,
        weights: &BTreeMap<u32, BTreeMap<BackendId, u32>>,
        now: Instant,
    ) {
        let even = BTreeMap::new();
        self.current.retain(|ring, _| wanted.contains_key(ring));
        for (ring, backends) in wanted {
            let weights = weights.get(ring).unwrap_or(&even);
            match self.current.get_mut(ring) {
                Some(known) if known.backends == *backends && known.weights == *weights => {}
                Some(known) => {
                    let slots = std::mem::replace(&mut known.slots, fill_by(backends, weights));
                    known.backends.clone_from(backends);
                    known.weights.clone_from(weights);
                    if !slots.is_empty() {
                        known.before = Some((slots, now + YOUTH));
                    }
                }
                None => {
                    let ring_now = Ring {
                        backends: backends.clone(),
                        weights: weights.clone(),
                        slots: fill_by(backends, weights),
                        before: None,
                    };
                    self.current.insert(*ring, ring_now);
                }
            }
        }
        for ring in self.current.values_mut() {
            ring.before.take_if(|(_, until)| *until <= now);
        }
    }

    /// Remembers a ring that the kernel held before this process began as the one before the change,
    /// when the wish differs from it.
    pub fn adopt(&mut self, ring: u32, slots: &Slots, now: Instant) {
        if let Some(known) = self.current.get_mut(&ring)
            && known.before.is_none()
            && known.slots != *slots
            && !slots.is_empty()
        {
            known.before = Some((slots.clone(), now + YOUTH));
        }
    }

    /// Rings in force. A service without backends has none.
    #[must_use]
    pub fn current(&self) -> BTreeMap<u32, Slots> {
        let filled = self
            .current
            .iter()
            .filter(|(_, ring)| !ring.slots.is_empty());
        filled.map(|(id, ring)| (*id, ring.slots.clone())).collect()
    }

    /// Rings before the last change, while young.
    #[must_use]
    pub fn before(&self) -> BTreeMap<u32, Slots> {
        let rings = self.current.iter();
        rings
            .filter_map(|(id, ring)| ring.before.as_ref().map(|(slots, _)| (*id, slots.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<BackendId> {
        numbers.into_iter().map(BackendId).collect()
    }

    fn shares(ring: &Slots) -> BTreeMap<u32, usize> {
        let mut shares = BTreeMap::new();
        for slot in ring.iter() {
            *shares.entry(*slot).or_insert(0) += 1;
        }
        shares
    }

    #[test]
    fn a_service_without_backends_has_no_ring() {
        assert!(fill(&ids([])).is_empty());
        let mut rings = Rings::default();
        rings.update(
            &BTreeMap::from([(1, ids([]))]),
            &BTreeMap::new(),
            Instant::now(),
        );
        assert!(rings.current().is_empty());
    }

    #[test]
    fn shares_are_followed_and_a_change_of_them_is_a_change() {
        let weights = BTreeMap::from([(BackendId(1), 3)]);
        let ring = fill_by(&ids([1, 2]), &weights);
        let shares = shares(&ring);
        let part = shares[&1] as f64 / ring.len() as f64;
        assert!((0.74..=0.76).contains(&part), "{part}");
        assert_eq!(fill_by(&ids([1, 2]), &BTreeMap::new()), fill(&ids([1, 2])));
        let mut rings = Rings::default();
        let now = Instant::now();
        let wanted = BTreeMap::from([(7, ids([1, 2]))]);
        rings.update(&wanted, &BTreeMap::new(), now);
        rings.update(&wanted, &BTreeMap::from([(7, weights)]), now);
        assert_eq!(rings.current()[&7], ring);
        assert_eq!(rings.before()[&7], fill(&ids([1, 2])));
    }

    #[test]
    fn the_ring_before_is_kept_while_young() {
        let start = Instant::now();
        let mut rings = Rings::default();
        rings.update(&BTreeMap::from([(1, ids([1, 2]))]), &BTreeMap::new(), start);
        assert!(rings.before().is_empty());
        rings.update(&BTreeMap::from([(1, ids([1]))]), &BTreeMap::new(), start);
        assert_eq!(rings.before().get(&1), Some(&fill(&ids([1, 2]))));
        rings.update(
            &BTreeMap::from([(1, ids([1]))]),
            &BTreeMap::new(),
            start + YOUTH,
        );
        assert!(rings.before().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn shares_are_even(backends in prop_oneof![
            6 => prop::collection::btree_set(1_u32.., 1..60),
            1 => prop::collection::btree_set(1_u32.., 1..700),
            6 => (1_u32..1_000_000, 1_u32..100).prop_map(|(first, count)| (first..first + count).collect()),
        ]) {
            let count = backends.len();
            let ring = fill(&ids(backends));
            let shares = shares(&ring);
            prop_assert_eq!(shares.len(), count);
            let even = ring.len() as f64 / count as f64;
            // Within 1 % of an even share; of all traffic when there are many, for whom a slot is more than that.
            let (above, below) = match count {
                ..=20 => (0.01 * even, 0.01 * even),
                21..=100 => (0.04 * even + 1.0, 0.08 * even + 1.0),
                _ => (0.08 * even + 1.0, 0.16 * even + 1.0),
            };
            for share in shares.values().map(|share| *share as f64) {
                prop_assert!(share <= even + above && share >= even - below, "{share} of {even}");
                prop_assert!((share - even).abs() <= 0.01 * ring.len() as f64, "{share} of {even}");
            }
        }

        #[test]
        fn few_backends_get_their_weights_within_a_slot(
            weights in prop::collection::btree_map(1_u32.., 1_u32..50, 1..20),
        ) {
            let weights: BTreeMap<_, _> = weights.into_iter().map(|(id, weight)| (BackendId(id), weight)).collect();
            let ring = fill_by(&weights.keys().copied().collect(), &weights);
            let (shares, total) = (shares(&ring), f64::from(weights.values().sum::<u32>()));
            for (backend, weight) in weights {
                let wanted = ring.len() as f64 * f64::from(weight) / total;
                prop_assert!((shares[&backend.0] as f64 - wanted).abs() < 1.0, "{} of {wanted}", shares[&backend.0]);
            }
        }

        #[test]
        fn few_slots_move_when_one_of_n_goes(
            backends in prop_oneof![
                prop::collection::btree_set(1_u32.., 2..100),
                // As a cluster gives them: one after another.
                (1_u32..1_000_000, 2_u32..100).prop_map(|(first, count)| (first..first + count).collect()),
            ],
            which: prop::sample::Index,
        ) {
            let all = ids(backends);
            let gone = *which.get(&all.iter().collect::<Vec<_>>());
            let mut rest = all.clone();
            rest.remove(gone);
            // Another size is another ring: then the ring before and the flows themselves carry over.
            prop_assume!(size_for(all.len()) == size_for(rest.len()));
            let (ring, other) = (fill(&all), fill(&rest));
            let moved = ring.iter().zip(other.iter()).filter(|(a, b)| a != b).count();
            prop_assert!(moved as f64 <= 1.5 * ring.len() as f64 / all.len() as f64 + 1.0, "{moved} of {} with {}", ring.len(), all.len());
        }
    }
}
