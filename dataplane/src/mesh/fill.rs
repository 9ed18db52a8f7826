//! How a ring is filled: see decision 0013.
//!
//! In rounds, as Maglev does, with these changes. A backend whose next slot is taken waits for the next
//! round instead of looking further: Maglev's search makes every later choice depend on every earlier
//! one, so that with hundreds of backends a removal moves several times its share. A backend's way
//! is a sequence of hashes, not an arithmetic walk: two walks with nearly the same step run after each
//! other for rounds, and the rare pair that does moves half as much again. A most and a least number
//! of slots for each backend keep the shares even.
//!
//! And rings of different sizes nest: each slot of one is some whole slots of the next. A backend claims slots of
//! its ring's own size first, then, from a point that depends on how many backends there are, slots of
//! the smaller ring's size, each at once, and so on. Where a size comes into use all claims are of the
//! smaller one, so that the ring is the smaller ring's, drawn finer. Nothing but the backends' ids and shares goes in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_abi::{RING_SIZES, ring_slot};
use weft_types::BackendId;

use super::Slots;

/// How many shares, of two backends or more, a ring of each size is for at most.
const UP_TO: [u32; RING_SIZES.len()] = [1, 2, 10, 40, 160, u32::MAX];

/// Place among the sizes of the smallest ring that more than one backend can have.
const COARSEST: usize = 1;

/// Rings are nearly full when less than one in so many of their slots is left.
const NEARLY: u32 = 1024;

/// Whose hashes are whose: claims have their level's number.
const LIMITS: usize = 8;
const REST: usize = 9;

/// Place among the sizes of the ring for this many shares.
fn class_for(shares: u64) -> usize {
    let fits = UP_TO.iter().position(|most| shares <= u64::from(*most));
    fits.unwrap_or(RING_SIZES.len() - 1).max(COARSEST)
}

/// The ring of these backends; empty when there are none.
#[must_use]
pub fn fill(backends: &BTreeSet<BackendId>) -> Slots {
    fill_by(backends, &BTreeMap::new())
}

/// The ring of these backends, each with its share; one that is not named has one share.
#[must_use]
pub fn fill_by(backends: &BTreeSet<BackendId>, weights: &BTreeMap<BackendId, u32>) -> Slots {
    match backends.first() {
        None => return Arc::from([]),
        // The same at every size, so the smallest does.
        Some(only) if backends.len() == 1 => {
            return vec![only.0; RING_SIZES[0] as usize].into();
        }
        Some(_) => {}
    }
    let shares = |backend: &BackendId| weights.get(backend).copied().unwrap_or(1).max(1);
    let total: u64 = backends.iter().map(|b| u64::from(shares(b))).sum();
    let class = class_for(total);
    let size = RING_SIZES[class];
    let slack = slack_permille(backends.len());
    let ways = backends
        .iter()
        .map(|backend| Way::of(backend.0, shares(backend), total, size, slack));
    let mut filling = Filling::of(size, ways.collect());
    for level in (COARSEST..=class).rev() {
        filling.claim(level, claims(level, total));
    }
    filling.give_out_the_rest()
}

/// How many claims each share makes at a level before it goes on to the coarser one, in 65536ths of a
/// claim: `size / 5 * (1 / before - 1 / shares)`, where `before` is the most shares that the next smaller
/// ring is for.
///
/// None where a level's size comes into use, since the ring must there still be the smaller one, only
/// finer. Each share that comes then moves a fifth of what it moves anyway from coarser claims to
/// finer ones, until there are three times as many.
fn claims(level: usize, shares: u64) -> u64 {
    if level == COARSEST {
        return u64::MAX;
    }
    let before = u64::from(UP_TO[level - 1]);
    let shares = shares.clamp(before, 3 * before);
    (u64::from(RING_SIZES[level]) << 16) * (shares - before) / (5 * before * shares)
}

/// How many thousandths above and below an even share a backend's slots may be.
///
/// Few backends get even shares, within 1 %. Many get some room, which is what keeps moves few when they
/// compete for the last slots: see decision 0013. It widens little by little, for each step moves slots too.
const fn slack_permille(backends: usize) -> (u64, u64) {
    let above = match backends {
        0..=20 => return (10, 10),
        21..=30 => 10 + 3 * (backends as u64 - 20),
        31..=100 => 40,
        101..=120 => 40 + 2 * (backends as u64 - 100),
        _ => 80,
    };
    (above, 2 * above)
}

/// A backend's part in a filling.
struct Way {
    backend: u32,
    shares: u32,
    least: u32,
    most: u32,
    taken: u32,
}

