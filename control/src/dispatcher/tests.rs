//! What nodes are told, and what becomes of what they say.

use proptest::prelude::*;
use weft_types::{
    NodeId, ServiceId, TaskId, TaskState, Timestamp,
    cluster::Cluster,
    container::ContainerSpec,
    netstate::{EndpointPhase, NetState, ZONE},
    node::NodeState,
    service::{EndpointMode, NetworkAttachmentConfig, PortConfig, PublishMode},
    task::{RestartPolicy, Task, TaskStatus},
};

use super::{Acks, Told, assignments, down, project, status, withdraw};
use crate::{
    fixture,
    settle::Settler,
    store::{Change, Draft, Key, Object, View},
    world::{World, secs},
};

fn node(number: u32) -> NodeId {
    NodeId::numbered(u128::from(number))
}

/// Two services on `back`, one of them published; two of three nodes have a task of `web`.
fn world() -> (World, ServiceId) {
    let mut world = World::new(3, 1);
    world.create_network(weft_types::network::NetworkSpec {
        name: "back".into(),
        ..Default::default()
    });
    let mut spec = fixture::service(0, "web", 2).spec;
    spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
        target: "back".into(),
        aliases: Some(vec!["www".into()]),
        driver_opts: None,
    }]);
    spec.labels.insert("weft.affinity".into(), "3s".into());
    spec.labels.insert("other".into(), "x".into());
    if let Some(container) = &mut spec.task_template.container_spec {
        container.hostname = Some("h-{{.Task.Slot}}-{{.Node.Hostname}}".into());
    }
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    endpoint.ports = Some(vec![PortConfig {
        target_port: 80,
        published_port: 8000,
        ..PortConfig::default()
    }]);
    let id = world.create(spec);
    world.until(secs(5), "two run", |world| world.running(id).len() == 2);
    (world, id)
}

fn knows_back(world: &World, node: NodeId) -> bool {
    let state = project(&world.view(), node);
    let mut networks = state.networks.values();
    networks.any(|network| network.name == "back")
}

#[test]
fn a_node_knows_a_network_as_long_as_a_task_of_its_own_has_not_ended() {
    let (mut world, id) = world();
    world.update(id, |spec| {
        spec.task_template.restart_policy = Some(RestartPolicy {
            condition: "none".into(),
            ..RestartPolicy::default()
        });
    });
    world.until(secs(30), "two of the new spec run", |world| {
        let running = world.running(id);
        let is_new = |task: &Task| task.spec.restart_policy.is_some();
        running.len() == 2 && running.iter().all(is_new)
    });
    let task = world.running(id).remove(0);
    let node = task.node_id.unwrap();
    assert!(knows_back(&world, node), "it runs there");
    world.crash(task.id);
    world.until(secs(5), "it has ended", |world| {
        world.running(id).len() == 1
    });
    let view = world.view();
    assert!(view.task(task.id).is_some(), "it is history");
    assert!(!knows_back(&world, node), "nothing of it is left there");
}

#[test]
fn a_node_knows_the_networks_of_a_task_that_is_to_stop_until_it_has() {
    let (mut world, id) = world();
    let task = world.running(id).remove(0);
    let node = task.node_id.unwrap();
    let changes = edit(&world.view(), task.id, |task| {
        task.desired_state = TaskState::Shutdown
    });
    world.commit(changes);
    assert!(knows_back(&world, node), "it runs there yet");
    let changes = edit(&world.view(), task.id, |task| {
        task.status.state = TaskState::Shutdown
    });
    world.commit(changes);
    assert!(!knows_back(&world, node), "it has stopped");
}

fn phases(state: &NetState) -> Vec<EndpointPhase> {
    let mut phases: Vec<_> = state
        .endpoints
        .values()
        .map(|endpoint| endpoint.phase)
        .collect();
    phases.sort();
    phases
}

fn edit(view: &View, id: TaskId, edit: impl FnOnce(&mut weft_types::task::Task)) -> Vec<Change> {
    let mut draft = Draft::new(view, Timestamp(1));
    draft.edit_task(id, edit);
    draft.changes()
}

