//! Words that Docker's JSON uses for choices, and its refusals of others.

use weft_types::node::{Availability, Role};

/// The availability that `text` names; empty is active.
pub(crate) fn availability(text: &str) -> Result<Availability, String> {
    match text.to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(format!("invalid Availability: {text:?}")),
    }
}

/// The role that `text` names; empty is worker.
pub(crate) fn role(text: &str) -> Result<Role, String> {
    match text.to_ascii_lowercase().as_str() {
        "" | "worker" => Ok(Role::Worker),
        "manager" => Ok(Role::Manager),
        _ => Err(format!("invalid Role: {text:?}")),
    }
}
