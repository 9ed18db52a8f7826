//! How often, how many and how far back.

use weft_types::{
    TaskState,
    node::Availability,
    service::{Empty, ServiceMode, UpdateConfig, UpdateState},
    task::{Placement, RestartPolicy},
};

use super::{image, node, web};
use crate::{
    store::Draft,
    world::{World, secs},
};

fn restarting(condition: &str, max_attempts: Option<u64>) -> RestartPolicy {
    RestartPolicy {
        condition: condition.into(),
        delay: Some(100_000_000),
        max_attempts,
        window: None,
    }
}

#[test]
fn what_ended_well_is_not_replaced_on_failure() {
    for (condition, tasks) in [("on-failure", 1), ("any", 2)] {
        let mut world = World::new(1, 51);
        let mut spec = web(1);
        image(&mut spec, "job");
        spec.task_template.restart_policy = Some(restarting(condition, Some(1)));
        let id = world.create(spec);
        world.advance(secs(10));
        assert_eq!(world.tasks(id).len(), tasks, "{}", world.picture());
    }
}

#[test]
fn a_slot_keeps_five_tasks_or_as_many_as_its_attempts_are_counted_from() {
    for (max_attempts, kept) in [(None, 5), (Some(7), 8)] {
        let mut world = World::new(1, 52);
        let mut spec = web(1);
        image(&mut spec, "crash");
        spec.task_template.restart_policy = Some(restarting("any", max_attempts));
        let id = world.create(spec);
        world.advance(secs(20));
        assert_eq!(world.tasks(id).len(), kept, "{}", world.picture());
        let waits = world.tasks(id);
        let waits = waits.iter().any(|task| !task.status.state.is_terminal());
        assert_eq!(waits, max_attempts.is_none(), "{}", world.picture());
    }
}

#[test]
fn the_history_of_a_place_is_as_long_as_the_cluster_says_at_the_moment() {
    let mut world = World::new(1, 49);
    let mut spec = web(1);
    spec.task_template.restart_policy = Some(restarting("any", None));
    let id = world.create(spec);
    let mut limits = |limit: i64, crashes: usize, kept: usize| {
        let mut draft = Draft::new(&world.view(), world.now);
        draft.edit_cluster(|cluster| {
            let orchestration = &mut cluster.spec.orchestration;
            orchestration.task_history_retention_limit = Some(limit);
        });
        world.commit(draft.changes());
        world.settle();
        for _ in 0..crashes {
            world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
            let task = world.running(id).remove(0).id;
            world.crash(task);
            world.tick();
        }
        assert_eq!(world.tasks(id).len(), kept, "{limit}: {}", world.picture());
    };
    limits(0, 3, 1);
    limits(1, 2, 1);
    limits(2, 3, 2);
    // No limit.
    limits(-1, 8, 10);
    // A change is followed at once, not when the next task ends.
    limits(4, 0, 4);
    limits(0, 0, 1);
}

#[test]
fn a_job_of_every_node_runs_where_it_may() {
    let mut world = World::new(3, 53);
    let mut spec = web(0);
    image(&mut spec, "job");
    spec.mode = ServiceMode {
        global_job: Some(Empty {}),
        ..ServiceMode::default()
    };
    spec.task_template.placement = Some(Placement {
        constraints: Some(vec!["node.hostname!=n2".into()]),
        ..Placement::default()
    });
    let id = world.create(spec);
    world.advance(secs(5));
    let tasks = world.tasks(id);
    assert_eq!(tasks.len(), 2, "{}", world.picture());
    assert!((tasks.iter()).all(|task| task.status.state == TaskState::Complete));
}

#[test]
fn a_job_that_a_drain_cut_short_runs_again_when_its_node_is_back() {
    let mut world = World::new(2, 56);
    let mut spec = web(0);
    spec.mode = ServiceMode {
        global_job: Some(Empty {}),
        ..ServiceMode::default()
    };
    let id = world.create(spec);
    let runs_on = |world: &World| {
        let mut tasks = world.tasks(id);
        tasks.retain(|task| task.status.state == TaskState::Running);
        let mut nodes: Vec<_> = tasks.iter().filter_map(|task| task.node_id).collect();
        nodes.sort_unstable();
        nodes
    };
    let both = [node(1), node(2)];
    world.until(secs(5), "it runs on both", |world| runs_on(world) == both);
    world.availability(node(2), Availability::Drain);
    world.until(secs(5), "it runs on one", |world| {
        runs_on(world) == [node(1)]
    });
    world.availability(node(2), Availability::Active);
    world.until(secs(5), "it runs on both again", |world| {
        runs_on(world) == both
    });
    assert_eq!(world.tasks(id).len(), 3, "{}", world.picture());
}

#[test]
fn a_parallelism_of_none_replaces_all_at_once() {
    let mut world = World::new(2, 54);
    let mut spec = web(4);
    spec.update_config = Some(UpdateConfig::default());
    let id = world.create(spec);
    world.until(secs(5), "four run", |world| world.running(id).len() == 4);
    world.update(id, |spec| image(spec, "new"));
    let version = world.service(id).spec_version;
    let tasks = world.tasks(id);
    let new = tasks.iter().filter(|task| task.spec_version == version);
    assert_eq!(new.count(), 4, "{}", world.picture());
}

#[test]
fn a_task_that_fails_while_it_is_watched_stops_the_update() {
    let mut world = World::new(2, 55);
    let mut spec = web(3);
    spec.update_config = Some(UpdateConfig {
        parallelism: 1,
        ..UpdateConfig::default()
    });
    let id = world.create(spec);
    world.until(secs(5), "three run", |world| world.running(id).len() == 3);
    // It runs for a moment, then fails.
    world.update(id, |spec| image(spec, "crash"));
    world.until(secs(20), "the update is paused", |world| {
        let status = world.service(id).update_status;
        status.is_some_and(|status| status.state == UpdateState::Paused)
    });
}
