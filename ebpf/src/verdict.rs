//! What becomes of a packet.

use weft_abi::{Done, Drop};

use crate::packet::Tunnel;

/// What becomes of a packet, and why.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next program, and then to the stack.
    Next(Done),
    /// Into the namespace of the peer of this veth.
    Peer(u32, Done),
    /// Out of this interface, next hop by the host's routes.
    Neighbour(u32, Done),
    /// Out of this interface as it is.
    Out(u32, Done),
    /// Into the host's stack, as if it had come in by this interface: its ingress program sees it.
    In(u32, Done),
    /// Into the VXLAN device with this outer header.
    Tunnel(Tunnel, Done),
    /// On through the VXLAN device that it is leaving by, with this outer header.
    Encap(Tunnel, Done),
    /// Nowhere.
    Drop(Drop),
}
