//! The manager: store, loops, consensus, certificates, sessions.

pub mod store;
