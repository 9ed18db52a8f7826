//! `host_out`: what the node's own stack sends into the tunnel device.

use weft_abi::{Done, Drop, GATEWAY_MAC, Leg, NetAddr};

use crate::encap::{Hop, outer, store_macs};
use crate::packet::Packet;
use crate::parse::{NotParsed, parse};
use crate::tables::Tables;
use crate::verdict::Verdict;
use crate::work::Work;

/// Judges a frame that leaves by the tunnel device.
#[inline(always)]
pub fn judge<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work) -> Verdict {
    if t.config().is_none() {
        return Verdict::Drop(Drop::NoConfig);
    }
    // What the other programs redirect here passes this hook too, addressed already.
    let Some(m) = p.load::<12>(0) else {
        return Verdict::Drop(Drop::Malformed);
    };
    if Leg::of_mac([m[6], m[7], m[8], m[9], m[10], m[11]]).is_some() {
        return Verdict::Next(Done::NotOurs);
    }
    // The overlay is no road for others: only what this host's processes made may enter.
    if p.is_received() {
        return Verdict::Drop(Drop::Forwarded);
    }
    match parse(p, &mut w.ip) {
        Ok(()) => {}
        Err(NotParsed::NotIp(_)) => return Verdict::Drop(Drop::UnsupportedEther),
        Err(NotParsed::Malformed) => return Verdict::Drop(Drop::Malformed),
        Err(NotParsed::TooDeep) => return Verdict::Drop(Drop::UnsupportedExtension),
    }
    let ip = &w.ip;
    if ip.dst.is_multicast() {
        return Verdict::Drop(Drop::Multicast);
    }
    let Some(net) = t.subnet(&ip.dst) else {
        return Verdict::Drop(Drop::NoSuchTask);
    };
    let Some(task) = t.task(&NetAddr { net, addr: ip.dst }) else {
        return Verdict::Drop(Drop::NoSuchTask);
    };
    if task.ifindex != 0 {
        let Some(mac) = t.endpoint(task.ifindex).map(|e| e.mac) else {
            return Verdict::Drop(Drop::NoSuchTask);
        };
        if !store_macs(p, &mac, &GATEWAY_MAC) {
            return Verdict::Drop(Drop::RewriteRefused);
        }
        return Verdict::Out(task.ifindex, Done::ToTask);
    }
    let hop = Hop {
        node: task.node,
        vni: net,
        leg: Leg::Host,
        said: 0,
        to: task.id,
    };
    match outer(p, t, &hop) {
        Ok(tunnel) => Verdict::Encap(tunnel, Done::ToNode),
        Err(reason) => Verdict::Drop(reason),
    }
}
