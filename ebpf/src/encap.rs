//! Sending a packet to another node, and handing it to a local task.

use weft_abi::{
    Addr, Config, Done, Drop, Endpoint, GATEWAY_MAC, Leg, Mac, NetAddr, node, node_addr, task_mac,
    wire_mac,
};

use crate::packet::{Packet, Tunnel};
use crate::parse::{Headers, L3, TCP, UDP};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// The two hardware addresses at the head of a frame.
#[inline(always)]
pub fn store_macs<P: Packet>(p: &mut P, dst: &Mac, src: &Mac) -> bool {
    p.store::<12>(
        0,
        &[
            dst[0], dst[1], dst[2], dst[3], dst[4], dst[5], src[0], src[1], src[2], src[3], src[4],
            src[5],
        ],
    )
}

/// Where a tunnelled packet goes and what its inner header says.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// Receiving node.
    pub node: u32,
    /// Network it travels on.
    pub vni: u32,
    /// Leg of its way.
    pub leg: Leg,
    /// What the leg's id means: see [`Leg`].
    pub said: u32,
    /// Backend id of the receiver, 0 for the node itself.
    pub to: u32,
    /// Of an answer, the load that it tells; else 0.
    pub load: u8,
}

/// Where a packet is measured against what the tunnel carries.
#[derive(Debug)]
pub struct Fit<'a> {
    /// Its headers.
    pub ip: &'a Headers,
    /// Takes what would fit, when it does not.
    pub mtu: &'a mut u32,
}

/// Least that every IPv6 link carries: nobody sends less because of an error.
const LEAST6: u32 = 1280;

/// Whether a packet, or each packet that a large segment becomes, is at most `mtu` long, or may be cut.
#[inline(always)]
fn fits<P: Packet>(p: &P, ip: &Headers, mtu: u32) -> bool {
    let whole = p.len() - L3;
    if mtu == 0 || whole <= mtu {
        return true;
    }
    let segment = p.segment();
    if segment != 0 {
        let header = if ip.proto == TCP {
            match p.load::<1>(ip.l4 + 12) {
                Some([words]) => ((words >> 4) as u32) << 2,
                None => return false,
            }
        } else {
            8
        };
        if ip.l4 - L3 + header + segment <= mtu {
            return true;
        }
    }
    // Without the bit that forbids it, the outer packet is cut.
    !ip.v6 && matches!(p.load::<1>(L3 + 6), Some([flags]) if flags & 0x40 == 0)
}

/// Writes the inner header and finds the outer one.
///
/// # Errors
/// When the node is unknown, when it has no key and the network must be encrypted, when the packet does not
/// `fit`, or when it cannot be changed.
#[inline(always)]
pub fn outer<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    hop: &Hop,
    fit: Option<Fit<'_>>,
) -> Result<Tunnel, Drop> {
    let Some(peer) = t.node(hop.node) else {
        return Err(Drop::NoSuchNode);
    };
    let (mut remote, mut mtu) = (peer.underlay, peer.mtu);
    if t.is_ciphered(hop.vni) {
        (remote, mtu) = (peer.encrypted, peer.mtu_encrypted);
        if remote.is_any() {
            return Err(Drop::NoCipher);
        }
    }
    if let Some(fit) = fit {
        if fit.ip.v6 && mtu != 0 && mtu < LEAST6 {
            mtu = LEAST6;
        }
        if !fits(p, fit.ip, mtu) {
            *fit.mtu = mtu;
            return Err(Drop::TooBig);
        }
    }
    let mut src = wire_mac(hop.leg, hop.said);
    src[1] = hop.load;
    if !store_macs(p, &task_mac(hop.to), &src) {
        return Err(Drop::RewriteRefused);
    }
    Ok(Tunnel {
        vni: hop.vni,
        remote,
    })
}

/// Sends a packet to another node.
#[inline(always)]
pub fn send<P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    hop: &Hop,
    fit: Option<Fit<'_>>,
    done: Done,
) -> Verdict {
    match outer(p, t, hop, fit) {
        Ok(tunnel) => Verdict::Tunnel(tunnel, done),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Hands a packet to a local task, as it is but for the hardware addresses.
#[inline(always)]
pub fn hand_over<P: Packet>(p: &mut P, to: &Endpoint, done: Done) -> Verdict {
    let (ifindex, mac) = (to.ifindex, to.mac);
    if !store_macs(p, &mac, &GATEWAY_MAC) {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    Verdict::Peer(ifindex, done)
}

/// The node that may send tunnelled packets from this address.
#[inline(always)]
pub fn sender<T: Tables>(t: &T, remote: &Addr) -> Option<u32> {
    match t.node_by_addr(remote) {
        Some(known) if known.flags & node_addr::UNDERLAY != 0 => Some(known.node),
        _ => None,
    }
}

/// The node that sent a packet of network `vni` which came out of the tunnel with this outer source.
///
/// # Errors
/// When that is no node, or the network must be encrypted and the packet came in clear.
#[inline(always)]
pub fn carrier<T: Tables>(t: &T, remote: &Addr, vni: u32) -> Result<u32, Drop> {
    let Some(known) = t.node_by_addr(remote) else {
        return Err(Drop::NotANode);
    };
    if known.flags & node_addr::CIPHERED != 0 {
        return Ok(known.node);
    }
    if known.flags & node_addr::UNDERLAY == 0 {
        return Err(Drop::NotANode);
    }
    if t.is_ciphered(vni) {
        return Err(Drop::ClearRefused);
    }
    Ok(known.node)
}

/// Whether a node is known not to answer.
#[inline(always)]
pub fn is_dead<T: Tables>(t: &T, id: u32) -> bool {
    matches!(t.node(id), Some(n) if n.flags & node::DEAD != 0)
}

/// Backend id of the task at an address of a network, 0 when there is none.
#[inline(always)]
pub fn task_at<T: Tables>(t: &T, net: u32, addr: &Addr) -> (u32, u32) {
    match t.task(&NetAddr { net, addr: *addr }) {
        Some(task) => (task.id, task.node),
        None => (0, 0),
    }
}

/// Whether a packet is for the tunnel port of some node.
#[inline(always)]
pub fn is_for_tunnel<T: Tables>(t: &T, cfg: &Config, ip: &Headers) -> bool {
    ip.proto == UDP && ip.dport == cfg.vxlan_port && t.node_by_addr(&ip.dst).is_some()
}
