//! `host_out`: what the node's own stack sends into the tunnel device.

use weft_abi::{Config, Done, Drop, GATEWAY_MAC, Leg, Mac, NetAddr, node_addr};

use crate::encap::{Hop, outer, store_macs};
use crate::packet::Packet;
use crate::parse::{Headers, NotParsed, parse};
use crate::refuse::refusal;
use crate::tables::Tables;
use crate::verdict::Verdict;
use crate::work::Work;

/// Judges a frame that leaves by the tunnel device.
#[inline(always)]
pub fn judge<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work) -> Verdict {
    let Some(cfg) = t.config() else {
        return Verdict::Drop(Drop::NoConfig);
    };
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
        Err(NotParsed::Tiny) => return Verdict::Drop(Drop::TinyFragment),
    }
    let ip = &w.ip;
    if ip.dst.is_multicast() {
        return Verdict::Drop(Drop::Multicast);
    }
    if ip.overwriting {
        return Verdict::Drop(Drop::TinyFragment);
    }
    let Some(net) = t.subnet(&ip.dst) else {
        return probe(p, t, cfg, w);
    };
    let Some(task) = t.task(&NetAddr { net, addr: ip.dst }) else {
        return gone(p, t, cfg, ip);
    };
    if task.ifindex != 0 {
        let Some(mac) = t.endpoint(task.ifindex).map(|e| e.mac) else {
            return gone(p, t, cfg, ip);
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
        load: 0,
    };
    match outer(p, t, &hop, None) {
        Ok(tunnel) => Verdict::Encap(tunnel, Done::ToNode),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Hardware addresses of what this host answers itself: what comes in so, and through no tunnel, was made here.
const ANSWERED: (&Mac, &Mac) = (&GATEWAY_MAC, &GATEWAY_MAC);

/// Whether a frame that came through no tunnel is an answer of [`gone`].
#[inline(always)]
pub fn is_answered(m: &[u8; 12]) -> bool {
    let mut same = true;
    let mut i = 0;
    while i < 6 {
        same &= m[i] == ANSWERED.0[i] && m[6 + i] == ANSWERED.1[i];
        i += 1;
    }
    same
}

/// To a task that nobody knows: not yet, and the process asks again; or no more, and it must not wait.
#[inline(always)]
fn gone<P: Packet, T: Tables>(p: &mut P, t: &T, cfg: &Config, ip: &Headers) -> Verdict {
    if ip.is_syn() || refusal(p, t, ip, Drop::NoSuchTask, 0).is_none() {
        return Verdict::Drop(Drop::NoSuchTask);
    }
    if !store_macs(p, ANSWERED.0, ANSWERED.1) {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    Verdict::In(cfg.overlay, Done::Refused)
}

/// To another node's own stack, by the way that tasks' packets take.
#[inline(always)]
fn probe<P: Packet, T: Tables>(p: &mut P, t: &T, cfg: &Config, w: &Work) -> Verdict {
    let node = match t.node_by_addr(&w.ip.dst) {
        Some(known) if known.flags & node_addr::UNDERLAY != 0 => known.node,
        _ => return Verdict::Drop(Drop::NoSuchTask),
    };
    if cfg.mesh == 0 || node == cfg.node {
        return Verdict::Drop(Drop::NoSuchTask);
    }
    let hop = Hop {
        node,
        vni: cfg.mesh,
        leg: Leg::Host,
        said: 0,
        to: 0,
        load: 0,
    };
    match outer(p, t, &hop, None) {
        Ok(tunnel) => Verdict::Encap(tunnel, Done::ToNode),
        Err(reason) => Verdict::Drop(reason),
    }
}
