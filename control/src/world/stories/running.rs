//! Services run, end, grow and shrink.

use weft_types::{
    TaskState,
    service::{PublishMode, ReplicatedJob, ServiceMode},
    task::{RestartPolicy, Task},
};

use super::{image, node, on_network, overlay, publish, web};
use crate::{
    fixture,
    store::Change,
    world::{World, secs},
};

#[test]
fn a_published_service_runs_on_all_nodes_with_addresses_of_both_families() {
    let mut world = World::new(3, 1);
    let net = world.create_network(overlay("back", None));
    let mut spec = web(3);
    publish(&mut spec, 8000, 80);
    publish(&mut spec, 0, 81);
    on_network(&mut spec, "back");
    let id = world.create(spec);
    world.until(secs(5), "three tasks run", |world| {
        world.running(id).len() == 3
    });
    let nodes: std::collections::BTreeSet<_> =
        world.running(id).iter().map(|task| task.node_id).collect();
    assert_eq!(nodes.len(), 3);
    let service = world.service(id);
    let vips: Vec<String> = service
        .endpoint
        .virtual_ips
        .iter()
        .map(|vip| vip.addr.to_string())
        .collect();
    assert_eq!(vips, ["10.0.0.2/24", "fd12:3456:789a::2/64", "10.0.1.2/24"]);
    assert_eq!(service.endpoint.ports[1].published_port, 30_000);
    let mut first: Vec<String> = world
        .running(id)
        .iter()
        .map(|task| {
            assert_eq!(task.networks_attachments.len(), 2);
            assert_eq!(task.networks_attachments[0].addresses.len(), 2);
            task.networks_attachments[1].addresses[0].to_string()
        })
        .collect();
    first.sort();
    assert_eq!(first, ["10.0.1.3/24", "10.0.1.4/24", "10.0.1.5/24"]);
    let state = crate::dispatcher::project(&world.view(), node(2));
    assert_eq!(state.networks.len(), 2);
    assert_eq!(state.networks[&net].vni, 4097);
    assert_eq!(state.endpoints.len(), 6);
    assert_eq!(state.services[&id].ports.len(), 2);
}

#[test]
fn a_service_on_the_nodes_own_network_runs_and_is_given_no_address() {
    let mut world = World::new(3, 1);
    let mut services = Vec::new();
    for network in ["host", "bridge"] {
        let mut spec = web(3);
        spec.name = network.into();
        on_network(&mut spec, network);
        services.push(world.create(spec));
    }
    let mut exporter = web(3);
    exporter.name = "exporter".into();
    on_network(&mut exporter, "host");
    publish(&mut exporter, 9100, 9100);
    let endpoint = exporter.endpoint_spec.get_or_insert_default();
    for port in endpoint.ports.iter_mut().flatten() {
        port.publish_mode = PublishMode::Host;
    }
    services.push(world.create(exporter));
    for id in services {
        world.until(secs(5), "three tasks run", |world| {
            world.running(id).len() == 3
        });
        let service = world.service(id);
        assert_eq!(service.allocation_error, "");
        assert!(service.endpoint.virtual_ips.is_empty());
        for task in world.running(id) {
            assert!(task.networks_attachments.is_empty());
            assert!(task.spec.node_network().is_some(), "it keeps its target");
        }
    }
    let state = crate::dispatcher::project(&world.view(), node(2));
    assert!(state.endpoints.is_empty(), "{:?}", state.endpoints);
}

#[test]
fn a_task_that_exits_is_replaced_after_its_delay_and_given_up_after_its_attempts() {
    let mut world = World::new(1, 2);
    let mut spec = web(1);
    spec.task_template.restart_policy = Some(RestartPolicy {
        condition: "any".into(),
        delay: Some(2_000_000_000),
        max_attempts: Some(2),
        window: None,
    });
    let id = world.create(spec);
    for _ in 0..2 {
        world.until(secs(9), "the task runs", |world| {
            world.running(id).len() == 1
        });
        let task = world.running(id)[0].id;
        world.crash(task);
        world.advance(secs(1));
        assert!(world.running(id).is_empty());
        world.advance(secs(2));
        assert_eq!(world.running(id).len(), 1, "{}", world.picture());
    }
    let task = world.running(id)[0].id;
    world.crash(task);
    world.advance(secs(60));
    assert!(world.running(id).is_empty());
    assert_eq!(world.tasks(id).len(), 3);
}

#[test]
fn an_image_that_is_nowhere_is_asked_for_once_per_delay() {
    let mut world = World::new(1, 3);
    let mut spec = web(1);
    image(&mut spec, "missing");
    let id = world.create(spec);
    world.advance(secs(12));
    let rejected = world.tasks(id);
    let rejected = rejected
        .iter()
        .filter(|task| task.status.state == TaskState::Rejected);
    assert_eq!(rejected.count(), 4, "{}", world.picture());
}

