//! A packet as bytes, with the meaning that the kernel's helpers give to each change.

use std::collections::BTreeMap;

use weft_abi::Addr;
use weft_ebpf::packet::{Packet, Sum, Tunnel};
use weft_ebpf::translate::Tuple;
use weft_ebpf::work::Paper;

/// A packet and what surrounds it.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    pub(crate) bytes: Vec<u8>,
    pub(crate) link: u32,
    pub(crate) for_host: bool,
    pub(crate) received: bool,
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) routes: BTreeMap<Addr, u32>,
    pub(crate) claimed: bool,
    pub(crate) segment: u32,
    /// Nanoseconds of the clock.
    pub(crate) now: u64,
    /// Changes that were asked for, and which of them is refused, counted from 1.
    pub(crate) changes: u32,
    pub(crate) refused: u32,
    /// Connections of this host, as packets to them carry their ends.
    pub(crate) connected: Vec<Tuple>,
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn words(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|c| u64::from(u16::from_ne_bytes([c[0], c.get(1).copied().unwrap_or(0)])))
        .sum()
}

impl Bytes {
    /// A packet that came in on `link`, addressed to this host.
    pub(crate) fn new(bytes: Vec<u8>, link: u32) -> Self {
        Self {
            bytes,
            link,
            for_host: true,
            received: true,
            tunnel: None,
            routes: BTreeMap::new(),
            claimed: false,
            segment: 0,
            now: 1,
            changes: 0,
            refused: 0,
            connected: Vec::new(),
        }
    }

    /// Whether the next change is made.
    fn may_change(&mut self) -> bool {
        self.changes += 1;
        self.changes != self.refused
    }

    fn change_sum(&mut self, at: usize, from: u64, to: u64) -> bool {
        let Some(old) = self.bytes.get(at..at + 2) else {
            return false;
        };
        let old = u16::from_ne_bytes([old[0], old[1]]);
        let sum = u64::from(!old) + u64::from(!fold(from)) + to;
        let new = !fold(sum);
        self.bytes[at..at + 2].copy_from_slice(&new.to_ne_bytes());
        true
    }
}

impl Packet for Bytes {
    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }
    fn segment(&self) -> u32 {
        self.segment
    }
    fn ifindex(&self) -> u32 {
        self.link
    }
    fn is_for_host(&self) -> bool {
        self.for_host
    }
    fn is_received(&self) -> bool {
        self.received
    }
    fn now(&self) -> u64 {
        self.now
    }
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.bytes.get(at as usize..)?.first_chunk().copied()
    }
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        let at = at as usize;
        if !self.may_change() {
            return false;
        }
        match self.bytes.get_mut(at..at + N) {
            Some(place) => {
                place.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
    fn sum_ip(&mut self, at: u32, from: u32, to: u32) -> bool {
        self.may_change()
            && self.change_sum(
                at as usize,
                words(&from.to_ne_bytes()),
                words(&to.to_ne_bytes()),
            )
    }
    fn sum_transport(&mut self, at: u32, from: u32, to: u32, what: Sum, udp: bool) -> bool {
        let at = at as usize;
        if !self.may_change() {
            return false;
        }
        if udp && self.bytes.get(at..at + 2) == Some(&[0, 0]) {
            return true;
        }
        let changed = match what {
            Sum::Word16 => self.change_sum(at, u64::from(from as u16), u64::from(to as u16)),
            Sum::Pseudo4 => {
                self.change_sum(at, words(&from.to_ne_bytes()), words(&to.to_ne_bytes()))
            }
            Sum::Pseudo6 | Sum::Payload => self.change_sum(at, 0, u64::from(to)),
        };
        if changed && udp && self.bytes[at..at + 2] == [0, 0] {
            self.bytes[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
        changed
    }
    fn difference(from: &[u32; 4], to: &[u32; 4]) -> u32 {
        let mut sum = 0u64;
        for (from, to) in from.iter().zip(to) {
            sum += words(&to.to_ne_bytes()) + words(&(!from).to_ne_bytes());
        }
        u32::from(fold(sum))
    }
    fn sum<const N: usize>(bytes: &[u8; N]) -> u16 {
        fold(words(bytes))
    }
    fn set_len(&mut self, len: u32) -> bool {
        let may = self.may_change();
        if may {
            self.bytes.resize(len as usize, 0);
        }
        may
    }
    fn grow_head(&mut self, by: u32) -> bool {
        let may = self.may_change();
        if may {
            self.bytes.splice(0..0, vec![0; by as usize]);
        }
        may
    }
    fn claim(&mut self) {
        self.claimed = true;
    }
    fn tunnel(&self) -> Option<Tunnel> {
        self.tunnel
    }
    fn is_connected(&self, ends: &Tuple, _: bool, _: &mut Paper) -> bool {
        self.connected.contains(ends)
    }
    fn route(&self, _: &Addr, dst: &Addr) -> Option<u32> {
        self.routes.get(dst).copied()
    }
}
