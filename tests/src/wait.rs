//! Waiting for what a user would see.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks until `condition` answers `Ok`; after `deadline` fails, naming `what` was waited for and the last reason why not.
///
/// # Errors
/// When the deadline passes.
pub fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let reason = match condition() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if begun.elapsed() > deadline {
            bail!(
                "waited {} s in vain for: {what}; last seen: {reason:#}",
                deadline.as_secs()
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(300));
    }
}