#[test]
fn scaling_down_takes_from_the_fullest_nodes() {
    let mut world = World::new(3, 4);
    let id = world.create(web(7));
    world.until(secs(5), "seven run", |world| world.running(id).len() == 7);
    world.update(id, |spec| spec.mode = fixture::service(0, "", 3).spec.mode);
    world.until(secs(5), "three are left", |world| {
        world.tasks(id).len() == 3
    });
    let nodes: std::collections::BTreeSet<_> =
        world.running(id).iter().map(|task| task.node_id).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn a_great_wish_is_carried_out_in_many_commits() {
    let mut world = World::new(5, 19);
    let before = world.store.index();
    let changes: Vec<_> = (0..300u128)
        .map(|number| fixture::service(500 + number, &format!("s{number}"), 20))
        .map(Change::put)
        .collect();
    world.commit(changes);
    world.settle();
    assert_eq!(world.view().task_count(), 6_000);
    assert!(
        world.store.index() - before > 3,
        "one entry of the log carries it all"
    );
    let assigned =
        |task: &&std::sync::Arc<weft_types::task::Task>| task.status.state == TaskState::Assigned;
    assert_eq!(world.view().tasks().filter(assigned).count(), 6_000);
}

#[test]
fn a_large_job_is_made_in_batches_of_two_thousand() {
    let mut world = World::new(2, 10);
    let mut job = fixture::service(500, "sums", 0);
    job.spec.mode = ServiceMode {
        replicated_job: Some(ReplicatedJob {
            max_concurrent: Some(4_500),
            total_completions: Some(5_000),
        }),
        ..ServiceMode::default()
    };
    let id = job.id;
    world.commit(vec![Change::put(job)]);
    let mut made = Vec::new();
    loop {
        let view = world.view();
        let outcome = world.settler.settle(&view, world.now, &mut world.ids);
        if outcome.changes.is_empty() {
            break;
        }
        world.commit(outcome.changes);
        made.push(world.view().task_count() - view.task_count());
    }
    made.retain(|made| *made > 0);
    assert_eq!(made, [2_000, 2_000, 500], "as many at a time as wished");
    let tasks = world.tasks(id);
    let places: std::collections::BTreeSet<_> = tasks.iter().map(|task| task.slot).collect();
    assert_eq!(places, (0..4_500).collect(), "no place twice");
    world.settle();
}

#[test]
fn jobs_run_to_completion_and_again_when_updated() {
    let mut world = World::new(2, 10);
    let mut spec = fixture::service(0, "sums", 0).spec;
    image(&mut spec, "job");
    spec.mode = ServiceMode {
        replicated_job: Some(ReplicatedJob {
            max_concurrent: Some(2),
            total_completions: Some(5),
        }),
        ..ServiceMode::default()
    };
    let id = world.create(spec);
    let complete = |world: &World| {
        let tasks = world.tasks(id);
        let tasks = tasks.iter();
        tasks
            .filter(|task| task.status.state == TaskState::Complete)
            .count()
    };
    world.until(secs(20), "five are complete", |world| complete(world) == 5);
    world.update(id, |spec| spec.task_template.force_update += 1);
    assert_eq!(complete(&world), 5, "what has ended is history");
    world.until(secs(20), "five more are complete", |world| {
        complete(world) == 10
    });
    let slots = |slot| {
        let tasks = world.tasks(id);
        tasks.iter().filter(|task| task.slot == slot).count()
    };
    assert!((0..5).all(|slot| slots(slot) == 2), "each place ran twice");
}

#[test]
fn a_job_that_is_updated_while_it_runs_ends_that_run_and_begins_anew() {
    let mut world = World::new(2, 21);
    let mut spec = fixture::service(0, "sums", 0).spec;
    spec.mode = ServiceMode {
        replicated_job: Some(ReplicatedJob {
            max_concurrent: Some(2),
            total_completions: Some(2),
        }),
        ..ServiceMode::default()
    };
    let id = world.create(spec);
    let run = |world: &World| {
        let mut tasks = world.tasks(id);
        tasks.retain(|task| task.status.state == TaskState::Running);
        tasks
    };
    world.until(secs(5), "both run", |world| run(world).len() == 2);
    let old: Vec<_> = run(&world).iter().map(|task| task.id).collect();
    world.update(id, |spec| spec.task_template.force_update += 1);
    world.until(
        secs(9),
        "both run anew, and nothing else is left",
        |world| {
            let new = run(world);
            let is_new = |task: &Task| !old.contains(&task.id);
            world.tasks(id).len() == 2 && new.len() == 2 && new.iter().all(is_new)
        },
    );
}
