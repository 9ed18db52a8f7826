//! Progress of long work, with the time since its start.

use std::time::Instant;

/// Started once per verb.
pub(crate) struct Clock(Instant);

impl Clock {
    /// From now on.
    pub(crate) fn start() -> Self {
        Clock(Instant::now())
    }

    /// Tells how far we are.
    pub(crate) fn says(&self, what: &str) {
        println!("[{:>4.0} s] {what}", self.0.elapsed().as_secs_f32());
    }
}
