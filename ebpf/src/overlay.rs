//! `overlay_in`: what comes in through the tunnel, after its outer header was taken off.

use weft_abi::{
    Addr, Config, Done, Drop, FlowKey, Front, Leg, NetAddr, Pick, flow, node_addr, task_of_mac,
};

use crate::conntrack::Origin;
use crate::encap::{carrier, hand_over};
use crate::least::{self, is_least};
use crate::mesh::{Candidates, arrive};
use crate::packet::Packet;
use crate::parse::{Headers, NotParsed, parse};
use crate::refuse::refusal;
use crate::service;
use crate::tables::Tables;
use crate::task::send_back;
use crate::translate::Tuple;
use crate::verdict::Verdict;
use crate::work::Work;
use crate::{fragment, host, icmp};

/// What the tunnel says of a packet.
#[derive(Clone, Copy, Debug)]
struct Carried {
    /// Network it travels on.
    vni: u32,
    /// Node that sent it, proven by its outer source.
    from: u32,
    /// Leg of its way.
    leg: Leg,
    /// The leg's id.
    said: u32,
    /// Backend id it is for, 0 for the node itself.
    to: u32,
    /// Load that an answer tells.
    load: u8,
}

/// Judges a frame that came out of the tunnel.
#[inline(always)]
pub fn judge<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work) -> Verdict {
    let Some(cfg) = t.config() else {
        return Verdict::Next(Done::NotOurs);
    };
    let Some(m) = p.load::<12>(0) else {
        return Verdict::Drop(Drop::Malformed);
    };
    let Some(tunnel) = p.tunnel() else {
        if host::is_answered(&m) {
            p.claim();
            return Verdict::Next(Done::ToHost);
        }
        return Verdict::Drop(Drop::NotANode);
    };
    let from = match carrier(t, &tunnel.remote, tunnel.vni) {
        // Nobody tunnels to itself: a local process that writes to our own port would.
        Ok(from) if from == cfg.node => return Verdict::Drop(Drop::NotANode),
        Ok(from) => from,
        Err(reason) => return Verdict::Drop(reason),
    };
    let Some(to) = task_of_mac([m[0], m[1], m[2], m[3], m[4], m[5]]) else {
        return Verdict::Drop(Drop::BadLeg);
    };
    let Some((leg, said)) = Leg::of_mac([m[6], m[7], m[8], m[9], m[10], m[11]]) else {
        return Verdict::Drop(Drop::BadLeg);
    };
    match parse(p, &mut w.ip) {
        Ok(()) => {}
        Err(NotParsed::NotIp(_)) => return Verdict::Drop(Drop::UnsupportedEther),
        Err(NotParsed::Malformed) => return Verdict::Drop(Drop::Malformed),
        Err(NotParsed::TooDeep) => return Verdict::Drop(Drop::UnsupportedExtension),
        Err(NotParsed::Tiny) => return Verdict::Drop(Drop::TinyFragment),
    }
    if w.ip.overwriting {
        return Verdict::Drop(Drop::TinyFragment);
    }
    let carried = Carried {
        vni: tunnel.vni,
        from,
        leg,
        said,
        to,
        load: m[7],
    };
    match leg {
        Leg::Mesh | Leg::MeshAgain | Leg::Vip | Leg::VipAgain => to_backend(p, t, cfg, w, &carried),
        Leg::Answer if to == 0 => to_client(p, t, cfg, w, &carried),
        Leg::Host if to == 0 => to_host(p, t, cfg, &w.ip, &carried),
        Leg::Plain | Leg::Answer | Leg::Host => to_task(p, t, w, &carried),
    }
}

