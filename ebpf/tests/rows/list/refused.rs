//! What gets no answer, and what is not too long.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, RST, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

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
        ),
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
