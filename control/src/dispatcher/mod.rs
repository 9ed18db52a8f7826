//! What each node must run and know, and what nodes say back.
//!
//! PURE. Sessions, timers and numbering are the runtime's; here is only what they decide.

mod acked;
mod assignment;
#[cfg(test)]
mod hearing;
mod keys;
mod netstate;
mod registration;
mod role;
mod silence;
mod status;
mod step;
#[cfg(test)]
mod tests;
mod told;
mod withdrawal;

pub use acked::Acked;
pub use assignment::assignments;
pub use keys::{KEYS_PATIENCE, next_keys};
pub use netstate::project;
pub use registration::{
    HEARTBEATS_MISSED, HEARTBEATS_MISSED_UNKNOWN, Registration, addresses, describe, down,
    heartbeat_period, is_empty, leave, register, unknown, wireguard,
};
pub use role::{ToldRole, due_role, may_demote, unwritten_roles};
pub use silence::{Sound, lost, misknown};
pub use status::status;
pub use told::Told;
pub use withdrawal::{Acks, withdraw};
