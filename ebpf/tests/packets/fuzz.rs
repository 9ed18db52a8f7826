//! Spoilt packets: judged without a panic, and nothing with a wrong checksum is made of a right one.

use std::path::Path;

use weft_abi::*;
use weft_ebpf::packet::Tunnel;
use weft_ebpf::parse::{Headers, Part, parse, parse_quoted};
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::bytes::Bytes;
use crate::mutate::fuzz;
use crate::rows::frames::Frame;
use crate::rows::list;
use crate::rows::town::{Family, INNER, MESH, OVERLAY, UPLINK, WEB, link_of, town};
use crate::rows::world::World;

const PROGRAMS: [Program; 4] = [
    Program::UplinkIn,
    Program::OverlayIn,
    Program::HostOut,
    Program::TaskIn,
];
const NETS: [u32; 4] = [MESH, WEB, INNER, 9];
const SEGMENTS: [u32; 3] = [0, 1000, 60_000];

fn links() -> [u32; 7] {
    [
        UPLINK,
        link_of(1),
        link_of(3),
        link_of(5),
        link_of(6),
        OVERLAY,
        99,
    ]
}

/// What surrounds a packet, as the first bytes of an input.
fn around(program: Program, link: u32, tunnel: Option<Tunnel>) -> [u8; 5] {
    let four = Family { v6: false };
    let place = |n: Option<usize>| n.unwrap_or(0) as u8;
    [
        place(PROGRAMS.iter().position(|p| *p == program)),
        place(links().iter().position(|l| *l == link)),
        place(tunnel.and_then(|t| NETS.iter().position(|n| *n == t.vni))),
        place(tunnel.and_then(|t| {
            (0..5)
                .find(|n| Addr::from(four.node(*n)) == t.remote)
                .map(|n| n as usize)
        })),
        0,
    ]
}

/// The town with everything switched on.
fn busy() -> World {
    let mut world = town();
    if let Some(config) = &mut world.config {
        config.flags |= config::LISTEN | config::RANGES | config::CAPS;
    }
    if let Some(node) = world.nodes.get_mut(&2) {
        node.mtu = 400;
    }
    world.rings.insert(6, vec![1, 2]);
    world.rings_before.insert(1, vec![2]);
    let front = |service, flags, affinity| Front {
        service,
        flags,
        port: Be16::new(80),
        affinity,
        ..Default::default()
    };
    for proto in [6, 17] {
        for (port, front) in [(8200, front(1, front::ALLOWED, 0)), (8300, front(6, 0, 30))] {
            let key = FrontKey {
                net: 0,
                addr: Addr::ANY,
                port: Be16::new(port),
                proto,
                pad: 0,
            };
            world.fronts.insert(key, front);
        }
        let key = RangeKey {
            addr: Addr::ANY,
            proto,
            pad: 0,
            port: Be16::new(9000),
        };
        world
            .ranges
            .push((RangeKey::WHOLE - 3, key, front(1, 0, 0)));
    }
    world.caps.insert(
        6,
        Cap {
            rate: 1_000_000,
            burst: 1_000_000,
        },
    );
    world
}

/// What an input showed: program, verdict, family, protocol, part.
type Kind = (u8, String, bool, u8, u8);

fn judge(world: &World, work: &mut Work, input: &[u8]) -> Kind {
    let Some((head, frame)) = input.split_first_chunk::<5>() else {
        return (0, String::new(), false, 0, 0);
    };
    let program = PROGRAMS[usize::from(head[0]) % 4];
    let mut p = Bytes::new(frame.to_vec(), links()[usize::from(head[1]) % 7]);
    p.tunnel = Some(Tunnel {
        vni: NETS[usize::from(head[2]) % 4],
        remote: Family { v6: false }.node(u32::from(head[3]) % 5).into(),
    });
    p.segment = SEGMENTS[usize::from(head[4]) % 3];
    p.received = program != Program::HostOut;
    let before = Frame::read(frame);
    let mut ip = Headers::NONE;
    let whole = parse(&p, &mut ip).is_ok() && ip.part == Part::Whole;
    let verdict = match program {
        Program::UplinkIn => weft_ebpf::uplink::judge(&mut p, world, work),
        Program::OverlayIn => weft_ebpf::overlay::judge(&mut p, world, work),
        Program::HostOut => weft_ebpf::host::judge(&mut p, world, work),
        Program::TaskIn | Program::Sock => weft_ebpf::task::judge(&mut p, world, work),
    };
    let goes_on = !matches!(verdict, Verdict::Drop(_) | Verdict::Next(_));
    // A header of a UDP packet may say less than there is; its sum then covers less than the test's.
    if goes_on && whole && before.is_some() && ip.proto != 51 {
        assert!(
            Frame::read(&p.bytes).is_some(),
            "a wrong checksum after {verdict:?}: {:02x?}",
            p.bytes
        );
    }
    let mut quoted = Headers::NONE;
    let _ = parse_quoted(&p, &mut quoted, 42, ip.v6);
    let place = match verdict {
        Verdict::Next(done) => format!("next {done:?}"),
        Verdict::Peer(_, done) => format!("peer {done:?}"),
        Verdict::Neighbour(_, done) => format!("neighbour {done:?}"),
        Verdict::Out(_, done) => format!("out {done:?}"),
        Verdict::In(_, done) => format!("in {done:?}"),
        Verdict::Tunnel(_, done) => format!("tunnel {done:?}"),
        Verdict::Encap(_, done) => format!("encap {done:?}"),
        Verdict::Drop(reason) => format!("drop {reason:?}"),
    };
    let proto = if matches!(ip.proto, 1 | 6 | 17 | 58) {
        ip.proto
    } else {
        0
    };
    (program as u8, place, ip.v6, proto, ip.part as u8)
}

#[test]
fn spoilt_packets() {
    let seeds: Vec<Vec<u8>> = list::all()
        .iter()
        .flat_map(|row| &row.steps)
        .map(|step| {
            let mut input = around(step.program, step.link, step.tunnel).to_vec();
            input.extend(&step.bytes);
            input
        })
        .collect();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/packets.hex");
    let mut work = Work::NONE;
    let (mut world, mut judged) = (busy(), 0);
    fuzz(&corpus, seeds, |input| {
        judged += 1;
        // Flows of earlier inputs matter, but not for ever.
        if judged % 500 == 0 {
            world = busy();
        }
        judge(&world, &mut work, input)
    });
}

#[test]
fn spoilt_hardware_addresses() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/macs.hex");
    let seeds = [
        task_mac(7).to_vec(),
        wire_mac(Leg::Mesh, 7).to_vec(),
        GATEWAY_MAC.to_vec(),
    ];
    fuzz(&corpus, seeds, |input| {
        let Some(mac) = input.first_chunk::<6>() else {
            return (false, None);
        };
        let task = task_of_mac(*mac);
        assert!(task.is_none_or(|id| task_mac(id) == *mac));
        let leg = Leg::of_mac(*mac);
        // An answer's second byte is a load.
        let bare = match leg {
            Some((Leg::Answer, _)) => [mac[0], 0, mac[2], mac[3], mac[4], mac[5]],
            _ => *mac,
        };
        assert!(leg.is_none_or(|(leg, id)| wire_mac(leg, id) == bare));
        // An address is one of these, or neither.
        assert!(task.is_none() || leg.is_none());
        (task.is_some(), leg.map(|(leg, _)| leg as u8))
    });
}
