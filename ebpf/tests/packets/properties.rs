//! What holds for every packet.

use crate::bytes::Bytes;
use crate::rows;
use crate::rows::frames::{Frame, L4};
use proptest::prelude::*;
use weft_abi::{
    Addr, Be16, Leg, Program, RING_SIZES, range_pieces, ring_hash, ring_slot, task_mac,
    task_of_mac, wire_mac,
};
use weft_ebpf::parse::{Headers, parse, parse_quoted};
use weft_ebpf::translate::{Tuple, translate};
use weft_ebpf::work::Work;

fn addresses() -> impl Strategy<
    Value = (
        std::net::IpAddr,
        std::net::IpAddr,
        std::net::IpAddr,
        std::net::IpAddr,
    ),
> {
    let four =
        any::<[[u8; 4]; 4]>().prop_map(|a| (a[0].into(), a[1].into(), a[2].into(), a[3].into()));
    let six = any::<[[u8; 16]; 4]>()
        // A mapped address cannot come in an IPv6 header.
        .prop_map(|a| {
            a.map(|mut a| {
                a[0] |= 1;
                a
            })
        })
        .prop_map(|a| (a[0].into(), a[1].into(), a[2].into(), a[3].into()));
    prop_oneof![four, six]
}

proptest! {
    #[test]
    fn translating_there_and_back_gives_the_same_bytes(
        (src, dst, src2, dst2) in addresses(),
        ports in any::<[u16; 4]>(),
        udp: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let l4 = if udp { L4::Udp(ports[0], ports[1]) } else { L4::Tcp(ports[0], ports[1], 16) };
        let frame = Frame { dst_mac: [2; 6], src_mac: [4; 6], src, dst, l4, payload };
        let before = frame.bytes();
        let mut p = Bytes::new(before.clone(), 1);
        let mut ip = Headers::NONE;
        prop_assert!(parse(&p, &mut ip).is_ok());
        let there = Tuple {
            src: src2.into(), dst: dst2.into(), sport: Be16::new(ports[2]), dport: Be16::new(ports[3]),
        };
        prop_assert!(translate(&mut p, &ip, &there));
        let read = Frame::read(&p.bytes);
        prop_assert!(read.is_some(), "a checksum is wrong: {:02x?}", p.bytes);
        let wanted = if udp { L4::Udp(ports[2], ports[3]) } else { L4::Tcp(ports[2], ports[3], 16) };
        prop_assert_eq!(read, Some(Frame { src: src2, dst: dst2, l4: wanted, ..frame }));
        let mut ip = Headers::NONE;
        prop_assert!(parse(&p, &mut ip).is_ok());
        let back = Tuple { src: src.into(), dst: dst.into(), sport: Be16::new(ports[0]), dport: Be16::new(ports[1]) };
        prop_assert!(translate(&mut p, &ip, &back));
        // One's complement has two zeros; where the sums differ, they differ so.
        let same = p.bytes == before || Frame::read(&p.bytes) == Frame::read(&before);
        prop_assert!(same, "{:02x?} became {:02x?}", before, p.bytes);
    }

    #[test]
    fn no_udp_checksum_stays_none(ports in any::<[u16; 2]>(), to in any::<[u8; 4]>()) {
        let frame = Frame {
            dst_mac: [2; 6], src_mac: [4; 6], src: [1, 2, 3, 4].into(), dst: [5, 6, 7, 8].into(),
            l4: L4::Udp(ports[0], ports[1]), payload: vec![1, 2, 3],
        };
        let mut bytes = frame.bytes();
        bytes[40] = 0;
        bytes[41] = 0;
        let mut p = Bytes::new(bytes, 1);
        let mut ip = Headers::NONE;
        prop_assert!(parse(&p, &mut ip).is_ok());
        let there = Tuple { src: ip.src, dst: Addr::v4(to), sport: ip.sport, dport: Be16::new(9) };
        prop_assert!(translate(&mut p, &ip, &there));
        prop_assert_eq!(&p.bytes[40..42], &[0, 0]);
    }

    #[test]
    fn random_bytes_are_judged_without_a_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        shape in 0..6u8,
        link in 1..18u32,
        tunnelled: bool,
        from in 0..4u32,
    ) {
        // Most random bytes fail at once; a head that looks right lets the rest be tried.
        let heads: [&[u8]; 5] = [
            &[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[8, 6, 0, 1, 8, 0, 6, 4], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 60, 44],
            &[8, 0, 0x4f],
        ];
        if let Some(head) = heads.get(usize::from(shape))
            && bytes.len() >= 14 + head.len()
        {
            bytes[12..12 + head.len()].copy_from_slice(head);
            bytes[6..12].copy_from_slice(&task_mac(link.saturating_sub(10)));
            if tunnelled {
                bytes[0..6].copy_from_slice(&task_mac(from));
                bytes[6..12].copy_from_slice(&wire_mac(Leg::from_u8(1 + shape).unwrap_or(Leg::Host), from));
            }
        }
        let world = rows::town::town();
        let mut work = Work::NONE;
        for program in Program::ALL {
            let mut p = Bytes::new(bytes.clone(), link);
            p.tunnel = Some(weft_ebpf::packet::Tunnel {
                vni: rows::town::WEB, remote: rows::town::Family { v6: false }.node(2).into(),
            });
            let _ = match program {
                Program::UplinkIn => weft_ebpf::uplink::judge(&mut p, &world, &mut work),
                Program::OverlayIn => weft_ebpf::overlay::judge(&mut p, &world, &mut work),
                Program::HostOut => weft_ebpf::host::judge(&mut p, &world, &mut work),
                Program::TaskIn | Program::Sock => weft_ebpf::task::judge(&mut p, &world, &mut work),
            };
            let mut quoted = Headers::NONE;
            let _ = parse_quoted(&p, &mut quoted, 42, shape & 1 == 0);
        }
    }

    #[test]
    fn a_range_is_its_pieces(first: u16, more: u16) {
        let last = first.saturating_add(more);
        let mut next = u32::from(first);
        let mut count = 0;
        for (port, bits) in range_pieces(first, last) {
            prop_assert_eq!(u32::from(port), next);
            prop_assert_eq!(next % (1 << bits), 0, "a piece begins where its free bits are zero");
            next += 1 << bits;
            count += 1;
        }
        prop_assert_eq!(next, u32::from(last) + 1);
        prop_assert!(count <= 30, "{count} pieces");
    }

    #[test]
    fn a_slot_is_in_its_ring(hash: u32, size in 1..70_000u32) {
        prop_assert!(ring_slot(hash, size) < size);
    }

    #[test]
    fn a_slot_of_a_larger_ring_lies_in_the_slot_of_the_smaller(hash: u32, sizes in (0..RING_SIZES.len() - 1)) {
        let [small, large] = [RING_SIZES[sizes], RING_SIZES[sizes + 1]];
        prop_assert_eq!(ring_slot(hash, large) / (large / small), ring_slot(hash, small));
    }

    #[test]
    fn hardware_addresses_say_what_was_said(id: u32, n in 1..8u8) {
        prop_assert_eq!(task_of_mac(task_mac(id)), Some(id));
        let leg = Leg::from_u8(n).unwrap_or(Leg::Plain);
        prop_assert_eq!(Leg::of_mac(wire_mac(leg, id)), Some((leg, id)));
        prop_assert_eq!(wire_mac(leg, id)[0] & 3, 0);
    }
}

#[test]
fn the_ring_hash_spreads() {
    for seed in [0, 1, 0xdead_beef] {
        for size in RING_SIZES {
            let buckets = 16;
            let mut counts = vec![0u32; buckets];
            let total = 64_000u32;
            for n in 0..total {
                let client = Addr::v4([192, 0, (n >> 14) as u8, 100]);
                let hash = ring_hash(
                    seed,
                    &client,
                    Be16::new(n as u16),
                    &Addr::v4([192, 0, 2, 11]),
                    Be16::new(8000),
                    6,
                    0,
                );
                counts[ring_slot(hash, size) as usize * buckets / size as usize] += 1;
            }
            let even = total / buckets as u32;
            for count in counts {
                // Six standard deviations.
                assert!(
                    count.abs_diff(even) < 380,
                    "{count} of {even} with {size} slots, seed {seed}"
                );
            }
        }
    }
}
