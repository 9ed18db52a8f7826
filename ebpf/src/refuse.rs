//! Refusing a connection at once: silence costs a client its whole patience.

use weft_abi::{Done, Drop};

use crate::limit::may_tell;
use crate::packet::{Packet, Sum};
use crate::parse::{Headers, Part, TCP, UDP, tcp_flag};
use crate::tables::Tables;
use crate::tell::{What, tell};

/// What a packet has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The reset that answers it.
    Reset,
    /// An ICMP error about it. Must be transmitted: see [`tell`].
    Told(Done),
}

/// Turns a packet that is to be dropped for `reason` into what its sender should hear; `mtu` is what would
/// fit. None when there is nothing to say.
#[inline(always)]
pub fn refusal<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    ip: &Headers,
    reason: Drop,
    mtu: u32,
) -> Option<Refusal> {
    let (what, done) = match reason {
        Drop::NoBackend | Drop::NoSuchTask if ip.proto == TCP => {
            return if reset(p, ip) {
                Some(Refusal::Reset)
            } else {
                None
            };
        }
        Drop::NoBackend | Drop::NoSuchTask
            if ip.proto == UDP && !matches!(ip.part, Part::Later) =>
        {
            (What::NoPort, Done::Refused)
        }
        Drop::TooBig => (What::TooBig(mtu), Done::TooBigTold),
        _ => return None,
    };
    if may_tell(p, t) && tell(p, ip, what) {
        Some(Refusal::Told(done))
    } else {
        None
    }
}

/// Turns a segment into the reset that answers it. False when there is none to give.
///
/// Swapped addresses and ports leave the checksum as it was, and what else the segment carries stays:
/// so every change is one difference, right whoever makes the final sum.
#[inline(always)]
pub fn reset<P: Packet>(p: &mut P, ip: &Headers) -> bool {
    if ip.proto != TCP || ip.part != Part::Whole || ip.flags & tcp_flag::RST != 0 {
        return false;
    }
    let Some(h) = p.load::<16>(ip.l4) else {
        return false;
    };
    let word = |at: usize| u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let (seq, ack, rest) = (word(4), word(8), word(12));
    // RFC 9293, 3.10.7.1: to an acknowledgement, its own number; to a SYN, an acknowledgement of it.
    let (new_seq, new_ack, flags) = if ip.flags & tcp_flag::ACK != 0 {
        (ack, 0, tcp_flag::RST)
    } else if ip.flags & tcp_flag::SYN != 0 {
        (
            0,
            u32::from_be(seq).wrapping_add(1).to_be(),
            tcp_flag::RST | tcp_flag::ACK,
        )
    } else {
        return false;
    };
    let new_rest = u32::from_ne_bytes([h[12], flags, 0, 0]);
    let difference = P::difference(&[seq, ack, rest, 0], &[new_seq, new_ack, new_rest, 0]);
    let addresses = if ip.v6 {
        let (src, dst) = (ip.src.octets(), ip.dst.octets());
        p.store(ip.l3 + 8, &dst) && p.store(ip.l3 + 24, &src)
    } else {
        let (src, dst) = (ip.src.v4_octets(), ip.dst.v4_octets());
        p.store(ip.l3 + 12, &dst) && p.store(ip.l3 + 16, &src)
    };
    let (s, a) = (new_seq.to_ne_bytes(), new_ack.to_ne_bytes());
    addresses
        && p.sum_transport(ip.l4 + 16, 0, difference, Sum::Payload, false)
        && p.store(
            ip.l4,
            &[
                h[2], h[3], h[0], h[1], s[0], s[1], s[2], s[3], a[0], a[1], a[2], a[3], h[12],
                flags, 0, 0,
            ],
        )
}
