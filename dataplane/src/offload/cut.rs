//! Packets for the wire from what a TAP gives.

use super::{CWR, ECN, FIN, Header, Layers, NEEDS_CSUM, PUSH, TCP_V4, TCP_V6, checksum, fold, sum};

/// Cuts `packet` as its `header` says and finishes checksums; `emit` is given the headers and the body
/// of each piece. False when the packet is not what the header says: then nothing was emitted.
pub(crate) fn cut(
    header: Header,
    packet: &mut [u8],
    vxlan_port: u16,
    mut emit: impl FnMut(&[u8], &[u8]),
) -> bool {
    match header.kind & !(ECN | super::TUNNEL_V4 | super::TUNNEL_V6) {
        0 => {
            let done = header.flags & NEEDS_CSUM == 0 || finish(header, packet);
            if done {
                emit(packet, &[]);
            }
            done
        }
        TCP_V4 | TCP_V6 => cut_tcp(header, packet, vxlan_port, emit),
        _ => false,
    }
}

/// Writes a checksum whose pseudo header is summed already.
fn finish(header: Header, packet: &mut [u8]) -> bool {
    let start = usize::from(header.checksum_start);
    let at = start + usize::from(header.checksum_offset);
    if at + 2 > packet.len() {
        return false;
    }
    let mut sum = checksum(&packet[start..], 0);
    if sum == [0, 0] {
        // Zero means "none" in UDP, and is the same number otherwise.
        sum = [0xff, 0xff];
    }
    packet[at..at + 2].copy_from_slice(&sum);
    true
}

fn cut_tcp(
    header: Header,
    packet: &mut [u8],
    vxlan_port: u16,
    mut emit: impl FnMut(&[u8], &[u8]),
) -> bool {
    let segment = usize::from(header.segment);
    let Some(layers) = Layers::of(packet, vxlan_port).filter(|_| segment > 0) else {
        return false;
    };
    let (head, body) = packet.split_at_mut(layers.payload);
    let tcp = layers.transport;
    let first = u32::from_be_bytes([head[tcp + 4], head[tcp + 5], head[tcp + 6], head[tcp + 7]]);
    let flags = head[tcp + 13];
    let last = body.len().div_ceil(segment).max(1) - 1;
    let mut pieces = body.chunks(segment);
    for place in 0..=last {
        let piece = pieces.next().unwrap_or_default();
        layers.resize(head, piece.len(), u16::from(place > 0));
        let sequence = first.wrapping_add((place * segment) as u32);
        head[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        head[tcp + 13] = flags
            & if place < last { !(FIN | PUSH) } else { !0 }
            & if place > 0 { !CWR } else { !0 };
        head[tcp + 16..tcp + 18].fill(0);
        // Headers of TCP are a multiple of four bytes, so that the sums of head and body add up.
        let start = sum(&head[tcp..], layers.pseudo(head, piece.len()));
        let check = !fold(sum(piece, start));
        head[tcp + 16..tcp + 18].copy_from_slice(&check.to_ne_bytes());
        emit(head, piece);
    }
    true
}
