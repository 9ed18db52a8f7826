//! `task_in`: what a task sends.

use weft_abi::{Config, Done, Drop, Endpoint, GATEWAY_MAC, Leg, NetAddr, endpoint, flow};

use crate::conntrack::{self, Hit};
use crate::encap::{Fit, Hop, hand_over, is_dead, send, store_macs, task_at};
use crate::least;
use crate::limit::{Way, is_within};
use crate::mesh::serve;
use crate::packet::Packet;
use crate::parse::{ETH_ARP, ICMP6, NotParsed, parse};
use crate::refuse::{Refusal, refusal};
use crate::tables::Tables;
use crate::translate::{Tuple, translate};
use crate::verdict::Verdict;
use crate::work::Work;
use crate::{fragment, icmp, neighbour, overlay, service};

/// Tag of a task's own fragments in `frag`, beside those that come to it.
const FROM_TASK: u32 = 1 << 31;

/// Judges a frame that a task sent.
#[inline(always)]
pub fn judge<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work) -> Verdict {
    let Some(cfg) = t.config() else {
        return Verdict::Drop(Drop::NoConfig);
    };
    let Some(own) = t.endpoint(p.ifindex()) else {
        return Verdict::Drop(Drop::UnknownEndpoint);
    };
    let Some(m) = p.load::<12>(0) else {
        return Verdict::Drop(Drop::Malformed);
    };
    let mac = own.mac;
    if m[6] != mac[0]
        || m[7] != mac[1]
        || m[8] != mac[2]
        || m[9] != mac[3]
        || m[10] != mac[4]
        || m[11] != mac[5]
    {
        return Verdict::Drop(Drop::SpoofedMac);
    }
    match parse(p, &mut w.ip) {
        Ok(()) => {}
        Err(NotParsed::NotIp(ETH_ARP)) => return neighbour::arp(p, own),
        Err(NotParsed::NotIp(_)) => return Verdict::Drop(Drop::UnsupportedEther),
        Err(NotParsed::Malformed) => return Verdict::Drop(Drop::Malformed),
        Err(NotParsed::TooDeep) => return Verdict::Drop(Drop::UnsupportedExtension),
        Err(NotParsed::Tiny) => return Verdict::Drop(Drop::TinyFragment),
    }
    let ip = &mut w.ip;
    if ip.v6 && ip.proto == ICMP6 && ip.flags >= 133 && ip.flags <= 137 {
        return neighbour::discovery(p, own, ip, &mut w.text);
    }
    if ip.dst.is_multicast() {
        return Verdict::Drop(Drop::Multicast);
    }
    let own_addr = if ip.v6 { own.addr6 } else { own.addr4 };
    if own_addr.is_any() || !ip.src.same(&own_addr) {
        return Verdict::Drop(Drop::SpoofedAddress);
    }
    if ip.overwriting {
        return Verdict::Drop(Drop::TinyFragment);
    }
    let ports_known = fragment::follow(t, ip, own.net | FROM_TASK, &mut w.notes.frag);
    match way(p, t, cfg, own, w, ports_known) {
        Some(verdict) => verdict,
        None => ask(p, t, cfg, own, w),
    }
}

/// What becomes of a packet that is the task's own. None when it asks a service: `w` then says which, and from where.
#[inline(always)]
fn way<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    own: &Endpoint,
    w: &mut Work,
    ports_known: bool,
) -> Option<Verdict> {
    let ip = &w.ip;
    if own.net != 0 {
        if ip.has_ports() {
            if let Some(verdict) = answer(p, t, cfg, own, w) {
                return Some(verdict);
            }
        } else if ip.is_icmp_error()
            && let Some(verdict) = icmp::from_task(p, t, cfg, own, w)
        {
            return Some(verdict);
        }
        if let Some(verdict) = to_task(p, t, own, w) {
            return Some(verdict);
        }
        if let Some(front) = service::vip(t, own.net, &w.ip.dst) {
            let ip = &w.ip;
            if ip.is_echo() {
                return Some(neighbour::echo(p, own, ip));
            }
            if ip.is_icmp_error() {
                return Some(icmp::from_asker(p, t, cfg, own, &front, w));
            }
            if !ip.has_ports() {
                return Some(Verdict::Drop(Drop::UnsupportedIcmp));
            }
            if !ports_known {
                return Some(Verdict::Drop(Drop::FragmentLost));
            }
            w.ask.front = front;
            w.ask.key.net = own.net;
            w.ask.origin.flags = flow::VIP | flow::FROM_TASK;
            return None;
        }
    }
    elsewhere(p, t, cfg, own, w)
}

