//! What is given is given once, and stays.

use weft_types::{
    BackendId, TaskId, Timestamp,
    service::{PortConfig, ServiceSpec},
    task::{NetworkAttachment, Task},
};

use super::{on_network, overlay, publish, web};
use crate::{
    allocator::{AttachError, attach},
    fixture,
    store::{Change, Draft, Key},
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
