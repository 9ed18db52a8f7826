//! From a wire tuple to the task that serves it: here, on another node, or where the flow began.

use weft_abi::{Config, Done, Drop, FlowKey, Front, Leg, Pick, backend, flow};

use crate::conntrack::{self, Origin};
use crate::encap::{Fit, Hop, hand_over, is_dead, send};
use crate::limit::{Way, is_within};
use crate::packet::Packet;
use crate::parse::{Headers, TCP, UDP};
use crate::service;
use crate::tables::{Age, Tables};
use crate::translate::translate;
use crate::verdict::Verdict;
use crate::work::Notes;

/// A packet for a service.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The service.
    pub front: Front,
    /// Its wire tuple.
    pub key: FlowKey,
    /// Where the client came in.
    pub origin: Origin,
}

/// Backends that a packet without a flow may belong to.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// Chosen by the ring.
    pub id: u32,
    /// Chosen by the ring before the last change, or 0.
    pub before: u32,
}

impl Ask {
    #[inline(always)]
    fn leg(&self, again: bool) -> Leg {
        match (self.origin.flags & flow::VIP != 0, again) {
            (false, false) => Leg::Mesh,
            (false, true) => Leg::MeshAgain,
            (true, false) => Leg::Vip,
            (true, true) => Leg::VipAgain,
        }
    }
}

/// On the node where the client came in: along the flow when it is here, else to the chosen backend.
#[inline(always)]
pub fn serve<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    ip: &Headers,
    ask: &Ask,
    notes: &mut Notes,
) -> Verdict {
    if let Some(verdict) = along(p, t, cfg, ip, ask, notes) {
        return verdict;
    }
    let pick = t.pick(&ask.key);
    if pick.is_none()
        && ask.origin.flags & flow::VIP == 0
        && service::is_hosts(p, ip, &mut notes.paper)
    {
        return Verdict::Next(Done::HostsOwn);
    }
    let choice = match service::choose(p, t, cfg, ask, ip.is_syn(), pick, notes) {
        Ok(choice) => choice,
        Err(reason) => return Verdict::Drop(reason),
    };
    if choice.node == cfg.node {
        return settle(
            p,
            t,
            cfg,
            ip,
            ask,
            notes,
            Candidates {
                id: choice.id,
                before: notes.or.get(),
            },
        );
    }
    if notes.guessed.get() == 0 {
        remember(t, ask, choice.id, pick);
    }
    let hop = Hop {
        node: choice.node,
        vni: ask.key.net,
        leg: ask.leg(false),
        said: notes.or.get(),
        to: choice.id,
        load: 0,
    };
    let fit = Fit {
        ip,
        mtu: &mut notes.mtu,
    };
    send(p, t, &hop, Some(fit), Done::ToBackendNode)
}

/// On the node of the backend that a first hop named: along the flow, or to the previous backend once,
/// or a new flow.
#[inline(always)]
pub fn arrive<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    ip: &Headers,
    ask: &Ask,
    notes: &mut Notes,
    named: Candidates,
) -> Verdict {
    if let Some(verdict) = along(p, t, cfg, ip, ask, notes) {
        return verdict;
    }
    let before = if ip.proto == TCP && !ip.is_syn() {
        named.before
    } else {
        0
    };
    settle(
        p,
        t,
        cfg,
        ip,
        ask,
        notes,
        Candidates {
            id: named.id,
            before,
        },
    )
}

/// Delivers along a flow that is known here. None when there is none, or it cannot go on.
#[inline(always)]
fn along<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    ip: &Headers,
    ask: &Ask,
    notes: &mut Notes,
) -> Option<Verdict> {
    if !conntrack::wire(p, t, ip, &ask.key, &mut notes.hit) {
        return None;
    }
    // A repeated SYN writes its entries again: the reply entry may have been evicted meanwhile.
    if ip.is_syn() && matches!(notes.hit.age, Age::New) {
        return None;
    }
    let draining =
        matches!(t.backend(notes.hit.backend), Some(b) if b.flags & backend::DRAINING != 0);
    let other_service = notes.hit.front != ask.front.service;
    let choose_again = (draining || other_service) && (ip.is_syn() || ip.proto == UDP);
    let Some(task) = t.local_task(notes.hit.backend) else {
        t.end_flow(notes.hit.age, &ask.key);
        return None;
    };
    // A client's port that opens another connection: nothing of the old one may lead it.
    let anew = ip.is_syn() && conntrack::is_left(t, &ask.key, task.net, notes);
    if choose_again || anew {
        conntrack::forget(t, &ask.key, task.net, notes);
        return None;
    }
    conntrack::refresh(t, ask, task.net, notes);
    if !is_within(p, t, cfg, notes.hit.front, Way::Asked) {
        return Some(Verdict::Drop(Drop::OverCap));
    }
    if !translate(p, ip, &notes.hit.to) {
        return Some(Verdict::Drop(Drop::RewriteRefused));
    }
    Some(hand_over(p, task, Done::ToTaskTranslated))
}

/// No flow here, and backend `id` is (said to be) here. The backend of the ring before gets a second chance.
#[inline(always)]
fn settle<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    cfg: &Config,
    ip: &Headers,
    ask: &Ask,
    notes: &mut Notes,
    named: Candidates,
) -> Verdict {
    let Candidates { mut id, before } = named;
    if before != 0
        && before != id
        && let Some(node) = t.backend(before).map(|b| b.node)
    {
        if node == cfg.node {
            id = before;
        } else if !is_dead(t, node) {
            let hop = Hop {
                node,
                vni: ask.key.net,
                leg: ask.leg(true),
                said: ask.origin.ingress,
                to: before,
                load: 0,
            };
            return send(p, t, &hop, None, Done::SecondChance);
        }
    }
    let Some(task) = t.local_task(id) else {
        return Verdict::Drop(Drop::NoSuchTask);
    };
    if task.net != ask.key.net {
        return Verdict::Drop(Drop::WrongNetwork);
    }
    if !is_within(p, t, cfg, ask.front.service, Way::Asked) {
        return Verdict::Drop(Drop::OverCap);
    }
    if let Err(reason) = conntrack::begin(p, t, ip, ask, task, notes) {
        return Verdict::Drop(reason);
    }
    if !translate(p, ip, &notes.hit.to) {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    hand_over(p, task, Done::ToTaskTranslated)
}

#[inline(always)]
fn remember<T: Tables>(t: &T, ask: &Ask, backend: u32, old: Option<Pick>) {
    let new = Pick {
        backend,
        link: ask.origin.link,
        front: ask.front.service,
    };
    if old != Some(new) {
        t.set_pick(&ask.key, &new);
    }
}
