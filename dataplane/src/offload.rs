//! Packets longer than the wire takes, as a TAP exchanges them with the kernel (pure).
//!
//! A TCP stream costs the kernel one walk through its stack per 64 KiB when the device cuts packets
//! itself, and one per 1.4 KiB when it does not. [`cut`] makes packets for the wire of a long one, and
//! [`merge`] a long one of many that follow each other. Both know TCP, and TCP inside VXLAN, which is
//! what encrypted networks carry; everything else passes as it is.

pub(crate) mod cut;
pub(crate) mod merge;
#[cfg(test)]
mod tests;

/// Length of a [`Header`], in bytes: `struct virtio_net_hdr_v1_hash_tunnel`.
pub(crate) const HEADER: usize = 24;

/// Length of an Ethernet header, in bytes.
const ETHERNET: usize = 14;

/// What a TAP puts before each packet, in bytes: a [`Header`] and an Ethernet header.
pub(crate) const PREFIX: usize = HEADER + ETHERNET;

/// The Ethernet address that our end of each TAP has. Nobody else is on the link.
pub(crate) const LINK_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Whom packets to the kernel come from.
const FAR_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 2];

const NEEDS_CSUM: u8 = 1;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const TUNNEL_V4: u8 = 0x20;
const TUNNEL_V6: u8 = 0x40;
/// Congestion was answered: the first segment alone says so.
const ECN: u8 = 0x80;

/// What stands before each frame of a TAP with offloads. Offsets count from the packet's first byte
/// here, from the Ethernet header's in what is exchanged; host order here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    flags: u8,
    kind: u8,
    head: u16,
    segment: u16,
    checksum_start: u16,
    checksum_offset: u16,
    outer_transport: u16,
    inner_network: u16,
}

impl Header {
    /// Takes what a TAP gave apart: the header, and the IP packet. None for what is not IP.
    pub(crate) fn split(bytes: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (prefix, packet) = bytes.split_first_chunk_mut::<PREFIX>()?;
        let is_ip = matches!(
            (prefix[PREFIX - 2], prefix[PREFIX - 1], packet.first()? >> 4),
            (0x08, 0x00, 4) | (0x86, 0xdd, 6)
        );
        let host = |at: usize| u16::from_ne_bytes([prefix[at], prefix[at + 1]]);
        let little = |at: usize| u16::from_le_bytes([prefix[at], prefix[at + 1]]);
        let inside = |offset: u16| offset.saturating_sub(ETHERNET as u16);
        let header = Self {
            flags: prefix[0],
            kind: prefix[1],
            head: inside(host(2)),
            segment: host(4),
            checksum_start: inside(host(6)),
            checksum_offset: host(8),
            outer_transport: inside(little(20)),
            inner_network: inside(little(22)),
        };
        is_ip.then_some((header, packet))
    }

    /// What a TAP takes before this packet. Offsets that are nought stay so.
    fn prefix(self, packet: &[u8]) -> [u8; PREFIX] {
        let framed = |offset: u16| match offset {
            0 => 0,
            _ => offset + ETHERNET as u16,
        };
        let mut bytes = [0; PREFIX];
        bytes[0] = self.flags;
        bytes[1] = self.kind;
        bytes[2..4].copy_from_slice(&framed(self.head).to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment.to_ne_bytes());
        bytes[6..8].copy_from_slice(&framed(self.checksum_start).to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes[20..22].copy_from_slice(&framed(self.outer_transport).to_le_bytes());
        bytes[22..24].copy_from_slice(&framed(self.inner_network).to_le_bytes());
        bytes[HEADER..HEADER + 6].copy_from_slice(&LINK_ADDRESS);
        bytes[HEADER + 6..HEADER + 12].copy_from_slice(&FAR_ADDRESS);
        let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let kind: u16 = if is_v4 { 0x0800 } else { 0x86dd };
        bytes[HEADER + 12..].copy_from_slice(&kind.to_be_bytes());
        bytes
    }
}

/// Sum of 16-bit words as they lie in memory, not folded. Ones' complement sums do not mind the order
/// of bytes, as long as the result is written back the way it was read.
fn sum(bytes: &[u8], start: u64) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = start;
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The internet checksum of some bytes whose sum began at `start`, ready to be written.
fn checksum(bytes: &[u8], start: u64) -> [u8; 2] {
    (!fold(sum(bytes, start))).to_ne_bytes()
}

/// Sum of what TCP's checksum covers besides the segment: addresses, protocol and length.
fn pseudo(network: &[u8], is_v4: bool, length: usize) -> u64 {
    let addresses = if is_v4 {
        &network[12..20]
    } else {
        &network[8..40]
    };
    let [.., a, b] = (length as u32).to_be_bytes();
    sum(&[0, TCP, a, b], sum(addresses, 0))
}

const TCP: u8 = 6;
const UDP: u8 = 17;

const FIN: u8 = 1;
const PUSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

/// Where the layers of a TCP packet begin, counted from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layers {
    /// Of the UDP header around a tunnelled packet.
    tunnel: Option<usize>,
    /// Of the IP header around the TCP segment, and its version.
    network: usize,
    is_v4: bool,
    transport: usize,
    payload: usize,
}

