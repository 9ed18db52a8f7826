//! Generic resources, ports of nodes, and the plugins that volumes need.

use weft_proto::{ControlReply, ControlRequest};
use weft_types::{
    ServiceId,
    container::Mount,
    node::{Availability, EnginePlugin},
    service::{PortConfig, Protocol, PublishMode, ServiceSpec},
    task::{
        DiscreteResource, GenericResource, NamedResource, Placement, ResourceRequirements,
        Resources, Task,
    },
};

use super::{node, publish, tell, web};
use crate::{
    fixture,
    world::{World, secs},
};

fn named(kind: &str, value: &str) -> GenericResource {
    GenericResource {
        named_resource_spec: Some(NamedResource {
            kind: kind.into(),
            value: value.into(),
        }),
        discrete_resource_spec: None,
    }
}

fn counted(kind: &str, value: i64) -> GenericResource {
    GenericResource {
        named_resource_spec: None,
        discrete_resource_spec: Some(DiscreteResource {
            kind: kind.into(),
            value,
        }),
    }
}

/// A service each of whose tasks wishes for `wishes`.
fn wishing(
    world: &mut World,
    name: &str,
    replicas: u64,
    wishes: Vec<GenericResource>,
) -> ServiceId {
    let mut spec = fixture::service(0, name, replicas).spec;
    spec.task_template.resources = Some(ResourceRequirements {
        reservations: Some(Resources {
            generic_resources: Some(wishes),
            ..Resources::default()
        }),
        ..ResourceRequirements::default()
    });
    world.create(spec)
}

/// What the running tasks of a service were given.
fn given(world: &World, id: ServiceId) -> Vec<GenericResource> {
    let running = world.running(id).into_iter();
    let mut given: Vec<_> = running.flat_map(|task| task.generic_resources).collect();
    given.sort_by_key(|resource| format!("{resource:?}"));
    given
}

/// Why tasks of a service wait.
fn reasons(world: &World, id: ServiceId) -> Vec<String> {
    let waiting = world.tasks(id).into_iter();
    waiting
        .filter(|task: &Task| task.node_id.is_none())
        .map(|task| task.status.err)
        .collect()
}

const FULL: &str = "no suitable node (insufficient resources on 2 nodes)";

#[test]
fn named_resources_have_one_owner_each_until_it_ends() {
    let mut world = World::new(2, 51);
    tell(&mut world, 1, |node| {
        let names = ["a", "b", "c"].map(|name| named("gpu", name));
        node.description.resources.generic_resources = names.into();
    });
    let two = wishing(&mut world, "two", 2, vec![counted("gpu", 1)]);
    world.until(secs(5), "both run", |world| world.running(two).len() == 2);
    assert_eq!(given(&world, two), [named("gpu", "a"), named("gpu", "b")]);
    // By its name: one that is taken, and the one that is free.
    let taken = wishing(&mut world, "taken", 1, vec![named("gpu", "a")]);
    assert_eq!(reasons(&world, taken), [FULL]);
    let free = wishing(&mut world, "free", 1, vec![named("gpu", "c")]);
    world.until(secs(5), "it runs", |world| world.running(free).len() == 1);
    assert_eq!(given(&world, free), [named("gpu", "c")]);
    // Two wishes for one kind are one for two.
    let pair = vec![counted("gpu", 1), counted("gpu", 1)];
    let pair = wishing(&mut world, "pair", 1, pair);
    assert_eq!(reasons(&world, pair), [FULL]);
    world.update(two, |spec| {
        spec.mode.replicated.as_mut().unwrap().replicas = Some(1);
    });
    world.until(secs(15), "one has stopped", |world| {
        world.tasks(two).len() == 1
    });
    assert_eq!(given(&world, two), [named("gpu", "a")]);
    // What is free again is given again, when it is enough.
    assert_eq!(reasons(&world, pair), [FULL]);
    world.update(free, |spec| {
        spec.mode.replicated.as_mut().unwrap().replicas = Some(0);
    });
    world.until(secs(15), "the pair runs", |world| {
        world.running(pair).len() == 1
    });
    assert_eq!(given(&world, pair), [named("gpu", "b"), named("gpu", "c")]);
    assert_eq!(reasons(&world, taken), [FULL]);
}

#[test]
fn counted_resources_are_given_out_once_and_again_when_they_are_free() {
    let mut world = World::new(2, 52);
    tell(&mut world, 2, |node| {
        node.description.resources.generic_resources = vec![counted("ssd", 3)];
    });
    let first = wishing(&mut world, "first", 1, vec![counted("ssd", 2)]);
    world.until(secs(5), "it runs", |world| world.running(first).len() == 1);
    assert_eq!(given(&world, first), [counted("ssd", 2)]);
    assert_eq!(world.running(first)[0].node_id, Some(node(2)));
    let second = wishing(&mut world, "second", 1, vec![counted("ssd", 2)]);
    assert_eq!(reasons(&world, second), [FULL]);
    let third = wishing(&mut world, "third", 1, vec![counted("ssd", 1)]);
    world.until(secs(5), "it runs", |world| world.running(third).len() == 1);
    world.update(first, |spec| {
        spec.mode.replicated.as_mut().unwrap().replicas = Some(0);
    });
    world.until(secs(15), "the other runs", |world| {
        world.running(second).len() == 1
    });
    assert_eq!(given(&world, second), [counted("ssd", 2)]);
}

