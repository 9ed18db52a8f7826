//! The rows themselves.

mod choice;
mod collisions;
mod cut;
mod discovery;
mod from_host;
mod from_tasks;
mod from_uplink;
mod guards;
mod halves;
mod hostile;
mod least;
mod limits;
mod quoted;
mod refused;
mod small;
mod strays;
mod through_tunnel;
mod told;

use std::net::IpAddr;

use weft_abi::*;
use weft_ebpf::packet::Tunnel;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::verdict::Verdict;

use super::frames::{Frame, L4};
use super::town::*;
use super::world::World;
use super::{Row, Step};

const SYN_ACK: u8 = SYN | ACK;

impl Step {
    fn new(name: &str, program: Program, link: u32, frame: &Frame, verdict: Verdict) -> Self {
        Self::raw(name, program, link, frame.bytes(), verdict)
    }
    fn raw(name: &str, program: Program, link: u32, bytes: Vec<u8>, verdict: Verdict) -> Self {
        Self {
            name: name.to_owned(),
            program,
            link,
            for_host: true,
            received: true,
            tunnel: None,
            bytes,
            verdict,
            out: None,
            exact: None,
            segment: 0,
        }
    }
    fn out(mut self, frame: Frame) -> Self {
        self.out = Some(frame);
        self
    }
    fn exact(mut self, bytes: Vec<u8>) -> Self {
        self.exact = Some(bytes);
        self
    }
    fn through(mut self, vni: u32, node: u32) -> Self {
        self.tunnel = Some(to_node(vni, node));
        self
    }
}

fn uplink(name: &str, frame: &Frame, verdict: Verdict) -> Step {
    Step::new(name, Program::UplinkIn, UPLINK, frame, verdict)
}

fn task(name: &str, id: u32, frame: &Frame, verdict: Verdict) -> Step {
    Step::new(name, Program::TaskIn, link_of(id), frame, verdict)
}

fn overlay(name: &str, vni: u32, node: u32, frame: &Frame, verdict: Verdict) -> Step {
    Step::new(name, Program::OverlayIn, OVERLAY, frame, verdict).through(vni, node)
}

fn to_node(vni: u32, node: u32) -> Tunnel {
    Tunnel {
        vni,
        remote: Family { v6: false }.node(node).into(),
    }
}

fn row(name: &str, f: Family, world: World, steps: Vec<Step>) -> Row {
    Row {
        name: format!("{name}, {}", if f.v6 { "IPv6" } else { "IPv4" }),
        world,
        steps,
    }
}

/// The frame as a local task gets it.
fn delivered(id: u32, src: IpAddr, dst: IpAddr, l4: L4) -> Frame {
    Frame {
        dst_mac: task_mac(id),
        src_mac: GATEWAY_MAC,
        ..frame(src, dst, l4)
    }
}

fn peer(id: u32, done: Done) -> Verdict {
    Verdict::Peer(link_of(id), done)
}

fn next(done: Done) -> Verdict {
    Verdict::Next(done)
}

fn drop(reason: Drop) -> Verdict {
    Verdict::Drop(reason)
}

/// Every row, for both families.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for f in [Family { v6: false }, Family { v6: true }] {
        rows.extend(from_uplink::north_south(f));
        rows.extend(from_uplink::uplink_refusals(f));
        rows.extend(from_tasks::east_west(f));
        rows.extend(from_tasks::by_vip(f));
        rows.extend(through_tunnel::arriving(f));
        rows.extend(collisions::used_again(f));
        rows.extend(collisions::crowded(f));
        rows.extend(halves::left(f));
        rows.extend(through_tunnel::answers_arriving(f));
        rows.extend(from_host::rows(f));
        rows.extend(small::errors(f));
        rows.extend(quoted::of_every_kind(f));
        rows.extend(quoted::by_vip(f));
        rows.extend(small::neighbours(f));
        rows.extend(told::too_long(f));
        rows.extend(told::nobody(f));
        rows.extend(told::tiny(f));
        rows.extend(choice::ranges(f));
        rows.extend(choice::listen(f));
        rows.extend(choice::listen_elsewhere(f));
        rows.extend(choice::allowed(f));
        rows.extend(choice::affinity(f));
        rows.extend(choice::caps(f));
        rows.extend(least::choice(f));
        rows.extend(least::by_vip(f));
        rows.extend(refused::small_print(f));
        rows.extend(hostile::malformed(f));
        rows.extend(hostile::in_clear(f));
        rows.extend(hostile::flood(f));
        rows.extend(limits::no_free_port(f));
        rows.extend(limits::no_uplink(f));
        rows.extend(limits::untold(f));
        rows.extend(cut::short(f));
        rows.extend(cut::errors_between_nodes(f));
        rows.extend(cut::in_pieces(f));
        rows.extend(discovery::refused(f));
        rows.extend(guards::between(f));
        rows.extend(guards::nobody_to_tell(f));
        rows.extend(guards::not_about_us(f));
        rows.extend(guards::other_addresses(f));
        rows.extend(guards::measured(f));
        rows.extend(strays::legs(f));
        rows.extend(strays::ways_back(f));
        rows.extend(strays::no_address(f));
        rows.extend(strays::of_this_host(f));
        rows.extend(strays::of_tasks(f));
    }
    rows
}

/// Rows over a table of new flows that refuses: see [`World::room`].
pub(crate) fn full() -> Vec<Row> {
    [Family { v6: false }, Family { v6: true }]
        .into_iter()
        .flat_map(limits::full)
        .collect()
}
