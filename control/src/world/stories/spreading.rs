//! Which node is chosen, and what it must have.

use std::collections::{BTreeMap, BTreeSet};

use weft_types::{
    NodeId, ServiceId, TaskState,
    node::{Availability, EnginePlugin},
    service::{Empty, ServiceMode, ServiceSpec},
    task::{LogDriver, Placement, Platform, ResourceRequirements, Resources, RestartPolicy, Task},
};

use super::{image, node, tell, web};
use crate::{
    fixture,
    world::{World, secs},
};

fn nodes(world: &World, id: ServiceId) -> BTreeSet<NodeId> {
    let tasks = world.tasks(id);
    tasks.iter().filter_map(|task| task.node_id).collect()
}

fn reserving(name: &str, replicas: u64, nano_cpus: i64, memory_bytes: i64) -> ServiceSpec {
    let mut spec = fixture::service(0, name, replicas).spec;
    spec.task_template.resources = Some(ResourceRequirements {
        reservations: Some(Resources {
            nano_cpus,
            memory_bytes,
            ..Resources::default()
        }),
        ..ResourceRequirements::default()
    });
    spec
}

/// The tasks that have a node, and why the others have none.
fn placed(world: &World, id: ServiceId) -> (usize, Vec<String>) {
    let (placed, waiting): (Vec<Task>, Vec<Task>) =
        (world.tasks(id).into_iter()).partition(|task| task.status.state > TaskState::Pending);
    let reasons = waiting.into_iter().map(|task| task.status.err);
    (placed.len(), reasons.collect())
}

#[test]
fn a_node_without_the_plugin_or_of_another_kind_gets_nothing() {
    let mut world = World::new(2, 41);
    for (number, driver, architecture) in [(1, "json-file", "aarch64"), (2, "fluentd", "x86_64")] {
        tell(&mut world, number, |node| {
            node.description.engine.plugins = vec![EnginePlugin {
                kind: "Log".into(),
                name: driver.into(),
            }];
            node.description.platform = Platform {
                architecture: architecture.into(),
                os: "linux".into(),
            };
        });
    }
    let mut logs = fixture::service(0, "logs", 2).spec;
    logs.task_template.log_driver = Some(LogDriver {
        name: "fluentd".into(),
        options: None,
    });
    let mut amd = fixture::service(0, "amd", 2).spec;
    amd.task_template.placement = Some(Placement {
        platforms: Some(vec![Platform {
            architecture: "amd64".into(),
            os: "linux".into(),
        }]),
        ..Placement::default()
    });
    for spec in [&logs, &amd] {
        let id = world.create(spec.clone());
        assert_eq!(nodes(&world, id), [node(2)].into(), "{}", spec.name);
    }
    world.availability(node(2), Availability::Pause);
    for (mut spec, why) in [(logs, "missing plugin"), (amd, "unsupported platform")] {
        spec.name.push_str("-again");
        let id = world.create(spec);
        let why = format!("no suitable node (1 node not available for new tasks; {why} on 1 node)");
        world.until(secs(5), "both say why they wait", |world| {
            let tasks = world.tasks(id);
            tasks.len() == 2 && tasks.iter().all(|task| task.status.err == why)
        });
    }
}

#[test]
fn what_is_reserved_is_gone_and_what_is_left_is_given_to_the_last_bit() {
    let mut world = World::new(2, 42);
    tell(&mut world, 1, |node| {
        node.description.resources.nano_cpus = 2_000_000_000;
        node.description.resources.memory_bytes = 3 << 30;
    });
    // Of one service at once, then of one after the other.
    let cpus = world.create(reserving("cpus", 3, 1_000_000_000, 0));
    let full = "no suitable node (insufficient resources on 2 nodes)".to_owned();
    assert_eq!(placed(&world, cpus), (2, vec![full.clone()]));
    let first = world.create(reserving("first", 1, 0, 2 << 30));
    assert_eq!(placed(&world, first), (1, vec![]));
    let second = world.create(reserving("second", 1, 0, 2 << 30));
    assert_eq!(placed(&world, second), (0, vec![full]));
    let third = world.create(reserving("third", 1, 0, 1 << 30));
    assert_eq!(placed(&world, third), (1, vec![]));
}

#[test]
fn of_nodes_with_as_many_of_a_service_the_one_with_fewer_tasks_is_chosen() {
    let mut world = World::new(3, 43);
    for number in 1..=3 {
        let id = world.create(fixture::service(0, &format!("s{number}"), 1).spec);
        assert_eq!(nodes(&world, id), [node(number)].into());
    }
}

/// The nodes of the first `count` tasks of a service of one that fails whenever it runs.
fn failing(delay: u64, count: usize, max_attempts: Option<u64>) -> Vec<Option<NodeId>> {
    let mut world = World::new(2, 44);
    let mut spec = web(1);
    image(&mut spec, "crash");
    spec.task_template.restart_policy = Some(RestartPolicy {
        condition: "any".into(),
        delay: Some(i64::try_from(secs(delay).as_nanos()).unwrap()),
        max_attempts,
        window: None,
    });
    let id = world.create(spec);
    // History may forget them.
    let mut seen = BTreeMap::new();
    for _ in 0..20 {
        for task in world.tasks(id) {
            seen.insert((task.meta.created_at, task.id), task.node_id);
        }
        if seen.len() < count {
            world.advance(secs(1));
            world.now = world.now.after(secs(delay - 1));
        }
    }
    seen.into_values().take(count).collect()
}

#[test]
fn a_node_on_which_a_service_failed_five_times_of_late_is_avoided() {
    let mut expected = vec![Some(node(1)); 5];
    expected.push(Some(node(2)));
    // History keeps as many, or its usual few: that decides nothing.
    for attempts in [Some(20), None] {
        assert_eq!(failing(2, 6, attempts), expected, "{attempts:?} attempts");
        // What is five minutes ago is forgiven.
        assert_eq!(failing(70, 6, attempts), [Some(node(1)); 6]);
    }
}

#[test]
fn what_differs_by_one_is_level() {
    let mut world = World::new(2, 45);
    let id = world.create(web(3));
    world.until(secs(5), "three run", |world| world.running(id).len() == 3);
    let rebalance = weft_proto::ControlRequest::Rebalance {
        budget: 10,
        apply: false,
    };
    match world.ask(&rebalance) {
        Ok(weft_proto::ControlReply::Moves(moves)) => assert_eq!(moves, []),
        other => panic!("no moves: {other:?}"),
    }
}

#[test]
fn a_task_that_waits_for_its_own_node_to_have_room_goes_on_waiting() {
    let mut world = World::new(1, 46);
    let mut spec = reserving("agent", 0, 0, 1 << 30);
    spec.mode = ServiceMode {
        global: Some(Empty {}),
        ..ServiceMode::default()
    };
    let id = world.create(spec);
    let waiting = world.tasks(id);
    // Everything is looked at anew in between, as by a new leader.
    world.advance(secs(70));
    assert_eq!(world.tasks(id), waiting, "{}", world.picture());
    tell(&mut world, 1, |node| {
        node.description.resources.memory_bytes = 1 << 30;
    });
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    assert_eq!(world.running(id)[0].id, waiting[0].id);
}