impl Way {
    fn of(backend: u32, shares: u32, total: u64, size: u32, (above, below): (u64, u64)) -> Self {
        let even = u64::from(size) * u64::from(shares);
        // The whole slot above and below an even share everybody has. Of what a limit is beyond a whole
        // slot some make one and some do not: if all did at once, each would move one.
        let dither = u128::from(mix(stream(backend, LIMITS)) & 0xffff);
        let limit = |permille: u64| {
            let exact = (u128::from(even * permille) << 16) / u128::from(1000 * total);
            ((exact + dither) >> 16) as u64
        };
        Self {
            backend,
            shares,
            least: (even / total).min(limit(1000 - below)) as u32,
            most: even.div_ceil(total).max(limit(1000 + above)) as u32,
            taken: 0,
        }
    }
}

/// A ring that is being filled.
struct Filling {
    slots: Vec<u32>,
    ways: Vec<Way>,
    /// Slots that nobody has.
    left: u32,
    /// Slots that some backends must still get.
    owed: u32,
}

impl Filling {
    fn of(size: u32, ways: Vec<Way>) -> Self {
        Self {
            slots: vec![0; size as usize],
            left: size,
            owed: ways.iter().map(|way| way.least).sum(),
            ways,
        }
    }

    fn size(&self) -> u32 {
        self.slots.len() as u32
    }

    /// When so few are left, to hit one of them by chance takes longer than to go through them.
    fn is_nearly_full(&self) -> bool {
        self.left <= self.size() / NEARLY
    }

    /// Who has its least waits when the slots that are left are owed to others.
    fn may_take(&self, way: usize) -> bool {
        let way = &self.ways[way];
        let waits = way.taken >= way.least && self.left <= self.owed;
        self.left > 0 && way.taken < way.most && !waits
    }

    fn take(&mut self, way: usize, slot: usize) {
        let way = &mut self.ways[way];
        self.owed -= u32::from(way.taken < way.least);
        self.left -= 1;
        way.taken += 1;
        self.slots[slot] = way.backend;
    }

    /// Rounds in which each share makes one claim, until each made `count` 65536ths of a claim: the part
    /// of the last one is the part of them that make it.
    fn claim(&mut self, level: usize, count: u64) {
        let streams: Vec<u64> = self
            .ways
            .iter()
            .map(|way| stream(way.backend, level))
            .collect();
        let (whole, part) = (count >> 16, count & 0xffff);
        for round in 0..=whole {
            for (way, stream) in streams.iter().enumerate() {
                let turns = u64::from(self.ways[way].shares);
                for turn in 0..turns {
                    if self.is_nearly_full() {
                        return;
                    }
                    if !self.may_take(way) {
                        break;
                    }
                    if round == whole && mix(!stream ^ turn) & 0xffff >= part {
                        continue;
                    }
                    let hash = mix(stream.wrapping_add(round * turns + turn));
                    self.take_within(way, RING_SIZES[level], hash);
                }
            }
        }
    }

    /// Takes what is free of the slot that a hash names in a ring of `size` slots: of the slots it consists of here.
    fn take_within(&mut self, way: usize, size: u32, hash: u64) {
        let wide = self.size() / size;
        let first = ring_slot((hash >> 32) as u32, size) * wide;
        for next in 0..wide {
            // From anywhere in it: what is left over should not be the same end everywhere.
            let slot = (first + (next + hash as u32 % wide) % wide) as usize;
            if self.slots[slot] == 0 && self.may_take(way) {
                self.take(way, slot);
            }
        }
    }

    /// Gives each slot that is left to the one whose hash with it is the least.
    fn give_out_the_rest(mut self) -> Slots {
        let wide = (self.size() / RING_SIZES[COARSEST]) as usize;
        for slot in 0..self.slots.len() {
            if self.slots[slot] != 0 {
                continue;
            }
            // With the slot of the coarsest ring, so that it is the same at each size.
            let coarse = (slot / wide) as u64;
            let able = (0..self.ways.len()).filter(|way| self.may_take(*way));
            let first = able
                .min_by_key(|way| mix(stream(self.ways[*way].backend, REST).wrapping_add(coarse)));
            if let Some(way) = first {
                self.take(way, slot);
            }
        }
        self.slots.into()
    }
}

/// Where a backend's hashes for a purpose begin.
fn stream(backend: u32, purpose: usize) -> u64 {
    mix(u64::from(backend) << 32 | purpose as u64)
}

/// Spreads a number over 64 bits (the finaliser of SplitMix64). Part of the ring's definition: nodes
/// of different versions must agree on it.
fn mix(number: u64) -> u64 {
    let x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
