//! What holds for every name, every packet and every world.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};

use hickory_proto::{ProtoError, rr::RecordType};
use hickory_server::{net::xfer::Protocol, server::Request};
use proptest::prelude::*;
use weft_dns::{
    Answer, Asker, ContainerNames, Fact, Mode, ServiceNames, ZoneBuilder, Zones,
    question::Asked,
    reply::{Reply, UDP_BYTES},
    resolve,
    resolve::{Question, Wanted},
    wire::{self, Transport},
};
use weft_types::NetworkId;

use crate::{
    packet,
    world::{ask, on, sorted},
};

fn from_bytes(packet: &[u8]) -> Result<Request, ProtoError> {
    Request::from_bytes(
        packet.to_vec(),
        ([127, 0, 0, 1], 5353).into(),
        Protocol::Udp,
    )
}

/// Four networks `net0`..; network `n` is 10.0.n.0/24, so an address tells its network.
fn world(services: &[(u8, u8, bool, Vec<u8>)]) -> Zones {
    let mut zones = Zones::default();
    for network in 0..4u8 {
        let subnet = format!("10.0.{network}.0/24").parse().expect("a subnet");
        let mut zone = ZoneBuilder::new(&format!("net{network}"), &[subnet]);
        for (on, number, vip, tasks) in services.iter().filter(|(on, ..)| *on == network) {
            let address = |last: u8| IpAddr::V4(Ipv4Addr::new(10, 0, *on, last));
            let tasks: Vec<IpAddr> = tasks.iter().map(|last| address(*last)).collect();
            let vips = [address(254)];
            let mode = if *vip {
                Mode::Vip(&vips)
            } else {
                Mode::RoundRobin
            };
            zone.service(&ServiceNames {
                names: &[&format!("svc{number}")],
                mode,
                tasks: &tasks,
            });
            for task in &tasks {
                let name = format!("svc{number}.1.{}", task.to_string().replace('.', "x"));
                zone.container(&ContainerNames {
                    name: &name,
                    others: &[],
                    addresses: &[*task],
                });
            }
        }
        zones
            .networks
            .insert(NetworkId::numbered(network.into()), zone.build().into());
    }
    zones
}

fn services() -> impl Strategy<Value = Vec<(u8, u8, bool, Vec<u8>)>> {
    prop::collection::vec(
        (
            0..4u8,
            0..4u8,
            any::<bool>(),
            prop::collection::vec(1..200u8, 0..5),
        ),
        0..10,
    )
}

fn names() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "svc0", "svc1", "svc2", "tasks", "net0", "net1", "net3", "com", "x", "1",
    ]);
    prop::collection::vec(word, 1..5).prop_map(|words| words.join("."))
}

fn askers() -> impl Strategy<Value = Asker> {
    prop::collection::vec(0..5u128, 0..4).prop_map(|networks| {
        on(&networks
            .into_iter()
            .map(NetworkId::numbered)
            .collect::<Vec<_>>())
    })
}

proptest! {
    #[test]
    fn answers_come_only_from_networks_of_the_asker(services in services(), name in names(), asker in askers()) {
        let zones = world(&services);
        for wanted in [Wanted::V4, Wanted::Any] {
            if let Answer::Records(facts) = ask(&zones, &asker, &name, wanted) {
                prop_assert!(!facts.is_empty());
                for fact in facts {
                    let Fact::Address(IpAddr::V4(address)) = fact else { panic!("{name} is {fact:?}") };
                    let network = NetworkId::numbered(address.octets()[2].into());
                    prop_assert!(asker.networks.contains(&network), "{name} is {address}, on no network of the asker");
                }
            }
        }
    }

    #[test]
    fn a_way_back_is_shown_only_on_networks_of_the_asker(services in services(), asker in askers(), network in 0..4u8, last in 0..255u8) {
        let wanted = Wanted::Pointer(IpAddr::V4(Ipv4Addr::new(10, 0, network, last)));
        let answer = resolve(&Question { name: b"x", wanted }, &asker, &world(&services), 0);
        let shared = asker.networks.contains(&NetworkId::numbered(network.into()));
        prop_assert_eq!(answer == Answer::Forward, !shared, "{:?}", answer);
    }

    #[test]
    fn a_name_is_ours_or_not_whatever_the_type(services in services(), name in names(), asker in askers()) {
        let zones = world(&services);
        let forwarded = ask(&zones, &asker, &name, Wanted::V4) == Answer::Forward;
        for wanted in [Wanted::V6, Wanted::Any, Wanted::Other] {
            prop_assert_eq!(ask(&zones, &asker, &name, wanted) == Answer::Forward, forwarded);
        }
    }

    #[test]
    fn the_seed_changes_the_order_and_nothing_else(services in services(), name in names(), asker in askers(), seed: u64) {
        let zones = world(&services);
        let question = Question { name: name.as_bytes(), wanted: Wanted::V4 };
        prop_assert_eq!(sorted(resolve(&question, &asker, &zones, seed)), sorted(resolve(&question, &asker, &zones, 0)));
    }

    #[test]
    fn case_does_not_matter(services in services(), name in names(), asker in askers(), upper: u64) {
        let zones = world(&services);
        let mixed: String = name
            .chars()
            .enumerate()
            .map(|(at, letter)| if upper >> (at % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
            .collect();
        let asked = |name: &str| {
            let request = packet::request(&packet::query(1, &format!("{name}."), RecordType::A, None));
            let question = Asked::of(&request).expect("a question");
            resolve(&question.question(), &asker, &zones, 7)
        };
        prop_assert_eq!(asked(&mixed), asked(&name));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(request) = from_bytes(&bytes)
            && let Ok(asked) = Asked::of(&request)
        {
            let facts = [Fact::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)), Fact::Pointer("a..b".to_owned())];
            black_box(Reply::facts(&request, &asked, &facts, Transport::Udp));
            black_box(resolve(&asked.question(), &on(&[NetworkId::numbered(0)]), &world(&[]), 0));
        }
        let asked = packet::request(&packet::query(1, "web.", RecordType::A, None));
        let _garbage = black_box(Reply::outside(&asked, &bytes));
        black_box((wire::answers(&bytes, &bytes), wire::code(&bytes), wire::is_truncated(&bytes)));
    }

    #[test]
    fn a_spoilt_question_never_panics_and_answers_stay_in_size(at in 0..64usize, with: u8, payload in prop::option::of(any::<u16>()), count in 0..400u32) {
        let mut bytes = packet::query(9, "tasks.svc0.net1.", RecordType::A, payload);
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(request) = from_bytes(&bytes)
            && let Ok(asked) = Asked::of(&request)
        {
            let facts: Vec<Fact> = (0..count).map(|number| Fact::Address(IpAddr::V4(Ipv4Addr::from(number)))).collect();
            let reply = Reply::facts(&request, &asked, &facts, Transport::Udp);
            let limit = reply.edns.as_ref().map_or(512, |edns| edns.max_payload());
            prop_assert!(limit <= UDP_BYTES);
            let bytes = packet::packet(&request, &reply).len();
            prop_assert!(bytes <= limit.into(), "{} bytes where {} are the limit", bytes, limit);
        }
    }
}
