//! The network of published ports: how many tasks it has room for, and how it is made larger.

use weft_proto::{ControlError, ControlRequest, ErrorCode};
use weft_types::TaskState;

use super::{overlay, publish, web};
use crate::world::{World, secs};

#[test]
fn an_ingress_network_that_is_full_says_so_and_is_replaced_by_a_larger_one() {
    let mut world = World::new(3, 1);
    let mut spec = web(260);
    publish(&mut spec, 8000, 80);
    let id = world.create(spec.clone());
    // 254 addresses, less the gateway's and the service's own.
    world.until(secs(60), "252 tasks run", |world| {
        world.running(id).len() == 252
    });
    let waiting: Vec<_> = world
        .tasks(id)
        .into_iter()
        .filter(|task| task.status.state == TaskState::New)
        .collect();
    assert_eq!(waiting.len(), 8);
    for task in &waiting {
        let why = &task.status.err;
        assert!(
            why.contains("no address is free in network ingress (10.0.0.0/24"),
            "{why}"
        );
    }

    let remove = ControlRequest::RemoveNetwork("ingress".into());
    let code = |result: Result<_, ControlError>| result.map(drop).map_err(|error| error.code);
    let refused = code(world.ask(&remove));
    assert_eq!(refused, Err(ErrorCode::FailedPrecondition));
    world
        .ask(&ControlRequest::RemoveService(id.to_string()))
        .unwrap();
    world.until(secs(60), "its tasks have ended", |world| {
        world.tasks(id).is_empty()
    });
    world.ask(&remove).unwrap();
    world.until(secs(60), "the network is gone", |world| {
        world.view().ingress_network().is_none()
    });
    let nowhere = code(world.ask(&ControlRequest::CreateService {
        spec: Box::new(spec.clone()),
        registry_auth: String::new(),
    }));
    assert_eq!(nowhere, Err(ErrorCode::FailedPrecondition));

    let mut larger = overlay("ingress", Some("10.11.0.0/16"));
    (larger.ingress, larger.attachable) = (true, false);
    let network = world.create_network(larger);
    let id = world.create(spec);
    world.until(secs(60), "all tasks run", |world| {
        world.running(id).len() == 260
    });
    for task in world.running(id) {
        let attachment = &task.networks_attachments[0];
        assert_eq!(attachment.network_id, network);
        let [v4, v6] = attachment.addresses[..] else {
            panic!("not of both families: {:?}", attachment.addresses);
        };
        assert!(
            v4.to_string().starts_with("10.11.") && v4.prefix() == 16,
            "{v4}"
        );
        assert!(v6.is_ipv6(), "{v6}");
    }
}
