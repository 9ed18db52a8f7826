//! The cluster's own certificate authority.
//!
//! One root (ECDSA P-256, CN `swarm-ca`, 20 years), made by `swarm init` and kept in the store. It
//! signs node certificates: CN is the node id, OU the role, O the cluster id. What a certificate
//! says is decided here, never taken from the request: of that, only the key is used.

mod authority;
mod caller;

pub use authority::{Authority, BACKDATE, CaError, NodeTitle, Validity};
pub use caller::{Caller, CallerError};

use weft_types::node::Role;

/// The OU that stands for `role`.
#[must_use]
pub fn organisational_unit(role: Role) -> &'static str {
    match role {
        Role::Manager => "swarm-manager",
        Role::Worker => "swarm-worker",
    }
}
