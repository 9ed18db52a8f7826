//! Packets that nobody honest sends, reason by reason; after each, an honest one goes its way.

use weft_abi::*;
use weft_ebpf::parse::tcp_flag::{ACK, SYN};
use weft_ebpf::verdict::Verdict;

use super::*;

/// Senders of a flood that do not exist.
const FORGED: u16 = 60;

/// Connections that nobody means, more than there is room for: opened from addresses that do not exist, acknowledged
/// blindly, and answered to what nobody asked. Whoever was there before stays.
pub(super) fn flood(f: Family) -> Vec<Row> {
    let (c, n, t1) = (f.client(), f.node(1), f.task(1));
    let ask = |src, port, flags| frame(src, n, L4::Tcp(port, 8000, flags));
    let says = |flags| from_task(1, t1, c, L4::Tcp(80, 4000, flags));
    let here = peer(1, Done::ToTaskTranslated);
    let to_client = Verdict::Neighbour(UPLINK, Done::AnswerToClient);
    let mut steps = vec![
        uplink("one that is meant", &ask(c, 4000, SYN), here),
        task("its SYN+ACK", 1, &says(SYN_ACK), to_client),
        uplink("its ACK", &ask(c, 4000, ACK), here),
        task("its task's data", 1, &says(ACK), to_client),
    ];
    for at in 0..FORGED {
        let src = f.host(u32::from(at) + 101);
        steps.extend([
            uplink("forged SYN", &ask(src, 5000 + at, SYN), here),
            uplink("blind ACK", &ask(src, 5000 + at, ACK), here),
            uplink("unasked SYN+ACK", &ask(src, 6000 + at, SYN_ACK), here),
        ]);
    }
    steps.push(uplink("the one goes on", &ask(c, 4000, ACK), here));
    steps.push(task("and its task", 1, &says(ACK), to_client));
    vec![row("a flood", f, town(), steps)]
}

pub(super) fn malformed(f: Family) -> Vec<Row> {
    let (t3, t6, c) = (f.task(3), f.task(6), f.client());
    let good = from_task(3, t3, t6, L4::Tcp(4000, 80, ACK));
    let link = link_of(3);
    let mut no_transport = from_task(3, t3, t6, L4::Udp(1, 2)).bytes();
    no_transport.truncate(if f.v6 { 58 } else { 38 });
    let mut version = good.bytes();
    version[14] = 0x95;
    let mut ether = good.bytes();
    ether[12..14].copy_from_slice(&[0x88, 0xcc]);
    let mut long = from_task(3, t3, f.vip(), L4::Udp(4000, 80));
    long.payload = vec![7; 64];
    let [_, later] = long.fragments(32);
    let kind = if f.v6 {
        L4::Icmp(129, 0)
    } else {
        L4::Icmp(0, 0)
    };
    let strange = from_task(3, t3, f.vip(), kind);
    let pass = || task("an honest one", 3, &good, peer(6, Done::ToTask));
    let at = |name, bytes, reason| Step::raw(name, Program::TaskIn, link, bytes, drop(reason));
    let mut steps = vec![
        at("no transport header", no_transport, Drop::Malformed),
        pass(),
        at("an IP version that is none", version, Drop::Malformed),
        pass(),
        at("another Ethernet type", ether, Drop::UnsupportedEther),
        pass(),
        at("a fragment without its first", later, Drop::FragmentLost),
        pass(),
        task(
            "an ICMP message that services do not carry",
            3,
            &strange,
            drop(Drop::UnsupportedIcmp),
        ),
        pass(),
    ];
    if f.v6 {
        let mut deep = good.bytes();
        for _ in 0..7 {
            let next = deep[20];
            deep.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
            deep[20] = 60;
        }
        let length = (deep.len() - 54) as u16;
        deep[18..20].copy_from_slice(&length.to_be_bytes());
        steps.push(at("seven headers deep", deep, Drop::UnsupportedExtension));
        steps.push(pass());
    }
    // A node's own tables may be behind: a backend that has no address, one of a node that nobody knows.
    let mut world = town();
    if let Some(one) = world.endpoints.get_mut(&link_of(1)) {
        (one.addr4, one.addr6) = (Addr::ANY, Addr::ANY);
    }
    if let Some(two) = world.backends.get_mut(&2) {
        two.node = 9;
    }
    let n = f.node(1);
    vec![
        row("malformed packets of a task", f, town(), steps),
        row(
            "tables that are behind",
            f,
            world,
            vec![
                uplink(
                    "a backend without an address",
                    &frame(c, n, L4::Tcp(4000, 8000, SYN)),
                    drop(Drop::NoAddress),
                ),
                uplink(
                    "a backend of an unknown node",
                    &frame(c, n, L4::Tcp(4000, 8001, SYN)),
                    drop(Drop::NoSuchNode),
                ),
            ],
        ),
    ]
}

pub(super) fn in_clear(f: Family) -> Vec<Row> {
    let (t3, t4) = (f.task(3), f.task(4));
    let mut world = town();
    world.ciphered.push(WEB);
    if let Some(config) = &mut world.config {
        config.flags |= config::CIPHERED;
    }
    vec![row(
        "an encrypted network",
        f,
        world,
        vec![
            overlay(
                "a packet in clear",
                WEB,
                2,
                &carried(Leg::Plain, 4, 3, t4, t3, L4::Tcp(4000, 80, SYN)),
                drop(Drop::ClearRefused),
            ),
            task(
                "a packet to a node without a key",
                3,
                &from_task(3, t3, t4, L4::Tcp(4000, 80, SYN)),
                drop(Drop::NoCipher),
            ),
            task(
                "within this node",
                3,
                &from_task(3, t3, f.task(6), L4::Tcp(4000, 80, SYN)),
                peer(6, Done::ToTask),
            ),
        ],
    )]
}
