//! Limits kept as one number: until when what has passed so far takes at the allowed rate.

use weft_abi::{Cap, Config, config};

use crate::packet::Packet;
use crate::tables::Tables;

const SECOND: u64 = 1_000_000_000;
/// Nanoseconds that one ICMP error takes: a thousand a second, as the kernel allows itself.
const TOLD_TAKES: u64 = 1_000_000;
/// ICMP errors that may be told at once after a rest.
const TOLD_AT_ONCE: u64 = 50;

/// Lets something pass that takes `takes` nanoseconds, when what passed before it leaves at most `burst`
/// nanoseconds to wait. `until` is that state.
#[inline(always)]
pub const fn pass(until: &mut u64, now: u64, takes: u64, burst: u64) -> bool {
    let from = if *until > now { *until } else { now };
    if from - now > burst {
        return false;
    }
    *until = from.saturating_add(takes);
    true
}

/// Nanoseconds that `bytes` take at a cap's rate.
#[inline(always)]
const fn takes(bytes: u64, cap: &Cap) -> u64 {
    // Bytes that no link has must not wrap around.
    let bytes = if bytes > u64::MAX / SECOND {
        u64::MAX / SECOND
    } else {
        bytes
    };
    bytes * SECOND / cap.rate
}

/// Which way a packet of a service goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards its backend.
    Asked,
    /// From it.
    Answered,
}

/// Whether a packet of a service keeps within the service's cap; counted against it.
#[inline(always)]
pub fn is_within<P: Packet, T: Tables>(p: &P, t: &T, cfg: &Config, service: u32, way: Way) -> bool {
    if cfg.flags & config::CAPS == 0 {
        return true;
    }
    let Some(cap) = t.cap(service) else {
        return true;
    };
    if cap.rate == 0 {
        return true;
    }
    let (now, takes, burst) = (p.now(), takes(p.len() as u64, &cap), takes(cap.burst, &cap));
    let passed = t.spent(service, |spent| {
        let until = match way {
            Way::Asked => &mut spent.asked,
            Way::Answered => &mut spent.answered,
        };
        let mut next = *until;
        let passed = pass(&mut next, now, takes, burst);
        if passed && !t.is_dry() {
            *until = next;
        }
        passed
    });
    passed.unwrap_or(true)
}

/// Whether one more ICMP error may be told now.
#[inline(always)]
pub fn may_tell<P: Packet, T: Tables>(p: &P, t: &T) -> bool {
    let now = p.now();
    let may = t.told(|until| {
        let mut next = *until;
        let may = pass(&mut next, now, TOLD_TAKES, TOLD_TAKES * TOLD_AT_ONCE);
        if may && !t.is_dry() {
            *until = next;
        }
        may
    });
    may.unwrap_or(false)
}
