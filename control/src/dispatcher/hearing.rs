//! What is heard of nodes, what is waited for, and what they are told: the edges.

use std::{collections::BTreeMap, time::Duration};

use weft_proto::{ControlRequest, dispatcher::AssignmentSet};
use weft_types::{
    NodeId, TaskState,
    container::{ContainerSpec, FileTarget, SecretReference},
    netstate::NetState,
    node::NodeState,
    secret::{Base64, SecretSpec},
    service::{NetworkAttachmentConfig, PortConfig, ServiceSpec},
    task::RestartPolicy,
};

use super::{
    Acks, Sound, Told, assignments, heartbeat_period, is_empty, leave, lost, project, unknown,
    withdraw,
};
use crate::{
    fixture,
    store::Draft,
    world::{World, secs},
};

fn node(number: u32) -> NodeId {
    NodeId::numbered(u128::from(number))
}

fn edit(world: &mut World, edit: impl FnOnce(&mut Draft)) {
    let mut draft = Draft::new(&world.view(), world.now);
    edit(&mut draft);
    world.commit(draft.changes());
}

#[test]
fn a_node_is_to_be_heard_of_as_often_as_the_cluster_says() {
    let mut world = World::new(1, 71);
    assert_eq!(heartbeat_period(&world.view()), Duration::from_secs(5));
    edit(&mut world, |draft| {
        draft.edit_cluster(|cluster| cluster.spec.dispatcher.heartbeat_period = 7_000_000_000);
    });
    assert_eq!(heartbeat_period(&world.view()), Duration::from_secs(7));
}

#[test]
fn silence_is_a_loss_and_a_new_term_knows_of_no_life() {
    let mut world = World::new(3, 72);
    edit(&mut world, |draft| {
        draft.edit_node(node(3), |node| node.status.state = NodeState::Down);
    });
    let view = world.view();
    let sounds = BTreeMap::from([(node(1), Sound::Silent), (node(2), Sound::Gone)]);
    let failure = "heartbeat failure";
    assert_eq!(lost(&view, &sounds, false), [(node(1), failure)]);
    let sounds = BTreeMap::from([(node(1), Sound::Speaks)]);
    assert_eq!(lost(&view, &sounds, false), []);
    assert_eq!(lost(&view, &sounds, true), [(node(2), failure)]);
    let changes = unknown(&view, world.now);
    world.commit(changes);
    let states = world.view();
    let states: Vec<_> = states.nodes().map(|node| node.status.state).collect();
    assert_eq!(
        states,
        [NodeState::Unknown, NodeState::Unknown, NodeState::Down]
    );
}

#[test]
fn a_node_that_leaves_is_let_go_when_it_is_empty_or_its_session_is_over() {
    let mut world = World::new(2, 76);
    let id = world.create(fixture::service(0, "web", 2).spec);
    world.until(secs(5), "both run", |world| world.running(id).len() == 2);
    let changes = leave(&world.view(), world.now, node(2));
    world.commit(changes);
    let let_go = |world: &World, sound| {
        let sounds = BTreeMap::from([(node(2), sound)]);
        lost(&world.view(), &sounds, false)
    };
    let left = [(node(2), "node left the cluster")];
    assert_eq!(let_go(&world, Sound::Speaks), [], "its task runs there yet");
    assert_eq!(
        let_go(&world, Sound::Gone),
        left,
        "nobody is there to wait for"
    );
    world.until(secs(5), "its task has moved", |world| {
        is_empty(&world.view(), node(2))
    });
    assert_eq!(let_go(&world, Sound::Speaks), left);
}

/// A service on a network of its own.
fn networked(world: &mut World) -> ServiceSpec {
    world.create_network(weft_types::network::NetworkSpec {
        name: "back".into(),
        ..Default::default()
    });
    let mut spec = fixture::service(0, "web", 1).spec;
    spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
        target: "back".into(),
        ..NetworkAttachmentConfig::default()
    }]);
    spec
}

#[test]
fn the_dead_are_not_waited_for_and_the_living_as_long_as_the_grace_period() {
    let mut world = World::new(2, 73);
    let mut spec = networked(&mut world);
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.stop_grace_period = Some(30_000_000_000);
    let id = world.create(spec);
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    let task = world.running(id)[0].id;
    edit(&mut world, |draft| {
        draft.edit_task(task, |task| task.desired_state = TaskState::Shutdown);
    });
    let decided = world.store.index();
    let acks = Acks {
        applied: [(node(1), decided)].into(),
    };
    let stops = |world: &World, waited| {
        let outcome = withdraw(&world.view(), world.now.after(secs(waited)), &acks);
        outcome.changes.len() == 1
    };
    assert!(
        !stops(&world, 29),
        "the other node lives and has said nothing"
    );
    assert!(stops(&world, 30), "its grace period is over");
    edit(&mut world, |draft| {
        draft.edit_node(node(2), |node| node.status.state = NodeState::Down);
    });
    assert!(stops(&world, 0), "the other node is down");
}

