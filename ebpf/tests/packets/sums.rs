//! Checksums at their corners: where a sum wraps around, and where it is zero.

use weft_abi::{Be16, Done};
use weft_ebpf::parse::{Headers, parse};
use weft_ebpf::translate::{Tuple, translate};
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::bytes::Bytes;
use crate::rows::frames::{Frame, L4, add, fold};
use crate::rows::town::{Family, UPLINK, frame, town};

const FAMILIES: [Family; 2] = [Family { v6: false }, Family { v6: true }];

#[test]
fn whatever_is_told_of_has_a_right_sum_and_quotes_one() {
    let mut work = Work::NONE;
    for f in FAMILIES {
        let world = town();
        for port in 1..=u16::MAX {
            *world.told.borrow_mut() = 0;
            let asked = frame(f.client(), f.node(1), L4::Udp(port, 8002));
            let mut p = Bytes::new(asked.bytes(), UPLINK);
            let verdict = weft_ebpf::uplink::judge(&mut p, &world, &mut work);
            assert_eq!(verdict, Verdict::Neighbour(UPLINK, Done::Refused));
            let Some(error) = Frame::read(&p.bytes) else {
                panic!("about port {port}: {:02x?}", p.bytes)
            };
            // The quoted field is one that the kernel leaves as it is, and none that says that there is no sum.
            let transport = &error.payload[if f.v6 { 40 } else { 20 }..];
            let field = u16::from_be_bytes([transport[6], transport[7]]);
            let made = match !fold(add(transport)) {
                0 => 0xffff,
                sum => sum,
            };
            assert_eq!(made, field, "port {port}");
        }
    }
}

#[test]
fn a_datagrams_sum_of_zero_is_written_as_ones() {
    for f in FAMILIES {
        // The address alone, the port alone, both.
        for (to, dport) in [(f.task(1), 8000), (f.node(1), 80), (f.task(1), 80)] {
            let mut ones = 0;
            for port in 1..=u16::MAX {
                let asked = frame(f.client(), f.node(1), L4::Udp(port, 8000));
                let mut p = Bytes::new(asked.bytes(), UPLINK);
                let mut ip = Headers::NONE;
                assert_eq!(parse(&p, &mut ip), Ok(()));
                let there = Tuple {
                    dst: to.into(),
                    dport: Be16::new(dport),
                    ..Tuple::of(&ip)
                };
                assert!(translate(&mut p, &ip, &there));
                let at = ip.l4 as usize + 6;
                assert_ne!(p.bytes[at..at + 2], [0, 0], "from port {port}");
                assert!(Frame::read(&p.bytes).is_some(), "from port {port}");
                ones += u32::from(p.bytes[at..at + 2] == [0xff, 0xff]);
            }
            assert_eq!(ones, 1, "one port of all has it");
        }
    }
}