/// By address: the task's own, from one that may send to it.
#[inline(always)]
fn to_task<P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work, c: &Carried) -> Verdict {
    let ip = &w.ip;
    let Some(task) = t.local_task(c.to) else {
        return Verdict::Drop(Drop::NoSuchTask);
    };
    if task.net != c.vni {
        return Verdict::Drop(Drop::WrongNetwork);
    }
    if !ip.dst.same(if ip.v6 { &task.addr6 } else { &task.addr4 }) {
        return Verdict::Drop(Drop::NoSuchTask);
    }
    let honest = match c.leg {
        Leg::Plain => t.subnet(&ip.src) == Some(c.vni),
        Leg::Answer => match service::vip(t, c.vni, &ip.src) {
            Some(front) => {
                heed(p, t, ip, c, &front);
                true
            }
            None => false,
        },
        _ => is_address_of(t, &ip.src, c.from),
    };
    if !honest {
        return Verdict::Drop(Drop::ForgedSource);
    }
    if matches!(c.leg, Leg::Host) {
        note_host(t, ip, c, &mut w.notes.back);
    }
    hand_over(
        p,
        task,
        if matches!(c.leg, Leg::Answer) {
            Done::AnswerToTask
        } else {
            Done::ToTask
        },
    )
}

#[inline(always)]
fn is_address_of<T: Tables>(t: &T, addr: &Addr, node: u32) -> bool {
    matches!(t.node_by_addr(addr), Some(n) if n.node == node && n.flags & node_addr::HOST != 0)
}

/// The key under which `task_in` finds that a process of another node spoke first.
#[inline(always)]
pub(crate) fn host_key(key: &mut FlowKey, net: u32, ip: &Headers, from_host: bool) {
    if from_host {
        service::answered_key(key, net, ip);
    } else {
        service::wire_key(key, net, ip);
    }
    key.side = flow::HOST;
}

/// Remembers that a process of another node speaks to this task, so that the answer is tunnelled and not masqueraded.
#[inline(always)]
fn note_host<T: Tables>(t: &T, ip: &Headers, c: &Carried, key: &mut FlowKey) {
    host_key(key, c.vni, ip, true);
    let new = Pick {
        backend: c.from,
        link: 0,
        front: 0,
    };
    match t.pick(key) {
        Some(old) if old == new => {}
        _ => t.set_pick(key, &new),
    }
}

/// From a task, or another node's probe, to this node's own stack.
#[inline(always)]
fn to_host<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    ip: &Headers,
    c: &Carried,
) -> Verdict {
    // A node's own stack may probe this one by the way that tasks' packets take.
    let is_probe = c.vni == cfg.mesh && is_address_of(t, &ip.src, c.from);
    if !is_probe && t.subnet(&ip.src) != Some(c.vni) {
        return Verdict::Drop(Drop::ForgedSource);
    }
    if !t.is_local(&ip.dst) && !is_address_of(t, &ip.dst, cfg.node) {
        return Verdict::Drop(Drop::NoSuchTask);
    }
    p.claim();
    Verdict::Next(Done::ToHost)
}

/// To a service's backend on this node, as the client sent it.
#[inline(always)]
fn to_backend<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    w: &mut Work,
    c: &Carried,
) -> Verdict {
    let ip = &mut w.ip;
    if ip.is_icmp_error() {
        return icmp::from_node(p, t, w, c.vni);
    }
    if !ip.has_ports() {
        return Verdict::Drop(Drop::UnsupportedIcmp);
    }
    if !fragment::follow(t, ip, c.vni, &mut w.notes.frag) {
        return Verdict::Drop(Drop::FragmentLost);
    }
    let mesh = matches!(c.leg, Leg::Mesh | Leg::MeshAgain);
    let again = matches!(c.leg, Leg::MeshAgain | Leg::VipAgain);
    let front = if mesh {
        // Foreign sources may come on the mesh's network alone.
        if c.vni != cfg.mesh {
            return Verdict::Drop(Drop::WrongNetwork);
        }
        service::carried(t, cfg, &ip.dst, ip.dport, ip.proto)
    } else {
        if t.subnet(&ip.src) != Some(c.vni) {
            return Verdict::Drop(Drop::ForgedSource);
        }
        service::vip(t, c.vni, &ip.dst)
    };
    let Some(front) = front else {
        return Verdict::Drop(Drop::NoFront);
    };
    let ingress = if again { c.said } else { c.from };
    w.ask.front = front;
    service::wire_key(&mut w.ask.key, c.vni, ip);
    w.ask.origin = Origin {
        ingress,
        link: 0,
        flags: if mesh { 0 } else { flow::VIP | flow::FROM_TASK },
    };
    let named = Candidates {
        id: c.to,
        before: if again { 0 } else { c.said },
    };
    let verdict = arrive(p, t, cfg, &w.ip, &w.ask, &mut w.notes, named);
    if !matches!(verdict, Verdict::Drop(Drop::NoSuchTask))
        || refusal(p, t, &w.ip, Drop::NoSuchTask, 0).is_none()
    {
        return verdict;
    }
    // The sender's ring is behind: its client is told by the way an answer takes.
    let (hit, key) = (&mut w.notes.hit, &w.ask.key);
    hit.to = Tuple {
        src: key.dst,
        dst: key.src,
        sport: key.dport,
        dport: key.sport,
    };
    hit.backend = 0;
    hit.ingress = ingress;
    hit.link = 0;
    hit.net = c.vni;
    hit.flags = w.ask.origin.flags;
    send_back(p, t, cfg, hit, None)
}

