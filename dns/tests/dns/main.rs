//! The resolver from a name to a packet.

mod forward;
mod packet;
mod properties;
mod rules;
mod session;
mod sockets;
mod world;
