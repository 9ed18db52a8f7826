//! The packet logic on the host: rows, and what holds for every packet.

mod alone;
mod bytes;
mod caps;
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
mod sockets;
mod steering;
mod sums;
