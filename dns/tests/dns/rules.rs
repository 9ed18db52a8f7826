//! Each rule of the embedded resolver, one test a rule.

use std::sync::Arc;

use weft_dns::{Answer, Asker, Zones, resolve::Wanted};
use weft_types::{
    BackendId, NodeId, ServiceId,
    netstate::{EndpointPhase, NetNode, NetState},
    service::EndpointMode,
};

use crate::world::{
    addresses, ask, ask_back, endpoint, ingress, n1, n2, named, network, on, recorded, service,
    sorted, task,
};

fn zones() -> Zones {
    Zones::from_netstate(&recorded())
}

#[test]
fn a_name_without_addresses_of_a_family_is_no_data_and_stays_inside() {
    let asker = on(&[n1()]);
    for name in [
        "t_a",
        "tasks.t_a",
        "t_b",
        "alia",
        "t_ctr",
        "h-1-vm",
        "t_a.t_n1",
    ] {
        assert_eq!(
            ask(&zones(), &asker, name, Wanted::V6),
            Answer::NoData,
            "AAAA {name}"
        );
        assert_eq!(
            ask(&zones(), &asker, name, Wanted::Other),
            Answer::NoData,
            "SRV {name}"
        );
    }
}

#[test]
fn a_dual_stack_network_answers_each_family_by_its_own_addresses() {
    let asker = on(&[n2()]);
    assert_eq!(
        ask(&zones(), &asker, "t_c", Wanted::V6),
        addresses(&["fd00:5::2"])
    );
    assert_eq!(
        ask(&zones(), &asker, "tasks.t_c", Wanted::V6),
        addresses(&["fd00:5::3"])
    );
    assert_eq!(
        sorted(ask(&zones(), &asker, "t_c", Wanted::Any)),
        addresses(&["10.0.5.2", "fd00:5::2"])
    );
    assert_eq!(
        ask_back(&zones(), &asker, "fd00:5::3"),
        named(format!("t_c.1.{}.t_n2", task(8)))
    );
    assert_eq!(ask_back(&zones(), &asker, "fd00:5::2"), Answer::NxDomain);
}

#[test]
fn the_first_network_of_the_asker_that_owns_a_name_answers_alone() {
    let mut state = recorded();
    let twin = endpoint(
        20,
        n2(),
        None,
        "t_ctr",
        &[],
        &["10.0.5.20/24", "fd00:5::20/64"],
    );
    state.endpoints.insert(BackendId(20), twin);
    let zones = Zones::from_netstate(&state);
    assert_eq!(
        ask(&zones, &on(&[n1(), n2()]), "t_ctr", Wanted::V4),
        addresses(&["10.0.4.7"])
    );
    assert_eq!(
        ask(&zones, &on(&[n1(), n2()]), "t_ctr", Wanted::V6),
        Answer::NoData
    );
    assert_eq!(
        ask(&zones, &on(&[n2(), n1()]), "t_ctr", Wanted::V4),
        addresses(&["10.0.5.20"])
    );
    assert_eq!(
        ask(&zones, &on(&[n1(), n2()]), "t_ctr.t_n2", Wanted::V6),
        addresses(&["fd00:5::20"])
    );
}

#[test]
fn the_longest_name_is_tried_first_and_then_split_from_the_right() {
    let mut state = NetState::default();
    state.networks.insert(n1(), network("c", &["10.0.4.0/24"]));
    state
        .networks
        .insert(n2(), network("b.c", &["10.0.5.0/24"]));
    let names = [
        (1, n1(), "a.b", "10.0.4.3/24"),
        (2, n2(), "a", "10.0.5.3/24"),
    ];
    for (number, network, name, address) in names {
        state.endpoints.insert(
            BackendId(number),
            endpoint(number, network, None, name, &[], &[address]),
        );
    }
    let asker = on(&[n1(), n2()]);
    assert_eq!(
        ask(&Zones::from_netstate(&state), &asker, "a.b.c", Wanted::V4),
        addresses(&["10.0.4.3"])
    );

    state.endpoints.remove(&BackendId(1));
    assert_eq!(
        ask(&Zones::from_netstate(&state), &asker, "a.b.c", Wanted::V4),
        addresses(&["10.0.5.3"])
    );

    state.endpoints.insert(
        BackendId(3),
        endpoint(3, n1(), None, "a.b.c", &[], &["10.0.4.9/24"]),
    );
    assert_eq!(
        ask(&Zones::from_netstate(&state), &asker, "a.b.c", Wanted::V4),
        addresses(&["10.0.4.9"])
    );
}

