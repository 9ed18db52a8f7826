//! ICMP errors about translated flows: both the outer addresses and the quoted packet must speak of what
//! the receiver knows.

use weft_abi::{Addr, Config, Done, Drop, Endpoint, Front, Leg, flow};

use crate::conntrack::{Hit, about};
use crate::encap::{Hop, hand_over, send};
use crate::packet::{Packet, Sum};
use crate::parse::{Headers, Part, TCP, parse_quoted};
use crate::service;
use crate::tables::Tables;
use crate::task::send_back;
use crate::translate::{Tuple, change_addr};
use crate::verdict::Verdict;
use crate::work::Work;

/// Length of an ICMP header before what it quotes.
const HEADER: u32 = 8;

/// Reads what an error quotes. False when it is not about a packet of ours.
#[inline(always)]
fn quote<P: Packet>(p: &P, w: &mut Work) -> bool {
    parse_quoted(p, &mut w.quoted, w.ip.l4 + HEADER, w.ip.v6).is_ok()
        && w.quoted.has_ports()
        && w.quoted.part != Part::Later
}

/// An error from the world about an answer of ours: it goes where that answer came from.
#[inline(always)]
pub fn from_world<P: Packet, T: Tables>(p: &mut P, t: &T, cfg: &Config, w: &mut Work) -> Verdict {
    if !quote(p, w) || !w.ip.dst.same(&w.quoted.src) || !t.is_local(&w.ip.dst) {
        return Verdict::Next(Done::NotOurs);
    }
    let Some(front) = service::published(t, cfg, &w.quoted.src, w.quoted.sport, w.quoted.proto)
    else {
        return Verdict::Next(Done::NotOurs);
    };
    service::answered_key(&mut w.ask.key, cfg.mesh, &w.quoted);
    if about(t, &w.ask.key, &mut w.notes.hit) {
        return to_local(p, t, w);
    }
    let pick = t.pick(&w.ask.key);
    let ends = Tuple::of(&w.quoted).turned();
    let tcp = w.quoted.proto == TCP;
    if pick.is_none() && p.is_connected(&ends, tcp, &mut w.notes.paper) {
        return Verdict::Next(Done::HostsOwn);
    }
    match service::likely(t, cfg, &front, &w.ask.key, pick) {
        Some(choice) if choice.node != cfg.node => {
            let hop = Hop {
                node: choice.node,
                vni: cfg.mesh,
                leg: Leg::Mesh,
                said: 0,
                to: choice.id,
                load: 0,
            };
            send(p, t, &hop, None, Done::ToBackendNode)
        }
        _ => Verdict::Next(Done::NotOurs),
    }
}

/// A task's error about an answer that it got from a VIP it asked by packet: it goes where that answer came from.
#[inline(always)]
pub fn from_asker<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    own: &Endpoint,
    front: &Front,
    w: &mut Work,
) -> Verdict {
    // A task speaks of what came to itself alone.
    if !quote(p, w) || !w.ip.dst.same(&w.quoted.src) || !w.ip.src.same(&w.quoted.dst) {
        return Verdict::Drop(Drop::UnsupportedIcmp);
    }
    service::answered_key(&mut w.ask.key, own.net, &w.quoted);
    if about(t, &w.ask.key, &mut w.notes.hit) {
        return to_local(p, t, w);
    }
    let pick = t.pick(&w.ask.key);
    match service::likely(t, cfg, front, &w.ask.key, pick) {
        Some(choice) if choice.node != cfg.node => {
            let hop = Hop {
                node: choice.node,
                vni: own.net,
                leg: Leg::Vip,
                said: 0,
                to: choice.id,
                load: 0,
            };
            send(p, t, &hop, None, Done::ToBackendNode)
        }
        _ => Verdict::Drop(Drop::UnsupportedIcmp),
    }
}

