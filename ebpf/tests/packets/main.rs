//! The packet logic on the host: rows, and what holds for every packet.

mod bytes;
mod host_rows;
mod properties;
#[path = "../rows/mod.rs"]
mod rows;
