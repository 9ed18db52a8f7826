use proptest::prelude::*;

use super::{cut::cut, merge::Merger, *};

const PORT: u16 = 4789;

/// A TCP packet with this body, inside VXLAN when `tunnelled`, as long as it may be.
fn packet(tunnelled: bool, v4: bool, sequence: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut tcp = vec![0x12, 0x34, 0, 80];
    tcp.extend(sequence.to_be_bytes());
    // Eight words: twelve bytes of options.
    tcp.extend([0, 0, 0, 7, 0x80, flags, 1, 0, 0, 0, 0, 0]);
    tcp.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    let mut network = if v4 {
        vec![
            0x45, 2, 0, 0, 0, 9, 0x40, 0, 64, TCP, 0, 0, 10, 0, 1, 1, 10, 0, 1, 2,
        ]
    } else {
        let mut header = vec![0x60, 0, 0, 1, 0, 0, TCP, 64];
        header.extend([0xfd; 32]);
        header
    };
    network.extend(&tcp);
    if tunnelled {
        let mut outer = vec![
            0x45, 0, 0, 0, 0, 7, 0, 0, 64, UDP, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2,
        ];
        outer.extend([0xc0, 1]);
        outer.extend(PORT.to_be_bytes());
        outer.extend([0, 0, 0, 0, 8, 0, 0, 0, 0, 16, 2, 0]);
        outer.extend([2, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 10]);
        outer.extend(if v4 { [8, 0] } else { [0x86, 0xdd] });
        outer.extend(network);
        network = outer;
    }
    let udp = tunnelled.then_some(IPV4);
    let at = if tunnelled { IPV4 + VXLAN } else { 0 };
    let transport = at + if v4 { IPV4 } else { IPV6 };
    let layers = Layers {
        tunnel: udp,
        network: at,
        is_v4: v4,
        transport,
        payload: transport + 32,
    };
    layers.resize(&mut network, body.len(), 0);
    network.extend(body);
    let start = layers.pseudo(&network, body.len());
    let sum = checksum(&network[transport..], start);
    network[transport + 16..transport + 18].copy_from_slice(&sum);
    assert_eq!(Layers::of(&network, PORT), Some(layers));
    network
}

/// All pieces merged as far as possible: header and packet of each.
fn merged(pieces: &[Vec<u8>], tunnels: bool) -> Vec<Vec<u8>> {
    let mut merger = Merger::new(PORT, tunnels);
    let mut all = Vec::new();
    for piece in pieces {
        if !merger.add(piece) {
            all.extend(merger.finish().map(<[u8]>::to_vec));
            merger.clear();
            assert!(merger.add(piece), "an empty merger takes anything");
        }
    }
    all.extend(merger.finish().map(<[u8]>::to_vec));
    all
}

fn cut_again(long: &mut [u8]) -> Vec<Vec<u8>> {
    let (header, packet) = Header::split(long).unwrap();
    let mut pieces = Vec::new();
    assert!(cut(header, packet, PORT, |head, body| {
        pieces.push([head, body].concat());
    }));
    pieces
}

proptest! {
    #[test]
    fn what_was_merged_is_cut_as_it_was(
        tunnelled: bool, v4: bool, sequence: u32, segment in 1_usize..1400, length in 1_usize..40_000, odd in 0_usize..3,
    ) {
        let body: Vec<u8> = (0..length).map(|at| (at * 7 + odd) as u8).collect();
        let last = body.len().div_ceil(segment) - 1;
        let pieces: Vec<Vec<u8>> = body.chunks(segment).take(40).enumerate().map(|(place, part)| {
            let flags = if place == last { ACK | PUSH } else { ACK };
            let mut piece = packet(tunnelled, v4, sequence.wrapping_add((place * segment) as u32), flags, part);
            // Numbers of IPv4 packets count on, as those of a kernel that cut it do.
            let layers = Layers::of(&piece, PORT).unwrap();
            layers.resize(&mut piece, part.len(), place as u16);
            piece
        }).collect();
        let mut long = merged(&pieces, true);
        prop_assert_eq!(long.len(), 1);
        prop_assert_eq!(cut_again(&mut long[0]), pieces);
    }

    #[test]
    fn nothing_that_a_tap_says_makes_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..6, tunnel: bool) {
        let start = packet(tunnel, true, 1, ACK, &[1, 2, 3]);
        for (place, byte) in bytes.iter_mut().enumerate().skip(PREFIX) {
            // Near enough to a packet to get somewhere.
            if *byte > 40 && place - PREFIX < start.len() {
                *byte = start[place - PREFIX];
            }
        }
        if bytes.len() > PREFIX {
            bytes[PREFIX - 2..PREFIX].copy_from_slice(&[8, 0]);
        }
        if let Some((mut header, packet)) = Header::split(&mut bytes) {
            header.kind = kind;
            cut(header, packet, PORT, |_, _| {});
        }
        let mut merger = Merger::new(PORT, true);
        merger.add(&start);
        merger.add(&bytes);
        merger.finish();
        merger.clear();
        merger.add(&bytes);
        merger.add(&bytes);
        merger.finish();
    }
}

#[test]
fn what_does_not_follow_is_not_merged() {
    let first = packet(true, true, 100, ACK, &[1; 100]);
    let next = packet(true, true, 200, ACK, &[2; 100]);
    assert_eq!(merged(&[first.clone(), next.clone()], true).len(), 1);
    let apart = |other: Vec<u8>| assert_eq!(merged(&[first.clone(), other], true).len(), 2);
    apart(packet(true, true, 201, ACK, &[2; 100]));
    apart(packet(true, true, 200, ACK | FIN, &[2; 100]));
    apart(packet(true, true, 200, ACK, &[]));
    apart(packet(true, true, 200, ACK, &[2; 101]));
    apart(packet(true, false, 200, ACK, &[2; 100]));
    apart(packet(false, true, 200, ACK, &[2; 100]));
    let mut other_network = next.clone();
    other_network[IPV4 + 8 + 6] ^= 1;
    apart(other_network);
    let mut damaged = next.clone();
    *damaged.last_mut().unwrap() ^= 1;
    apart(damaged);
    // A kernel that takes no long packets in tunnels is given none.
    assert_eq!(merged(&[first.clone(), next], false).len(), 2);
    // After a short or a pushed piece comes a new packet.
    let short = packet(true, true, 200, ACK, &[2; 50]);
    let after = packet(true, true, 250, ACK, &[3; 50]);
    assert_eq!(merged(&[first, short, after], true).len(), 2);
}

#[test]
fn a_checksum_left_to_the_device_is_finished() {
    let whole = packet(true, true, 1, ACK, &[9; 333]);
    let layers = Layers::of(&whole, PORT).unwrap();
    let mut left = whole.clone();
    let start = fold(layers.pseudo(&whole, 333)).to_ne_bytes();
    let at = layers.transport + 16;
    left[at..at + 2].copy_from_slice(&start);
    let header = Header {
        flags: NEEDS_CSUM,
        checksum_start: layers.transport as u16,
        checksum_offset: 16,
        ..Header::default()
    };
    let mut told = header.prefix(&left).to_vec();
    told.extend(&left);
    assert_eq!(cut_again(&mut told), [whole]);
}
