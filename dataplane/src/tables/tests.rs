use proptest::prelude::*;

use super::*;
use crate::desired::{Endpoint as DesiredEndpoint, Node as DesiredNode, Target};
use weft_types::{BackendId, service::Protocol};

fn addr(number: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + number).into())
}

fn host(interfaces: &[(u32, u32)]) -> Host {
    Host {
        underlay: "192.0.2.11".parse().unwrap(),
        vxlan_port: 4789,
        overlay: 2,
        uplink: 3,
        flags: 0,
        cookie: 77,
        addresses: BTreeSet::from(["192.0.2.11".parse().unwrap(), "fe80::1".parse().unwrap()]),
        named: BTreeMap::from([(
            "eth1".to_owned(),
            BTreeSet::from([[203, 0, 113, 11].into()]),
        )]),
        interfaces: interfaces
            .iter()
            .map(|(id, ifindex)| Endpoint {
                id: *id,
                ifindex: *ifindex,
                net: 4096,
                addr4: addr(*id).into(),
                ..Endpoint::default()
            })
            .collect(),
        namespaces: BTreeMap::from([(5, BTreeSet::from([4096]))]),
        mtus: BTreeMap::from([(1, [1450, 1390])]),
        ways: BTreeMap::new(),
    }
}

fn desired(backends: &BTreeSet<u32>, ports: &BTreeSet<u16>) -> Desired {
    let mut desired = Desired {
        revision: 1,
        node: 1,
        mesh: 4096,
        ..Desired::default()
    };
    let peer = |last: u8| DesiredNode {
        name: String::new(),
        addr: [192, 0, 2, last].into(),
        addresses: BTreeSet::new(),
        zone: String::new(),
        missed: false,
        dead: false,
        wireguard: None,
    };
    desired.nodes = BTreeMap::from([(1, peer(11)), (2, peer(12))]);
    desired.subnets.insert("10.0.0.0/24".parse().unwrap(), 4096);
    for id in backends {
        let endpoint = DesiredEndpoint {
            name: String::new(),
            service: None,
            net: 4096,
            node: 1 + id % 2,
            addresses: vec![addr(*id)],
            draining: id % 7 == 0,
        };
        desired.endpoints.insert(BackendId(*id), endpoint);
    }
    for port in ports {
        let ring = u32::from(*port);
        desired.fronts.insert(
            Frontend::Port(Protocol::Tcp, *port),
            Target {
                ring,
                port: 80,
                host_mode: false,
                affinity: 0,
                allowed: false,
                least: false,
            },
        );
        desired
            .rings
            .insert(ring, backends.iter().map(|id| BackendId(*id)).collect());
    }
    desired
}

fn tables(desired: &Desired, host: &Host, rings: &mut Rings) -> Tables {
    rings.update(&desired.rings, &desired.weights, std::time::Instant::now());
    Tables::of(desired, host, rings)
}

