//! What a packet says about itself. Nothing here trusts a length field.

use weft_abi::{Addr, Be16};

use crate::packet::Packet;

/// Offset of the network header: every interface we run on is Ethernet.
pub const L3: u32 = 14;
/// Ethernet type of IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// Ethernet type of IPv6.
pub const ETH_IPV6: u16 = 0x86dd;
/// Ethernet type of ARP.
pub const ETH_ARP: u16 = 0x0806;
/// Protocol number.
pub const ICMP: u8 = 1;
/// Protocol number.
pub const TCP: u8 = 6;
/// Protocol number.
pub const UDP: u8 = 17;
/// Protocol number.
pub const ICMP6: u8 = 58;

/// Bits of the TCP flags byte.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Opens.
    pub const SYN: u8 = 2;
    /// Breaks.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

/// How deep IPv6 extension headers are walked.
const MAX_EXTENSIONS: u32 = 6;

/// Which part of a datagram the packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment: has the transport header.
    First,
    /// A later one: has no ports.
    Later,
}

/// Network and transport header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port; 0 unless TCP or UDP.
    pub sport: Be16,
    /// Destination port; 0 unless TCP or UDP.
    pub dport: Be16,
    /// Offset of the transport header.
    pub l4: u32,
    /// Offset of the network header: [`L3`], or that of a header quoted in an ICMP error.
    pub l3: u32,
    /// Identification of a fragmented datagram.
    pub id: u32,
    /// Protocol of the transport header.
    pub proto: u8,
    /// TCP flags, or ICMP type.
    pub flags: u8,
    /// Whether it is a fragment that would overwrite the TCP header of the first.
    pub overwriting: bool,
    /// Whether the family is IPv6.
    pub v6: bool,
    /// Which part of a datagram.
    pub part: Part,
    /// Paper to read on: the stack has no room for it.
    raw: [u8; 40],
}

/// Why there are no [`Headers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotParsed {
    /// Another Ethernet type.
    NotIp(u16),
    /// Cut short or inconsistent.
    Malformed,
    /// Too many IPv6 extension headers.
    TooDeep,
    /// A first fragment that does not hold its whole TCP header. Its ports are known.
    Tiny,
}

impl Headers {
    /// Nothing yet.
    pub const NONE: Self = Self {
        src: Addr::ANY,
        dst: Addr::ANY,
        sport: Be16::new(0),
        dport: Be16::new(0),
        l4: 0,
        l3: 0,
        id: 0,
        proto: 0,
        flags: 0,
        overwriting: false,
        v6: false,
        part: Part::Whole,
        raw: [0; 40],
    };

    /// Reads twenty bytes onto the paper.
    #[inline(always)]
    fn read_20<P: Packet>(&mut self, p: &P, at: u32) -> bool {
        match self.raw.first_chunk_mut::<20>() {
            Some(room) => p.load_to(at, room),
            None => false,
        }
    }

    /// Whether it is the first segment of a TCP connection.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.proto == TCP && self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }

    /// Whether it is of a protocol that has ports and that services speak.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        self.proto == TCP || self.proto == UDP
    }

    /// Whether it is an ICMP error, of its own family.
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        if self.part != Part::Whole {
            return false;
        }
        if self.v6 {
            self.proto == ICMP6 && self.flags >= 1 && self.flags <= 4
        } else {
            self.proto == ICMP && (self.flags == 3 || self.flags == 11 || self.flags == 12)
        }
    }

    /// Whether it is an echo request, of its own family.
    #[inline(always)]
    pub fn is_echo(&self) -> bool {
        self.part == Part::Whole
            && if self.v6 {
                self.proto == ICMP6 && self.flags == 128
            } else {
                self.proto == ICMP && self.flags == 8
            }
    }
}

/// Reads the headers of a packet.
///
/// # Errors
/// When it is not IP, or not whole enough to be judged.
#[inline(always)]
pub fn parse<P: Packet>(p: &P, into: &mut Headers) -> Result<(), NotParsed> {
    let Some(ether) = p.load::<2>(12) else {
        return Err(NotParsed::Malformed);
    };
    match u16::from_be_bytes(ether) {
        ETH_IPV4 => ipv4(p, into, L3, true),
        ETH_IPV6 => ipv6(p, into, L3, true),
        other => Err(NotParsed::NotIp(other)),
    }
}

/// Reads the headers that an ICMP error at `at` quotes; its transport header may be cut after eight bytes.
///
/// # Errors
/// When too little is quoted.
#[inline(always)]
pub fn parse_quoted<P: Packet>(
    p: &P,
    into: &mut Headers,
    at: u32,
    v6: bool,
) -> Result<(), NotParsed> {
    if v6 {
        ipv6(p, into, at, false)
    } else {
        ipv4(p, into, at, false)
    }
}

