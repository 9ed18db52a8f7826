//! What is given is given once, and stays.

use std::collections::BTreeSet;

use weft_proto::ControlRequest;
use weft_types::{
    BackendId, TaskId, Timestamp,
    service::{PortConfig, ServiceSpec},
    task::{NetworkAttachment, Task},
};

use super::{on_network, overlay, publish, web};
use crate::{
    allocator::{self, AttachError, attach},
    fixture,
    store::{Change, Draft, IdSource, Key, Store, Transaction},
    world::{World, secs},
};

fn ports(world: &World, id: weft_types::ServiceId) -> Vec<(u16, u16)> {
    let ports = world.service(id).endpoint.ports;
    let pair = |port: &PortConfig| (port.target_port, port.published_port);
    ports.iter().map(pair).collect()
}

fn publishing(name: &str, targets: &[u16]) -> ServiceSpec {
    let mut spec = fixture::service(0, name, 0).spec;
    for target in targets {
        publish(&mut spec, 0, *target);
    }
    spec
}

#[test]
fn ports_that_nobody_named_differ_and_stay() {
    let mut world = World::new(1, 61);
    let first = world.create(publishing("first", &[80, 81]));
    assert_eq!(ports(&world, first), [(80, 30_000), (81, 30_001)]);
    let second = world.create(publishing("second", &[80]));
    assert_eq!(ports(&world, second), [(80, 30_002)]);
    world.update(first, |spec| {
        spec.endpoint_spec = publishing("", &[81]).endpoint_spec;
    });
    assert_eq!(ports(&world, first), [(81, 30_001)]);
}

#[test]
fn of_two_services_that_want_a_port_one_has_it() {
    let mut world = World::new(1, 62);
    let mut spec = web(0);
    publish(&mut spec, 8080, 80);
    let id = world.create(spec);
    // Past the door, as a commit that came in between would.
    let mut late = fixture::service(900, "late", 0);
    publish(&mut late.spec, 8080, 80);
    world.commit(vec![Change::put(late.clone())]);
    world.settle();
    assert_eq!(ports(&world, id), [(80, 8080)]);
    assert_eq!(ports(&world, late.id), [(80, 0)]);
    let reason = world.service(late.id).allocation_error;
    assert!(reason.contains("port '8080' is already in use"), "{reason}");
    // Whoever let go of it: it is free.
    world
        .ask(&ControlRequest::RemoveService("web".to_owned()))
        .unwrap();
    assert_eq!(ports(&world, late.id), [(80, 8080)]);
    assert_eq!(world.service(late.id).allocation_error, "");
}

#[test]
fn a_service_keeps_its_address_when_it_gets_another() {
    let mut world = World::new(1, 63);
    world.create_network(overlay("back", Some("10.70.0.0/24")));
    let mut spec = web(0);
    on_network(&mut spec, "back");
    let id = world.create(spec);
    let before = world.service(id).endpoint.virtual_ips;
    assert_eq!(before.len(), 1);
    world.update(id, |spec| publish(spec, 8080, 80));
    let after = world.service(id).endpoint.virtual_ips;
    assert!(after.len() > 1 && after.contains(&before[0]), "{after:?}");
}

#[test]
fn an_address_that_is_free_again_waits_until_the_others_had_their_turn() {
    let mut world = World::new(1, 66);
    let back = world.create_network(overlay("back", Some("10.70.0.0/24")));
    let addresses = |world: &World| -> BTreeSet<String> {
        let view = world.view();
        let held = view.ledger().held(back);
        held.map(|(address, _)| address.to_string()).collect()
    };
    let mut spec = web(2);
    on_network(&mut spec, "back");
    world.create(spec.clone());
    world.until(secs(5), "both have addresses", |world| {
        addresses(world).len() == 3
    });
    world
        .ask(&ControlRequest::RemoveService("web".to_owned()))
        .unwrap();
    // Longer than an address rests: nothing but its turn keeps it from being given.
    world.advance(secs(90));
    assert_eq!(addresses(&world), BTreeSet::new());
    world.create(spec);
    assert_eq!(addresses(&world).len(), 3);
    let first = addresses(&world).contains("10.70.0.2");
    assert!(!first, "the search began anew: {:?}", addresses(&world));
}

#[test]
fn the_ingress_network_has_the_first_subnet_even_of_older_ones() {
    let mut store = Store::new();
    let later = |store: &mut Store, changes: Vec<Change>| {
        let index = store.index() + 1;
        let now = Timestamp(i64::try_from(index).unwrap());
        store.apply(index, &Transaction { now, changes }).unwrap();
    };
    let early = fixture::network(1, "early");
    let first = vec![Change::put(fixture::cluster()), Change::put(early)];
    later(&mut store, first);
    later(
        &mut store,
        vec![Change::put(fixture::network(2, "ingress"))],
    );
    let mut ids = IdSource::seeded(1);
    let given = allocator::reconcile(&store.view(), Timestamp(9), &mut ids);
    later(&mut store, given.changes);
    for (name, subnet) in [("ingress", "10.0.0.0/24"), ("early", "10.0.1.0/24")] {
        let view = store.view();
        let mut subnets = view.network_named(name).unwrap().subnets();
        assert_eq!(subnets.next().unwrap().to_string(), subnet, "{name}");
    }
}

#[test]
fn an_address_that_somebody_has_is_given_to_nobody_who_asks_for_it() {
    let mut world = World::new(1, 64);
    world.create_network(overlay("back", Some("10.70.0.0/24")));
    let mut spec = web(1);
    on_network(&mut spec, "back");
    let id = world.create(spec);
    let held = world.tasks(id).remove(0);
    let mut other = Task {
        id: TaskId::numbered(900),
        service_id: None,
        networks_attachments: vec![NetworkAttachment {
            backend: BackendId::default(),
            ..held.networks_attachments[0].clone()
        }],
        ..held
    };
    let mut draft = Draft::new(&world.view(), world.now);
    let refused = attach(&mut draft, &mut other);
    assert!(
        matches!(refused, Err(AttachError::NotFree { why: "in use", .. })),
        "{refused:?}"
    );
}

#[test]
fn a_subnet_on_which_a_task_has_not_ended_is_no_other_networks() {
    let mut world = World::new(1, 65);
    let first = world.create_network(overlay("first", None));
    let mut spec = web(1);
    on_network(&mut spec, "first");
    let id = world.create(spec);
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    let subnet = |world: &World, name: &str| {
        let view = world.view();
        let network = view.network_named(name).unwrap();
        network.subnets().next().unwrap()
    };
    let taken = subnet(&world, "first");
    let mut draft = Draft::new(&world.view(), Timestamp(1));
    draft.delete(Key::Service(id));
    draft.delete(Key::Network(first));
    world.commit(draft.changes());
    world.create_network(overlay("second", None));
    assert_ne!(subnet(&world, "second"), taken);
}