/// A backend's answer to a client that came in by this node.
#[inline(always)]
fn to_client<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    w: &mut Work,
    c: &Carried,
) -> Verdict {
    let ip = &mut w.ip;
    if c.vni != cfg.mesh {
        return Verdict::Drop(Drop::WrongNetwork);
    }
    if !t.is_local(&ip.src) && t.node_by_addr(&ip.src).is_none() {
        return Verdict::Drop(Drop::ForgedSource);
    }
    let mut link = 0;
    if ip.has_ports() {
        if !fragment::follow(t, ip, c.vni, &mut w.notes.frag) {
            return Verdict::Drop(Drop::FragmentLost);
        }
        let Some(front) = service::published(t, cfg, &ip.src, ip.sport, ip.proto) else {
            return Verdict::Drop(Drop::NotPublished);
        };
        heed(p, t, ip, c, &front);
        link = learn(t, cfg, ip, c, front.service, &mut w.ask.key);
    } else if !ip.is_icmp_error() {
        return Verdict::Drop(Drop::NotPublished);
    }
    if link == 0 {
        link = way_to(p, t, cfg, ip);
    }
    if link == 0 {
        return Verdict::Drop(Drop::NoUplink);
    }
    if let Some(task) = t.endpoint(link) {
        return hand_over(p, task, Done::AnswerToTask);
    }
    Verdict::Neighbour(link, Done::AnswerToClient)
}

/// Takes the load that an answer tells, where connections are chosen by it.
#[inline(always)]
fn heed<P: Packet, T: Tables>(p: &P, t: &T, ip: &Headers, c: &Carried, front: &Front) {
    if is_least(front, ip.proto) {
        least::learn(t, c.said, c.load, p.now());
    }
}

/// Remembers who answered, so that the next packet goes there at once; tells where the client came in, 0 if forgotten.
#[inline(always)]
fn learn<T: Tables>(
    t: &T,
    cfg: &Config,
    ip: &Headers,
    c: &Carried,
    service: u32,
    key: &mut FlowKey,
) -> u32 {
    service::answered_key(key, cfg.mesh, ip);
    let old = t.pick(key);
    let link = match old {
        Some(pick) => pick.link,
        None => 0,
    };
    let new = Pick {
        backend: c.said,
        link,
        front: service,
    };
    if old != Some(new) {
        t.set_pick(key, &new);
    }
    link
}

/// The interface towards a client when nobody remembers it.
#[inline(always)]
fn way_to<P: Packet, T: Tables>(p: &P, t: &T, cfg: &Config, ip: &Headers) -> u32 {
    if let Some(net) = t.subnet(&ip.dst) {
        return match t.task(&NetAddr { net, addr: ip.dst }) {
            Some(task) => task.ifindex,
            None => 0,
        };
    }
    match p.route(&ip.src, &ip.dst) {
        Some(link) if link != cfg.overlay => link,
        _ => cfg.uplink,
    }
}
