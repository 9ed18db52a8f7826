use proptest::prelude::*;

use super::*;

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

/// The part of all hashes that two rings lead to different backends.
fn moved(one: &Slots, other: &Slots) -> f64 {
    let size = one.len().max(other.len()) as u32;
    let of = |ring: &Slots, place: u32| {
        // The first hash of that part of all.
        let hash = ((u64::from(place) << 32) / u64::from(size)) as u32;
        ring[ring_slot(hash, ring.len() as u32) as usize]
    };
    let moved = (0..size).filter(|place| of(one, *place) != of(other, *place));
    moved.count() as f64 / f64::from(size)
}

/// How often a part of 1/n moved when each of these in turn goes from `all`: the worst of them.
fn worst_move(all: &BTreeSet<BackendId>, gone: impl Iterator<Item = BackendId>) -> f64 {
    let ring = fill(all);
    let moves = gone.map(|gone| {
        let mut rest = all.clone();
        rest.remove(&gone);
        moved(&ring, &fill(&rest)) * all.len() as f64
    });
    moves.fold(0.0, f64::max)
}

/// Sets as they may be, and as a cluster gives them: one after another.
fn sets(count: std::ops::Range<usize>) -> impl Strategy<Value = BTreeSet<u32>> {
    let numbers = count.start as u32..count.end as u32;
    prop_oneof![
        prop::collection::btree_set(1_u32.., count),
        (1_u32..1_000_000, numbers).prop_map(|(first, count)| (first..first + count).collect()),
    ]
}

#[test]
fn a_slot_of_one_size_is_whole_slots_of_the_next() {
    for pair in RING_SIZES.windows(2) {
        assert_eq!(pair[1] % pair[0], 0, "{pair:?}");
    }
}

#[test]
fn few_slots_move_where_the_size_changes() {
    for (more, fewer) in [(3, 2), (11, 10), (41, 40), (161, 160)] {
        assert_ne!(class_for(more), class_for(fewer), "of {more} and {fewer}");
        for first in [1, 654_321] {
            let all = ids(first..first + more as u32);
            let some = all.iter().copied().step_by(more as usize / 3);
            let worst = worst_move(&all, some);
            assert!(worst <= 1.5, "{worst}/{more} from {first} on");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn shares_are_even(backends in prop_oneof![6 => sets(1..60), 1 => sets(1..700), 6 => sets(1..100)]) {
        let count = backends.len();
        let ring = fill(&ids(backends));
        let shares = shares(&ring);
        prop_assert_eq!(shares.len(), count);
        let even = ring.len() as f64 / count as f64;
        // Within 1 % of an even share; of all traffic when there are many.
        let (above, below) = match count {
            ..=20 => (0.01 * even + 1.0, 0.01 * even + 1.0),
            21..=100 => (0.04 * even + 1.0, 0.08 * even + 1.0),
            _ => (0.08 * even + 1.0, 0.16 * even + 1.0),
        };
        for share in shares.values().map(|share| *share as f64) {
            prop_assert!(share <= even + above && share >= even - below, "{share} of {even}");
            prop_assert!((share - even).abs() <= 0.01 * ring.len() as f64, "{share} of {even}");
        }
    }

    #[test]
    fn few_backends_get_their_weights(
        weights in prop::collection::btree_map(1_u32.., 1_u32..50, 1..20),
    ) {
        let weights: BTreeMap<_, _> = weights.into_iter().map(|(id, weight)| (BackendId(id), weight)).collect();
        let ring = fill_by(&weights.keys().copied().collect(), &weights);
        let (shares, total) = (shares(&ring), f64::from(weights.values().sum::<u32>()));
        for (backend, weight) in weights {
            let wanted = ring.len() as f64 * f64::from(weight) / total;
            // Within 1 %, and a slot for who has fewer than a hundred.
            prop_assert!((shares[&backend.0] as f64 - wanted).abs() <= 0.01 * wanted + 1.0, "{} of {wanted}", shares[&backend.0]);
        }
    }

    #[test]
    fn few_slots_move_when_one_of_n_goes(
        backends in prop_oneof![5 => sets(2..100), 1 => sets(100..200)],
        which: prop::sample::Index,
    ) {
        let all = ids(backends);
        let gone = *which.get(&all.iter().copied().collect::<Vec<_>>());
        let worst = worst_move(&all, std::iter::once(gone));
        prop_assert!(worst <= 1.5, "{worst}/{} when {} goes", all.len(), gone.0);
    }
}
