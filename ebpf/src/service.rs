//! Which service a packet asks for, and which backend it gets.

use weft_abi::{
    Addr, AllowKey, Backend, Be16, Config, Drop, FlowKey, Front, FrontKey, Pick, Prefixed,
    RangeKey, Sticky, StickyKey, backend, config, flow, front, ring_hash,
};

use crate::encap::is_dead;
use crate::least::{self, is_least};
use crate::mesh::Ask;
use crate::packet::Packet;
use crate::parse::{Headers, TCP, UDP};
use crate::tables::Tables;
use crate::translate::Tuple;
use crate::work::{Blurred, Notes, Paper};

/// How many backends are tried before a service counts as having none. With half of them gone and the ring
/// not changed yet, one flow in 65,536 finds none.
const ATTEMPTS: u32 = 16;
/// How many slots are looked at for a second one: with two backends, one flow in sixteen has no choice.
const SECOND_ATTEMPTS: u32 = 4;

/// A backend that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Backend id.
    pub id: u32,
    /// Node that runs it.
    pub node: u32,
}

/// The service published at a port of this cluster's hosts, or at one own address; alone or in a range.
#[inline(always)]
pub fn published<T: Tables>(
    t: &T,
    cfg: &Config,
    addr: &Addr,
    port: Be16,
    proto: u8,
) -> Option<Front> {
    let mut key = FrontKey {
        net: 0,
        addr: *addr,
        port,
        proto,
        pad: 0,
    };
    let listens = cfg.flags & config::LISTEN != 0;
    if listens && let Some(front) = t.front(&key) {
        return Some(front);
    }
    key.addr = Addr::ANY;
    if let Some(front) = t.front(&key) {
        return Some(front);
    }
    if cfg.flags & config::RANGES == 0 {
        return None;
    }
    in_range(t, listens, addr, port, proto)
}

/// The service of a packet that another node took in: where a port answers there was that node's to see.
#[inline(always)]
pub fn carried<T: Tables>(
    t: &T,
    cfg: &Config,
    addr: &Addr,
    port: Be16,
    proto: u8,
) -> Option<Front> {
    let at = if cfg.flags & config::CARRIED != 0 {
        FrontKey::CARRIED
    } else {
        *addr
    };
    published(t, cfg, &at, port, proto)
}

#[inline(always)]
fn in_range<T: Tables>(t: &T, listens: bool, addr: &Addr, port: Be16, proto: u8) -> Option<Front> {
    let mut key = Prefixed {
        prefix: RangeKey::WHOLE,
        data: RangeKey {
            addr: *addr,
            proto,
            pad: 0,
            port,
        },
    };
    if listens && let Some(front) = t.front_range(&key) {
        return Some(front);
    }
    key.data.addr = Addr::ANY;
    t.front_range(&key)
}

/// The service with this VIP on a network.
#[inline(always)]
pub fn vip<T: Tables>(t: &T, net: u32, addr: &Addr) -> Option<Front> {
    t.front(&FrontKey {
        net,
        addr: *addr,
        port: Be16::default(),
        proto: 0,
        pad: 0,
    })
}

/// The backend, if it may take packets; a draining one only those of flows it has.
#[inline(always)]
fn usable<T: Tables>(t: &T, id: u32, draining: bool) -> Option<Choice> {
    let b: &Backend = t.backend(id)?;
    let refused = if draining {
        backend::DOWN
    } else {
        backend::DOWN | backend::DRAINING
    };
    if b.flags & refused != 0 {
        return None;
    }
    let choice = Choice { id, node: b.node };
    if is_dead(t, choice.node) {
        None
    } else {
        Some(choice)
    }
}

/// The backend that a ring gives, hash by hash.
#[inline(always)]
pub(crate) fn of_ring<T: Tables>(t: &T, service: u32, hash: impl Fn(u32) -> u32) -> Option<Choice> {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let id = t.ring(service, hash(attempt))?;
        if let Some(choice) = usable(t, id, false) {
            return Some(choice);
        }
        attempt += 1;
    }
    None
}

/// Another one that it gives besides `first`, to be found in `into`; 0 when it gives none.
#[inline(always)]
pub(crate) fn second_of_ring<T: Tables>(
    t: &T,
    service: u32,
    first: u32,
    into: &mut Blurred,
    hash: impl Fn(u32) -> u32,
) {
    into.set(0);
    let mut attempt = ATTEMPTS;
    while attempt < ATTEMPTS + SECOND_ATTEMPTS {
        let Some(id) = t.ring(service, hash(attempt)) else {
            return;
        };
        if id != first && usable(t, id, false).is_some() {
            into.set(id);
            return;
        }
        attempt += 1;
    }
}

