//! Telling a sender by ICMP why its packet went nowhere.
//!
//! The packet itself becomes the error: what is quoted stays where it is, the rest is cut off, and the
//! headers grow in front of it.

use weft_abi::Addr;

use crate::packet::Packet;
use crate::parse::{ETH_IPV4, ETH_IPV6, Headers, ICMP, ICMP6, L3, Part, TCP, UDP};

/// Length of an ICMP header before what it quotes.
const HEADER: u32 = 8;
/// Longest quotation in words: a header with options or one extension, and what is needed of the transport's.
const WORDS_MAX: u32 = 20;
const TTL: u8 = 64;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// No packet longer than this many bytes fits.
    TooBig(u32),
    /// Nobody is at this port.
    NoPort,
}

impl What {
    /// The ICMP header with a sum of 0.
    #[inline(always)]
    const fn header(self, v6: bool) -> [u8; 8] {
        match (self, v6) {
            (Self::TooBig(mtu), false) => {
                let m = if mtu > 0xffff { 0xffff } else { mtu as u16 }.to_be_bytes();
                [3, 4, 0, 0, 0, 0, m[0], m[1]]
            }
            (Self::TooBig(mtu), true) => {
                let m = mtu.to_be_bytes();
                [2, 0, 0, 0, m[0], m[1], m[2], m[3]]
            }
            (Self::NoPort, false) => [3, 3, 0, 0, 0, 0, 0, 0],
            (Self::NoPort, true) => [1, 4, 0, 0, 0, 0, 0, 0],
        }
    }
}

#[inline(always)]
const fn fold(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

/// One's complement sum of the 16-bit words of four bytes, as in memory.
#[inline(always)]
const fn halves(b: [u8; 4]) -> u32 {
    u16::from_ne_bytes([b[0], b[1]]) as u32 + u16::from_ne_bytes([b[2], b[3]]) as u32
}

/// Sum of the words of the packet in `from..to`, both even and at most [`WORDS_MAX`] words apart. Not folded.
#[inline(always)]
fn sum_of<P: Packet>(p: &P, from: u32, to: u32) -> Option<u32> {
    let mut sum = 0;
    let mut i = 0;
    while i < WORDS_MAX {
        let at = from + i * 4;
        if at >= to {
            return Some(sum);
        }
        sum += halves(p.load::<4>(at)?);
        i += 1;
    }
    if from + i * 4 >= to { Some(sum) } else { None }
}

/// Whether an address is that of one who can be told: RFC 1122, 3.2.2, and RFC 4443, 2.4 (e).
#[inline(always)]
const fn is_one(addr: &Addr) -> bool {
    !addr.is_multicast() && !addr.is_any() && !addr.same(&Addr::v4([0; 4]))
}

/// Turns a packet into the ICMP error that its destination tells its source. False when none can be told; the
/// packet may then be half done and must be dropped.
///
/// The new packet's way to the stack must begin with a transmission: the buffer still counts its old headers.
#[inline(always)]
pub fn tell<P: Packet>(p: &mut P, ip: &Headers, what: What) -> bool {
    if ip.is_icmp_error() || ip.dst.is_multicast() || !is_one(&ip.src) {
        return false;
    }
    // Where the transport's sum is still to be made, the kernel will not cut before its field.
    let (kept, sum_at) = match ip.proto {
        _ if matches!(ip.part, Part::Later) => (8, 0),
        TCP => (20, 16),
        UDP => (8, 6),
        _ => (8, 0),
    };
    let (v6, l4) = (ip.v6, ip.l4);
    let end = l4 + kept;
    if p.len() < end || end - L3 > WORDS_MAX * 4 || (end & 1) != 0 {
        return false;
    }
    let Some(m) = p.load::<12>(0) else {
        return false;
    };
    if !p.set_len(end) {
        return false;
    }
    if sum_at != 0 && !settle_sum(p, l4, end, l4 + sum_at) {
        return false;
    }
    let Some(quoted) = sum_of(p, L3, end) else {
        return false;
    };
    let length = HEADER + end - L3;
    let mut icmp = what.header(v6);
    let mut sum = quoted
        + halves([icmp[0], icmp[1], icmp[2], icmp[3]])
        + halves([icmp[4], icmp[5], icmp[6], icmp[7]]);
    if v6 {
        let (s, d) = (ip.src.words(), ip.dst.words());
        let mut i = 0;
        while i < 4 {
            sum += halves(s[i].to_ne_bytes()) + halves(d[i].to_ne_bytes());
            i += 1;
        }
        let l = (length as u16).to_be_bytes();
        sum += halves([l[0], l[1], 0, ICMP6]);
    }
    let s = (!(fold(sum) as u16)).to_ne_bytes();
    icmp[2] = s[0];
    icmp[3] = s[1];
    let l3 = if v6 { 40 } else { 20 };
    if !p.grow_head(l3 + HEADER) {
        return false;
    }
    let ether = if v6 { ETH_IPV6 } else { ETH_IPV4 }.to_be_bytes();
    let head = [
        m[6], m[7], m[8], m[9], m[10], m[11], m[0], m[1], m[2], m[3], m[4], m[5], ether[0],
        ether[1],
    ];
    if !p.store(0, &head) || !p.store(L3 + l3, &icmp) {
        return false;
    }
    if v6 {
        let l = (length as u16).to_be_bytes();
        return p.store(L3, &[0x60, 0, 0, 0, l[0], l[1], ICMP6, TTL])
            && p.store(L3 + 8, &ip.dst.octets())
            && p.store(L3 + 24, &ip.src.octets());
    }
    let l = ((20 + length) as u16).to_be_bytes();
    let (s, d) = (ip.dst.v4_octets(), ip.src.v4_octets());
    let mut h = [
        0x45, 0xc0, l[0], l[1], 0, 0, 0, 0, TTL, ICMP, 0, 0, s[0], s[1], s[2], s[3], d[0], d[1],
        d[2], d[3],
    ];
    let mut sum = 0;
    let mut i = 0;
    while i < 20 {
        sum += halves([h[i], h[i + 1], h[i + 2], h[i + 3]]);
        i += 4;
    }
    let s = (!(fold(sum) as u16)).to_ne_bytes();
    h[10] = s[0];
    h[11] = s[1];
    p.store(L3, &h)
}

/// Writes a transport sum that stays as it is, whether the kernel still makes it on the way out or not.
///
/// A sum that is to be made becomes the complement of the sum over everything from the transport header
/// on, its own field included. With `s` the sum of all but the field, a field `f` is left alone when
/// `!(s + f) == f`, which is `s + 2f == 0` in one's complement, where half of a number exists. Receivers
/// do not look at a quoted sum.
#[inline(always)]
fn settle_sum<P: Packet>(p: &mut P, from: u32, to: u32, at: u32) -> bool {
    if !p.store(at, &[0, 0]) {
        return false;
    }
    let Some(sum) = sum_of(p, from, to) else {
        return false;
    };
    let s = fold(sum);
    // 0 and 0xffff are the same number; a field of 0 could be taken for "no sum".
    let minus = 0xffff - s;
    let half = if minus & 1 == 0 {
        minus >> 1
    } else {
        (minus + 0xffff) >> 1
    };
    let field = if half == 0 { 0xffff } else { half as u16 };
    p.store(at, &field.to_ne_bytes())
}