#[test]
fn a_node_is_told_the_secrets_of_its_own_tasks_until_they_end() {
    let mut world = World::new(2, 74);
    let mut services = Vec::new();
    for name in ["one", "two"] {
        let secret = ControlRequest::CreateSecret(Box::new(SecretSpec {
            name: name.into(),
            data: Base64(b"k".to_vec()),
            ..SecretSpec::default()
        }));
        let Ok(weft_proto::ControlReply::Created(secret)) = world.ask(&secret) else {
            panic!("no secret")
        };
        let mut spec = fixture::service(0, name, 1).spec;
        spec.task_template.container_spec = Some(ContainerSpec {
            image: "busybox".into(),
            secrets: Some(vec![SecretReference {
                file: Some(FileTarget {
                    name: name.into(),
                    ..FileTarget::default()
                }),
                secret_id: secret.parse().unwrap(),
                secret_name: name.into(),
            }]),
            ..ContainerSpec::default()
        });
        spec.task_template.restart_policy = Some(RestartPolicy {
            condition: "none".into(),
            ..RestartPolicy::default()
        });
        services.push(world.create(spec));
    }
    let told = |world: &World, number| {
        let secrets = assignments(&world.view(), node(number)).secrets;
        let names = secrets.into_iter().map(|secret| secret.spec.name);
        names.collect::<Vec<_>>()
    };
    world.until(secs(5), "both run", |world| {
        services.iter().all(|id| world.running(*id).len() == 1)
    });
    assert_eq!(
        (told(&world, 1), told(&world, 2)),
        (vec!["one".into()], vec!["two".into()])
    );
    let task = world.running(services[0])[0].id;
    world.crash(task);
    world.advance(secs(1));
    assert_eq!(
        assignments(&world.view(), node(1)).tasks.len(),
        1,
        "it is remembered"
    );
    assert_eq!(told(&world, 1), [""; 0]);
}

#[test]
fn a_session_begins_with_everything_and_goes_on_with_what_is_new() {
    let mut world = World::new(1, 77);
    let first = world.create(fixture::service(0, "first", 2).spec);
    world.until(secs(5), "both run", |world| world.running(first).len() == 2);
    let mut told = Told::default();
    let ids = |set: &AssignmentSet| set.tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    let all = told.assignments(&world.view(), node(1)).unwrap();
    assert!(all.complete);
    assert_eq!(all.tasks.len(), 2);
    assert_eq!(told.assignments(&world.view(), node(1)), None);
    let second = world.create(fixture::service(0, "second", 1).spec);
    let step = told.assignments(&world.view(), node(1)).unwrap();
    assert!(!step.complete);
    assert_eq!(ids(&step), [world.tasks(second)[0].id]);
    world
        .ask(&ControlRequest::RemoveService("first".into()))
        .unwrap();
    world.until(secs(5), "its tasks are gone", |world| {
        world.tasks(first).is_empty()
    });
    // These steps were lost with the session: the next one names what is left, and says that it is all.
    let anew = Told::default().assignments(&world.view(), node(1)).unwrap();
    assert!(anew.complete);
    assert_eq!(ids(&anew), ids(&step));
    // Even nothing is said.
    let nothing = Told::default().assignments(&world.view(), node(2));
    assert!(nothing.is_some_and(|nothing| nothing.complete && nothing.tasks.is_empty()));
}

#[test]
fn a_node_that_has_lost_the_thread_is_shown_the_whole_network() {
    let mut world = World::new(2, 78);
    let mut told = Told::default();
    let mut held = NetState::default();
    let whole = told.network(&world.view(), node(1)).unwrap();
    assert_eq!(whole.base, 0);
    held.apply(whole).unwrap();
    assert_eq!(told.network(&world.view(), node(1)), None);
    let mut spec = fixture::service(0, "web", 1).spec;
    spec.endpoint_spec.get_or_insert_default().ports = Some(vec![PortConfig {
        target_port: 80,
        published_port: 8000,
        ..PortConfig::default()
    }]);
    world.create(spec);
    let step = told.network(&world.view(), node(1)).unwrap();
    assert_eq!(step.base, held.revision);
    // It never arrives; the node says so when the next one does not fit.
    let id = world.view().service_named("web").unwrap().id;
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    let next = told.network(&world.view(), node(1)).unwrap();
    assert!(held.apply(next).is_err());
    told.lost_thread();
    let whole = told.network(&world.view(), node(1)).unwrap();
    assert_eq!(whole.base, 0);
    held.apply(whole).unwrap();
    assert!(held.same_facts(&project(&world.view(), node(1))));
}

#[test]
fn a_node_is_told_of_a_task_when_it_is_assigned_and_when_it_is_withdrawn() {
    let mut world = World::new(1, 75);
    let id = world.create(fixture::service(0, "web", 1).spec);
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    let task = world.running(id)[0].id;
    let mut told = Told::default();
    told.assignments(&world.view(), node(1));
    edit(&mut world, |draft| {
        draft.edit_task(task, |task| task.withdrawn = true);
    });
    let step = told.assignments(&world.view(), node(1)).unwrap();
    let told: Vec<_> = step.tasks.iter().map(|task| task.id).collect();
    assert_eq!(told, [task]);
    // A task that is the node's own and must wait, as one of a global service may.
    let mut waiting = world.running(id).remove(0);
    waiting.id = weft_types::TaskId::numbered(900);
    waiting.slot = 2;
    waiting.status.state = TaskState::Pending;
    edit(&mut world, |draft| draft.put(waiting));
    let told = assignments(&world.view(), node(1)).tasks;
    let told: Vec<_> = told.iter().map(|task| task.id).collect();
    assert_eq!(told, [task]);
}