#[test]
fn the_ingress_network_has_no_names_but_owns_its_reverse_names() {
    let asker = on(&[ingress()]);
    for name in ["t_a", "h-1-vm", "aaaaaaaaaa03"] {
        assert_eq!(
            ask(&zones(), &asker, name, Wanted::V4),
            Answer::Forward,
            "A {name}"
        );
    }
    assert_eq!(ask_back(&zones(), &asker, "10.0.0.6"), Answer::NxDomain);
}

#[test]
fn reverse_names_of_shared_subnets_stay_inside_and_others_go_out() {
    let asker = on(&[n1(), ingress()]);
    assert_eq!(
        ask_back(&zones(), &asker, "10.0.4.2"),
        Answer::NxDomain,
        "a virtual address"
    );
    assert_eq!(
        ask_back(&zones(), &asker, "10.0.4.200"),
        Answer::NxDomain,
        "nobody's address"
    );
    assert_eq!(
        ask_back(&zones(), &asker, "10.0.5.3"),
        Answer::Forward,
        "a network not shared"
    );
    assert_eq!(
        ask_back(&zones(), &asker, "192.0.2.1"),
        Answer::Forward,
        "the world"
    );
}

#[test]
fn names_that_only_a_network_could_own_are_never_forwarded() {
    let asker = on(&[n1()]);
    let gone = format!("t_a.1.{}", task(77));
    for name in [
        "tasks.agent",
        "tasks.t_c",
        "nobody.t_n1",
        "tasks.nobody.t_n1",
        "a.b.t_n1",
        "t_a.1",
        "t_a.17",
        &gone,
    ] {
        for wanted in [Wanted::V4, Wanted::V6, Wanted::Other] {
            assert_eq!(
                ask(&zones(), &asker, name, wanted),
                Answer::NxDomain,
                "{wanted:?} {name}"
            );
        }
    }
}

#[test]
fn names_of_the_world_are_forwarded() {
    let asker = on(&[n1()]);
    for name in [
        "example.com",
        "nobody",
        "t_n1",
        "tasks.example.com",
        "t_a.example.com",
        "1.2.3.4",
        "localhost",
        "",
    ] {
        assert_eq!(
            ask(&zones(), &asker, name, Wanted::V4),
            Answer::Forward,
            "A {name}"
        );
    }
}

#[test]
fn a_network_called_like_a_public_domain_does_not_take_it_away() {
    for public in ["dev", "App", "io"] {
        let mut state = recorded();
        state
            .networks
            .insert(n1(), network(public, &["10.0.4.0/24"]));
        let zones = Zones::from_netstate(&state);
        let outside = format!("example.{public}");
        let inside = format!("t_a.{public}");
        assert_eq!(
            ask(&zones, &on(&[n1()]), &outside, Wanted::V4),
            Answer::Forward,
            "A {outside}"
        );
        assert_eq!(
            ask(&zones, &on(&[n1()]), &inside, Wanted::V4),
            addresses(&["10.0.4.2"]),
            "A {inside}"
        );
    }
}

#[test]
fn single_labels_are_left_to_the_search_list_where_the_user_asked_for_it() {
    let asker = Asker {
        searches_single_labels: true,
        ..on(&[n1()])
    };
    assert_eq!(ask(&zones(), &asker, "nobody", Wanted::V4), Answer::NoData);
    assert_eq!(ask(&zones(), &asker, "nobody", Wanted::V6), Answer::NoData);
    assert_eq!(
        ask(&zones(), &asker, "nobody", Wanted::Other),
        Answer::Forward
    );
    assert_eq!(
        ask(&zones(), &asker, "nobody.example.com", Wanted::V4),
        Answer::Forward
    );
    assert_eq!(
        ask(&zones(), &asker, "t_a", Wanted::V4),
        addresses(&["10.0.4.2"])
    );
}