#[test]
fn a_volume_needs_its_driver_on_the_node() {
    let mut world = World::new(2, 53);
    tell(&mut world, 2, |node| {
        node.description.engine.plugins = vec![EnginePlugin {
            kind: "Volume".into(),
            name: "rexray:latest".into(),
        }];
    });
    let with = |driver: &str| {
        let mut spec = web(2);
        spec.name = format!("on-{driver}");
        let mut mount = Mount {
            kind: "volume".into(),
            source: "data".into(),
            target: "/data".into(),
            ..Mount::default()
        };
        let options = serde_json::json!({ "DriverConfig": { "Name": driver } });
        mount.rest.insert("VolumeOptions".into(), options);
        let container = spec.task_template.container_spec.as_mut().unwrap();
        container.mounts = Some(vec![mount]);
        spec
    };
    let id = world.create(with("rexray"));
    world.until(secs(5), "both run", |world| world.running(id).len() == 2);
    let mut running = world.running(id).into_iter();
    assert!(running.all(|task| task.node_id == Some(node(2))));
    // The engine's own is everywhere.
    let local = world.create(with("local"));
    world.until(secs(5), "both run", |world| world.running(local).len() == 2);
    let running = world.running(local);
    assert!(running.iter().any(|task| task.node_id == Some(node(1))));
    world.availability(node(2), Availability::Pause);
    let mut again = with("rexray");
    again.name = "again".into();
    let again = world.create(again);
    let why = "no suitable node (1 node not available for new tasks; missing plugin on 1 node)";
    assert_eq!(reasons(&world, again), [why, why]);
}

/// The number that each running task of a service has for its port of `protocol`.
fn numbers(world: &World, id: ServiceId, protocol: Protocol) -> Vec<u16> {
    let running = world.running(id).into_iter();
    let ports = running.flat_map(|task| task.ports);
    let mut numbers: Vec<u16> = ports
        .filter(|port| port.protocol == protocol)
        .map(|port| port.published_port)
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_port_of_the_node_that_nobody_named_has_a_number_of_its_own() {
    let mut world = World::new(2, 54);
    world.availability(node(2), Availability::Pause);
    let port = |protocol, published_port| PortConfig {
        protocol,
        target_port: 80,
        published_port,
        publish_mode: PublishMode::Host,
        ..PortConfig::default()
    };
    let with = |name: &str, replicas, ports: Vec<PortConfig>| {
        let mut spec = fixture::service(0, name, replicas).spec;
        spec.endpoint_spec.get_or_insert_default().ports = Some(ports);
        spec
    };
    let on = |spec: &mut ServiceSpec, hostname: &str| {
        spec.task_template.placement = Some(Placement {
            constraints: Some(vec![format!("node.hostname=={hostname}")]),
            ..Placement::default()
        });
    };
    let fixed = world.create(with("fixed", 1, vec![port(Protocol::Tcp, 32_767)]));
    let mut mesh = web(1);
    publish(&mut mesh, 32_765, 80);
    world.create(mesh);
    // Somebody who waits has no less a claim to what he names.
    let mut late = with("late", 1, vec![port(Protocol::Udp, 32_766)]);
    on(&mut late, "nowhere");
    world.create(late);
    let open = vec![port(Protocol::Tcp, 0), port(Protocol::Udp, 0)];
    let open = world.create(with("open", 2, open));
    world.until(secs(5), "all run", |world| {
        world.running(fixed).len() == 1 && world.running(open).len() == 2
    });
    assert_eq!(numbers(&world, open, Protocol::Tcp), [32_764, 32_766]);
    assert_eq!(numbers(&world, open, Protocol::Udp), [32_765, 32_767]);
    // They are what was asked for: no task is replaced for them. Everything is looked at anew in
    // between, as by a new leader.
    let before = world.running(open);
    world.advance(secs(70));
    world.update(open, |spec| {
        spec.labels.insert("tier".into(), "back".into());
    });
    world.advance(secs(5));
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(&world.running(open)), ids(&before));
    // On another node they are other tasks' numbers; here they are free again.
    world.availability(node(2), Availability::Active);
    let moves = |world: &mut World| {
        let rebalance = ControlRequest::Rebalance {
            budget: 10,
            apply: false,
        };
        match world.ask(&rebalance) {
            Ok(ControlReply::Moves(moves)) => moves.len(),
            other => panic!("no moves: {other:?}"),
        }
    };
    let mut there = vec![port(Protocol::Tcp, 32_766), port(Protocol::Tcp, 32_764)];
    there.extend([32_767, 32_765].map(|number| port(Protocol::Udp, number)));
    let mut there = with("there", 1, there);
    on(&mut there, "n2");
    let there = world.create(there);
    world.until(secs(5), "it runs", |world| world.running(there).len() == 1);
    assert_eq!(moves(&mut world), 1);
    world.availability(node(1), Availability::Drain);
    world.until(secs(30), "both run there", |world| {
        let running = world.running(open);
        running.len() == 2 && running.iter().all(|task| task.node_id == Some(node(2)))
    });
    assert_eq!(numbers(&world, open, Protocol::Tcp), [32_762, 32_763]);
    assert_eq!(numbers(&world, open, Protocol::Udp), [32_763, 32_764]);
}
