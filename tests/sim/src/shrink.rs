//! Makes a failing script shorter.

use crate::{Failure, Script, run};

/// Lives tried, at most.
const TRIES: usize = 300;

/// The shortest script found that fails in the same way as `script`, and how it fails.
#[must_use]
pub fn shrink(script: &Script, failure: &Failure) -> (Script, Failure) {
    let (mut best, mut found) = (script.clone(), failure.clone());
    let mut tries = 0;
    let mut chunk = best.deeds.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut better = false;
        while at < best.deeds.len() && tries < TRIES {
            tries += 1;
            let mut shorter = best.clone();
            let end = (at + chunk).min(shorter.deeds.len());
            shorter.deeds.drain(at..end);
            match run(&shorter, false) {
                Err(failure) if same(&failure, &found) => {
                    (best, found) = (shorter, failure);
                    better = true;
                }
                _ => at += chunk,
            }
        }
        if tries >= TRIES || (chunk == 1 && !better) {
            return (best, found);
        }
        if !better {
            chunk = chunk.div_ceil(2);
        }
    }
}

/// Whether two failures are of the same kind: the same invariant, whatever the case.
fn same(one: &Failure, other: &Failure) -> bool {
    kind(&one.what) == kind(&other.what)
}

/// The sentence that does not hold.
#[must_use]
pub fn kind(what: &str) -> &str {
    what.split([':', '\n']).next().unwrap_or(what)
}
