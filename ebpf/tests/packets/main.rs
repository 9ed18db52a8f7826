//! The packet logic on the host: rows, and what holds for every packet.

mod alone;
mod bytes;
mod fuzz;
mod host_rows;
mod later;
#[path = "../mutate/mod.rs"]
mod mutate;
mod own;
mod properties;
mod reasons;
#[path = "../rows/mod.rs"]
mod rows;
