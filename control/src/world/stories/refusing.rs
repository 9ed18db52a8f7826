//! What cannot be had, and in which words that is said.

use weft_proto::ControlRequest;
use weft_types::{TaskState, network::NetworkSpec, service::ServiceSpec};

use super::{on_network, overlay, publish, web};
use crate::{
    fixture,
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
            Some([(crate::store::VNI_OPTION.to_owned(), vni.to_owned())].into());
        let refused = refused(&mut world, forced);
        assert!(refused.ends_with(why), "{refused}");
    }
}
