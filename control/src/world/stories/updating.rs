//! A new spec is rolled out, and back.

use weft_proto::{ControlReply, ControlRequest};
use weft_types::{
    TaskState, Timestamp,
    node::Availability,
    service::{UpdateConfig, UpdateState},
    task::{Placement, Task},
};

use super::{image, node, publish, web};
use crate::world::{World, secs};

#[test]
fn a_rolling_update_replaces_one_at_a_time_and_says_that_it_is_done() {
    for order in ["stop-first", "start-first"] {
        let mut world = World::new(3, 5);
        let mut spec = web(4);
        spec.update_config = Some(UpdateConfig {
            parallelism: 1,
            order: order.into(),
            monitor: Some(1_000_000_000),
            ..UpdateConfig::default()
        });
        let id = world.create(spec);
        world.until(secs(5), "four run", |world| world.running(id).len() == 4);
        world.update(id, |spec| image(spec, "new"));
        let begun = world.now;
        loop {
            let status = world.service(id).update_status;
            if status.is_some_and(|status| status.state == UpdateState::Completed) {
                break;
            }
            assert!(world.now.since(begun) < secs(60), "{}", world.picture());
            let running = world.running(id).len();
            let least = if order == "start-first" { 4 } else { 3 };
            assert!(
                running >= least,
                "{order}: {running} run\n{}",
                world.picture()
            );
            world.tick();
        }
        let running = world.running(id);
        assert_eq!(running.len(), 4);
        let is_new = |task: &weft_types::task::Task| {
            task.spec
                .container_spec
                .as_ref()
                .is_some_and(|c| c.image == "new")
        };
        assert!(running.iter().all(is_new));
    }
}

#[test]
fn a_failing_update_stops_or_goes_back() {
    for (action, state) in [
        ("pause", UpdateState::Paused),
        ("rollback", UpdateState::RollbackCompleted),
    ] {
        let mut world = World::new(2, 6);
        let mut spec = web(3);
        spec.update_config = Some(UpdateConfig {
            parallelism: 1,
            failure_action: action.into(),
            ..UpdateConfig::default()
        });
        let id = world.create(spec);
        world.until(secs(5), "three run", |world| world.running(id).len() == 3);
        world.update(id, |spec| image(spec, "unhealthy"));
        world.until(secs(90), action, |world| {
            let status = world.service(id).update_status;
            status.is_some_and(|status| status.state == state)
        });
        let good = if action == "pause" { 2 } else { 3 };
        assert_eq!(world.running(id).len(), good, "{}", world.picture());
        assert_eq!(
            world.service(id).previous_spec.is_none(),
            action == "rollback"
        );
    }
}

#[test]
fn an_update_that_fails_goes_back_to_the_credentials_too() {
    let mut world = World::new(2, 8);
    let mut spec = web(2);
    spec.update_config = Some(UpdateConfig {
        failure_action: "rollback".into(),
        ..UpdateConfig::default()
    });
    let id = world.create(spec);
    // Credentials given with a new spec, and what is held once it is done or undone.
    for (given, new_image, end, held) in [
        ("first", "new", UpdateState::Completed, "first"),
        (
            "second",
            "unhealthy",
            UpdateState::RollbackCompleted,
            "first",
        ),
    ] {
        world.until(secs(5), "two run", |world| world.running(id).len() == 2);
        let mut service = world.service(id);
        image(&mut service.spec, new_image);
        world
            .ask(&ControlRequest::UpdateService {
                service: id.to_string(),
                version: service.meta.version.index,
                spec: Box::new(service.spec),
                registry_auth: Some(given.into()),
                auth_from_previous: false,
                rollback: false,
            })
            .unwrap();
        assert_eq!(world.service(id).registry_auth, given);
        world.until(secs(90), new_image, |world| {
            let status = world.service(id).update_status;
            status.is_some_and(|status| status.state == end)
        });
        assert_eq!(world.service(id).registry_auth, held);
        let running = world.running(id);
        assert!(running.iter().all(|task| task.registry_auth == held));
    }
}

