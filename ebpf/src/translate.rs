//! Writing other addresses and ports into a packet, checksums kept right.

use weft_abi::{Addr, Be16};

use crate::packet::{Packet, Sum};
use crate::parse::{Headers, ICMP6, Part, TCP, UDP};

/// The four fields that a translation may change, as they shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
}

impl Tuple {
    /// A packet's own.
    #[inline(always)]
    pub fn of(ip: &Headers) -> Self {
        Self {
            src: ip.src,
            dst: ip.dst,
            sport: ip.sport,
            dport: ip.dport,
        }
    }

    /// That of a packet the other way.
    #[inline(always)]
    pub fn turned(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
        }
    }
}

/// Rewrites what differs between the packet and `to`. Both must be of one family.
///
/// False when the packet could not be changed; it must then be dropped, for it may be half done.
#[inline(always)]
pub fn translate<P: Packet>(p: &mut P, ip: &Headers, to: &Tuple) -> bool {
    let (src_at, dst_at) = if ip.v6 {
        (ip.l3 + 8, ip.l3 + 24)
    } else {
        (ip.l3 + 12, ip.l3 + 16)
    };
    change_addr(p, ip, src_at, &ip.src, &to.src)
        && change_addr(p, ip, dst_at, &ip.dst, &to.dst)
        && change_port(p, ip, ip.l4, ip.sport, to.sport)
        && change_port(p, ip, ip.l4 + 2, ip.dport, to.dport)
}

/// Offset of the transport checksum, when the packet has one that covers what we change.
#[inline(always)]
fn sum_offset(ip: &Headers) -> Option<u32> {
    if ip.part == Part::Later {
        return None;
    }
    match ip.proto {
        TCP => Some(ip.l4 + 16),
        UDP => Some(ip.l4 + 6),
        ICMP6 if ip.v6 => Some(ip.l4 + 2),
        _ => None,
    }
}

/// Writes another address at `at`, the packet's checksums told.
#[inline(always)]
pub fn change_addr<P: Packet>(p: &mut P, ip: &Headers, at: u32, from: &Addr, to: &Addr) -> bool {
    if from.same(to) {
        return true;
    }
    let udp = ip.proto == UDP;
    if ip.v6 {
        if let Some(sum) = sum_offset(ip) {
            let difference = P::difference(&from.words(), &to.words());
            if !p.sum_transport(sum, 0, difference, Sum::Pseudo6, udp) {
                return false;
            }
        }
        return p.store(at, &to.octets());
    }
    let (old, new) = (from.v4_word(), to.v4_word());
    if let Some(sum) = sum_offset(ip)
        && !p.sum_transport(sum, old, new, Sum::Pseudo4, udp)
    {
        return false;
    }
    p.sum_ip(ip.l3 + 10, old, new) && p.store(at, &to.v4_octets())
}

#[inline(always)]
fn change_port<P: Packet>(p: &mut P, ip: &Headers, at: u32, from: Be16, to: Be16) -> bool {
    if from == to {
        return true;
    }
    let Some(sum) = sum_offset(ip) else {
        return true;
    };
    p.sum_transport(
        sum,
        from.raw() as u32,
        to.raw() as u32,
        Sum::Word16,
        ip.proto == UDP,
    ) && p.store(at, &to.bytes())
}
