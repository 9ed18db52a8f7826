//! Frames written and read from scratch: nothing here shares code with what it tests.

use std::net::IpAddr;

use weft_abi::Mac;

/// What a test says of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) dst_mac: Mac,
    pub(crate) src_mac: Mac,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) l4: L4,
    pub(crate) payload: Vec<u8>,
}

/// Transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum L4 {
    /// Ports and flags.
    Tcp(u16, u16, u8),
    /// Ports.
    Udp(u16, u16),
    /// Type and code; the payload begins after the rest of the header.
    Icmp(u8, u8),
}

/// Folds a one's complement sum.
pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// One's complement sum of words, big end first, not folded.
pub(crate) fn add(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0)))
        .sum()
}

/// Sum of a pseudo header.
pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u32 {
    let ends = match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => add(&s.octets()) + add(&d.octets()),
        (IpAddr::V6(s), IpAddr::V6(d)) => add(&s.octets()) + add(&d.octets()),
        _ => 0,
    };
    ends + u32::from(proto) + len as u32
}

impl Frame {
    /// Protocol number.
    pub(crate) fn proto(&self) -> u8 {
        match self.l4 {
            L4::Tcp(..) => 6,
            L4::Udp(..) => 17,
            L4::Icmp(..) if self.src.is_ipv4() => 1,
            L4::Icmp(..) => 58,
        }
    }

    /// The transport part, checksum included.
    pub(crate) fn transport(&self) -> Vec<u8> {
        let mut t = Vec::new();
        let at = match self.l4 {
            L4::Tcp(s, d, flags) => {
                t.extend(s.to_be_bytes());
                t.extend(d.to_be_bytes());
                t.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                16
            }
            L4::Udp(s, d) => {
                t.extend(s.to_be_bytes());
                t.extend(d.to_be_bytes());
                t.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                t.extend([0, 0]);
                6
            }
            L4::Icmp(kind, code) => {
                t.extend([kind, code, 0, 0, 0, 0, 0, 0]);
                2
            }
        };
        t.extend(&self.payload);
        let mut total = add(&t);
        if self.proto() != 1 {
            total += pseudo(self.src, self.dst, self.proto(), t.len());
        }
        let check = match (!fold(total), self.l4) {
            (0, L4::Udp(..)) => 0xffff,
            (check, _) => check,
        };
        t[at..at + 2].copy_from_slice(&check.to_be_bytes());
        t
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.around(&self.transport(), None)
    }

    /// The frame cut in two fragments; the first has the transport header.
    pub(crate) fn fragments(&self, at: usize) -> [Vec<u8>; 2] {
        let t = self.transport();
        [
            self.around(&t[..at], Some((0, true))),
            self.around(&t[at..], Some((at, false))),
        ]
    }

    fn around(&self, body: &[u8], fragment: Option<(usize, bool)>) -> Vec<u8> {
        let mut f = Vec::new();
        f.extend(self.dst_mac);
        f.extend(self.src_mac);
        match (self.src, self.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                f.extend([8, 0]);
                let flags = fragment.map_or(0x4000, |(at, more)| {
                    (at / 8) as u16 | if more { 0x2000 } else { 0 }
                });
                let mut h = vec![0x45, 0];
                h.extend(((20 + body.len()) as u16).to_be_bytes());
                h.extend([0x12, 0x34]);
                h.extend(flags.to_be_bytes());
                h.extend([64, self.proto(), 0, 0]);
                h.extend(s.octets());
                h.extend(d.octets());
                let check = !fold(add(&h));
                h[10..12].copy_from_slice(&check.to_be_bytes());
                f.extend(h);
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                let extra = if fragment.is_some() { 8 } else { 0 };
                f.extend(((body.len() + extra) as u16).to_be_bytes());
                f.extend([if fragment.is_some() { 44 } else { self.proto() }, 64]);
                f.extend(s.octets());
                f.extend(d.octets());
                if let Some((at, more)) = fragment {
                    f.extend([self.proto(), 0]);
                    f.extend((at as u16 | u16::from(more)).to_be_bytes());
                    f.extend([0, 0, 0x12, 0x34]);
                }
            }
            _ => unreachable!("one family per packet"),
        }
        f.extend(body);
        f
    }

    /// Reads a frame back. None when it is not whole, or a checksum is wrong.
    pub(crate) fn read(f: &[u8]) -> Option<Self> {
        let (src, dst, proto, body): (IpAddr, IpAddr, u8, &[u8]) = match f.get(12..14)? {
            [8, 0] => {
                let h = f.get(14..34)?;
                if fold(add(h)) != 0xffff {
                    return None;
                }
                let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
                let s: [u8; 4] = h[12..16].try_into().ok()?;
                let d: [u8; 4] = h[16..20].try_into().ok()?;
                (s.into(), d.into(), h[9], f.get(34..14 + total)?)
            }
            [0x86, 0xdd] => {
                let h = f.get(14..54)?;
                let len = usize::from(u16::from_be_bytes([h[4], h[5]]));
                let s: [u8; 16] = h[8..24].try_into().ok()?;
                let d: [u8; 16] = h[24..40].try_into().ok()?;
                (s.into(), d.into(), h[6], f.get(54..54 + len)?)
            }
            _ => return None,
        };
        let mut total = add(body);
        if proto != 1 {
            total += pseudo(src, dst, proto, body.len());
        }
        if fold(total) != 0xffff {
            return None;
        }
        let word = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        let (l4, header) = match proto {
            6 => (L4::Tcp(word(0)?, word(2)?, *body.get(13)?), 20),
            17 => (L4::Udp(word(0)?, word(2)?), 8),
            1 | 58 => (L4::Icmp(*body.first()?, *body.get(1)?), 8),
            _ => return None,
        };
        Some(Self {
            dst_mac: f[0..6].try_into().ok()?,
            src_mac: f[6..12].try_into().ok()?,
            src,
            dst,
            l4,
            payload: body.get(header..)?.to_vec(),
        })
    }
}