#[test]
fn a_service_goes_back_by_hand_and_forth_again() {
    let mut world = World::new(2, 7);
    let id = world.create(web(2));
    world.until(secs(5), "two run", |world| world.running(id).len() == 2);
    world.update(id, |spec| image(spec, "new"));
    let done = |world: &World| {
        let status = world.service(id).update_status;
        status.is_some_and(|status| status.completed_at.is_some())
    };
    world.until(secs(60), "the update is done", done);
    for expected in ["busybox:latest", "new"] {
        let service = world.service(id);
        world
            .ask(&ControlRequest::UpdateService {
                service: id.to_string(),
                version: service.meta.version.index,
                spec: Box::new(service.spec),
                registry_auth: None,
                auth_from_previous: false,
                rollback: true,
            })
            .unwrap();
        world.until(secs(60), "the rollback is done", done);
        for task in world.running(id) {
            assert_eq!(task.spec.container_spec.as_ref().unwrap().image, expected);
        }
    }
}

#[test]
fn publishing_a_port_replaces_only_tasks_without_a_leg_for_it() {
    let mut world = World::new(2, 14);
    let id = world.create(web(2));
    world.until(secs(5), "two run", |world| world.running(id).len() == 2);
    let before: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    world.update(id, |spec| publish(spec, 8000, 80));
    world.until(secs(30), "the update is done", |world| {
        let status = world.service(id).update_status;
        status.is_some_and(|status| status.state == UpdateState::Completed)
    });
    let legged: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    assert!(legged.iter().all(|id| !before.contains(id)));
    world.update(id, |spec| publish(spec, 8001, 81));
    world.advance(secs(3));
    let after: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    assert_eq!(legged, after);
}

#[test]
fn a_new_constraint_replaces_only_tasks_whose_node_does_not_satisfy_it() {
    let mut world = World::new(2, 58);
    let id = world.create(web(2));
    world.until(secs(5), "two run", |world| world.running(id).len() == 2);
    let before = world.running(id);
    let constrain = |world: &mut World, constraint: &str| {
        world.update(id, |spec| {
            spec.task_template.placement = Some(Placement {
                constraints: Some(vec![constraint.to_owned()]),
                ..Placement::default()
            });
        });
    };
    constrain(&mut world, "node.hostname!=n9");
    world.advance(secs(3));
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(&world.running(id)), ids(&before), "{}", world.picture());
    assert_eq!(world.service(id).update_status, None, "nothing to update");
    constrain(&mut world, "node.hostname==n1");
    world.until(secs(9), "both are on the first node", |world| {
        let running = world.running(id);
        let is_there = |task: &Task| task.node_id == Some(node(1));
        running.len() == 2 && running.iter().all(is_there)
    });
    let stays = before.iter().find(|task| task.node_id == Some(node(1)));
    let after = ids(&world.running(id));
    assert!(after.contains(&stays.unwrap().id), "{}", world.picture());
}

#[test]
fn a_task_that_is_moved_while_an_update_is_paused_stops_when_the_other_runs() {
    let mut world = World::new(2, 59);
    world.availability(node(2), Availability::Drain);
    let id = world.create(web(2));
    world.until(secs(5), "two run", |world| world.running(id).len() == 2);
    world.update(id, |spec| image(spec, "new"));
    let version = world.service(id).spec_version;
    let new_ones = |world: &World| {
        let mut running = world.running(id);
        running.retain(|task| task.spec_version == version);
        running
    };
    world.until(secs(20), "both are new", |world| new_ones(world).len() == 2);
    let watched = new_ones(&world).remove(0);
    world.crash(watched.id);
    let is_paused = |world: &World| {
        let status = world.service(id).update_status;
        status.is_some_and(|status| status.state == UpdateState::Paused)
    };
    world.until(secs(5), "the update is paused", is_paused);
    world.until(secs(20), "both run again", |world| {
        new_ones(world).len() == 2
    });
    world.availability(node(2), Availability::Active);
    let rebalance = ControlRequest::Rebalance {
        budget: 10,
        apply: true,
    };
    match world.ask(&rebalance) {
        Ok(ControlReply::Moves(moves)) => assert_eq!(moves.len(), 1, "{moves:?}"),
        other => panic!("no moves: {other:?}"),
    }
    world.until(secs(5), "one has moved, and two run", |world| {
        let running = world.running(id);
        let has_moved = |task: &Task| task.node_id == Some(node(2));
        running.len() == 2 && running.iter().any(has_moved)
    });
    assert!(is_paused(&world), "{}", world.picture());
}

