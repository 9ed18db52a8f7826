//! Observed state never falls, and neither does desired state.

use super::Broken;
use crate::store::View;

const SENTENCE: &str = "observed and desired state never fall";

pub(super) fn check(before: &View, after: &View) -> Result<(), Broken> {
    for old in before.tasks() {
        let Some(new) = after.task(old.id) else {
            continue;
        };
        if new.status.state < old.status.state || new.desired_state < old.desired_state {
            let case = format!(
                "{} was {} of {} and is {} of {}",
                new.name, old.status.state, old.desired_state, new.status.state, new.desired_state
            );
            return Err(Broken::new(SENTENCE, case));
        }
    }
    Ok(())
}
