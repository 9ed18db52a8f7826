//! What cannot be had, and in which words that is said.

use weft_proto::ControlRequest;
use weft_types::{ServiceId, TaskState, network::NetworkSpec, service::ServiceSpec};

use super::{on_network, overlay, publish, web};
use crate::{
    fixture,
    store::{Change, Draft, Key, VNI_OPTION},
    world::{World, secs},
};

#[test]
fn a_full_subnet_is_a_reason_and_a_freed_address_is_found() {
    let mut world = World::new(2, 11);
    world.create_network(overlay("small", Some("10.77.0.0/29")));
    let mut spec = web(6);
    on_network(&mut spec, "small");
    let id = world.create(spec);
    world.until(secs(5), "four run", |world| world.running(id).len() == 4);
    let waiting: Vec<_> = world
        .tasks(id)
        .into_iter()
        .filter(|task| task.status.state == TaskState::New)
        .collect();
    assert_eq!(waiting.len(), 2);
    assert_eq!(
        waiting[0].status.err,
        "no address is free in network small (10.77.0.0/29: 5 in use, 0 resting)"
    );
    world.update(id, |spec| spec.mode = fixture::service(0, "", 2).spec.mode);
    world.advance(secs(2));
    world.update(id, |spec| spec.mode = fixture::service(0, "", 4).spec.mode);
    let waiting: Vec<_> = world
        .tasks(id)
        .into_iter()
        .filter(|task| task.status.state == TaskState::New)
        .collect();
    assert_eq!(
        waiting[0].status.err,
        "no address is free in network small (10.77.0.0/29: 3 in use, 2 resting)"
    );
    world.until(secs(9), "four run again", |world| {
        world.running(id).len() == 4
    });
}

/// Why a task of the service waits.
fn reason(world: &World, id: ServiceId) -> Option<String> {
    let mut tasks = world.tasks(id).into_iter();
    let waiting = tasks.find(|task| task.status.state == TaskState::New);
    waiting.map(|task| task.status.err)
}

#[test]
fn a_network_without_a_number_is_the_reason_why_its_tasks_wait() {
    let mut world = World::new(1, 18);
    // Past the door, as a commit that came in between would.
    let mut late = fixture::network(2, "late");
    let options = &mut late.spec.driver_configuration.options;
    options
        .get_or_insert_default()
        .insert(VNI_OPTION.to_owned(), "4096".to_owned());
    let mut service = fixture::service(900, "web", 1);
    on_network(&mut service.spec, late.id);
    world.commit(vec![Change::put(late), Change::put(service.clone())]);
    world.settle();
    assert_eq!(
        reason(&world, service.id).as_deref(),
        Some("network late is not usable: VNI 4096 is taken by network ingress")
    );
    world
        .ask(&ControlRequest::RemoveNetwork("ingress".to_owned()))
        .unwrap();
    world.until(secs(5), "it runs", |world| {
        world.running(service.id).len() == 1
    });
}

#[test]
fn a_network_that_is_gone_is_the_reason_why_a_task_waits() {
    let mut world = World::new(1, 19);
    let back = world.create_network(overlay("back", None));
    let mut spec = web(1);
    on_network(&mut spec, "back");
    let id = world.create(spec);
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    // Past the door, which lets no network go that a service is on.
    let mut draft = Draft::new(&world.view(), world.now);
    draft.delete(Key::Network(back));
    world.commit(draft.changes());
    let task = world.running(id).remove(0).id;
    world.crash(task);
    world.advance(secs(6));
    assert_eq!(
        reason(&world, id),
        Some(format!("network {back} not found")),
        "{}",
        world.picture()
    );
}

#[test]
fn refusals_are_in_dockers_words_and_change_nothing() {
    let mut world = World::new(2, 15);
    let mut spec = web(1);
    publish(&mut spec, 8070, 80);
    let id = world.create(spec.clone());
    let index = world.store.index();
    let refused = |world: &mut World, spec: ServiceSpec| {
        let request = ControlRequest::CreateService {
            spec: Box::new(spec),
            registry_auth: String::new(),
        };
        world.ask(&request).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&mut world, spec.clone()),
        format!("port '8070' is already in use by service 'web' ({id}) as an ingress port")
    );
    assert_eq!(
        refused(&mut world, web(1)),
        "name conflicts with an existing object: service web already exists"
    );
    let mut lost = fixture::service(0, "lost", 1).spec;
    on_network(&mut lost, "nosuch");
    assert_eq!(
        refused(&mut world, lost.clone()),
        "network nosuch not found"
    );
    on_network(&mut lost, "ingress");
    assert_eq!(
        refused(&mut world, lost),
        "Service cannot be explicitly attached to the ingress network \"ingress\""
    );
    let stale = world
        .ask(&ControlRequest::UpdateService {
            service: "web".into(),
            version: 1,
            spec: Box::new(spec),
            registry_auth: None,
            auth_from_previous: false,
            rollback: false,
        })
        .unwrap_err();
    assert_eq!(stale.to_string(), "update out of sequence");
    let gone = world
        .ask(&ControlRequest::GetService("nosuch".into()))
        .unwrap_err();
    assert_eq!(gone.to_string(), "service nosuch not found");
    assert_eq!(world.store.index(), index);
}

#[test]
fn networks_that_cannot_be_given_are_refused() {
    let mut world = World::new(1, 16);
    world.create_network(overlay("one", Some("10.77.0.0/16")));
    let refused = |world: &mut World, spec: NetworkSpec| {
        world
            .ask(&ControlRequest::CreateNetwork(Box::new(spec)))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&mut world, overlay("two", Some("10.77.3.0/24"))),
        "subnet 10.77.3.0/24 overlaps with 10.77.0.0/16 of network one"
    );
    assert_eq!(
        refused(&mut world, overlay("two", Some("192.0.2.0/28"))),
        "subnet 192.0.2.0/28 holds 192.0.2.11, by which other nodes reach n1: it would be cut off; choose another subnet"
    );
    assert_eq!(
        refused(&mut world, overlay("one", None)),
        "network with name one already exists"
    );
    for (vni, why) in [
        ("4096", "VNI 4096 is taken by network ingress"),
        ("", "vxlanid_list \"\" is no VNI: 1 to 16777215"),
        (
            "16777216",
            "vxlanid_list \"16777216\" is no VNI: 1 to 16777215",
        ),
    ] {
        let mut forced = overlay("three", None);
        forced.driver_configuration.options =
            Some([(VNI_OPTION.to_owned(), vni.to_owned())].into());
        let refused = refused(&mut world, forced);
        assert!(refused.ends_with(why), "{refused}");
    }
}
