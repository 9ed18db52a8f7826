//! The manager: store, loops, consensus, certificates, sessions.

pub mod allocator;
pub mod api;
pub mod ca;
pub mod dispatcher;
pub mod invariant;
pub mod orchestrator;
pub mod raft;
pub mod rpc;
pub mod runtime;
pub mod scheduler;
pub mod settle;
pub mod store;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod world;