#[inline(always)]
fn ipv4<P: Packet>(p: &P, headers: &mut Headers, l3: u32, whole: bool) -> Result<(), NotParsed> {
    if !headers.read_20(p, l3) {
        return Err(NotParsed::Malformed);
    }
    let h = &headers.raw;
    let header = ((h[0] & 0x0f) as u32) << 2;
    let total = u16::from_be_bytes([h[2], h[3]]) as u32;
    // A total of 0 is what segments beyond 64 KiB carry inside this host.
    if h[0] >> 4 != 4 || header < 20 || (total != 0 && total < header) {
        return Err(NotParsed::Malformed);
    }
    if whole && total > p.len() - l3 {
        return Err(NotParsed::Malformed);
    }
    let fragment = u16::from_be_bytes([h[6], h[7]]);
    headers.part = match (fragment & 0x1fff != 0, fragment & 0x2000 != 0) {
        (true, _) => Part::Later,
        (false, true) => Part::First,
        (false, false) => Part::Whole,
    };
    headers.src = Addr::v4([h[12], h[13], h[14], h[15]]);
    headers.dst = Addr::v4([h[16], h[17], h[18], h[19]]);
    headers.sport = Be16::new(0);
    headers.dport = Be16::new(0);
    headers.l4 = l3 + header;
    headers.l3 = l3;
    headers.id = u16::from_be_bytes([h[4], h[5]]) as u32;
    headers.proto = h[9];
    headers.flags = 0;
    headers.overwriting = h[9] == TCP && overwrites(fragment & 0x1fff);
    headers.v6 = false;
    transport(p, headers, whole)
}

#[inline(always)]
fn ipv6<P: Packet>(p: &P, headers: &mut Headers, l3: u32, whole: bool) -> Result<(), NotParsed> {
    if !p.load_to(l3, &mut headers.raw) {
        return Err(NotParsed::Malformed);
    }
    let h = &headers.raw;
    if h[0] >> 4 != 6 {
        return Err(NotParsed::Malformed);
    }
    headers.src = Addr::v6([
        h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19], h[20],
        h[21], h[22], h[23],
    ]);
    headers.dst = Addr::v6([
        h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31], h[32], h[33], h[34], h[35], h[36],
        h[37], h[38], h[39],
    ]);
    headers.sport = Be16::new(0);
    headers.dport = Be16::new(0);
    headers.l4 = l3 + 40;
    headers.l3 = l3;
    headers.id = 0;
    headers.proto = h[6];
    headers.flags = 0;
    headers.overwriting = false;
    headers.v6 = true;
    headers.part = Part::Whole;
    // A mapped address on the wire would be taken for IPv4 by every table.
    if headers.src.is_v4() || headers.dst.is_v4() {
        return Err(NotParsed::Malformed);
    }
    for _ in 0..MAX_EXTENSIONS {
        match headers.proto {
            // Hop-by-hop, routing, destination options.
            0 | 43 | 60 => {
                let Some(e) = p.load::<2>(headers.l4) else {
                    return Err(NotParsed::Malformed);
                };
                headers.proto = e[0];
                headers.l4 += (e[1] as u32 + 1) << 3;
            }
            // Authentication: length in words of four.
            51 => {
                let Some(e) = p.load::<2>(headers.l4) else {
                    return Err(NotParsed::Malformed);
                };
                headers.proto = e[0];
                headers.l4 += (e[1] as u32 + 2) << 2;
            }
            44 => {
                let Some(e) = p.load::<8>(headers.l4) else {
                    return Err(NotParsed::Malformed);
                };
                headers.proto = e[0];
                headers.l4 += 8;
                headers.id = u32::from_be_bytes([e[4], e[5], e[6], e[7]]);
                let fragment = u16::from_be_bytes([e[2], e[3]]);
                if fragment & 0xfff8 != 0 {
                    headers.part = Part::Later;
                    headers.overwriting = headers.proto == TCP && overwrites(fragment >> 3);
                    return Ok(());
                }
                if fragment & 1 != 0 {
                    headers.part = Part::First;
                }
            }
            _ => {
                return transport(p, headers, whole);
            }
        }
    }
    Err(NotParsed::TooDeep)
}

#[inline(always)]
const fn overwrites(units: u16) -> bool {
    units != 0 && units < 3
}

#[inline(always)]
fn transport<P: Packet>(p: &P, headers: &mut Headers, whole: bool) -> Result<(), NotParsed> {
    if headers.part == Part::Later {
        return Ok(());
    }
    match headers.proto {
        TCP if whole => {
            let l4 = headers.l4;
            if !headers.read_20(p, l4) {
                let (Part::First, Some(t)) = (headers.part, p.load::<8>(headers.l4)) else {
                    return Err(NotParsed::Malformed);
                };
                headers.sport = Be16::from_bytes([t[0], t[1]]);
                headers.dport = Be16::from_bytes([t[2], t[3]]);
                return Err(NotParsed::Tiny);
            }
            let t = &headers.raw;
            headers.sport = Be16::from_bytes([t[0], t[1]]);
            headers.dport = Be16::from_bytes([t[2], t[3]]);
            if t[12] >> 4 < 5 {
                return Err(NotParsed::Malformed);
            }
            headers.flags = t[13];
        }
        TCP | UDP => {
            let Some(t) = p.load::<8>(headers.l4) else {
                return Err(NotParsed::Malformed);
            };
            headers.sport = Be16::from_bytes([t[0], t[1]]);
            headers.dport = Be16::from_bytes([t[2], t[3]]);
        }
        ICMP | ICMP6 => {
            let Some(t) = p.load::<8>(headers.l4) else {
                return Err(NotParsed::Malformed);
            };
            headers.flags = t[0];
        }
        _ => {}
    }
    Ok(())
}