/// Length of an IPv4 header without options, and of the headers between a UDP header and the packet
/// inside VXLAN: UDP, VXLAN, Ethernet.
const IPV4: usize = 20;
const IPV6: usize = 40;
const VXLAN: usize = 8 + 8 + 14;

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// The protocol inside an IP header without options at `at`, where that is, and the version. None for
/// fragments, and where the length told is not the packet's.
fn network_at(packet: &[u8], at: usize) -> Option<(u8, usize, bool)> {
    match packet.get(at)? {
        0x45 => {
            let whole = word(packet, at + 2)? as usize == packet.len() - at;
            let is_fragment = word(packet, at + 6)? & 0x3fff != 0;
            (whole && !is_fragment).then_some(())?;
            Some((*packet.get(at + 9)?, at + IPV4, true))
        }
        first if first >> 4 == 6 => {
            let whole = word(packet, at + 4)? as usize + IPV6 == packet.len() - at;
            whole.then_some(())?;
            Some((*packet.get(at + 6)?, at + IPV6, false))
        }
        _ => None,
    }
}

impl Layers {
    /// The layers of a packet that is TCP, or TCP inside VXLAN to this UDP port; none for all others.
    fn of(packet: &[u8], vxlan_port: u16) -> Option<Self> {
        let (mut protocol, mut inside, mut is_v4) = network_at(packet, 0)?;
        let (mut network, mut tunnel) = (0, None);
        if protocol == UDP {
            let udp = inside;
            // A tunnel's packets bear no outer checksum: their insides do.
            let is_vxlan = word(packet, udp + 2)? == vxlan_port
                && word(packet, udp + 6)? == 0
                && *packet.get(udp + 8)? == 8;
            network = udp + VXLAN;
            let expected = match word(packet, network - 2)? {
                0x0800 => true,
                0x86dd => false,
                _ => return None,
            };
            (protocol, inside, is_v4) = network_at(packet, network)?;
            (is_vxlan && is_v4 == expected).then_some(())?;
            tunnel = Some(udp);
        }
        let offset = usize::from(packet.get(inside + 12)? >> 4) * 4;
        let payload = inside + offset;
        (protocol == TCP && offset >= 20 && payload <= packet.len()).then_some(Self {
            tunnel,
            network,
            is_v4,
            transport: inside,
            payload,
        })
    }

    /// Writes the lengths of all layers for a packet with these many bytes after its headers, and the
    /// sums of IPv4 headers. `step` is added to the numbers of IPv4 packets.
    fn resize(&self, head: &mut [u8], body: usize, step: u16) {
        let total = self.payload + body;
        if let Some(udp) = self.tunnel {
            set_network(head, 0, total, step);
            head[udp + 4..udp + 6].copy_from_slice(&((total - udp) as u16).to_be_bytes());
        }
        set_network(head, self.network, total - self.network, step);
    }

    /// What the checksum of the segment begins from.
    fn pseudo(&self, head: &[u8], body: usize) -> u64 {
        let length = self.payload - self.transport + body;
        pseudo(&head[self.network..], self.is_v4, length)
    }
}

fn set_network(head: &mut [u8], at: usize, length: usize, step: u16) {
    let header = &mut head[at..];
    if header[0] >> 4 == 6 {
        header[4..6].copy_from_slice(&((length - IPV6) as u16).to_be_bytes());
        return;
    }
    header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    let number = u16::from_be_bytes([header[4], header[5]]).wrapping_add(step);
    header[4..6].copy_from_slice(&number.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum(&header[..IPV4], 0);
    header[10..12].copy_from_slice(&sum);
}
