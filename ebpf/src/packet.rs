//! What the packet logic needs of a packet and of its surroundings: a socket buffer in the kernel, a
//! vector of bytes in tests.

use weft_abi::Addr;

use crate::translate::Tuple;
use crate::work::Paper;

/// Outer header of a tunnelled packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// VXLAN network identifier.
    pub vni: u32,
    /// Outer source when received, outer destination when sent.
    pub remote: Addr,
}

/// How a transport checksum takes a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Two bytes that only the transport checksum covers.
    Word16,
    /// Four bytes of the IPv4 pseudo header.
    Pseudo4,
    /// A difference of the IPv6 pseudo header; the first value given must be 0.
    Pseudo6,
    /// A difference of bytes that only the transport checksum covers; the first value given must be 0.
    Payload,
}

/// A packet, from its Ethernet header on.
///
/// Offsets count from there. Every method that changes may fail, and then has changed nothing.
#[expect(
    clippy::len_without_is_empty,
    reason = "a packet without even an Ethernet header reaches nobody"
)]
pub trait Packet {
    /// Length in bytes; of a large segment, of the whole.
    fn len(&self) -> u32;
    /// Bytes of payload in each packet that a large segment will be cut into; 0 when it is one packet.
    fn segment(&self) -> u32;
    /// Interface the program runs on.
    fn ifindex(&self) -> u32;
    /// Whether the frame was addressed to this host, as opposed to flooded or copied.
    fn is_for_host(&self) -> bool;
    /// Whether it was received on some interface, as opposed to made by this host.
    fn is_received(&self) -> bool;
    /// Nanoseconds of the monotonic clock.
    fn now(&self) -> u64;
    /// `N` bytes at an offset; none beyond the end.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
    /// The same, to where the caller has room. False beyond the end.
    fn load_to<const N: usize>(&self, at: u32, to: &mut [u8; N]) -> bool {
        match self.load::<N>(at) {
            Some(bytes) => {
                *to = bytes;
                true
            }
            None => false,
        }
    }
    /// Writes `N` bytes. Checksums are the caller's business.
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool;
    /// Tells the IPv4 header checksum at `at` that four bytes changed; words as in memory.
    fn sum_ip(&mut self, at: u32, from: u32, to: u32) -> bool;
    /// Tells the transport checksum at `at` of a change; words as in memory. With `udp`, 0 stays 0.
    fn sum_transport(&mut self, at: u32, from: u32, to: u32, what: Sum, udp: bool) -> bool;
    /// Folded difference of two sixteen-byte strings, for [`Sum::Pseudo6`].
    fn difference(from: &[u32; 4], to: &[u32; 4]) -> u32;
    /// One's complement sum of `N` bytes (a multiple of 4), not inverted, folded to sixteen bits, as in memory.
    fn sum<const N: usize>(bytes: &[u8; N]) -> u16;
    /// Cuts or extends the packet.
    fn set_len(&mut self, len: u32) -> bool;
    /// Puts `by` bytes of any content before the packet.
    fn grow_head(&mut self, by: u32) -> bool;
    /// Makes the stack take the frame as addressed to this host.
    fn claim(&mut self);
    /// The outer header it came in, when it came through the VXLAN device.
    fn tunnel(&self) -> Option<Tunnel>;
    /// Whether a socket of this host is connected so: `ends` as packets to it carry them.
    fn is_connected(&self, ends: &Tuple, tcp: bool, paper: &mut Paper) -> bool;
    /// Interface towards `dst` by the host's routes.
    fn route(&self, src: &Addr, dst: &Addr) -> Option<u32>;
}
