//! One long packet of many that follow each other.

use super::{
    ACK, Header, Layers, NEEDS_CSUM, PREFIX, PUSH, TCP_V4, TCP_V6, TUNNEL_V4, TUNNEL_V6, fold, sum,
};

/// The longest that is made, in bytes: lengths are 16-bit numbers.
const LONGEST: usize = 65_000;

/// Packets merged so far.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    vxlan_port: u16,
    /// Whether the kernel takes long packets inside a tunnel.
    tunnels: bool,
    /// Room for what a TAP takes first, then the packet.
    bytes: Vec<u8>,
    open: Option<Open>,
}

/// A long packet to which more can be added.
#[derive(Debug, Clone, Copy)]
struct Open {
    layers: Layers,
    /// Bytes of each piece but the last.
    segment: usize,
    pieces: usize,
    /// Sequence number of the next piece.
    next: u32,
    /// A short piece or a pushed one was the last.
    closed: bool,
}

impl Merger {
    /// A merger for the TAP of a node whose tunnels lead to this port.
    pub(crate) fn new(vxlan_port: u16, tunnels: bool) -> Self {
        Self {
            vxlan_port,
            tunnels,
            ..Self::default()
        }
    }

    /// Adds a packet. False when it is another flow's or cannot be merged: then [`Self::finish`] comes
    /// first, and after that any packet is taken.
    pub(crate) fn add(&mut self, packet: &[u8]) -> bool {
        if self.bytes.is_empty() {
            self.bytes.resize(PREFIX, 0);
            self.bytes.extend_from_slice(packet);
            self.open = self.begin(packet);
            return true;
        }
        let Some(open) = self.open.filter(|open| self.follows(open, packet)) else {
            return false;
        };
        let piece = &packet[open.layers.payload..];
        let flags = PREFIX + open.layers.transport + 13;
        let pushed = packet[open.layers.transport + 13] & PUSH;
        self.bytes[flags] |= pushed;
        self.bytes.extend_from_slice(piece);
        self.open = Some(Open {
            pieces: open.pieces + 1,
            next: open.next.wrapping_add(piece.len() as u32),
            closed: pushed != 0 || piece.len() < open.segment,
            ..open
        });
        true
    }

    /// The packet with its header, ready for the TAP; none when nothing was added.
    pub(crate) fn finish(&mut self) -> Option<&[u8]> {
        if self.bytes.is_empty() {
            return None;
        }
        let told = match self.open.take().filter(|open| open.pieces > 1) {
            Some(open) => self.seal(&open),
            None => Header::default(),
        };
        let (prefix, packet) = self.bytes.split_at_mut(PREFIX);
        prefix.copy_from_slice(&told.prefix(packet));
        Some(&self.bytes)
    }

    /// Whether more may follow what was added.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some_and(|open| !open.closed)
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.open = None;
    }

    fn begin(&self, packet: &[u8]) -> Option<Open> {
        let layers = Layers::of(packet, self.vxlan_port)?;
        let mergeable = (self.tunnels || layers.tunnel.is_none()) && is_plain(&layers, packet);
        mergeable.then(|| Open {
            segment: packet.len() - layers.payload,
            pieces: 1,
            next: sequence(&layers, packet).wrapping_add((packet.len() - layers.payload) as u32),
            closed: packet[layers.transport + 13] & PUSH != 0,
            layers,
        })
    }

    fn follows(&self, open: &Open, packet: &[u8]) -> bool {
        let layers = &open.layers;
        let length = packet.len().wrapping_sub(layers.payload);
        !open.closed
            && packet.len() > layers.payload
            && length <= open.segment
            && self.bytes.len() + length <= LONGEST
            && Layers::of(packet, self.vxlan_port).as_ref() == Some(layers)
            && sequence(layers, packet) == open.next
            && same_heads(layers, &self.bytes[PREFIX..], packet)
            && is_plain(layers, packet)
    }

    /// Finishes the headers of the long packet; what is told of it.
    fn seal(&mut self, open: &Open) -> Header {
        let layers = &open.layers;
        let (head, body) = self.bytes[PREFIX..].split_at_mut(layers.payload);
        layers.resize(head, body.len(), 0);
        let start = fold(layers.pseudo(head, body.len())).to_ne_bytes();
        let check = layers.transport + 16;
        head[check..check + 2].copy_from_slice(&start);
        let tunnel = match layers.tunnel {
            None => 0,
            Some(_) if head[0] >> 4 == 4 => TUNNEL_V4,
            Some(_) => TUNNEL_V6,
        };
        Header {
            flags: NEEDS_CSUM,
            kind: tunnel | if layers.is_v4 { TCP_V4 } else { TCP_V6 },
            head: layers.payload as u16,
            segment: open.segment as u16,
            checksum_start: layers.transport as u16,
            checksum_offset: 16,
            outer_transport: layers.tunnel.unwrap_or_default() as u16,
            inner_network: layers.tunnel.map_or(0, |_| layers.network as u16),
        }
    }
}

fn sequence(layers: &Layers, packet: &[u8]) -> u32 {
    let at = layers.transport + 4;
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// Whether it carries data and nothing unusual, undamaged: its checksum goes with merging.
fn is_plain(layers: &Layers, packet: &[u8]) -> bool {
    let flags = packet[layers.transport + 13];
    let body = packet.len() - layers.payload;
    flags & !PUSH == ACK
        && body > 0
        && fold(sum(
            &packet[layers.transport..],
            layers.pseudo(packet, body),
        )) == 0xffff
}

/// Whether two packets of the same layers differ in nothing but what differs from piece to piece:
/// lengths, numbers and sums of IP, length of UDP, sequence number, sum, and the push flag.
fn same_heads(layers: &Layers, one: &[u8], other: &[u8]) -> bool {
    let same = |from: usize, to: usize| one[from..to] == other[from..to];
    let same_network = |at: usize, is_v4: bool| {
        if is_v4 {
            same(at, at + 2) && same(at + 6, at + 10) && same(at + 12, at + 20)
        } else {
            same(at, at + 4) && same(at + 6, at + 40)
        }
    };
    let same_tunnel = layers.tunnel.is_none_or(|udp| {
        same_network(0, one[0] >> 4 == 4) && same(udp, udp + 4) && same(udp + 6, layers.network)
    });
    let tcp = layers.transport;
    same_tunnel
        && same_network(layers.network, layers.is_v4)
        && same(tcp, tcp + 4)
        && same(tcp + 8, tcp + 13)
        && one[tcp + 13] | PUSH == other[tcp + 13] | PUSH
        && same(tcp + 14, tcp + 16)
        && same(tcp + 18, layers.payload)
}
