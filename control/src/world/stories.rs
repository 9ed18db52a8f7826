//! Stories of one service or two.

// tidy: long because each story is short and all are told of the same little world.

use weft_types::{
    NodeId, TaskState,
    network::{IpamConfig, IpamOptions, NetworkSpec},
    node::Availability,
    service::{
        Empty, NetworkAttachmentConfig, PortConfig, ReplicatedJob, ServiceMode, ServiceSpec,
        UpdateConfig, UpdateState,
    },
    task::{Placement, RestartPolicy},
};

use weft_proto::ControlRequest;

use super::{World, secs};
use crate::fixture;

fn web(replicas: u64) -> ServiceSpec {
    fixture::service(0, "web", replicas).spec
}

fn image(spec: &mut ServiceSpec, image: &str) {
    if let Some(container) = &mut spec.task_template.container_spec {
        image.clone_into(&mut container.image);
    }
}

fn publish(spec: &mut ServiceSpec, published: u16, target: u16) {
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    endpoint.ports.get_or_insert_default().push(PortConfig {
        target_port: target,
        published_port: published,
        ..PortConfig::default()
    });
}

fn on_network(spec: &mut ServiceSpec, network: impl ToString) {
    spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
        target: network.to_string(),
        ..NetworkAttachmentConfig::default()
    }]);
}

fn overlay(name: &str, subnet: Option<&str>) -> NetworkSpec {
    NetworkSpec {
        name: name.into(),
        attachable: true,
        ipam_options: subnet.map(|subnet| IpamOptions {
            configs: vec![IpamConfig {
                subnet: subnet.parse().ok(),
                ..IpamConfig::default()
            }],
            ..IpamOptions::default()
        }),
        ..NetworkSpec::default()
    }
}

fn node(number: u32) -> NodeId {
    NodeId::numbered(u128::from(number))
}

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
fn a_lost_node_is_replaced_and_its_return_moves_nothing() {
    let mut world = World::new(3, 8);
    let id = world.create(web(6));
    world.until(secs(5), "six run", |world| world.running(id).len() == 6);
    world.silence(node(2));
    world.advance(secs(14));
    world.until(secs(8), "six run elsewhere", |world| {
        let running = world.running(id);
        running.len() == 6 && running.iter().all(|task| task.node_id != Some(node(2)))
    });
    world.revive(node(2));
    world.advance(secs(5));
    let running = world.running(id);
    assert!(running.iter().all(|task| task.node_id != Some(node(2))));
    let view = world.view();
    let left = view
        .tasks_on_node(node(2))
        .filter(|task| !task.status.state.is_terminal());
    assert_eq!(left.count(), 0);
}

#[test]
fn a_drained_nodes_tasks_move_and_global_ones_end() {
    let mut world = World::new(3, 9);
    let replicated = world.create(web(3));
    let mut spec = fixture::service(0, "agent", 0).spec;
    spec.mode = ServiceMode {
        global: Some(Empty {}),
        ..ServiceMode::default()
    };
    let global = world.create(spec);
    world.until(secs(5), "all run", |world| {
        world.running(replicated).len() == 3 && world.running(global).len() == 3
    });
    world.availability(node(1), Availability::Drain);
    world.until(secs(5), "they moved", |world| {
        let on = |task: &weft_types::task::Task| task.node_id == Some(node(1));
        world.running(replicated).len() == 3
            && !world.running(replicated).iter().any(on)
            && world.running(global).len() == 2
    });
    world.availability(node(1), Availability::Active);
    world.until(secs(5), "the global one is back", |world| {
        world.running(global).len() == 3
    });
}

#[test]
fn a_node_that_leaves_hands_its_tasks_over() {
    let mut world = World::new(3, 17);
    let id = world.create(web(3));
    world.until(secs(5), "three run", |world| world.running(id).len() == 3);
    let changes = crate::dispatcher::leave(&world.view(), world.now, node(2));
    world.commit(changes);
    world.until(secs(5), "its tasks have moved", |world| {
        let on = |task: &weft_types::task::Task| task.node_id == Some(node(2));
        world.running(id).len() == 3
            && !world.running(id).iter().any(on)
            && crate::dispatcher::is_empty(&world.view(), node(2))
    });
}

#[test]
fn tasks_of_a_node_that_is_down_for_a_day_are_given_up() {
    let mut world = World::new(2, 18);
    let id = world.create(web(2));
    world.until(secs(5), "two run", |world| world.running(id).len() == 2);
    world.silence(node(2));
    world.advance(secs(20));
    let lost = |world: &World| {
        let view = world.view();
        let tasks = view.tasks_on_node(node(2)).cloned();
        tasks.map(|task| task.status.state).collect::<Vec<_>>()
    };
    assert_eq!(lost(&world), [TaskState::Running]);
    world.now = world.now.after(secs(24 * 60 * 60));
    world.tick();
    assert_eq!(lost(&world), [TaskState::Orphaned]);
}

