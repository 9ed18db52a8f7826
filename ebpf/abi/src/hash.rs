//! Which slot of a ring a flow takes. Kept apart from every kernel hash: those are seeded per boot, and
//! all nodes must agree.

use crate::{Addr, Be16};

const K: u64 = 0x9e37_79b9_7f4a_7c15;
const M: u64 = 0xff51_afd7_ed55_8ccd;

#[inline(always)]
const fn round(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(M);
    mixed ^ (mixed >> 32)
}

#[inline(always)]
const fn pair(high: u32, low: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

#[inline(always)]
const fn absorb(state: u64, addr: &Addr) -> u64 {
    let w = addr.words();
    let state = round(state, pair(u32::from_be(w[0]), u32::from_be(w[1])));
    round(state, pair(u32::from_be(w[2]), u32::from_be(w[3])))
}

#[inline(always)]
const fn finish(state: u64) -> u32 {
    let mixed = (state ^ (state >> 29)).wrapping_mul(K);
    (mixed >> 32) as u32
}

/// Hash of a wire tuple under the cluster's seed. `attempt` is 0 for the first choice and rises when
/// the chosen backend is known to be down, so that all nodes fall over to the same next one.
#[inline(always)]
pub const fn ring_hash(
    seed: u64,
    client: &Addr,
    cport: Be16,
    addr: &Addr,
    port: Be16,
    proto: u8,
    attempt: u32,
) -> u32 {
    let state = round(
        seed ^ K,
        pair(pair_ports(cport, port), ((proto as u32) << 8) | attempt),
    );
    let state = absorb(state, client);
    finish(absorb(state, addr))
}

/// Hash for a choice made once per socket: the same socket and destination choose the same slot.
#[inline(always)]
pub const fn socket_hash(
    seed: u64,
    cookie: u64,
    addr: &Addr,
    port: Be16,
    proto: u8,
    attempt: u32,
) -> u32 {
    let state = round(seed ^ K, cookie);
    let state = round(
        state,
        pair(port.get() as u32, ((proto as u32) << 8) | attempt),
    );
    finish(absorb(state, addr))
}

#[inline(always)]
const fn pair_ports(cport: Be16, port: Be16) -> u32 {
    ((cport.get() as u32) << 16) | port.get() as u32
}

/// The slot, `0..size`, that a hash takes in a ring of `size` slots.
#[inline(always)]
pub const fn ring_slot(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}
