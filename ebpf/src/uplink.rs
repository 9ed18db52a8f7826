//! `uplink_in`: what comes in from the world.

use weft_abi::{Config, Done, Drop, FragPorts};

use crate::conntrack::Origin;
use crate::encap::{is_for_tunnel, sender};
use crate::mesh::serve;
use crate::packet::Packet;
use crate::parse::{NotParsed, Part, parse};
use crate::refuse::{Refusal, refusal};
use crate::service;
use crate::tables::Tables;
use crate::verdict::Verdict;
use crate::work::Work;
use crate::{fragment, icmp};

/// Judges a frame that came in on a link to the world.
///
/// What cannot be parsed is the stack's to refuse: it is not ours until it names a published port.
#[inline(always)]
pub fn judge<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work) -> Verdict {
    // A switch that floods shows us frames for others; taking one would steal its answer.
    if !p.is_for_host() {
        return Verdict::Next(Done::NotOurs);
    }
    let Some(cfg) = t.config() else {
        return Verdict::Next(Done::NotOurs);
    };
    match parse(p, &mut w.ip) {
        Ok(()) => {}
        Err(NotParsed::Tiny) if is_published(t, cfg, w) => {
            return Verdict::Drop(Drop::TinyFragment);
        }
        Err(_) => return Verdict::Next(Done::NotOurs),
    }
    let ip = &mut w.ip;
    if ip.part != Part::Later && is_for_tunnel(t, cfg, ip) {
        // What this host would only forward would leave with its own address, which others believe.
        if !t.is_local(&ip.dst) {
            return Verdict::Drop(Drop::TunnelForged);
        }
        if sender(t, &ip.src).is_none() {
            return Verdict::Drop(Drop::NotANode);
        }
        return Verdict::Next(Done::NotOurs);
    }
    if t.subnet(&ip.src).is_some() {
        return Verdict::Drop(Drop::OverlaySource);
    }
    if t.subnet(&ip.dst).is_some() {
        return Verdict::Drop(Drop::OverlayDestination);
    }
    if ip.is_icmp_error() {
        return icmp::from_world(p, t, cfg, w);
    }
    if !ip.has_ports() {
        return Verdict::Next(Done::NotOurs);
    }
    if ip.part == Part::Later {
        fragment::key(ip, 0, &mut w.notes.frag);
        let Some(ports) = t.frag(&w.notes.frag) else {
            return Verdict::Next(Done::NotOurs);
        };
        if ip.overwriting {
            return Verdict::Drop(Drop::TinyFragment);
        }
        fragment::fill(ip, &ports);
    }
    service_of(p, t, cfg, w)
}

#[inline(always)]
fn is_published<T: Tables>(t: &T, cfg: &Config, w: &Work) -> bool {
    t.is_local(&w.ip.dst) && service::published(t, cfg, &w.ip.dst, w.ip.dport, w.ip.proto).is_some()
}

#[inline(always)]
fn service_of<P: Packet, T: Tables>(p: &mut P, t: &T, cfg: &Config, w: &mut Work) -> Verdict {
    let ip = &w.ip;
    let Some(front) = service::published(t, cfg, &ip.dst, ip.dport, ip.proto) else {
        return Verdict::Next(Done::NotOurs);
    };
    if !t.is_local(&ip.dst) {
        return Verdict::Next(Done::NotOurs);
    }
    if !service::admits(t, &front, &ip.src) {
        return Verdict::Drop(Drop::NotAllowed);
    }
    if ip.part == Part::First {
        fragment::key(ip, 0, &mut w.notes.frag);
        t.set_frag(
            &w.notes.frag,
            &FragPorts {
                sport: ip.sport,
                dport: ip.dport,
            },
        );
    }
    w.ask.front = front;
    service::wire_key(&mut w.ask.key, cfg.mesh, ip);
    w.ask.origin = Origin {
        ingress: cfg.node,
        link: p.ifindex(),
        flags: 0,
    };
    let verdict = serve(p, t, cfg, ip, &w.ask, &mut w.notes);
    let Verdict::Drop(reason) = verdict else {
        return verdict;
    };
    match refusal(p, t, ip, reason, w.notes.mtu) {
        Some(Refusal::Reset) => Verdict::Neighbour(p.ifindex(), Done::Refused),
        Some(Refusal::Told(done)) => Verdict::Neighbour(p.ifindex(), done),
        None => verdict,
    }
}
