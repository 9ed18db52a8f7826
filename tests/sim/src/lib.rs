//! Whole clusters under virtual time: managers with a replicated log, agents, and every fault that
//! a seed can choose, in one thread.
//!
//! One seed decides everything: how many hosts there are, what users and faults do and when
//! ([`Script`]), how long each message and each write takes, what is lost. So a seed that fails
//! fails again. A life ([`run`]) has two halves: first deeds and faults, with the invariants
//! checked after every step; then the faults stop, and everything must converge.
//!
//! Real are the store, all loops, the dispatcher, the API, the agent's worker, machines and
//! session. Pretended are the consensus engine ([`raft`], see
//! `docs/decisions/0012-simulation.md`), disks, engine and kernel, wire and clocks.

mod agent;
pub mod chance;
mod deed;
pub mod disk;
mod heal;
mod host;
mod invariants;
pub mod lapse;
mod manager;
pub mod members;
pub mod raft;
mod reign;
pub mod script;
mod seat;
pub mod shrink;
mod wire;
mod world;

pub use script::Script;
pub use world::{Failure, Life, run};

/// Virtual time in milliseconds since the world began.
pub type Millis = u64;
