//! One node of weft: its talk with the managers, its tasks, its part of the network.
//!
//! PURE are [`session`], [`worker`], [`task`], [`network`] and [`guest`] (but their doors) and [`deliver`]: they take events and the time and say what to do. Doors are [`executor`] (the
//! engine below), [`network::Wiring`] (kernel and resolver), [`journal`] (files) and [`runtime`]
//! (the loop that carries out what the pure parts decide).
//!
//! The library never sees the control plane: only the `weft` program, which is made from it, wires
//! the manager's role in.

#[cfg(feature = "doors")]
pub mod deliver;
#[cfg(feature = "doors")]
pub mod executor;
#[cfg(feature = "doors")]
pub mod guest;
#[cfg(feature = "doors")]
pub mod journal;
#[cfg(feature = "doors")]
pub mod network;
#[cfg(feature = "doors")]
pub mod runtime;
pub mod session;
pub mod task;
pub mod worker;

#[cfg(feature = "doors")]
pub use runtime::{Agent, AgentConfig, Glance, Notice};
