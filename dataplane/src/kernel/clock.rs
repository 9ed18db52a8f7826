//! The clock that the programs stamp flows with.
#![expect(
    unsafe_code,
    reason = "clock_gettime has no safe wrapper among our dependencies"
)]

use std::time::Duration;

/// Time since some point in the past, not counting suspension: `bpf_ktime_get_ns`.
pub(crate) fn monotonic() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is writable and of the right type; this clock exists on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
