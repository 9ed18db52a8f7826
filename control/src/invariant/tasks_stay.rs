//! A task never changes node.

use super::Broken;
use crate::store::View;

const SENTENCE: &str = "a task never changes node";

pub(super) fn check(before: &View, after: &View) -> Result<(), Broken> {
    for old in before.tasks() {
        if let Some(new) = after.task(old.id)
            && old.node_id.is_some()
            && new.node_id != old.node_id
        {
            return Err(Broken::new(SENTENCE, &*new.name));
        }
    }
    Ok(())
}