#[test]
fn a_node_knows_the_networks_of_its_tasks_and_the_ingress_network() {
    let (world, id) = world();
    let tasks = world.running(id);
    let with: Vec<NodeId> = tasks.iter().filter_map(|task| task.node_id).collect();
    let without = (1..=3).map(node).find(|node| !with.contains(node)).unwrap();
    let near = project(&world.view(), with[0]);
    assert_eq!(near.networks.len(), 2);
    assert_eq!(near.endpoints.len(), 4);
    let far = project(&world.view(), without);
    assert_eq!(far.networks.len(), 1);
    assert_eq!(far.endpoints.len(), 2);
    assert_eq!(phases(&far), [EndpointPhase::Serving; 2]);
    let service = &near.services[&id];
    assert_eq!(service.name, "web");
    assert_eq!(service.vips.len(), 2);
    assert_eq!(service.ports[0].published_port, 8000);
    assert_eq!(service.labels.len(), 1);
    let back = world.view().network_named("back").unwrap().id;
    assert!(service.aliases[&back].contains("www"));
    assert!(far.services[&id].aliases.is_empty());
    let hostname = world
        .view()
        .node(with[0])
        .unwrap()
        .description
        .hostname
        .clone();
    let mine = near
        .endpoints
        .values()
        .find(|endpoint| endpoint.node == with[0])
        .unwrap();
    let slot = tasks.iter().find(|task| task.id == mine.task).unwrap().slot;
    assert_eq!(mine.names, [format!("h-{slot}-{hostname}")]);
    assert_eq!(near.nodes.len(), 3);
}

#[test]
fn what_is_to_stop_drains_and_what_has_stopped_is_forgotten() {
    let (mut world, id) = world();
    let task = world.running(id)[0].id;
    let changes = edit(&world.view(), task, |task| {
        task.desired_state = TaskState::Shutdown
    });
    world.commit(changes);
    let state = project(&world.view(), node(1));
    assert!(phases(&state).contains(&EndpointPhase::Draining));
    let changes = edit(&world.view(), task, |task| {
        task.status.state = TaskState::Shutdown
    });
    world.commit(changes);
    let state = project(&world.view(), node(1));
    assert!(
        state
            .endpoints
            .values()
            .all(|endpoint| endpoint.task != task)
    );
}

#[test]
fn endpoints_of_a_dead_node_are_not_chosen() {
    let (mut world, id) = world();
    let dead = world.running(id)[0].node_id.unwrap();
    let mut draft = Draft::new(&world.view(), world.now);
    draft.edit_node(dead, |node| node.status.state = NodeState::Down);
    world.commit(draft.changes());
    let state = project(&world.view(), node(1));
    assert!(!state.nodes[&dead].alive);
    let serving = |endpoint: &weft_types::netstate::NetEndpoint| {
        endpoint.phase == EndpointPhase::Serving && endpoint.node == dead
    };
    assert!(!state.endpoints.values().any(serving));
}

#[test]
fn a_round_robin_service_keeps_its_name_without_tasks() {
    let mut world = World::new(1, 2);
    let back = world.create_network(weft_types::network::NetworkSpec {
        name: "back".into(),
        ..Default::default()
    });
    let on_back = |name: &str, replicas| {
        let mut spec = fixture::service(0, name, replicas).spec;
        spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
            target: "back".into(),
            ..NetworkAttachmentConfig::default()
        }]);
        spec
    };
    let mut spec = on_back("rr", 0);
    spec.endpoint_spec.get_or_insert_default().mode = Some(EndpointMode::Dnsrr);
    let rr = world.create(spec);
    world.create(on_back("other", 1));
    world.advance(secs(1));
    let state = project(&world.view(), node(1));
    assert!(state.services[&rr].vips.is_empty());
    assert!(state.services[&rr].aliases[&back].is_empty());
}

#[test]
fn a_host_port_has_a_leg_to_arrive_at() {
    let mut world = World::new(1, 3);
    let mut spec = fixture::service(0, "web", 1).spec;
    spec.endpoint_spec.get_or_insert_default().ports = Some(vec![PortConfig {
        target_port: 80,
        published_port: 8080,
        publish_mode: PublishMode::Host,
        ..PortConfig::default()
    }]);
    let id = world.create(spec);
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    let state = project(&world.view(), node(1));
    let endpoint = state.endpoints.values().next().unwrap();
    assert_eq!(endpoint.host_ports[0].published_port, 8080);
    assert!(
        !state.services.contains_key(&id),
        "nothing answers on all nodes"
    );
}

