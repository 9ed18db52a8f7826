//! ICMP errors about translated flows.

use weft_abi::{Config, Done};

use crate::packet::Packet;
use crate::tables::Tables;
use crate::verdict::Verdict;
use crate::work::Work;

/// An error from the world about an answer of ours.
#[inline(always)]
pub fn from_world<P: Packet, T: Tables>(
    _p: &mut P,
    _t: &T,
    _cfg: &Config,
    _w: &mut Work,
) -> Verdict {
    Verdict::Next(Done::NotOurs)
}

/// An error that another node tunnelled to a backend here.
#[inline(always)]
pub fn from_node<P: Packet, T: Tables>(
    _p: &mut P,
    _t: &T,
    _cfg: &Config,
    _w: &mut Work,
    _vni: u32,
    _to: u32,
) -> Verdict {
    Verdict::Drop(weft_abi::Drop::UnsupportedIcmp)
}

/// An error that a task sends about a client's packet.
#[inline(always)]
pub fn from_task<P: Packet, T: Tables>(
    _p: &mut P,
    _t: &T,
    _cfg: &Config,
    _own: &weft_abi::Endpoint,
    _w: &mut Work,
) -> Option<Verdict> {
    None
}
