//! The manager: store, loops, consensus, certificates, sessions.

pub mod allocator;
pub mod api;
pub mod ca;
pub mod raft;
pub mod rpc;
pub mod runtime;
pub mod store;
pub mod dispatcher;
pub mod orchestrator;
pub mod scheduler;
pub mod settle;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod world;
