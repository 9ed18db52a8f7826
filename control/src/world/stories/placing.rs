//! Nodes come, go and fit or do not.

use weft_proto::ControlRequest;
use weft_types::{
    TaskState,
    node::Availability,
    service::{Empty, ServiceMode},
    task::{DiscreteResource, GenericResource, Placement, ResourceRequirements, Resources},
};

use super::{node, on_network, overlay, web};
use crate::{
    fixture,
    world::{World, secs},
};

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

/// Gives a node the label `ssd`, or takes all that it has.
fn label(world: &mut World, number: u32, on: bool) {
    world.update_node(node(number), |spec| {
        if on {
            spec.labels.insert("ssd".into(), "yes".into());
        } else {
            spec.labels.clear();
        }
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
    world.now = world.now.after(secs(23 * 60 * 60));
    world.tick();
    // Whatever else is changed of it meanwhile: it is down as long as it is.
    label(&mut world, 2, true);
    assert_eq!(lost(&world), [TaskState::Running]);
    world.now = world.now.after(secs(60 * 60));
    world.tick();
    assert_eq!(lost(&world), [TaskState::Orphaned]);
}

#[test]
fn what_tasks_of_a_removed_node_held_is_free_again() {
    // Down already, and removed alive.
    for alive in [false, true] {
        let mut world = World::new(2, 21);
        let back = world.create_network(overlay("back", Some("10.70.0.0/24")));
        let mut spec = web(2);
        on_network(&mut spec, "back");
        let id = world.create(spec);
        world.until(secs(5), "two run", |world| world.running(id).len() == 2);
        let mut on_second = world.running(id);
        on_second.retain(|task| task.node_id == Some(node(2)));
        let lost = on_second.remove(0);
        let attachment = &lost.networks_attachments[0];
        let held = |world: &World| {
            let view = world.view();
            let address = attachment.addresses[0].ip();
            view.ledger().holder(back, address).is_some()
        };
        if !alive {
            world.silence(node(2));
            world.until(secs(30), "its task is replaced", |world| {
                let running = world.running(id);
                running.len() == 2 && running.iter().all(|task| task.node_id == Some(node(1)))
            });
        }
        // Who knows what runs there yet.
        assert!(held(&world), "its address was given away");
        let request = ControlRequest::RemoveNode {
            node: node(2).to_string(),
            force: true,
        };
        world.ask(&request).unwrap();
        let given_up = world.view().task(lost.id).unwrap().as_ref().clone();
        assert_eq!(given_up.status.state, TaskState::Orphaned);
        assert_eq!(given_up.status.message, "node was removed");
        assert_eq!(given_up.desired_state, TaskState::Shutdown);
        assert!(!held(&world), "its address is kept for nobody");
        world.until(secs(9), "two run on the node that is left", |world| {
            world.running(id).len() == 2
        });
        // Its number on the network is free when it is no history any more.
        let number = |world: &World| world.view().ledger().backend(attachment.backend);
        assert_eq!(number(&world), Some(lost.id));
        world
            .ask(&ControlRequest::RemoveService("web".to_owned()))
            .unwrap();
        assert_eq!(number(&world), None);
        assert!(world.view().task(lost.id).is_none());
    }
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

fn gpus(value: i64) -> GenericResource {
    GenericResource {
        discrete_resource_spec: Some(DiscreteResource {
            kind: "gpu".into(),
            value,
        }),
        named_resource_spec: None,
    }
}

#[test]
fn a_node_that_loses_what_a_task_was_given_loses_the_task() {
    let mut world = World::new(2, 31);
    let offer = |world: &mut World, number: u32, value: i64| {
        let mut changed = world.view().node(node(number)).unwrap().as_ref().clone();
        changed.description.resources.generic_resources = vec![gpus(value)];
        world.commit(vec![crate::store::Change::put(changed)]);
    };
    offer(&mut world, 1, 2);
    let mut spec = web(2);
    spec.task_template.resources = Some(ResourceRequirements {
        reservations: Some(Resources {
            generic_resources: Some(vec![gpus(1)]),
            ..Resources::default()
        }),
        ..ResourceRequirements::default()
    });
    let id = world.create(spec);
    world.until(secs(5), "both run", |world| world.running(id).len() == 2);
    offer(&mut world, 2, 1);
    offer(&mut world, 1, 1);
    world.settle();
    let rejected = |world: &World| {
        let tasks = world.tasks(id);
        let rejected = tasks
            .into_iter()
            .filter(|task| task.status.state == TaskState::Rejected);
        rejected.map(|task| task.status.err).collect::<Vec<_>>()
    };
    let reason = "assigned node no longer meets constraints";
    assert_eq!(rejected(&world), [reason], "{}", world.picture());
    world.until(secs(20), "one runs on each", |world| {
        let running = world.running(id);
        running.len() == 2 && running.iter().any(|task| task.node_id == Some(node(2)))
    });
}
