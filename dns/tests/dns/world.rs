//! Small worlds for the other tests: Docker's recorded session, and ways to ask about it.

use std::{collections::BTreeSet, net::IpAddr};

use weft_dns::{
    Answer, Asker, Fact, Zones, resolve,
    resolve::{Question, Wanted},
};
use weft_types::{
    BackendId, NetworkId, NodeId, ServiceId, TaskId,
    netstate::{EndpointPhase, NetEndpoint, NetNetwork, NetService, NetState},
    service::EndpointMode,
};

/// Network `t_n1`, 10.0.4.0/24, of the recorded session.
pub(crate) fn n1() -> NetworkId {
    NetworkId::numbered(1)
}

/// Network `t_n2`, which shares no container with `t_n1` unless a test says so.
pub(crate) fn n2() -> NetworkId {
    NetworkId::numbered(2)
}

/// The ingress network.
pub(crate) fn ingress() -> NetworkId {
    NetworkId::numbered(99)
}

/// The id of the `number`th task.
pub(crate) fn task(number: u32) -> TaskId {
    TaskId::numbered(u128::from(number))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

pub(crate) fn network(name: &str, subnets: &[&str]) -> NetNetwork {
    NetNetwork {
        name: name.to_owned(),
        vni: 4097,
        subnets: subnets
            .iter()
            .map(|text| text.parse().expect("a subnet"))
            .collect(),
        gateways: Vec::new(),
        mtu_bytes: None,
        ingress: name == "ingress",
        internal: false,
        encrypted: false,
        about: weft_types::netstate::NetworkAbout::default(),
    }
}

pub(crate) fn service(
    name: &str,
    mode: EndpointMode,
    vips: &[(NetworkId, &[&str])],
    aliases: &[(NetworkId, &[&str])],
) -> NetService {
    NetService {
        name: name.to_owned(),
        mode,
        vips: vips
            .iter()
            .map(|(network, addresses)| (*network, ips(addresses)))
            .collect(),
        aliases: aliases
            .iter()
            .map(|(network, names)| {
                (
                    *network,
                    names
                        .iter()
                        .map(|name| (*name).to_owned())
                        .collect::<BTreeSet<_>>(),
                )
            })
            .collect(),
        ports: Vec::new(),
        labels: [].into(),
    }
}

pub(crate) fn endpoint(
    number: u32,
    network: NetworkId,
    service: Option<u128>,
    name: &str,
    names: &[&str],
    addresses: &[&str],
) -> NetEndpoint {
    NetEndpoint {
        task: task(number),
        network,
        node: NodeId::numbered(1),
        addresses: addresses
            .iter()
            .map(|text| text.parse().expect("an address and length"))
            .collect(),
        service: service.map(ServiceId::numbered),
        name: name.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        phase: EndpointPhase::Serving,
        host_ports: Vec::new(),
    }
}

/// The session recorded from Docker: service `t_a` (virtual address .2, tasks .3 and .4, alias
/// `alia`), `t_b` (round robin over .5 and .6), a user's own container `t_ctr` (.7, alias `ctral`).
/// Beside it `t_c` on `t_n2` alone, and the ingress network with `t_a`'s tasks on it.
pub(crate) fn recorded() -> NetState {
    let mut state = NetState {
        revision: 1,
        ..NetState::default()
    };
    state
        .networks
        .insert(n1(), network("t_n1", &["10.0.4.0/24"]));
    state
        .networks
        .insert(n2(), network("t_n2", &["10.0.5.0/24", "fd00:5::/64"]));
    state
        .networks
        .insert(ingress(), network("ingress", &["10.0.0.0/24"]));
    let t_a = service(
        "t_a",
        EndpointMode::Vip,
        &[(n1(), &["10.0.4.2"]), (ingress(), &["10.0.0.5"])],
        &[(n1(), &["alia"])],
    );
    state.services.insert(ServiceId::numbered(1), t_a);
    state.services.insert(
        ServiceId::numbered(2),
        service("t_b", EndpointMode::Dnsrr, &[], &[]),
    );
    let t_c = service(
        "t_c",
        EndpointMode::Vip,
        &[(n2(), &["10.0.5.2", "fd00:5::2"])],
        &[],
    );
    state.services.insert(ServiceId::numbered(3), t_c);
    let name = |service: &str, slot: u32, number| format!("{service}.{slot}.{}", task(number));
    let endpoints = [
        endpoint(
            3,
            n1(),
            Some(1),
            &name("t_a", 1, 3),
            &["h-1-vm", "aaaaaaaaaa03"],
            &["10.0.4.3/24"],
        ),
        endpoint(
            4,
            n1(),
            Some(1),
            &name("t_a", 2, 4),
            &["h-2-vm", "aaaaaaaaaa04"],
            &["10.0.4.4/24"],
        ),
        endpoint(
            5,
            n1(),
            Some(2),
            &name("t_b", 1, 5),
            &["aaaaaaaaaa05"],
            &["10.0.4.5/24"],
        ),
        endpoint(
            6,
            n1(),
            Some(2),
            &name("t_b", 2, 6),
            &["aaaaaaaaaa06"],
            &["10.0.4.6/24"],
        ),
        endpoint(
            7,
            n1(),
            None,
            "t_ctr",
            &["aaaaaaaaaa07", "ctral"],
            &["10.0.4.7/24"],
        ),
        endpoint(
            8,
            n2(),
            Some(3),
            &name("t_c", 1, 8),
            &["aaaaaaaaaa08"],
            &["10.0.5.3/24", "fd00:5::3/64"],
        ),
        endpoint(
            3,
            ingress(),
            Some(1),
            &name("t_a", 1, 3),
            &["h-1-vm", "aaaaaaaaaa03"],
            &["10.0.0.6/24"],
        ),
    ];
    for (number, endpoint) in (1..).zip(endpoints) {
        state.endpoints.insert(BackendId(number), endpoint);
    }
    state
}

/// An asker on these networks, in this order.
pub(crate) fn on(networks: &[NetworkId]) -> Asker {
    Asker {
        networks: networks.to_vec(),
        ..Asker::default()
    }
}

/// Asks as the wire would: in lower case.
pub(crate) fn ask(zones: &Zones, asker: &Asker, name: &str, wanted: Wanted) -> Answer {
    let name = name.to_ascii_lowercase();
    resolve(
        &Question {
            name: name.as_bytes(),
            wanted,
        },
        asker,
        zones,
        7,
    )
}

/// Asks for what `address` is called.
pub(crate) fn ask_back(zones: &Zones, asker: &Asker, address: &str) -> Answer {
    resolve(
        &Question {
            name: b"a.reverse.name",
            wanted: Wanted::Pointer(ip(address)),
        },
        asker,
        zones,
        7,
    )
}

/// The addresses of an answer, sorted, since their order is drawn.
pub(crate) fn sorted(answer: Answer) -> Answer {
    match answer {
        Answer::Records(mut facts) => {
            facts.sort_by_key(|fact| match fact {
                Fact::Address(address) => (Some(*address), String::new()),
                Fact::Pointer(name) => (None, name.clone()),
            });
            Answer::Records(facts)
        }
        other => other,
    }
}

/// The answer that consists of these addresses.
pub(crate) fn addresses(texts: &[&str]) -> Answer {
    Answer::Records(ips(texts).into_iter().map(Fact::Address).collect())
}

/// The answer that consists of this name.
pub(crate) fn named(name: String) -> Answer {
    Answer::Records(vec![Fact::Pointer(name)])
}
