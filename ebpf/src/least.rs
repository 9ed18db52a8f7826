//! Fewest connections: of two backends that every node finds by hash, a new connection gets the one that has fewer.
//!
//! The backends' nodes count, and each answer of such a service tells its count to the node that the client asked.
//! A node that never heard of a connection tries both backends, so nothing is lost by choosing freely between them.

use weft_abi::{Config, Front, Load, front};

use crate::parse::TCP;
use crate::service::Choice;
use crate::tables::Tables;
use crate::work::Blurred;

/// Nanoseconds for which a count is believed. Then the backend counts as idle, which makes somebody ask it and hear.
const FRESH: u64 = 10_000_000_000;
/// Nanoseconds after which a count is written again though it did not change.
const AGAIN: u64 = 1_000_000_000;

/// Whether a service is chosen so for this protocol.
#[inline(always)]
pub fn is_least(of: &Front, proto: u8) -> bool {
    of.flags & front::LEAST != 0 && proto == TCP
}

/// Open connections of a backend, as far as is known.
#[inline(always)]
fn open<T: Tables>(t: &T, backend: u32, now: u64) -> u32 {
    match t.load(backend) {
        Some(load) if now.saturating_sub(load.at) <= FRESH => load.open,
        _ => 0,
    }
}

/// The one with fewer connections, `first` when they have as many or there is no `other`; one more is then counted
/// for it, unless it is of this node: such a one is counted when its task accepts. Nothing is left in `other`.
#[inline(always)]
pub fn lighter<T: Tables>(
    t: &T,
    cfg: &Config,
    first: Choice,
    other: &mut Blurred,
    now: u64,
) -> Choice {
    let second = other.get();
    other.set(0);
    let mut chosen = first;
    if second != 0
        && open(t, second, now) < open(t, first.id, now)
        && let Some(backend) = t.backend(second)
    {
        chosen = Choice {
            id: second,
            node: backend.node,
        };
    }
    if chosen.node != cfg.node {
        add(t, chosen.id, now);
    }
    chosen
}

/// One more connection, until somebody counts again.
#[inline(always)]
pub fn add<T: Tables>(t: &T, backend: u32, now: u64) {
    let open = open(t, backend, now).saturating_add(1);
    t.set_load(
        backend,
        &Load {
            open,
            pad: 0,
            at: now,
        },
    );
}

/// What an answer tells of its backend: see [`Load::code`].
#[inline(always)]
pub fn code<T: Tables>(t: &T, backend: u32, now: u64) -> u8 {
    Load::code(open(t, backend, now))
}

/// Takes over what an answer told.
#[inline(always)]
pub fn learn<T: Tables>(t: &T, backend: u32, code: u8, now: u64) {
    let open = Load::of_code(code);
    match t.load(backend) {
        Some(load) if load.open == open && now.saturating_sub(load.at) < AGAIN => {}
        _ => t.set_load(
            backend,
            &Load {
                open,
                pad: 0,
                at: now,
            },
        ),
    }
}
