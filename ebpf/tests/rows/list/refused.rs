//! What gets no answer, and what is not too long.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;
use crate::rows::frames::{add, fold, pseudo};

/// The segment with these numbers and window.
pub(super) fn numbered(segment: &Frame, seq: u32, ack: u32, window: u16) -> Vec<u8> {
    let mut bytes = segment.bytes();
    let transport = &mut bytes[if segment.src.is_ipv6() { 54 } else { 34 }..];
    transport[4..8].copy_from_slice(&seq.to_be_bytes());
    transport[8..12].copy_from_slice(&ack.to_be_bytes());
    transport[14..16].copy_from_slice(&window.to_be_bytes());
    transport[16..18].fill(0);
    let sum = add(transport) + pseudo(segment.src, segment.dst, 6, transport.len());
    transport[16..18].copy_from_slice(&(!fold(sum)).to_be_bytes());
    bytes
}

pub(super) fn small_print(f: Family) -> Vec<Row> {
    let (c, n) = (f.client(), f.node(1));
    let mut world = town();
    if let Some(node) = world.nodes.get_mut(&2) {
        node.mtu = 1000;
    }
    let mut long = frame(c, n, L4::Udp(4000, 8001));
    long.payload = vec![7; 1100];
    let quoted = frame(f.node(2), c, L4::Tcp(8001, 4000, ACK)).bytes();
    let kind = if f.v6 { L4::Icmp(1, 4) } else { L4::Icmp(3, 3) };
    let mut foreign = frame(c, n, kind);
    foreign.payload = quoted[14..].to_vec();
    let mut steps = vec![
        uplink(
            "a reset is not answered by one",
            &frame(c, n, L4::Tcp(4000, 8002, RST | ACK)),
            Verdict::Drop(Drop::NoBackend),
        ),
        uplink(
            "a SYN is",
            &frame(c, n, L4::Tcp(4000, 8002, SYN)),
            Verdict::Neighbour(UPLINK, Done::Refused),
        )
        .exact(numbered(
            &frame(n, c, L4::Tcp(8002, 4000, RST | ACK)),
            0,
            2,
            0,
        )),
        Step::raw(
            "an acknowledgement is, by the number it gives",
            Program::UplinkIn,
            UPLINK,
            numbered(&frame(c, n, L4::Tcp(4001, 8002, ACK)), 5, 7, 512),
            Verdict::Neighbour(UPLINK, Done::Refused),
        )
        .exact(numbered(&frame(n, c, L4::Tcp(8002, 4001, RST)), 7, 0, 0)),
        uplink(
            "an error that quotes what another host sent",
            &foreign,
            next(Done::NotOurs),
        ),
    ];
    // No link of IPv6 carries less than 1280, whatever somebody measured.
    let fits = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
    let told = Verdict::Neighbour(UPLINK, Done::TooBigTold);
    steps.push(uplink(
        "1100 bytes where 1000 were measured",
        &long,
        if f.v6 { fits } else { told },
    ));
    vec![row("small print", f, world, steps)]
}