#[test]
fn a_task_stops_when_every_live_node_has_let_go_of_it() {
    let (mut world, id) = world();
    let task = world.running(id)[0].id;
    let changes = edit(&world.view(), task, |task| {
        task.desired_state = TaskState::Shutdown
    });
    world.commit(changes);
    let decided = world.store.index();
    let mut acks = Acks {
        applied: (1..=3).map(|number| (node(number), decided - 1)).collect(),
    };
    let now = Timestamp(1);
    let view = world.view();
    let asked = |acks: &Acks, now| {
        let outcome = withdraw(&view, now, acks);
        (outcome.changes.len(), outcome.wake_at.is_some())
    };
    assert_eq!(asked(&acks, now), (0, true));
    acks.applied.insert(node(1), decided);
    acks.applied.insert(node(2), decided);
    assert_eq!(asked(&acks, now), (0, true));
    acks.applied.insert(node(3), decided + 5);
    assert_eq!(asked(&acks, now), (1, false));
    acks.applied.insert(node(3), 0);
    assert_eq!(asked(&acks, now.after(secs(5))), (0, true));
    assert_eq!(
        asked(&acks, now.after(secs(10))),
        (1, false),
        "a mute node holds it up no longer"
    );
    acks.applied.remove(&node(3));
    assert_eq!(
        asked(&acks, now),
        (0, true),
        "a new leader has heard of nobody yet"
    );
}

#[test]
fn a_stop_does_not_wait_until_the_loops_have_nothing_to_do() {
    let (mut world, id) = world();
    let task = world.running(id)[0].id;
    let changes = edit(&world.view(), task, |task| {
        task.desired_state = TaskState::Shutdown
    });
    world.commit(changes);
    world.settle();
    // What a crowd writes: something new for the loops whenever they are asked.
    world.commit(vec![Change::put(fixture::service(77, "new", 3))]);
    let index = world.store.index();
    let acks = Acks {
        applied: (1..=3).map(|number| (node(number), index)).collect(),
    };
    let (view, now) = (world.view(), world.now);
    let outcome = Settler::default().decide(&view, now, &mut world.ids, &acks);
    let put = outcome.changes.iter().filter_map(|change| match change {
        Change::Put(Object::Task(task)) => Some(task),
        _ => None,
    });
    let put: Vec<_> = put.collect();
    assert!(put.iter().any(|new| new.service_id != Some(id)));
    assert!(put.iter().any(|put| put.id == task && put.withdrawn));
    // What both would change is changed once.
    let keys: std::collections::BTreeSet<_> = outcome.changes.iter().map(Change::key).collect();
    assert_eq!(keys.len(), outcome.changes.len());
    world.commit(outcome.changes);
}

#[test]
fn secrets_go_where_they_are_needed_and_only_while_they_are() {
    let mut world = World::new(2, 4);
    let request =
        weft_proto::ControlRequest::CreateSecret(Box::new(weft_types::secret::SecretSpec {
            name: "key".into(),
            data: weft_types::secret::Base64(b"k".to_vec()),
            ..Default::default()
        }));
    let Ok(weft_proto::ControlReply::Created(secret)) = world.ask(&request) else {
        panic!("no secret")
    };
    let mut spec = fixture::service(0, "web", 1).spec;
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "busybox".into(),
        secrets: Some(vec![weft_types::container::SecretReference {
            file: Some(weft_types::container::FileTarget {
                name: "key".into(),
                ..Default::default()
            }),
            secret_id: secret.parse().unwrap(),
            secret_name: "key".into(),
        }]),
        ..ContainerSpec::default()
    });
    let id = world.create(spec);
    world.until(secs(5), "it runs", |world| world.running(id).len() == 1);
    let has = world.running(id)[0].node_id.unwrap();
    let counts = |world: &World| {
        let secrets = |number| assignments(&world.view(), node(number)).secrets.len();
        (secrets(1), secrets(2))
    };
    assert_eq!(counts(&world), if has == node(1) { (1, 0) } else { (0, 1) });
    let refused = world.ask(&weft_proto::ControlRequest::RemoveSecret("key".into()));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "secret 'key' is in use by the following service: web"
    );
    world.update(id, |spec| spec.mode = fixture::service(0, "", 0).spec.mode);
    world.advance(secs(1));
    assert_eq!(counts(&world), (0, 0));
}

#[test]
fn news_of_others_tasks_is_no_news() {
    let (world, id) = world();
    let task = world.running(id)[0].clone();
    let other = (1..=3)
        .map(node)
        .find(|node| Some(*node) != task.node_id)
        .unwrap();
    let failed = TaskStatus {
        timestamp: world.now,
        state: TaskState::Failed,
        ..TaskStatus::default()
    };
    let news = [(task.id, failed)];
    assert_eq!(status(&world.view(), world.now, other, &news), []);
    let own = task.node_id.unwrap();
    assert_eq!(status(&world.view(), world.now, own, &news).len(), 1);
    let repeated = [(
        task.id,
        TaskStatus {
            timestamp: world.now,
            ..task.status
        },
    )];
    assert_eq!(status(&world.view(), world.now, own, &repeated), []);
}

