//! How long the disk takes to keep what consensus writes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A write that takes longer than this is slow: a healthy disk needs milliseconds.
const SLOW: Duration = Duration::from_secs(1);

/// How long a slow write is remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// Times writes, and remembers slow ones.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the write under way began.
    begun: Option<Instant>,
    /// The last slow one: when it ended, and how long it took.
    slow: Option<(Instant, Duration)>,
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write begins; it ends when the answer is dropped. One at a time.
    #[must_use]
    pub(super) fn begin(self: &Arc<Self>) -> Timed {
        self.begin_at(Instant::now());
        Timed(Arc::clone(self))
    }

    fn begin_at(&self, now: Instant) {
        self.lock().begun = Some(now);
    }

    fn end_at(&self, now: Instant) {
        let mut known = self.lock();
        let Some(took) = known.begun.take().map(|begun| now - begun) else {
            return;
        };
        if took >= SLOW {
            known.slow = Some((now, took));
            drop(known);
            tracing::warn!(
                seconds = took.as_secs_f64(),
                "the disk under the state directory is slow: the swarm's log waited for a write"
            );
        }
    }

    /// How long the write under way, or one in the last minute, took if that was too long.
    #[must_use]
    pub fn slow(&self) -> Option<Duration> {
        self.slow_at(Instant::now())
    }

    fn slow_at(&self, now: Instant) -> Option<Duration> {
        let known = self.lock();
        let under_way = known.begun.map(|begun| now.duration_since(begun));
        let under_way = under_way.filter(|took| *took >= SLOW);
        under_way.or_else(|| {
            let (ended, took) = known.slow?;
            (now.duration_since(ended) < MEMORY).then_some(took)
        })
    }
}

/// A write under way.
pub(super) struct Timed(Arc<Pace>);

impl Drop for Timed {
    fn drop(&mut self) {
        self.0.end_at(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_write_is_named_while_it_lasts_and_a_minute_longer() {
        let pace = Pace::default();
        let at = |begun: Instant, millis| begun + Duration::from_millis(millis);
        let begun = Instant::now();
        pace.begin_at(begun);
        assert_eq!(pace.slow_at(at(begun, 900)), None);
        assert!(pace.slow_at(at(begun, 2_000)).is_some());
        pace.end_at(at(begun, 3_000));
        let took = Some(Duration::from_secs(3));
        assert_eq!(pace.slow_at(at(begun, 62_000)), took);
        assert_eq!(pace.slow_at(at(begun, 64_000)), None);
        pace.begin_at(at(begun, 70_000));
        pace.end_at(at(begun, 70_010));
        assert_eq!(pace.slow_at(at(begun, 70_020)), None, "a quick one");
    }
}