fn apply(have: &mut Tables, plan: Plan) {
    for row in plan.put {
        have.put(row);
    }
    for gone in &plan.remove {
        have.remove(gone);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_plan_leads_from_anything_to_the_wish_and_then_nothing_is_left_to_do(
        backends in prop::collection::vec(prop::collection::btree_set(1_u32..60, 0..12), 3),
        ports in prop::collection::vec(prop::collection::btree_set(1_u16..9, 0..5), 3),
        local in prop::collection::btree_set(1_u32..60, 0..5),
    ) {
        let mut have = Tables::default();
        let mut rings = Rings::default();
        for (backends, ports) in backends.iter().zip(&ports) {
            let host = host(&local.iter().map(|id| (*id, id + 100)).collect::<Vec<_>>());
            let want = tables(&desired(backends, ports), &host, &mut rings);
            let plan = want.plan(&have);
            apply(&mut have, plan);
            prop_assert_eq!(&have, &want);
            prop_assert!(want.plan(&have).is_empty());
            for front in want.front.values() {
                let named = want.rings.get(&front.service);
                prop_assert!(backends.is_empty() == named.is_none(), "a front without its ring");
            }
            let slots = want.rings.values().flat_map(|ring| ring.iter());
            for backend in slots.copied().collect::<BTreeSet<_>>() {
                prop_assert!(want.backends.contains_key(&backend), "a ring names nobody: {backend}");
            }
        }
    }
}

#[test]
fn rows_are_written_before_those_that_name_them_and_removed_after() {
    let mut rings = Rings::default();
    let host = host(&[]);
    let full = tables(
        &desired(&BTreeSet::from([1, 2]), &BTreeSet::from([8])),
        &host,
        &mut rings,
    );
    let plan = full.plan(&Tables::default());
    let place = |found: &dyn Fn(&Row) -> bool| plan.put.iter().position(found).unwrap();
    let backend = place(&|row| matches!(row, Row::Backends(..)));
    let ring = place(&|row| matches!(row, Row::Rings(..)));
    let front = place(&|row| matches!(row, Row::Front(..)));
    assert!(backend < ring && ring < front);
    let plan = Tables::default().plan(&full);
    let place = |found: &dyn Fn(&Gone) -> bool| plan.remove.iter().position(found).unwrap();
    assert!(
        place(&|gone| matches!(gone, Gone::Front(_)))
            < place(&|gone| matches!(gone, Gone::Rings(_)))
    );
    assert!(
        place(&|gone| matches!(gone, Gone::Rings(_)))
            < place(&|gone| matches!(gone, Gone::Backends(_)))
    );
}

#[test]
fn a_local_task_is_found_by_address_even_when_the_cluster_forgot_it() {
    let mut rings = Rings::default();
    let rows = tables(
        &desired(&BTreeSet::new(), &BTreeSet::new()),
        &host(&[(9, 109)]),
        &mut rings,
    );
    let task = rows.tasks[&NetAddr {
        net: 4096,
        addr: addr(9).into(),
    }];
    assert_eq!((task.id, task.node, task.ifindex), (9, 1, 109));
    assert_eq!(
        rows.backends[&9].flags & backend::DRAINING,
        backend::DRAINING
    );
}

#[test]
fn link_local_addresses_listen_but_name_no_host() {
    let mut rings = Rings::default();
    let rows = tables(
        &desired(&BTreeSet::new(), &BTreeSet::new()),
        &host(&[]),
        &mut rings,
    );
    let link_local: IpAddr = "fe80::1".parse().unwrap();
    assert!(rows.local_addrs.contains_key(&link_local.into()));
    assert!(!rows.node_by_addr.contains_key(&link_local.into()));
}

#[test]
fn a_frontend_that_listens_in_some_places_has_a_row_for_each_address_and_none_for_all() {
    let mut desired = desired(&BTreeSet::from([1]), &BTreeSet::from([80]));
    let front = Frontend::Port(Protocol::Tcp, 80);
    let at = |desired: &Desired| -> Vec<Addr> {
        let tables = tables(desired, &host(&[]), &mut Rings::default());
        let flags = tables.config[&0].flags;
        for flag in [config::LISTEN, config::CARRIED] {
            assert_eq!(flags & flag != 0, !desired.listens.is_empty());
        }
        // What another node took in is always found: it saw to the address.
        let mut all: Vec<Addr> = tables.front.keys().map(|key| key.addr).collect();
        assert_eq!(all.contains(&FrontKey::CARRIED), flags != 0);
        all.retain(|addr| *addr != FrontKey::CARRIED);
        all.sort_by_key(|addr| IpAddr::from(*addr));
        all
    };
    assert_eq!(at(&desired), [Addr::ANY]);
    let net = |net: &str| Listen::Net(net.parse().unwrap());
    let interface = |name: &str| Listen::Interface(name.to_owned());
    desired.listens.insert(front, vec![net("192.0.2.0/24")]);
    assert_eq!(
        at(&desired),
        [Addr::v4([192, 0, 2, 11]), Addr::v4([192, 0, 2, 12])],
        "of every node"
    );
    desired.listens.insert(front, vec![net("127.0.0.1/32")]);
    assert_eq!(
        at(&desired),
        [Addr::v4([127, 0, 0, 1])],
        "wider than asked for"
    );
    desired.listens.insert(front, vec![net("198.51.100.0/24")]);
    assert_eq!(at(&desired), [Addr::ANY; 0], "no node has such an address");
    desired
        .listens
        .insert(front, vec![interface("eth1"), net("192.0.2.12/32")]);
    assert_eq!(
        at(&desired),
        [Addr::v4([192, 0, 2, 12]), Addr::v4([203, 0, 113, 11])],
        "of this node"
    );
    desired.listens.insert(front, vec![interface("eth7")]);
    assert_eq!(at(&desired), [Addr::ANY; 0], "no such interface");
}

#[test]
fn ten_thousand_ports_are_a_handful_of_rows() {
    let mut desired = desired(&BTreeSet::from([1]), &BTreeSet::new());
    let target = Target {
        ring: 5,
        port: 1000,
        host_mode: false,
        affinity: 60,
        allowed: true,
        least: false,
    };
    desired
        .fronts
        .insert(Frontend::Ports(Protocol::Tcp, 20_000, 29_999), target);
    desired
        .allowed
        .insert(5, vec!["198.51.100.0/24".parse().unwrap()]);
    desired.caps.insert(5, 1_000_000);
    let tables = tables(&desired, &host(&[]), &mut Rings::default());
    assert!(tables.front.is_empty());
    assert!(
        tables.front_ranges.len() <= 30,
        "{} rows",
        tables.front_ranges.len()
    );
    let ports: u32 = tables
        .front_ranges
        .keys()
        .map(|key| 1 << (RangeKey::WHOLE - key.prefix))
        .sum();
    assert_eq!(ports, 10_000);
    for (key, front) in &tables.front_ranges {
        let first = key.data.port;
        assert_eq!(front.target(first).get(), first.get() - 20_000 + 1000);
        assert_eq!(
            (front.flags & front::ALLOWED, front.affinity),
            (front::ALLOWED, 60)
        );
    }
    let allowed: Vec<_> = tables.allowed.keys().collect();
    assert_eq!(allowed.len(), 1);
    assert_eq!(
        (allowed[0].prefix, allowed[0].data.service),
        (32 + 96 + 24, 5)
    );
    assert_eq!(
        (tables.caps[&5].rate, tables.caps[&5].burst),
        (1_000_000, 131_072)
    );
    let flags = tables.config[&0].flags;
    assert_eq!(flags, config::RANGES | config::CAPS);
    assert_eq!(
        (tables.nodes[&1].mtu, tables.nodes[&1].mtu_encrypted),
        (1450, 1390)
    );
}

#[test]
fn an_address_told_twice_is_whose_agent_was_heard_of_last() {
    let floating: IpAddr = [192, 0, 2, 200].into();
    for missed in [1, 2] {
        let mut desired = desired(&BTreeSet::new(), &BTreeSet::new());
        for (index, node) in &mut desired.nodes {
            node.addresses.insert(floating);
            node.missed = *index == missed;
        }
        let tables = Tables::of(&desired, &host(&[]), &Rings::default());
        assert_eq!(tables.owner.get(&floating.into()), Some(&(3 - missed)));
    }
}

#[test]
fn a_task_has_rows_of_both_families_and_says_that_it_drains() {
    let mut desired = desired(&BTreeSet::from([1, 7]), &BTreeSet::new());
    let six: IpAddr = "fd00:1::7".parse().unwrap();
    let seven = desired.endpoints.get_mut(&BackendId(7)).unwrap();
    seven.addresses.push(six);
    let mut host = host(&[(9, 109)]);
    let forgotten: IpAddr = "fd00:1::9".parse().unwrap();
    host.interfaces[0].addr6 = forgotten.into();
    host.addresses.insert("2001:db8::11".parse().unwrap());
    let rows = tables(&desired, &host, &mut Rings::default());
    let row = rows.backends[&7];
    assert_eq!((row.addr4, row.addr6), (addr(7).into(), six.into()));
    let flags = [1, 7].map(|id| rows.backends[&id].flags);
    assert_eq!(flags, [0, backend::DRAINING]);
    for (id, addr) in [(7, addr(7)), (7, six), (9, addr(9)), (9, forgotten)] {
        let key = NetAddr {
            net: 4096,
            addr: addr.into(),
        };
        assert_eq!(rows.tasks.get(&key).map(|task| task.id), Some(id), "{addr}");
    }
    for addr in &host.addresses {
        assert!(rows.local_addrs.contains_key(&(*addr).into()), "{addr}");
    }
}

#[test]
fn what_a_service_or_network_asks_for_is_in_its_rows() {
    let mut desired = desired(&BTreeSet::from([1]), &BTreeSet::from([8, 9]));
    let front = Frontend::Port(Protocol::Tcp, 8);
    desired.fronts.get_mut(&front).unwrap().least = true;
    let six = "2001:db8:1::/64".parse().unwrap();
    let four = "198.51.100.7/32".parse().unwrap();
    desired.allowed.insert(8, vec![six, four]);
    let rows = tables(&desired, &host(&[]), &mut Rings::default());
    let least: Vec<bool> = rows
        .front
        .values()
        .map(|row| row.flags & front::LEAST != 0)
        .collect();
    assert_eq!(least, [true, false]);
    let prefixes: BTreeSet<u32> = rows.allowed.keys().map(|key| key.prefix).collect();
    assert_eq!(prefixes, BTreeSet::from([32 + 64, 32 + 128]));
    assert_eq!(rows.config[&0].flags, 0);
    desired.ciphered.insert(4096);
    let rows = tables(&desired, &host(&[]), &mut Rings::default());
    assert_eq!(rows.config[&0].flags, config::CIPHERED);
}

#[test]
fn nobody_inherits_an_address_from_the_dead() {
    let mut desired = desired(&BTreeSet::new(), &BTreeSet::new());
    let address: IpAddr = "2001:db8::12".parse().unwrap();
    for dead in [false, true] {
        let two = desired.nodes.get_mut(&2).unwrap();
        two.addresses.insert(address);
        two.dead = dead;
        let rows = Tables::of(&desired, &host(&[]), &Rings::default());
        let owner = rows.owner.get(&address.into()).copied();
        assert_eq!(owner, (!dead).then_some(2));
        assert_eq!(rows.node_by_addr[&address.into()].node, 2);
        assert_eq!(rows.nodes[&2].flags, u32::from(dead) * node::DEAD);
    }
}
