//! Reconciling a settled view yields nothing.

use weft_control::{
    invariant::Broken,
    settle,
    store::{IdSource, View},
};
use weft_types::Timestamp;

const SENTENCE: &str = "reconciling a settled view yields nothing";

pub(crate) fn check(view: &View, now: Timestamp) -> Result<(), Broken> {
    let outcome = settle::settle(view, now, &mut IdSource::seeded(1));
    match outcome.changes.first() {
        None => Ok(()),
        Some(first) => Err(Broken::new(
            SENTENCE,
            format!("{} would still change", first.key()),
        )),
    }
}
