//! How much passes in a time, by the clock.

use weft_abi::{Cap, Done, config};
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::bytes::Bytes;
use crate::rows::frames::{Frame, L4};
use crate::rows::town::{Family, UPLINK, frame, from_task, link_of, town};
use crate::rows::world::World;

const FAMILIES: [Family; 2] = [Family { v6: false }, Family { v6: true }];
const SECOND: u64 = 1_000_000_000;
/// Bytes of every frame here.
const LENGTH: u64 = 1000;

fn capped(rate: u64, burst: u64) -> World {
    let mut world = town();
    if let Some(config) = &mut world.config {
        config.flags |= config::CAPS;
    }
    world.caps.insert(1, Cap { rate, burst });
    world
}

fn filled(frame: Frame) -> Frame {
    let header = if frame.src.is_ipv6() { 62 } else { 42 };
    Frame {
        payload: vec![7; LENGTH as usize - header],
        ..frame
    }
}

fn question(f: Family, port: u16) -> Frame {
    filled(frame(f.client(), f.node(1), L4::Udp(4000, port)))
}

/// What becomes of a frame at a time; one of task 1 when it is no question.
fn judged(world: &World, frame: &Frame, asked: bool, now: u64) -> Verdict {
    let mut work = Work::NONE;
    let link = if asked { UPLINK } else { link_of(1) };
    let mut p = Bytes::new(frame.bytes(), link);
    p.now = now;
    if asked {
        weft_ebpf::uplink::judge(&mut p, world, &mut work)
    } else {
        weft_ebpf::task::judge(&mut p, world, &mut work)
    }
}

#[test]
fn a_cap_lets_its_rate_pass_and_at_once_what_it_allows() {
    for f in FAMILIES {
        // A hundred frames a second, and ten at once.
        let world = capped(100 * LENGTH, 10 * LENGTH);
        let asks = question(f, 8000);
        let answers = filled(from_task(1, f.task(1), f.client(), L4::Udp(80, 4000)));
        for (frame, asked) in [(&asks, true), (&answers, false)] {
            let pass = |times: u64, from: u64, every: u64| {
                (0..times)
                    .filter(|at| {
                        let verdict = judged(&world, frame, asked, from + at * every);
                        !matches!(verdict, Verdict::Drop(weft_abi::Drop::OverCap))
                    })
                    .count()
            };
            // One more than what may come at once: it waits for nobody, those after it do.
            assert_eq!(pass(50, SECOND, 0), 11, "at once, asked: {asked}");
            // Ten times as many as may pass; what is dropped counts for nothing.
            assert_eq!(pass(1000, SECOND, SECOND / 1000), 99, "asked: {asked}");
            assert_eq!(pass(50, 60 * SECOND, 0), 11, "after a rest");
        }
    }
}

#[test]
fn a_cap_of_nothing_is_none() {
    for f in FAMILIES {
        let world = capped(0, 0);
        for at in 0..10 {
            let verdict = judged(&world, &question(f, 8000), true, SECOND + at);
            assert!(matches!(verdict, Verdict::Peer(..)), "{verdict:?}");
        }
    }
}

#[test]
fn a_cap_that_no_link_reaches_holds_nobody() {
    for f in FAMILIES {
        let world = capped(u64::MAX, u64::MAX);
        for _ in 0..10 {
            let verdict = judged(&world, &question(f, 8000), true, SECOND);
            assert!(matches!(verdict, Verdict::Peer(..)), "{verdict:?}");
        }
        let slow = capped(1, u64::MAX);
        for _ in 0..10 {
            let verdict = judged(&slow, &question(f, 8000), true, SECOND);
            assert!(matches!(verdict, Verdict::Peer(..)), "{verdict:?}");
        }
    }
}

#[test]
fn a_thousand_errors_are_told_in_a_second_and_fifty_at_once() {
    for f in FAMILIES {
        let world = town();
        let told = |times: u64, from: u64, every: u64| {
            (0..times)
                .filter(|at| {
                    let verdict = judged(&world, &question(f, 8002), true, from + at * every);
                    verdict == Verdict::Neighbour(UPLINK, Done::Refused)
                })
                .count()
        };
        assert_eq!(told(200, SECOND, 0), 51);
        assert_eq!(told(10_000, SECOND, SECOND / 10_000), 999);
        assert_eq!(told(200, 60 * SECOND, 0), 51);
    }
}