#[test]
fn an_update_outlives_a_leader_that_changes_at_every_moment() {
    for order in ["stop-first", "start-first"] {
        let mut world = World::new(3, 60);
        let mut spec = web(5);
        spec.update_config = Some(UpdateConfig {
            parallelism: 2,
            delay: 1_000_000_000,
            order: order.into(),
            ..UpdateConfig::default()
        });
        let id = world.create(spec);
        world.until(secs(5), "five run", |world| world.running(id).len() == 5);
        world.update(id, |spec| image(spec, "new"));
        let (version, begun) = (world.service(id).spec_version, world.now);
        let is_over = |world: &World| {
            let status = world.service(id).update_status;
            status.is_some_and(|status| status.state == UpdateState::Completed)
        };
        while !is_over(&world) {
            assert!(world.now.since(begun) < secs(60), "{}", world.picture());
            world.change_leader();
            world.tick();
            let tasks = world.tasks(id);
            let starting = tasks.iter().filter(|task| {
                task.spec_version == version && task.status.state < TaskState::Running
            });
            assert!(starting.count() <= 2, "{}", world.picture());
        }
        // One new task for each place, and none for any twice.
        let new = world.tasks(id).into_iter();
        let new = new.filter(|task| task.spec_version == version);
        let mut slots: Vec<_> = new.map(|task| task.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, [1, 2, 3, 4, 5], "{order}");
        assert_eq!(world.running(id).len(), 5);
    }
}

#[test]
fn an_update_that_overtakes_another_begins_anew() {
    let mut world = World::new(2, 48);
    let id = world.create(web(3));
    world.until(secs(5), "three run", |world| world.running(id).len() == 3);
    let status = |world: &World| world.service(id).update_status.unwrap();
    world.update(id, |spec| image(spec, "middle"));
    let middle = world.service(id).spec_version;
    let first = status(&world);
    world.advance(secs(1));
    world.update(id, |spec| image(spec, "new"));
    let second = status(&world);
    assert_eq!(second.state, UpdateState::Updating);
    assert!(second.started_at > first.started_at);
    // What goes back goes to what was overtaken: that was the spec before.
    let previous = world.service(id).previous_spec.unwrap();
    let container = previous.task_template.container_spec.unwrap();
    assert_eq!(container.image, "middle");
    let made = |world: &World| {
        let tasks = world.tasks(id).into_iter();
        tasks.filter(|task| task.spec_version == middle).count()
    };
    let before = made(&world);
    world.until(secs(30), "the update is complete", |world| {
        status(world).state == UpdateState::Completed
    });
    assert_eq!(made(&world), before, "the overtaken one made another task");
    let tasks = world.tasks(id);
    let mut of_middle = tasks.iter().filter(|task| task.spec_version == middle);
    assert!(of_middle.all(|task| task.status.state == TaskState::Shutdown));
    let is_new = |task: &Task| task.spec.container_spec.as_ref().unwrap().image == "new";
    let running = world.running(id);
    assert!(running.len() == 3 && running.iter().all(is_new));
}

#[test]
fn a_clock_that_is_set_back_hurries_no_update() {
    let mut world = World::new(3, 57);
    let mut spec = web(4);
    spec.update_config = Some(UpdateConfig {
        parallelism: 1,
        ..UpdateConfig::default()
    });
    let id = world.create(spec);
    world.until(secs(5), "four run", |world| world.running(id).len() == 4);
    world.update(id, |spec| image(spec, "new"));
    world.now = Timestamp(world.now.0 - 30_000_000_000);
    let version = world.service(id).spec_version;
    let is_new =
        |task: &&Task| task.spec_version == version && task.desired_state <= TaskState::Running;
    // What was to be at a time of the old clock is waited for.
    for _ in 0..500 {
        world.tick();
        let tasks = world.tasks(id);
        let starting = tasks.iter().filter(is_new);
        let starting = starting.filter(|task| task.status.state < TaskState::Running);
        assert!(starting.count() <= 1, "{}", world.picture());
    }
    let tasks = world.tasks(id);
    assert_eq!(
        tasks.iter().filter(is_new).count(),
        4,
        "{}",
        world.picture()
    );
}
