//! The front door as clients meet it: real HTTP over a unix socket, in front of a pretended
//! cluster and a pretended engine.

#![expect(clippy::unwrap_used, reason = "a test ends where its world is broken")]

mod away;
mod bed;
mod cli;
mod cluster;
mod containers;
mod crowd;
mod engine;
mod errors;
mod events;
mod far;
mod filters;
mod fuzz;
mod inputs;
mod objects;
mod passthrough;
mod store;
mod strangers;
mod swarm;
