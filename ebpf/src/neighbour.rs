//! Answering ARP, neighbour discovery and echo requests on behalf of the network.
//!
//! Every address is answered with one constant hardware address, for everything a task sends comes to
//! us anyway. Probes for an address must stay unanswered, or every task would find its own taken.

use weft_abi::{Addr, Done, Drop, Endpoint, GATEWAY_MAC};

use crate::encap::store_macs;
use crate::packet::{Packet, Sum};
use crate::parse::{Headers, ICMP6, L3};
use crate::verdict::Verdict;

/// Length of a neighbour advertisement with its link-layer option, from the Ethernet header on.
const ADVERTISEMENT: u32 = 86;

/// An ARP packet from a task.
#[inline(always)]
pub fn arp<P: Packet>(p: &mut P, own: &Endpoint) -> Verdict {
    let Some(a) = p.load::<28>(L3) else {
        return Verdict::Drop(Drop::Malformed);
    };
    // Ethernet, IPv4, lengths 6 and 4.
    if a[0] != 0 || a[1] != 1 || a[2] != 8 || a[3] != 0 || a[4] != 6 || a[5] != 4 || a[6] != 0 {
        return Verdict::Drop(Drop::Malformed);
    }
    let sender = Addr::v4([a[14], a[15], a[16], a[17]]);
    let target = Addr::v4([a[24], a[25], a[26], a[27]]);
    if sender.v4_word() == 0 || sender.same(&target) {
        return Verdict::Drop(Drop::AddressProbe);
    }
    if !sender.same(&own.addr4) {
        return Verdict::Drop(Drop::SpoofedAddress);
    }
    let mac = own.mac;
    if a[8] != mac[0]
        || a[9] != mac[1]
        || a[10] != mac[2]
        || a[11] != mac[3]
        || a[12] != mac[4]
        || a[13] != mac[5]
    {
        return Verdict::Drop(Drop::SpoofedMac);
    }
    match a[7] {
        1 => {}
        // The task answers the host's own question.
        2 => {
            p.claim();
            return Verdict::Next(Done::ToHost);
        }
        _ => return Verdict::Drop(Drop::Malformed),
    }
    let g = GATEWAY_MAC;
    let reply = [
        0, 1, 8, 0, 6, 4, 0, 2, g[0], g[1], g[2], g[3], g[4], g[5], a[24], a[25], a[26], a[27],
        mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], a[14], a[15], a[16], a[17],
    ];
    let link = own.ifindex;
    if !store_macs(p, &mac, &g) || !p.store(L3, &reply) {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    Verdict::Out(link, Done::Answered)
}

/// A neighbour or router discovery packet from a task.
#[inline(always)]
pub fn discovery<P: Packet>(
    p: &mut P,
    own: &Endpoint,
    ip: &Headers,
    text: &mut [u8; 72],
) -> Verdict {
    let (mac, link, own_addr) = (own.mac, own.ifindex, own.addr6);
    if ip.src.is_any() {
        return Verdict::Drop(Drop::AddressProbe);
    }
    if !ip.src.same(&own_addr) && !ip.src.is_link_local() {
        return Verdict::Drop(Drop::SpoofedAddress);
    }
    if ip.flags != 135 {
        // An advertisement answers the host's own question; nobody here is a router.
        if ip.flags == 136 && !ip.dst.is_multicast() {
            p.claim();
            return Verdict::Next(Done::ToHost);
        }
        return Verdict::Drop(Drop::Multicast);
    }
    if ip.l4 != L3 + 40 {
        return Verdict::Drop(Drop::Malformed);
    }
    let Some(target) = p.load::<16>(L3 + 40 + 8) else {
        return Verdict::Drop(Drop::Malformed);
    };
    // The host's stack asks the task through this same interface; its own address is never looked for here.
    if Addr::v6(target).same(&own_addr) {
        return Verdict::Drop(Drop::AddressProbe);
    }
    // The solicitation may lack the option that the answer needs.
    if !p.set_len(ADVERTISEMENT) {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    // Pseudo header, then the message: summed as one, stored in two parts.
    *text = [0; 72];
    let to = ip.src.octets();
    let g = GATEWAY_MAC;
    let mut i = 0;
    while i < 16 {
        text[i] = target[i];
        text[16 + i] = to[i];
        text[48 + i] = target[i];
        i += 1;
    }
    text[35] = 32;
    text[39] = ICMP6;
    text[40] = 136;
    // Solicited, override.
    text[44] = 0x60;
    text[64] = 2;
    text[65] = 1;
    i = 0;
    while i < 6 {
        text[66 + i] = g[i];
        i += 1;
    }
    let sum = (!P::sum(text)).to_ne_bytes();
    text[42] = sum[0];
    text[43] = sum[1];
    // Version to hop limit.
    let fixed = [0x60, 0, 0, 0, 0, 32, ICMP6, 255];
    let (Some(addresses), Some(message)) = (text.first_chunk::<32>(), text.last_chunk::<32>())
    else {
        return Verdict::Drop(Drop::Malformed);
    };
    if !store_macs(p, &mac, &g)
        || !p.store(L3, &fixed)
        || !p.store(L3 + 8, addresses)
        || !p.store(L3 + 40, message)
    {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    Verdict::Out(link, Done::Answered)
}

/// An echo request to a VIP: the address exists, so it answers.
#[inline(always)]
pub fn echo<P: Packet>(p: &mut P, own: &Endpoint, ip: &Headers) -> Verdict {
    let (mac, link) = (own.mac, own.ifindex);
    let kind = if ip.v6 { 129 } else { 0 };
    let from = u16::from_ne_bytes([ip.flags, 0]) as u32;
    let to = u16::from_ne_bytes([kind, 0]) as u32;
    // Swapped addresses leave every sum as it was.
    let swapped = if ip.v6 {
        let (d, s) = (ip.dst.octets(), ip.src.octets());
        p.store(L3 + 8, &d) && p.store(L3 + 24, &s)
    } else {
        let (d, s) = (ip.dst.v4_octets(), ip.src.v4_octets());
        p.store(L3 + 12, &d) && p.store(L3 + 16, &s)
    };
    if !swapped
        || !p.sum_transport(ip.l4 + 2, from, to, Sum::Word16, false)
        || !p.store(ip.l4, &[kind])
        || !store_macs(p, &mac, &GATEWAY_MAC)
    {
        return Verdict::Drop(Drop::RewriteRefused);
    }
    Verdict::Out(link, Done::Answered)
}