#[test]
fn nothing_rebalances_until_it_is_asked_and_then_within_its_budget() {
    let mut world = World::new(3, 20);
    world.availability(node(3), Availability::Drain);
    let id = world.create(web(6));
    world.until(secs(5), "six run", |world| world.running(id).len() == 6);
    world.availability(node(3), Availability::Active);
    world.advance(secs(60));
    let on_third = |world: &World| {
        let running = world.running(id);
        let third = running.iter().filter(|task| task.node_id == Some(node(3)));
        third.count()
    };
    assert_eq!(on_third(&world), 0);
    let rebalance = |world: &mut World, budget, apply| match world
        .ask(&ControlRequest::Rebalance { budget, apply })
    {
        Ok(weft_proto::ControlReply::Moves(moves)) => moves,
        other => panic!("no moves: {other:?}"),
    };
    assert_eq!(rebalance(&mut world, 10, false).len(), 2);
    world.advance(secs(1));
    assert_eq!(on_third(&world), 0);
    assert_eq!(rebalance(&mut world, 1, true).len(), 1);
    let begun = world.now;
    while on_third(&world) < 1 || world.running(id).len() > 6 {
        assert!(
            world.running(id).len() >= 6,
            "a task stopped before the other ran"
        );
        assert!(world.now.since(begun) < secs(5), "{}", world.picture());
        world.tick();
    }
    assert_eq!(rebalance(&mut world, 10, true).len(), 1);
    world.until(secs(5), "two are there", |world| on_third(world) == 2);
    world.advance(secs(1));
    assert_eq!(world.running(id).len(), 6);
    assert_eq!(rebalance(&mut world, 10, true), []);
}

#[test]
fn a_great_wish_is_carried_out_in_many_commits() {
    let mut world = World::new(5, 19);
    let before = world.store.index();
    let changes: Vec<_> = (0..300u128)
        .map(|number| fixture::service(500 + number, &format!("s{number}"), 20))
        .map(crate::store::Change::put)
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
    assert_eq!(complete(&world), 0);
    world.until(secs(20), "five are complete again", |world| {
        complete(world) == 5
    });
}

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
fn a_task_says_why_it_has_no_node() {
    let mut world = World::new(3, 12);
    world.availability(node(3), Availability::Pause);
    let mut spec = web(4);
    spec.task_template.placement = Some(Placement {
        constraints: Some(vec!["node.hostname!=n2".into()]),
        max_replicas: 2,
        ..Placement::default()
    });
    let id = world.create(spec);
    world.until(secs(5), "two run", |world| world.running(id).len() == 2);
    let reasons: Vec<_> = world
        .tasks(id)
        .into_iter()
        .filter(|task| task.status.state == TaskState::Pending)
        .map(|task| task.status.err)
        .collect();
    assert_eq!(reasons.len(), 2);
    assert_eq!(
        reasons[0],
        "no suitable node (1 node not available for new tasks; scheduling constraints not \
         satisfied on 1 node; max replicas per node limit exceed)"
    );
    world.availability(node(3), Availability::Active);
    world.until(secs(5), "four run", |world| world.running(id).len() == 4);
}

#[test]
fn a_label_taken_from_a_node_moves_its_tasks() {
    let mut world = World::new(2, 13);
    let label = |world: &mut World, number: u32, on: bool| {
        let view = world.view();
        let known = view.node(node(number)).unwrap();
        let mut spec = known.spec.clone();
        if on {
            spec.labels.insert("ssd".into(), "yes".into());
        } else {
            spec.labels.clear();
        }
        let version = known.meta.version.index;
        let node = node(number).to_string();
        world
            .ask(&ControlRequest::UpdateNode {
                node,
                version,
                spec,
            })
            .unwrap();
    };
    label(&mut world, 1, true);
    let mut spec = web(1);
    spec.task_template.placement = Some(Placement {
        constraints: Some(vec!["node.labels.ssd==yes".into()]),
        ..Placement::default()
    });
    let id = world.create(spec);
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    label(&mut world, 2, true);
    label(&mut world, 1, false);
    let first = world.tasks(id);
    assert!(
        first
            .iter()
            .any(|task| task.status.state == TaskState::Rejected
                && task.status.err == "assigned node no longer meets constraints")
    );
    world.until(secs(9), "it runs on the other", |world| {
        world
            .running(id)
            .iter()
            .any(|task| task.node_id == Some(node(2)))
    });
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
    let mut forced = overlay("three", None);
    forced.driver_configuration.options =
        Some([(crate::store::VNI_OPTION.to_owned(), "4096".to_owned())].into());
    assert_eq!(
        refused(&mut world, forced),
        "VNI 4096 is taken by network ingress"
    );
}
