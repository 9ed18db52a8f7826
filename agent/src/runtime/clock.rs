//! The time that the pure parts are given.

use tokio::time::Instant;
use weft_types::Timestamp;

/// Wall time that never jumps: read once, then carried on by the monotonic clock.
pub(super) struct Clock {
    wall: Timestamp,
    base: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = since_epoch.unwrap_or_default().as_nanos();
        Self {
            wall: Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX)),
            base: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.wall.after(self.base.elapsed())
    }

    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        self.base + at.since(self.wall)
    }
}
