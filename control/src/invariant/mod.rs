//! What must hold after every commit, one file each.
//!
//! PURE. Each looks at the state before and after a commit. Tests, the simulator, and whoever
//! doubts a live store ask [`check`].

mod addresses_have_one_owner;
mod numbers_have_one_owner;
mod slots_hold_one_task;
mod snapshots_say_everything;
mod states_rise;
mod tasks_stay;
mod waiting_says_why;

use crate::store::View;

/// An invariant that does not hold, and for what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}: {case}")]
pub struct Broken {
    /// What should hold.
    pub sentence: &'static str,
    /// What was found instead.
    pub case: String,
}

impl Broken {
    /// `sentence` does not hold for `case`.
    #[must_use]
    pub fn new(sentence: &'static str, case: impl Into<String>) -> Self {
        Self {
            sentence,
            case: case.into(),
        }
    }
}

/// Checks every invariant of the store for the step from `before` to `after`.
///
/// # Errors
/// With the first one that does not hold.
pub fn check(before: &View, after: &View) -> Result<(), Broken> {
    addresses_have_one_owner::check(after)?;
    numbers_have_one_owner::check(after)?;
    tasks_stay::check(before, after)?;
    states_rise::check(before, after)?;
    slots_hold_one_task::check(before, after)?;
    waiting_says_why::check(after)?;
    snapshots_say_everything::check(after)
}
