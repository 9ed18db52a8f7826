//! Rings: which backend a slot of a service names. The same on every node from the same state.

mod fill;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use weft_types::BackendId;

pub use fill::{fill, fill_by};

/// Slots of a ring, each a backend id. Shared, because a ring is swapped whole and never edited.
pub type Slots = Arc<[u32]>;

/// How long the ring before the last change is kept for flows that were chosen by it. Longer than
/// the life of most connections' silence, short enough to forget backends that are gone for good.
pub const YOUTH: Duration = Duration::from_secs(600);

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

    fn ids(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<BackendId> {
        numbers.into_iter().map(BackendId).collect()
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
        let of_first = ring.iter().filter(|slot| **slot == 1).count();
        let part = of_first as f64 / ring.len() as f64;
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
}
