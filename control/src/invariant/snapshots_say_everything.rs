//! A snapshot says everything: restored, it is the same state.

use super::Broken;
use crate::store::{Store, View};

const SENTENCE: &str = "a snapshot says everything";

/// One of so many commits is looked at: it costs as much as the state is large.
const EVERY: u64 = 37;

pub(super) fn check(view: &View) -> Result<(), Broken> {
    if !view.index().is_multiple_of(EVERY) {
        return Ok(());
    }
    let broken = |case: String| Broken::new(SENTENCE, case);
    let bytes = view.snapshot().map_err(|error| broken(error.to_string()))?;
    let restored = Store::restore(&bytes).map_err(|error| broken(error.to_string()))?;
    let restored = restored.view();
    if restored.index() != view.index() || !restored.objects().eq(view.objects()) {
        return Err(broken(format!("that of commit {} does not", view.index())));
    }
    match restored.snapshot() {
        Ok(again) if again == bytes => Ok(()),
        _ => Err(broken(format!(
            "that of commit {} restored says something else",
            view.index()
        ))),
    }
}
