//! What a sender hears by ICMP of a packet that went nowhere.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;
use crate::rows::frames::{add, fold, pseudo};

/// Inner size towards node 2 in these rows.
const FITS: u32 = 1300;

/// The error about `about` as its destination tells it: `kept` bytes of the transport header quoted, whose
/// sum (at `sum_at` in it, or 0) is one that the kernel leaves alone when it still has to make it.
fn told(about: &Frame, kept: usize, sum_at: usize, head: [u8; 2], rest: u32) -> Vec<u8> {
    let l3 = if about.src.is_ipv6() { 40 } else { 20 };
    told_of(about, &about.bytes()[14..], l3, kept, sum_at, head, rest)
}

/// The same about a `packet` between the ends of `about`, with a network header of `l3` bytes.
pub(super) fn told_of(
    about: &Frame,
    packet: &[u8],
    l3: usize,
    kept: usize,
    sum_at: usize,
    head: [u8; 2],
    rest: u32,
) -> Vec<u8> {
    let v6 = about.src.is_ipv6();
    let mut quoted = packet[..l3 + kept].to_vec();
    if sum_at != 0 {
        let settled = (1..=0xffff_u16).find(|field| {
            quoted[l3 + sum_at..l3 + sum_at + 2].copy_from_slice(&field.to_be_bytes());
            !fold(add(&quoted[l3..])) == *field
        });
        assert!(settled.is_some(), "half of every number exists");
    }
    let mut body = vec![head[0], head[1], 0, 0];
    body.extend(rest.to_be_bytes());
    body.extend(quoted);
    let mut sum = add(&body);
    if v6 {
        sum += pseudo(about.dst, about.src, 58, body.len());
    }
    body[2..4].copy_from_slice(&(!fold(sum)).to_be_bytes());
    let mut f = about.src_mac.to_vec();
    f.extend(about.dst_mac);
    match (about.dst, about.src) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            f.extend([8, 0]);
            let mut h = vec![0x45, 0xc0];
            h.extend(((20 + body.len()) as u16).to_be_bytes());
            h.extend([0, 0, 0, 0, 64, 1, 0, 0]);
            h.extend(s.octets());
            h.extend(d.octets());
            let check = !fold(add(&h));
            h[10..12].copy_from_slice(&check.to_be_bytes());
            f.extend(h);
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            f.extend((body.len() as u16).to_be_bytes());
            f.extend([58, 64]);
            f.extend(s.octets());
            f.extend(d.octets());
        }
        _ => {}
    }
    f.extend(body);
    f
}

fn too_big(about: &Frame, kept: usize, sum_at: usize) -> Vec<u8> {
    let head = if about.src.is_ipv6() { [2, 0] } else { [3, 4] };
    told(about, kept, sum_at, head, FITS)
}

fn no_port(about: &Frame) -> Vec<u8> {
    let head = if about.src.is_ipv6() { [1, 4] } else { [3, 3] };
    told(about, 8, 6, head, 0)
}

/// A frame whose IP packet is `len` bytes long.
fn long(frame: Frame, len: u32) -> Frame {
    let header = if frame.src.is_ipv6() { 40 } else { 20 };
    let transport = if matches!(frame.l4, L4::Tcp(..)) {
        20
    } else {
        8
    };
    Frame {
        payload: (0..len - header - transport).map(|n| n as u8).collect(),
        ..frame
    }
}