/// Says to the task what its packet's drop should tell it.
#[inline(always)]
fn refuse<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    own: &Endpoint,
    w: &Work,
    reason: Drop,
) -> Verdict {
    match refusal(p, t, &w.ip, reason, w.notes.mtu) {
        Some(Refusal::Reset) => hand_over(p, own, Done::Refused),
        Some(Refusal::Told(done)) => {
            let (link, mac) = (own.ifindex, own.mac);
            if !store_macs(p, &mac, &GATEWAY_MAC) {
                return Verdict::Drop(Drop::RewriteRefused);
            }
            Verdict::Out(link, done)
        }
        None => Verdict::Drop(reason),
    }
}

/// Asks a service on the task's behalf; one without backends refuses at once.
#[inline(always)]
fn ask<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    own: &Endpoint,
    w: &mut Work,
) -> Verdict {
    let net = w.ask.key.net;
    service::wire_key(&mut w.ask.key, net, &w.ip);
    w.ask.origin.ingress = cfg.node;
    w.ask.origin.link = own.ifindex;
    let verdict = serve(p, t, cfg, &w.ip, &w.ask, &mut w.notes);
    match verdict {
        Verdict::Drop(reason @ (Drop::NoBackend | Drop::TooBig)) => refuse(p, t, own, w, reason),
        // An answer to this host's own connection from a published port.
        Verdict::Next(done) => {
            p.claim();
            Verdict::Next(done)
        }
        verdict => verdict,
    }
}

/// Un-translates and sends back what answers a flow.
#[inline(always)]
fn answer<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    own: &Endpoint,
    w: &mut Work,
) -> Option<Verdict> {
    let (ip, key, notes) = (&w.ip, &mut w.ask.key, &mut w.notes);
    service::wire_key(key, own.net, ip);
    key.side = flow::REPLY;
    if !conntrack::reply(p, t, ip, key, &mut notes.hit) {
        return None;
    }
    if !is_within(p, t, cfg, notes.hit.front, Way::Answered) {
        return Some(Verdict::Drop(Drop::OverCap));
    }
    if notes.hit.ripe {
        conntrack::promote(p, t, key, notes);
    }
    let to = notes.hit.to;
    if !translate(p, ip, &to) {
        return Some(Verdict::Drop(Drop::RewriteRefused));
    }
    let fit = Fit {
        ip,
        mtu: &mut notes.mtu,
    };
    let verdict = send_back(p, t, cfg, &notes.hit, Some(fit));
    if !matches!(verdict, Verdict::Drop(Drop::TooBig)) {
        return Some(verdict);
    }
    // The task must hear of the packet that it sent.
    w.quoted = w.ip;
    let (sent, now) = (Tuple::of(&w.ip), &mut w.quoted);
    (now.src, now.dst, now.sport, now.dport) = (to.src, to.dst, to.sport, to.dport);
    if !translate(p, &w.quoted, &sent) {
        return Some(Verdict::Drop(Drop::RewriteRefused));
    }
    Some(refuse(p, t, own, w, Drop::TooBig))
}

/// The way back to the client of a hit; the packet already bears the client's tuple.
#[inline(always)]
pub(crate) fn send_back<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    hit: &Hit,
    fit: Option<Fit<'_>>,
) -> Verdict {
    let mut node = hit.ingress;
    if hit.flags & flow::VIP != 0 {
        // The client is a task of this network: it is where its address says, wherever it asked.
        let (id, at) = task_at(t, hit.net, &hit.to.dst);
        if id == 0 {
            return Verdict::Drop(Drop::NoSuchTask);
        }
        if at == cfg.node {
            let Some(task) = t.local_task(id) else {
                return Verdict::Drop(Drop::NoSuchTask);
            };
            return hand_over(p, task, Done::AnswerToTask);
        }
        let hop = Hop {
            node: at,
            vni: hit.net,
            leg: Leg::Answer,
            said: hit.backend,
            to: id,
            load: load_of(p, t, hit),
        };
        return send(p, t, &hop, fit, Done::AnswerToNode);
    }
    if node != cfg.node && is_dead(t, node) {
        let Some(heir) = t.owner(&hit.to.src) else {
            return Verdict::Drop(Drop::DeadIngress);
        };
        node = heir;
    }
    if node == cfg.node {
        let link = if hit.ingress == cfg.node {
            hit.link
        } else {
            cfg.uplink
        };
        if let Some(task) = t.endpoint(link) {
            return hand_over(p, task, Done::AnswerToTask);
        }
        if link == 0 {
            return Verdict::Drop(Drop::NoUplink);
        }
        return Verdict::Neighbour(link, Done::AnswerToClient);
    }
    let hop = Hop {
        node,
        vni: hit.net,
        leg: Leg::Answer,
        said: hit.backend,
        to: 0,
        load: load_of(p, t, hit),
    };
    send(p, t, &hop, fit, Done::AnswerToNode)
}