fn any_state() -> impl Strategy<Value = TaskState> {
    prop_oneof![
        Just(TaskState::Accepted),
        Just(TaskState::Preparing),
        Just(TaskState::Ready),
        Just(TaskState::Starting),
        Just(TaskState::Running),
        Just(TaskState::Complete),
        Just(TaskState::Shutdown),
        Just(TaskState::Failed),
        Just(TaskState::Rejected),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn an_observed_state_only_rises_in_whatever_order_reports_come(
        states in proptest::collection::vec(any_state(), 1..12),
    ) {
        let mut world = World::new(1, 5);
        let id = world.create(fixture::service(0, "web", 1).spec);
        let task = world.tasks(id)[0].id;
        for state in states {
            let before = world.view().task(task).unwrap().status.state;
            let news = [(task, TaskStatus { timestamp: world.now, state, ..TaskStatus::default() })];
            let changes = status(&world.view(), world.now, node(1), &news);
            world.commit(changes);
            let after = world.view().task(task).unwrap().status.state;
            prop_assert_eq!(after, before.max(state));
        }
    }

    #[test]
    fn deltas_lead_from_any_projection_to_any_later_one(
        pauses in proptest::collection::vec(0usize..8, 1..12),
    ) {
        let (mut world, id) = world();
        let (mut told, mut known) = (Told::default(), NetState::default());
        for (step, ticks) in pauses.into_iter().enumerate() {
            match step {
                3 => {
                    let task = world.running(id).first().map(|task| task.id);
                    task.into_iter().for_each(|task| world.crash(task));
                }
                5 => world.update_node(node(1), |spec| {
                    spec.labels.insert(ZONE.to_owned(), "east".to_owned());
                }),
                6 => world.update(id, |spec| spec.endpoint_spec = None),
                8 => {
                    let changes = down(&world.view(), world.now, node(3), "heartbeat failure");
                    world.commit(changes);
                }
                _ => {}
            }
            if let Some(delta) = told.network(&world.view(), node(2)) {
                known.apply(delta).unwrap();
            }
            prop_assert!(known.same_facts(&project(&world.view(), node(2))));
            for _ in 0..ticks {
                world.tick();
            }
        }
    }
}

#[test]
fn tasks_on_a_network_that_is_gone_are_no_news() {
    let (mut world, id) = world();
    let task = world.running(id).remove(0);
    let at = task.node_id.unwrap();
    let back = world.view().network_named("back").unwrap().id;
    // Past the door, which lets no network go that a task is on.
    let mut draft = Draft::new(&world.view(), world.now);
    draft.delete(Key::Network(back));
    world.commit(draft.changes());
    let (mut told, mut known) = (Told::default(), NetState::default());
    let whole = told.network(&world.view(), at).unwrap();
    known.apply(whole).unwrap();
    let changes = edit(&world.view(), task.id, |task| {
        task.desired_state = TaskState::Shutdown
    });
    world.commit(changes);
    let step = told.network(&world.view(), at).unwrap();
    known.apply(step).unwrap();
    assert_eq!(
        known.endpoints,
        project(&world.view(), at).endpoints,
        "of the ingress network alone"
    );
}

#[test]
fn a_label_of_the_cluster_encrypts_every_network_and_its_keys_are_told() {
    let (mut world, id) = world();
    let at = world.running(id)[0].node_id.unwrap();
    let encrypted = |world: &World| -> Vec<bool> {
        let state = project(&world.view(), at);
        state.networks.values().map(|net| net.encrypted).collect()
    };
    assert_eq!(encrypted(&world), [false, false]);
    let change = |world: &mut World, edit: &dyn Fn(&mut Cluster)| {
        let before = world.view();
        let mut cluster = Cluster::clone(before.cluster().unwrap());
        edit(&mut cluster);
        let mut told = Told::default();
        told.network(&before, at);
        world.commit(vec![Change::put(cluster)]);
        told.network(&world.view(), at).is_some()
    };
    let is_news = change(&mut world, &|cluster| {
        let labels = &mut cluster.spec.labels;
        labels.insert("weft.encrypted".into(), "true".into());
    });
    assert!(is_news);
    assert_eq!(encrypted(&world), [true, true], "the ingress network too");
    let is_news = change(&mut world, &|cluster| cluster.keys.generations.newest = 7);
    assert!(is_news);
    assert_eq!(project(&world.view(), at).keys.newest, 7);
}
