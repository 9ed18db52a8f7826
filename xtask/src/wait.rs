//! Waiting for a condition with a deadline, never for luck.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `condition` until it holds; after `deadline` fails and names `what` was waited for.
pub(crate) fn until(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(5);
    while !condition() {
        if begun.elapsed() > deadline {
            bail!("waited {} s in vain for {what}", deadline.as_secs());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    Ok(())
}
