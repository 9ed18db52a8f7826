//! Later fragments carry no ports: the first one leaves them for the others.

use weft_abi::{FragKey, FragPorts};

use crate::parse::{Headers, Part};
use crate::tables::Tables;

/// The key of a fragmented datagram; `net` keeps directions apart.
#[inline(always)]
pub fn key(ip: &Headers, net: u32, key: &mut FragKey) {
    key.src = ip.src;
    key.dst = ip.dst;
    key.id = ip.id;
    key.net = net;
    key.proto = ip.proto as u32;
}

/// Gives a later fragment its ports.
#[inline(always)]
pub fn fill(ip: &mut Headers, ports: &FragPorts) {
    ip.sport = ports.sport;
    ip.dport = ports.dport;
}

/// Leaves the ports of a first fragment, fills those of a later one. False when the first was not seen.
#[inline(always)]
pub fn follow<T: Tables>(t: &T, ip: &mut Headers, net: u32, frag: &mut FragKey) -> bool {
    if ip.part == Part::Whole || !ip.has_ports() {
        return true;
    }
    key(ip, net, frag);
    if ip.part == Part::First {
        t.set_frag(
            frag,
            &FragPorts {
                sport: ip.sport,
                dport: ip.dport,
            },
        );
        return true;
    }
    match t.frag(frag) {
        Some(ports) => {
            fill(ip, &ports);
            true
        }
        None => false,
    }
}
