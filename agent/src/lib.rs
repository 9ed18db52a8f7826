//! One node of weft: its talk with the managers, its tasks, its part of the network.
//!
//! PURE are [`session`], [`worker`], [`task`], [`network`] (but its door), [`deliver`] and
//! [`template`]: they take events and the time and say what to do. Doors are [`executor`] (the
//! engine below), [`network::Wiring`] (kernel and resolver), [`journal`] (files) and [`runtime`]
//! (the loop that carries out what the pure parts decide).
//!
//! The library never sees the control plane: only the `weft` program, which is made from it, wires
//! the manager's role in.

pub mod deliver;
pub mod executor;
pub mod journal;
pub mod network;
pub mod runtime;
pub mod session;
pub mod task;
pub mod template;
pub mod worker;

pub use runtime::{Agent, AgentConfig, Glance, Notice};
