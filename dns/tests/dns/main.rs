//! The resolver from a name to a packet.

mod forward;
mod fuzz;
#[path = "../../../ebpf/tests/mutate/mod.rs"]
mod mutate;
mod packet;
mod properties;
mod rules;
mod session;
mod sockets;
mod together;
mod world;
