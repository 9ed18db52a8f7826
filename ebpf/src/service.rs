//! Which service a packet asks for, and which backend it gets.

use weft_abi::{
    Addr, Backend, Be16, Config, Drop, FlowKey, Front, FrontKey, backend, config, flow, ring_hash,
};

use crate::encap::is_dead;
use crate::parse::{Headers, UDP};
use crate::tables::Tables;

/// How many backends are tried before a service counts as having none.
const ATTEMPTS: u32 = 4;

/// A backend that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Backend id.
    pub id: u32,
    /// Node that runs it.
    pub node: u32,
    /// VNI it is attached to.
    pub net: u32,
}

/// The service published at a port of this cluster's hosts, or at one own address.
#[inline(always)]
pub fn published<T: Tables>(
    t: &T,
    cfg: &Config,
    addr: &Addr,
    port: Be16,
    proto: u8,
) -> Option<Front> {
    if cfg.flags & config::LISTEN != 0
        && let Some(front) = t.front(&FrontKey {
            net: 0,
            addr: *addr,
            port,
            proto,
            pad: 0,
        })
    {
        return Some(front);
    }
    t.front(&FrontKey {
        net: 0,
        addr: Addr::ANY,
        port,
        proto,
        pad: 0,
    })
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
    let choice = Choice {
        id,
        node: b.node,
        net: b.net,
    };
    if is_dead(t, choice.node) {
        None
    } else {
        Some(choice)
    }
}

/// Chooses for a wire tuple: what was remembered, unless the packet opens a connection; else the ring.
///
/// # Errors
/// When no backend can be chosen.
#[inline(always)]
pub fn choose<T: Tables>(
    t: &T,
    cfg: &Config,
    front: &Front,
    key: &FlowKey,
    is_syn: bool,
) -> Result<Choice, Drop> {
    if !is_syn
        && let Some(pick) = t.pick(key)
        && pick.front == front.service
        && let Some(choice) = usable(t, pick.backend, key.proto != UDP)
    {
        return Ok(choice);
    }
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let hash = ring_hash(
            cfg.seed, &key.src, key.sport, &key.dst, key.dport, key.proto, attempt,
        );
        let Some(id) = t.ring(front.service, hash) else {
            break;
        };
        if let Some(choice) = usable(t, id, false) {
            return Ok(choice);
        }
        attempt += 1;
    }
    t.count(front.service, |c| c.no_backend += 1);
    Err(Drop::NoBackend)
}

/// The backend that the previous ring gave this wire tuple, while that ring is remembered; else 0.
#[inline(always)]
pub fn before<T: Tables>(t: &T, cfg: &Config, front: &Front, key: &FlowKey) -> u32 {
    let hash = ring_hash(
        cfg.seed, &key.src, key.sport, &key.dst, key.dport, key.proto, 0,
    );
    t.ring_before(front.service, hash).unwrap_or(0)
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