pub(super) fn too_long(f: Family) -> Vec<Row> {
    let (c, n) = (f.client(), f.node(1));
    let (t1, t3, t4) = (f.task(1), f.task(3), f.task(4));
    let mut world = town();
    if let Some(node) = world.nodes.get_mut(&2) {
        node.mtu = FITS;
    }
    let on = Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode);
    let to_client = Verdict::Neighbour(UPLINK, Done::TooBigTold);
    let to_task = |id| Verdict::Out(link_of(id), Done::TooBigTold);
    let udp = |len| long(frame(c, n, L4::Udp(4000, 8001)), len);
    let tcp = |len| long(frame(c, n, L4::Tcp(4000, 8001, ACK)), len);
    let east = long(from_task(3, t3, t4, L4::Udp(4000, 80)), FITS + 1);
    let answer = |len| long(from_task(1, t1, c, L4::Tcp(80, 4000, ACK)), len);
    let mut cut = udp(1400).bytes();
    let may_be_cut = if f.v6 {
        to_client
    } else {
        // Without the bit that forbids it; the header's sum follows.
        cut[20] = 0;
        let check = u16::from_be_bytes([cut[24], cut[25]]);
        cut[24..26].copy_from_slice(&(!fold(u32::from(!check) + 0xbfff)).to_be_bytes());
        on
    };
    let mut large = uplink("a large segment of packets that fit", &tcp(1500), on);
    large.segment = FITS - if f.v6 { 60 } else { 40 };
    let mut larger =
        uplink("and of such that do not", &tcp(1500), to_client).exact(too_big(&tcp(1500), 20, 16));
    larger.segment = large.segment + 1;
    vec![
        row(
            "too long for the tunnel, from the world",
            f,
            world.clone(),
            vec![
                uplink("just right", &udp(FITS), on),
                uplink("a byte more", &udp(FITS + 1), to_client).exact(too_big(
                    &udp(FITS + 1),
                    8,
                    6,
                )),
                uplink("a segment", &tcp(1400), to_client).exact(too_big(&tcp(1400), 20, 16)),
                Step::raw("may be cut", Program::UplinkIn, UPLINK, cut, may_be_cut),
                large,
                larger,
            ],
        ),
        row(
            "too long for the tunnel, from a task",
            f,
            world,
            vec![
                task("to a task", 3, &east, to_task(3)).exact(too_big(
                    &mac_of_gate(3, &east),
                    8,
                    6,
                )),
                overlay(
                    "SYN through node 2",
                    MESH,
                    2,
                    &carried(Leg::Mesh, 0, 1, c, n, L4::Tcp(4000, 8000, SYN)),
                    peer(1, Done::ToTaskTranslated),
                ),
                task(
                    "an answer that fits",
                    1,
                    &answer(FITS),
                    Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
                ),
                task("one that does not", 1, &answer(FITS + 1), to_task(1)).exact(too_big(
                    &mac_of_gate(1, &answer(FITS + 1)),
                    20,
                    16,
                )),
            ],
        ),
    ]
}

/// The frame with the addresses whose exchange gives what a task gets.
fn mac_of_gate(id: u32, frame: &Frame) -> Frame {
    Frame {
        dst_mac: GATEWAY_MAC,
        src_mac: task_mac(id),
        ..frame.clone()
    }
}

