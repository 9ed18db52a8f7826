//! ICMP errors, ARP and neighbour discovery.

use std::net::IpAddr;

use weft_abi::*;
use weft_ebpf::verdict::Verdict;

use super::*;

/// An ICMP error that quotes a frame.
fn error(src: IpAddr, dst: IpAddr, f: Family, about: &Frame) -> Frame {
    let (kind, code) = if f.v6 { (1, 4) } else { (3, 3) };
    Frame {
        payload: about.bytes()[14..].to_vec(),
        ..frame(src, dst, L4::Icmp(kind, code))
    }
}

/// The same about a frame that was `sent` otherwise: the quoted transport's checksum stays, for nobody looks at it.
fn translated(src: IpAddr, dst: IpAddr, f: Family, about: &Frame, sent: &Frame) -> Frame {
    let mut error = error(src, dst, f, about);
    let at = if f.v6 { 46 } else { 26 };
    error.payload[at..at + 2].copy_from_slice(&sent.bytes()[14 + at..14 + at + 2]);
    error
}

pub(super) fn errors(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let router = f.host(254);
    let question = frame(c, n, L4::Udp(4000, 8000));
    let as_seen = frame(c, t1, L4::Udp(4000, 80));
    let answer = frame(n, c, L4::Udp(8000, 4000));
    let said = frame(t1, c, L4::Udp(80, 4000));
    let unreachable = Frame {
        dst_mac: GATEWAY_MAC,
        src_mac: task_mac(1),
        ..error(t1, c, f, &as_seen)
    };
    let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    let far = frame(n, c, L4::Udp(8001, 4000));
    vec![row(
        "ICMP errors",
        f,
        town(),
        vec![
            uplink("question", &question, peer(1, Done::ToTaskTranslated)),
            task("nobody listens", 1, &unreachable, to_client).out(Frame {
                dst_mac: GATEWAY_MAC,
                src_mac: task_mac(1),
                ..translated(n, c, f, &question, &as_seen)
            }),
            uplink(
                "a router refuses the answer",
                &error(router, n, f, &answer),
                peer(1, Done::IcmpTranslated),
            )
            .out(Frame {
                dst_mac: task_mac(1),
                src_mac: GATEWAY_MAC,
                ..translated(router, t1, f, &said, &answer)
            }),
            uplink(
                "about a far backend's answer",
                &error(router, n, f, &far),
                Verdict::Tunnel(to_node(MESH, 2), Done::ToBackendNode),
            ),
            uplink(
                "about something else",
                &error(router, n, f, &frame(n, c, L4::Udp(53, 4000))),
                next(Done::NotOurs),
            ),
        ],
    )]
}

pub(super) fn neighbours(f: Family) -> Vec<Row> {
    let link = Verdict::Out(link_of(3), Done::Answered);
    if f.v6 {
        return vec![row(
            "neighbour discovery",
            f,
            town(),
            vec![
                Step::raw(
                    "question",
                    Program::TaskIn,
                    link_of(3),
                    solicitation(f.task(3), f.on(WEB, 1)),
                    link,
                )
                .exact(advertisement(f.task(3), f.on(WEB, 1))),
                Step::raw(
                    "probe",
                    Program::TaskIn,
                    link_of(3),
                    solicitation(IpAddr::from([0u8; 16]), f.task(3)),
                    Verdict::Drop(Drop::AddressProbe),
                ),
                Step::raw(
                    "in another's name",
                    Program::TaskIn,
                    link_of(3),
                    solicitation(f.task(4), f.on(WEB, 1)),
                    Verdict::Drop(Drop::SpoofedAddress),
                ),
            ],
        )];
    }
    vec![row(
        "ARP",
        f,
        town(),
        vec![
            Step::raw(
                "question",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), f.task(3), f.on(WEB, 1)),
                link,
            )
            .exact(arp_answer(3, f.on(WEB, 1), f.task(3))),
            Step::raw(
                "probe",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), IpAddr::from([0, 0, 0, 0]), f.task(3)),
                Verdict::Drop(Drop::AddressProbe),
            ),
            Step::raw(
                "announcement",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), f.task(3), f.task(3)),
                Verdict::Drop(Drop::AddressProbe),
            ),
            Step::raw(
                "in another's name",
                Program::TaskIn,
                link_of(3),
                arp(1, task_mac(3), f.task(4), f.on(WEB, 1)),
                Verdict::Drop(Drop::SpoofedAddress),
            ),
            Step::raw(
                "answer to the host",
                Program::TaskIn,
                link_of(3),
                arp(2, task_mac(3), f.task(3), f.node(1)),
                next(Done::ToHost),
            ),
        ],
    )]
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn arp(op: u8, sender: Mac, from: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend(sender);
    f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, op]);
    f.extend(sender);
    f.extend(octets(from));
    f.extend([0; 6]);
    f.extend(octets(target));
    f
}

fn arp_answer(id: u32, asked: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut f = task_mac(id).to_vec();
    f.extend(GATEWAY_MAC);
    f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    f.extend(GATEWAY_MAC);
    f.extend(octets(asked));
    f.extend(task_mac(id));
    f.extend(octets(to));
    f
}

/// Without the link-layer option, as a unicast solicitation may be.
pub(super) fn solicitation(src: IpAddr, target: IpAddr) -> Vec<u8> {
    let dst: IpAddr = "ff02::1:ff00:1".parse().unwrap_or(src);
    Frame {
        payload: octets(target),
        ..from_task(3, src, dst, L4::Icmp(135, 0))
    }
    .bytes()
}

pub(super) fn advertisement(to: IpAddr, target: IpAddr) -> Vec<u8> {
    let mut payload = octets(target);
    payload.extend([2, 1]);
    payload.extend(GATEWAY_MAC);
    let plain = Frame {
        payload,
        ..delivered(3, target, to, L4::Icmp(136, 0))
    };
    let mut bytes = plain.bytes();
    // Hop limit 255; solicited and override, which the checksum must follow.
    bytes[21] = 255;
    bytes[58] = 0x60;
    let check = u16::from_be_bytes([bytes[56], bytes[57]]);
    let sum = u32::from(!check) + 0x6000;
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[56..58].copy_from_slice(&check.to_be_bytes());
    bytes
}