/// What an answer tells of its backend's load, where anybody asks for it.
#[inline(always)]
fn load_of<P: Packet, T: Tables>(p: &P, t: &T, hit: &Hit) -> u8 {
    if hit.flags & flow::COUNTED == 0 {
        return 0;
    }
    least::code(t, hit.backend, p.now())
}

/// East-west by address.
#[inline(always)]
fn to_task<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    own: &Endpoint,
    w: &mut Work,
) -> Option<Verdict> {
    let ip = &w.ip;
    let task = t.task(&NetAddr {
        net: own.net,
        addr: ip.dst,
    })?;
    if task.ifindex != 0 {
        let Some(to) = t.endpoint(task.ifindex) else {
            return Some(Verdict::Drop(Drop::NoSuchTask));
        };
        return Some(hand_over(p, to, Done::ToTask));
    }
    let hop = Hop {
        node: task.node,
        vni: own.net,
        leg: Leg::Plain,
        said: own.id,
        to: task.id,
        load: 0,
    };
    Some(send_or_tell(p, t, own, w, &hop))
}

/// Sends a packet to another node; the task hears when it does not fit.
#[inline(always)]
fn send_or_tell<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    own: &Endpoint,
    w: &mut Work,
    hop: &Hop,
) -> Verdict {
    let fit = Fit {
        ip: &w.ip,
        mtu: &mut w.notes.mtu,
    };
    match send(p, t, hop, Some(fit), Done::ToNode) {
        Verdict::Drop(Drop::TooBig) => refuse(p, t, own, w, Drop::TooBig),
        verdict => verdict,
    }
}

/// Not on the task's own network: a host, another network, or the world. None when it asks for a published port:
/// `w` then says for which, and from where.
#[inline(always)]
fn elsewhere<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    own: &Endpoint,
    w: &mut Work,
) -> Option<Verdict> {
    let ip = &w.ip;
    if let Some(net) = t.subnet(&ip.dst) {
        if net != own.net {
            return Some(Verdict::Drop(Drop::Isolated));
        }
        // A task that is not known yet is asked again; one that is gone must not be waited for.
        if ip.is_syn() {
            return Some(Verdict::Drop(Drop::NoSuchTask));
        }
        return Some(refuse(p, t, own, w, Drop::NoSuchTask));
    }
    // Masqueraded, it would leave with this node's own address, which others believe.
    if crate::encap::is_for_tunnel(t, cfg, ip) {
        return Some(Verdict::Drop(Drop::TunnelForged));
    }
    let internal = own.flags & endpoint::INTERNAL != 0;
    let local = t.is_local(&ip.dst);
    // A process of another node that spoke to this task is answered through the tunnel, even from an internal network.
    overlay::host_key(&mut w.notes.back, own.net, ip, false);
    if own.net != 0
        && !local
        && let Some(asked) = t.pick(&w.notes.back)
    {
        let hop = Hop {
            node: asked.backend,
            vni: own.net,
            leg: Leg::Host,
            said: own.id,
            to: 0,
            load: 0,
        };
        return Some(send_or_tell(p, t, own, w, &hop));
    }
    if internal && !local {
        return Some(Verdict::Drop(Drop::Internal));
    }
    if !internal
        && ip.has_ports()
        && (local || t.node_by_addr(&ip.dst).is_some())
        && let Some(front) = service::published(t, cfg, &ip.dst, ip.dport, ip.proto)
    {
        if !service::admits(t, &front, &ip.src) {
            return Some(Verdict::Drop(Drop::NotAllowed));
        }
        w.ask.front = front;
        w.ask.key.net = cfg.mesh;
        w.ask.origin.flags = flow::FROM_TASK;
        return None;
    }
    p.claim();
    Some(Verdict::Next(if local {
        Done::ToHost
    } else {
        Done::ToWorld
    }))
}
