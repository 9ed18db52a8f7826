//! Leading a socket to a backend once, when it connects or sends, so that its packets need nothing. A task's datagrams
//! are left to packets: what a socket was led to may go while the socket stays.

use weft_abi::{Addr, Backend, Be16, Config, Drop, Netns, StickyKey, netns, socket_hash};

use crate::least::{self, is_least};
use crate::parse::{TCP, UDP};
use crate::service;
use crate::tables::Tables;
use crate::work::Blurred;

/// What a socket asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The socket's cookie.
    pub cookie: u64,
    /// Cookie of its namespace.
    pub namespace: u64,
    /// Nanoseconds of the monotonic clock.
    pub now: u64,
    /// Address it is bound to, [`Addr::ANY`] if none.
    pub bound: Addr,
    /// Destination address.
    pub addr: Addr,
    /// Destination port.
    pub port: Be16,
    /// Protocol.
    pub proto: u8,
    /// Whether the socket is of the IPv6 family (it may still ask for a mapped address).
    pub v6: bool,
}

/// Where the socket should go instead; none when it is not for a service, or packets must decide.
///
/// # Errors
/// When the service has no backend or does not admit the asker, or the socket wants to forge a node's packets:
/// the caller refuses at once.
#[inline(always)]
pub fn lead<T: Tables>(
    t: &T,
    cfg: &Config,
    ns: &Netns,
    r: &Request,
) -> Result<Option<(Addr, Be16)>, Drop> {
    if r.proto != TCP && r.proto != UDP {
        return Ok(None);
    }
    // The kernel's tunnel sends by itself; a process that writes to a node's tunnel port would be believed.
    if r.proto == UDP && r.port == cfg.vxlan_port && t.node_by_addr(&r.addr).is_some() {
        return Err(Drop::TunnelForged);
    }
    let front = if ns.flags & netns::HOST != 0 {
        // With a loopback source the rewritten connection would be refused, or hang.
        if r.bound.is_loopback() {
            return Ok(None);
        }
        if r.addr.is_loopback() || t.is_local(&r.addr) {
            service::published(t, cfg, &r.addr, r.port, r.proto)
        } else {
            // The host reaches the tasks of every network, so their services too.
            match t.subnet(&r.addr) {
                Some(net) => service::vip(t, net, &r.addr),
                None => None,
            }
        }
    } else {
        let mut found = None;
        let mut i = 0;
        while i < weft_abi::NETS_PER_TASK {
            if i as u32 >= ns.count {
                break;
            }
            found = service::vip(t, ns.nets[i], &r.addr);
            if found.is_some() {
                break;
            }
            i += 1;
        }
        found
    };
    let Some(front) = front else { return Ok(None) };
    // Connections that are counted must pass where they can be. And a UDP socket that was led when it connected would
    // stay where it was led after that backend is gone, refused for ever: its packets are led one by one. Those of
    // one that is not connected too, for so does a task answer itself that asked its own service. Not so where all
    // the sockets of a client stay together.
    let packets_decide = is_least(&front, r.proto) || (r.proto == UDP && front.affinity == 0);
    if ns.flags & netns::HOST == 0 && packets_decide {
        return Ok(None);
    }
    // A process of this host that asks at an address of it comes from there.
    if ns.flags & netns::HOST != 0 && !service::admits(t, &front, &r.addr) {
        return Err(Drop::NotAllowed);
    }
    let port = front.target(r.port);
    let client = StickyKey::of_sockets(r.namespace);
    if front.affinity != 0
        && let Some(stays) = service::stays(t, &front, &client, r.now)
        && let Some(b) = t.backend(stays.id)
    {
        return Ok(address(b, r).map(|addr| (addr, port)));
    }
    let two = is_least(&front, r.proto);
    let hash = |attempt| {
        if front.affinity != 0 {
            service::client_slot(cfg, front.service, &client, attempt)
        } else {
            socket_hash(cfg.seed, r.cookie, &r.addr, r.port, r.proto, attempt)
        }
    };
    if let Some(mut choice) = service::of_ring(t, front.service, hash) {
        if two {
            let mut second = Blurred::NONE;
            service::second_of_ring(t, front.service, choice.id, &mut second, hash);
            choice = least::lighter(t, cfg, choice, &mut second, r.now);
        }
        if front.affinity != 0 {
            service::keep(t, front.service, &client, choice.id, r.now);
        }
        if let Some(b) = t.backend(choice.id) {
            return Ok(address(b, r).map(|addr| (addr, port)));
        }
    }
    t.count(front.service, |c| c.no_backend += 1);
    Err(Drop::NoBackend)
}

/// Whether a process may bind a socket there: a published port is its service's alone, as if the host listened on it.
///
/// A port that the kernel shall choose is asked for as 0: see that it keeps away from published ones.
#[inline(always)]
pub fn may_bind<T: Tables>(t: &T, cfg: &Config, ns: &Netns, r: &Request) -> bool {
    if ns.flags & netns::HOST == 0 || (r.proto != TCP && r.proto != UDP) || r.port.is_zero() {
        return true;
    }
    let every = r.addr.is_any() || r.addr.same(&Addr::v4([0; 4]));
    if !every && !r.addr.is_loopback() && !t.is_local(&r.addr) {
        return true;
    }
    service::published(t, cfg, &r.addr, r.port, r.proto).is_none()
}

/// The backend's address for this socket. None when there is none that the socket can go to.
#[inline(always)]
fn address(b: &Backend, r: &Request) -> Option<Addr> {
    let want4 = r.addr.is_v4() || b.addr6.is_any();
    let addr = if want4 { b.addr4 } else { b.addr6 };
    // An IPv4 socket cannot go to an IPv6 address.
    if addr.is_any() || (!r.v6 && !addr.is_v4()) {
        None
    } else {
        Some(addr)
    }
}
