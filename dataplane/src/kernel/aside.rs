//! Work that keeps the kernel busy, kept to one processor: what of it gives way to nobody, which may be
//! milliseconds, stops that one only, and whoever wakes meanwhile finds another.
//!
//! Its priority stays everybody's. Behind all others it would take twice as long and let nobody answer sooner;
//! in the class for idle times the scheduler would take its processor for free and send there who wakes.

use std::io;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The calling thread, as its own number is for the scheduler.
const THIS: Pid = Pid::from_raw(0);

/// Keeps the calling thread to the last of its processors: the first ones serve devices.
fn stand_aside() -> io::Result<()> {
    let ours = sched_getaffinity(THIS)?;
    let is_ours = |number: &usize| ours.is_set(*number).unwrap_or(false);
    let mut one = CpuSet::new();
    if let Some(last) = (0..CpuSet::count()).rev().find(is_ours) {
        one.set(last)?;
        sched_setaffinity(THIS, &one)?;
    }
    Ok(())
}

/// Does `work` on one processor, on a thread that ends with it.
///
/// # Errors
/// When no thread can be had, or `work` panicked.
pub(super) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let there = || {
        if let Err(error) = stand_aside() {
            tracing::debug!(%error, "work is done on whichever processor");
        }
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("aside".to_owned())
            .spawn_scoped(scope, there)?;
        let result = thread.join();
        result.map_err(|_| io::Error::other("the thread panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors() -> usize {
        let set = sched_getaffinity(THIS).unwrap();
        (0..CpuSet::count())
            .filter(|number| set.is_set(*number).unwrap())
            .count()
    }

    #[test]
    fn work_is_kept_to_one_processor_and_its_caller_is_not() {
        let before = processors();
        assert_eq!(aside(processors).unwrap(), 1);
        assert_eq!(processors(), before);
    }

    #[test]
    fn work_that_panics_is_told() {
        let work = || -> () { panic!("as it should") };
        assert!(aside(work).is_err());
    }
}