/// An error that the client's node tunnelled to the backend here.
#[inline(always)]
pub fn from_node<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work, vni: u32) -> Verdict {
    if !quote(p, w) || !w.ip.dst.same(&w.quoted.src) {
        return Verdict::Drop(Drop::UnsupportedIcmp);
    }
    service::answered_key(&mut w.ask.key, vni, &w.quoted);
    if !about(t, &w.ask.key, &mut w.notes.hit) {
        return Verdict::Drop(Drop::UnsupportedIcmp);
    }
    to_local(p, t, w)
}

/// The flow is here: the error speaks of the task's own packet, and goes to it.
#[inline(always)]
fn to_local<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work) -> Verdict {
    let hit: &Hit = &w.notes.hit;
    let Some(task) = t.local_task(hit.backend) else {
        return Verdict::Drop(Drop::NoSuchTask);
    };
    let quoted = hit.to.turned();
    // The client itself is told of by the name that the task knows it by; a router's is its own.
    let src = if w.ip.src.same(&w.quoted.dst) {
        hit.to.src
    } else {
        w.ip.src
    };
    if !rewrite(p, &w.ip, &w.quoted, &src, &hit.to.dst, &quoted) {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    hand_over(p, task, Done::IcmpTranslated)
}

/// An error of a task about a client's packet: it speaks of the packet the client sent, and goes to it.
#[inline(always)]
pub fn from_task<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    own: &Endpoint,
    w: &mut Work,
) -> Option<Verdict> {
    if !quote(p, w) {
        return None;
    }
    service::answered_key(&mut w.ask.key, own.net, &w.quoted);
    w.ask.key.side = flow::REPLY;
    if !about(t, &w.ask.key, &mut w.notes.hit) {
        return None;
    }
    let hit = &w.notes.hit;
    let quoted = hit.to.turned();
    if !rewrite(p, &w.ip, &w.quoted, &hit.to.src, &hit.to.dst, &quoted) {
        return Some(Verdict::Drop(Drop::RewriteRefused));
    }
    Some(send_back(p, t, cfg, hit, None))
}

/// Rewrites an error's own addresses and the quoted tuple.
///
/// The quoted transport checksum stays as it was: receivers do not look at it, and it is often cut off.
#[inline(always)]
fn rewrite<P: Packet>(
    p: &mut P,
    ip: &Headers,
    q: &Headers,
    src: &Addr,
    dst: &Addr,
    quoted: &Tuple,
) -> bool {
    let (src_at, dst_at) = if ip.v6 { (8, 24) } else { (12, 16) };
    change_addr(p, ip, ip.l3 + src_at, &ip.src, src)
        && change_addr(p, ip, ip.l3 + dst_at, &ip.dst, dst)
        && change_quoted_addr(p, ip, q, q.l3 + src_at, &q.src, &quoted.src)
        && change_quoted_addr(p, ip, q, q.l3 + dst_at, &q.dst, &quoted.dst)
        && change_quoted_port(p, ip, q.l4, q.sport.raw(), quoted.sport.raw())
        && change_quoted_port(p, ip, q.l4 + 2, q.dport.raw(), quoted.dport.raw())
}

#[inline(always)]
fn change_quoted_addr<P: Packet>(
    p: &mut P,
    ip: &Headers,
    q: &Headers,
    at: u32,
    from: &Addr,
    to: &Addr,
) -> bool {
    if from.same(to) {
        return true;
    }
    if ip.v6 {
        let difference = P::difference(&from.words(), &to.words());
        return p.sum_transport(ip.l4 + 2, 0, difference, Sum::Payload, false)
            && p.store(at, &to.octets());
    }
    // An IPv4 header sums to the same before and after when its own checksum follows: ours need not.
    p.sum_ip(q.l3 + 10, from.v4_word(), to.v4_word()) && p.store(at, &to.v4_octets())
}

#[inline(always)]
fn change_quoted_port<P: Packet>(p: &mut P, ip: &Headers, at: u32, from: u16, to: u16) -> bool {
    from == to
        || (p.sum_transport(ip.l4 + 2, from as u32, to as u32, Sum::Word16, false)
            && p.store(at, &to.to_ne_bytes()))
}
