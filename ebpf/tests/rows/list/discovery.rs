//! What a task says to its neighbours, and what it must not say.

use std::net::IpAddr;

use weft_abi::*;
use weft_ebpf::verdict::Verdict;

use super::small::{advertisement, arp, octets, solicitation};
use super::*;

/// A neighbour discovery message of task 3: its type, and what follows the first eight bytes.
fn message(kind: u8, src: IpAddr, dst: IpAddr, payload: Vec<u8>) -> Frame {
    Frame {
        payload,
        ..from_task(3, src, dst, L4::Icmp(kind, 0))
    }
}

pub(super) fn refused(f: Family) -> Vec<Row> {
    if !f.v6 {
        // The frame's own source is true.
        let mut other = arp(1, task_mac(3), f.task(3), f.on(WEB, 1));
        other[27] ^= 1;
        return vec![row(
            "ARP in the name of another card",
            f,
            town(),
            vec![Step::raw(
                "question",
                Program::TaskIn,
                link_of(3),
                other,
                drop(Drop::SpoofedMac),
            )],
        )];
    }
    let (t3, t6, asked) = (f.task(3), f.task(6), f.on(WEB, 1));
    let local = |digit| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, digit]);
    let all = IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]);
    let answered = Verdict::Out(link_of(3), Done::Answered);
    let raw = |name, bytes, verdict| Step::raw(name, Program::TaskIn, link_of(3), bytes, verdict);
    // With its hardware address and a nonce (RFC 7527): longer than the answer.
    let mut long = octets(asked);
    long.extend([1, 1]);
    long.extend(task_mac(3));
    long.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    let mut deep = solicitation(t3, asked);
    let inner = std::mem::replace(&mut deep[20], 60);
    deep.splice(54..54, [inner, 0, 1, 4, 0, 0, 0, 0]);
    deep[19] += 8;
    let mut told = octets(t3);
    told.extend([2, 1]);
    told.extend(task_mac(3));
    let kept = drop(Drop::Multicast);
    vec![row(
        "neighbour discovery's small print",
        f,
        town(),
        vec![
            raw(
                "of its own link's address",
                solicitation(local(3), asked),
                answered,
            )
            .exact(advertisement(local(3), asked)),
            raw(
                "with more options than the answer has",
                message(135, t3, all, long).bytes(),
                answered,
            )
            .exact(advertisement(t3, asked)),
            raw("for itself", solicitation(t3, t3), drop(Drop::AddressProbe)),
            raw("behind another header", deep, drop(Drop::Malformed)),
            task(
                "an answer to the host",
                3,
                &message(136, t3, local(1), told.clone()),
                next(Done::ToHost),
            ),
            task(
                "an announcement to all",
                3,
                &message(136, t3, all, told),
                kept,
            ),
            task(
                "a router's advertisement",
                3,
                &message(134, t3, t6, vec![0; 8]),
                kept,
            ),
            task("a redirect", 3, &message(137, t3, t6, vec![0; 32]), kept),
        ],
    )]
}