/// Chooses for a wire tuple: what was remembered, unless the packet opens a connection; else the ring. `notes` then
/// say which other backend a connection may have that nobody here knows, and whether the choice is a guess.
///
/// # Errors
/// When no backend can be chosen.
#[inline(always)]
pub fn choose<P: Packet, T: Tables>(
    p: &P,
    t: &T,
    cfg: &Config,
    ask: &Ask,
    is_syn: bool,
    pick: Option<Pick>,
    notes: &mut Notes,
) -> Result<Choice, Drop> {
    let (front, key) = (&ask.front, &ask.key);
    notes.guessed.set(0);
    notes.least.set(is_least(front, key.proto) as u32);
    notes
        .or
        .set(if key.proto != TCP || is_syn || notes.least.get() != 0 {
            0
        } else {
            before(t, cfg, front, key)
        });
    // A SYN that is sent again must not go elsewhere because the loads changed.
    if (!is_syn || notes.least.get() != 0)
        && let Some(pick) = pick
        && pick.front == front.service
        && let Some(choice) = usable(t, pick.backend, !is_syn && key.proto != UDP)
    {
        return Ok(choice);
    }
    if front.affinity != 0
        && let Some(choice) = stays(t, front, &key.src, p.now())
    {
        return Ok(choice);
    }
    let hash = |attempt| slot(cfg, front, key, attempt);
    let Some(mut choice) = of_ring(t, front.service, hash) else {
        t.count(front.service, |c| c.no_backend += 1);
        return Err(Drop::NoBackend);
    };
    if notes.least.get() != 0 {
        second_of_ring(t, front.service, choice.id, &mut notes.or, hash);
        if is_syn {
            choice = least::lighter(t, cfg, choice, &mut notes.or, p.now());
        } else {
            notes.guessed.set(1);
        }
    }
    if front.affinity != 0 {
        keep(t, front.service, &key.src, choice.id, p.now());
    }
    Ok(choice)
}

/// The backend that most likely has a connection: what was remembered, else the ring's.
#[inline(always)]
pub fn likely<T: Tables>(
    t: &T,
    cfg: &Config,
    front: &Front,
    key: &FlowKey,
    pick: Option<Pick>,
) -> Option<Choice> {
    let choice = match pick {
        Some(pick) if pick.front == front.service => usable(t, pick.backend, true),
        _ => None,
    };
    choice.or_else(|| of_ring(t, front.service, |attempt| slot(cfg, front, key, attempt)))
}

/// The backend that the previous ring gave this wire tuple, while that ring is remembered; else 0.
#[inline(always)]
fn before<T: Tables>(t: &T, cfg: &Config, front: &Front, key: &FlowKey) -> u32 {
    t.ring_before(front.service, slot(cfg, front, key, 0))
        .unwrap_or(0)
}

/// Whether a packet to a published port belongs to a connection that a process of this host made from that port,
/// or had before it was published.
#[inline(always)]
pub fn is_hosts<P: Packet>(p: &P, ip: &Headers, paper: &mut Paper) -> bool {
    !ip.is_syn() && p.is_connected(&Tuple::of(ip), ip.proto == TCP, paper)
}

/// Hash that chooses for a wire tuple; with source affinity, for a client.
#[inline(always)]
fn slot(cfg: &Config, front: &Front, key: &FlowKey, attempt: u32) -> u32 {
    if front.affinity != 0 {
        return client_slot(cfg, front.service, &key.src, attempt);
    }
    ring_hash(
        cfg.seed, &key.src, key.sport, &key.dst, key.dport, key.proto, attempt,
    )
}

/// Hash of a client of one service, the same on every node.
#[inline(always)]
pub(crate) fn client_slot(cfg: &Config, service: u32, client: &Addr, attempt: u32) -> u32 {
    let none = Be16::new(0);
    ring_hash(
        cfg.seed ^ service as u64,
        client,
        none,
        &Addr::ANY,
        none,
        0,
        attempt,
    )
}

const SECOND: u64 = 1_000_000_000;

/// The backend that a client with affinity asked within its time, if that may be chosen still.
#[inline(always)]
pub(crate) fn stays<T: Tables>(t: &T, front: &Front, client: &Addr, now: u64) -> Option<Choice> {
    let sticky = t.sticky(&StickyKey {
        client: *client,
        service: front.service,
    })?;
    if now.saturating_sub(sticky.last) > front.affinity as u64 * SECOND {
        return None;
    }
    let choice = usable(t, sticky.backend, false)?;
    // Once a second is often enough to remember that it still asks.
    if now.saturating_sub(sticky.last) > SECOND {
        keep(t, front.service, client, choice.id, now);
    }
    Some(choice)
}

/// Remembers which backend a client with affinity got.
#[inline(always)]
pub(crate) fn keep<T: Tables>(t: &T, service: u32, client: &Addr, backend: u32, now: u64) {
    let key = StickyKey {
        client: *client,
        service,
    };
    t.set_sticky(
        &key,
        &Sticky {
            backend,
            pad: 0,
            last: now,
        },
    );
}

/// Whether a source may ask a service.
#[inline(always)]
pub fn admits<T: Tables>(t: &T, to: &Front, source: &Addr) -> bool {
    to.flags & front::ALLOWED == 0
        || t.is_allowed(&Prefixed {
            prefix: AllowKey::WHOLE,
            data: AllowKey {
                service: to.service,
                addr: *source,
            },
        })
}

/// Writes the key of a packet's own tuple, as a wire tuple.
#[inline(always)]
pub fn wire_key(key: &mut FlowKey, net: u32, ip: &Headers) {
    key.src = ip.src;
    key.dst = ip.dst;
    key.net = net;
    key.sport = ip.sport;
    key.dport = ip.dport;
    key.proto = ip.proto;
    key.side = flow::WIRE;
    key.pad = [0; 2];
}

/// Writes the key of the wire tuple that a packet answers.
#[inline(always)]
pub fn answered_key(key: &mut FlowKey, net: u32, ip: &Headers) {
    wire_key(key, net, ip);
    (key.src, key.dst) = (ip.dst, ip.src);
    (key.sport, key.dport) = (ip.dport, ip.sport);
}