#[test]
fn only_serving_tasks_on_live_nodes_have_names_and_all_have_a_way_back() {
    for phase in [EndpointPhase::Starting, EndpointPhase::Draining] {
        let mut state = recorded();
        for endpoint in state
            .endpoints
            .values_mut()
            .filter(|endpoint| endpoint.task == task(3))
        {
            endpoint.phase = phase;
        }
        let zones = Zones::from_netstate(&state);
        let asker = on(&[n1()]);
        assert_eq!(
            ask(&zones, &asker, "tasks.t_a", Wanted::V4),
            addresses(&["10.0.4.4"]),
            "{phase:?}"
        );
        assert_eq!(
            ask(&zones, &asker, "h-1-vm", Wanted::V4),
            Answer::Forward,
            "{phase:?}"
        );
        assert_eq!(
            ask_back(&zones, &asker, "10.0.4.3"),
            named(format!("t_a.1.{}.t_n1", task(3))),
            "{phase:?}"
        );
    }

    let mut state = recorded();
    let dead = NodeId::numbered(2);
    for endpoint in state
        .endpoints
        .values_mut()
        .filter(|endpoint| endpoint.task == task(5))
    {
        endpoint.node = dead;
    }
    let gone = state
        .endpoints
        .values()
        .find(|endpoint| endpoint.task == task(5))
        .expect("the task's endpoint")
        .name
        .clone();
    let mut before = state.clone();
    let mut zones = Zones::from_netstate(&before);
    for alive in [true, false, true] {
        let node: NetNode = serde_json::from_value(serde_json::json!({
            "index": 2, "hostname": "b", "addr": "192.0.2.2", "addresses": [], "alive": alive,
        }))
        .expect("a node");
        state.nodes.insert(dead, node);
        zones = zones.updated(&before, &state);
        before = state.clone();
        let service = if alive {
            addresses(&["10.0.4.5", "10.0.4.6"])
        } else {
            addresses(&["10.0.4.6"])
        };
        for zones in [&zones, &Zones::from_netstate(&state)] {
            let asked = |name: &str| sorted(ask(zones, &on(&[n1()]), name, Wanted::V4));
            assert_eq!(asked("t_b"), service, "{alive}");
            assert_eq!(asked("tasks.t_b"), service, "{alive}");
            let own = asked(&gone);
            if alive {
                assert_eq!(own, addresses(&["10.0.4.5"]));
            } else {
                assert_eq!(own, Answer::NxDomain, "{gone} is on a dead node");
            }
        }
    }
}

#[test]
fn a_service_without_tasks_keeps_its_name() {
    let mut state = recorded();
    state.endpoints.clear();
    state.services.insert(
        ServiceId::numbered(2),
        service("t_b", EndpointMode::Dnsrr, &[], &[(n1(), &[])]),
    );
    let zones = Zones::from_netstate(&state);
    let asker = on(&[n1()]);
    assert_eq!(
        ask(&zones, &asker, "t_a", Wanted::V4),
        addresses(&["10.0.4.2"])
    );
    assert_eq!(ask(&zones, &asker, "tasks.t_a", Wanted::V4), Answer::NoData);
    assert_eq!(ask(&zones, &asker, "t_b", Wanted::V4), Answer::NoData);
}

#[test]
fn two_services_with_one_alias_share_it() {
    let mut state = recorded();
    state.services.insert(
        ServiceId::numbered(5),
        service(
            "t_e",
            EndpointMode::Vip,
            &[(n1(), &["10.0.4.50"])],
            &[(n1(), &["alia"])],
        ),
    );
    let zones = Zones::from_netstate(&state);
    assert_eq!(
        sorted(ask(&zones, &on(&[n1()]), "alia", Wanted::V4)),
        addresses(&["10.0.4.2", "10.0.4.50"])
    );
}

#[test]
fn the_order_of_addresses_is_drawn_from_the_seed() {
    let zones = zones();
    let orders: std::collections::BTreeSet<String> = (0..32)
        .map(|seed| {
            let question = weft_dns::resolve::Question {
                name: b"tasks.t_a",
                wanted: Wanted::V4,
            };
            format!(
                "{:?}",
                weft_dns::resolve(&question, &on(&[n1()]), &zones, seed)
            )
        })
        .collect();
    assert_eq!(
        orders.len(),
        2,
        "both orders of two addresses come up: {orders:?}"
    );
}

#[test]
fn a_change_replaces_only_the_zones_it_touches() {
    let old = recorded();
    let zones = Zones::from_netstate(&old);

    let mut new = old.clone();
    new.revision += 1;
    new.endpoints.remove(&BackendId(6));
    let updated = zones.updated(&old, &new);
    assert!(
        Arc::ptr_eq(&zones.networks[&n1()], &updated.networks[&n1()]),
        "t_n1 is as it was"
    );
    assert!(
        !Arc::ptr_eq(&zones.networks[&n2()], &updated.networks[&n2()]),
        "t_n2 lost a task"
    );
    assert_eq!(
        ask(&updated, &on(&[n2()]), "tasks.t_c", Wanted::V4),
        Answer::NoData
    );

    let mut renamed = new.clone();
    if let Some(service) = renamed.services.get_mut(&ServiceId::numbered(2)) {
        service.name = "t_z".to_owned();
    }
    let updated = updated.updated(&new, &renamed);
    assert_eq!(
        sorted(ask(&updated, &on(&[n1()]), "t_z", Wanted::V4)),
        addresses(&["10.0.4.5", "10.0.4.6"])
    );
    assert_eq!(
        ask(&updated, &on(&[n1()]), "t_b", Wanted::V4),
        Answer::Forward
    );
}