pub(super) fn nobody(f: Family) -> Vec<Row> {
    let (c, n, t3) = (f.client(), f.node(1), f.task(3));
    let ask = |src: u16| frame(c, n, L4::Udp(src, 8002));
    let near = from_task(3, t3, n, L4::Udp(4000, 8002));
    let mut empty = Frame {
        payload: Vec::new(),
        ..ask(4001)
    };
    let short = no_port(&empty);
    empty.dst_mac = [0; 6];
    let lost = carried(Leg::Mesh, 0, 99, c, f.node(2), L4::Udp(4000, 8000));
    let mut gone = no_port(&lost);
    gone[0..6].copy_from_slice(&task_mac(0));
    gone[6..12].copy_from_slice(&wire_mac(Leg::Answer, 0));
    let mut off = town();
    off.rings.remove(&5);
    let vip = from_task(6, f.task(6), f.vip(), L4::Udp(4000, 53));
    let of_host = frame(f.node(1), f.on(WEB, 99), L4::Udp(4000, 53));
    let mut answered = no_port(&of_host);
    answered[0..6].copy_from_slice(&GATEWAY_MAC);
    answered[6..12].copy_from_slice(&GATEWAY_MAC);
    let here = |name: &str, program, bytes, verdict| Step {
        received: false,
        ..Step::raw(name, program, OVERLAY, bytes, verdict)
    };
    vec![
        row(
            "a datagram of this host for a task that is gone",
            f,
            town(),
            vec![
                here(
                    "is answered",
                    Program::HostOut,
                    of_host.bytes(),
                    Verdict::In(OVERLAY, Done::Refused),
                )
                .exact(answered.clone()),
                here(
                    "the answer comes in, through no tunnel",
                    Program::OverlayIn,
                    answered,
                    next(Done::ToHost),
                ),
            ],
        ),
        row(
            "datagrams to a service without backends",
            f,
            off,
            vec![
                uplink(
                    "from the world",
                    &ask(4000),
                    Verdict::Neighbour(UPLINK, Done::Refused),
                )
                .exact(no_port(&ask(4000))),
                uplink(
                    "without a payload",
                    &empty,
                    Verdict::Neighbour(UPLINK, Done::Refused),
                )
                .exact(short),
                task(
                    "from a task",
                    3,
                    &near,
                    Verdict::Out(link_of(3), Done::Refused),
                )
                .exact(no_port(&near)),
                task("by VIP", 6, &vip, Verdict::Out(link_of(6), Done::Refused))
                    .exact(no_port(&vip)),
            ],
        ),
        row(
            "a datagram for a task that is gone",
            f,
            town(),
            vec![
                overlay(
                    "told through the ingress node",
                    MESH,
                    2,
                    &lost,
                    Verdict::Tunnel(to_node(MESH, 2), Done::AnswerToNode),
                )
                .exact(gone),
            ],
        ),
    ]
}

pub(super) fn tiny(f: Family) -> Vec<Row> {
    let (c, n, t3) = (f.client(), f.node(1), f.task(3));
    let drop = Verdict::Drop(Drop::TinyFragment);
    let cut = |frame: Frame, at| frame.fragments(at);
    let syn = |port| frame(c, n, L4::Tcp(4000, port, SYN));
    let raw = |name, program, link, bytes: &[u8], verdict| {
        Step::raw(name, program, link, bytes.to_vec(), verdict)
    };
    let [head, over] = cut(syn(8000), 8);
    let [whole, rest] = cut(syn(8000), 24);
    let [foreign, _] = cut(syn(22), 8);
    let [of_task, over_task] = cut(from_task(3, t3, f.task(6), L4::Tcp(4000, 80, SYN)), 8);
    let [head_in, over_in] = cut(carried(Leg::Mesh, 0, 1, c, n, L4::Tcp(4000, 8000, SYN)), 16);
    let through = |mut step: Step| {
        step.tunnel = Some(to_node(MESH, 2));
        step
    };
    vec![row(
        "tiny fragments",
        f,
        town(),
        vec![
            raw(
                "a head without its flags",
                Program::UplinkIn,
                UPLINK,
                &head,
                drop,
            ),
            raw(
                "for a port that is not ours",
                Program::UplinkIn,
                UPLINK,
                &foreign,
                next(Done::NotOurs),
            ),
            raw(
                "a whole head",
                Program::UplinkIn,
                UPLINK,
                &whole,
                peer(1, Done::ToTaskTranslated),
            ),
            raw(
                "its rest",
                Program::UplinkIn,
                UPLINK,
                &rest,
                peer(1, Done::ToTaskTranslated),
            ),
            raw(
                "what would overwrite it",
                Program::UplinkIn,
                UPLINK,
                &over,
                drop,
            ),
            raw("from a task", Program::TaskIn, link_of(3), &of_task, drop),
            raw(
                "from a task, overwriting",
                Program::TaskIn,
                link_of(3),
                &over_task,
                drop,
            ),
            through(raw(
                "through the tunnel",
                Program::OverlayIn,
                OVERLAY,
                &head_in,
                drop,
            )),
            through(raw(
                "through the tunnel, overwriting",
                Program::OverlayIn,
                OVERLAY,
                &over_in,
                drop,
            )),
        ],
    )]
}
