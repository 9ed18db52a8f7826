//! Refusals that need other objects, rule by rule; what a spec says by itself is checked in
//! `weft_types::validate`, whose tables name those rules.

use serde_json::{Value, json};
use weft_proto::{ControlError, ControlReply, ControlRequest as Ask, ErrorCode};
use weft_types::{
    Timestamp,
    network::NetworkSpec,
    node::{ManagerStatus, NodeSpec},
    secret::SecretSpec,
    service::ServiceSpec,
};

use crate::{store::Draft, world::World};

/// A service spec: this over the smallest one that is right.
fn spec(over: &Value) -> Box<ServiceSpec> {
    let mut spec = json!({
        "Name": "new",
        "TaskTemplate": {"ContainerSpec": {"Image": "tool"}},
        "Mode": {"Replicated": {"Replicas": 1}},
    });
    merge(&mut spec, over);
    Box::new(serde_json::from_value(spec).unwrap())
}

fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over.clone(),
    }
}

fn create(over: &Value) -> Ask {
    Ask::CreateService {
        spec: spec(over),
        registry_auth: String::new(),
    }
}

fn secret(spec: &Value) -> Box<SecretSpec> {
    Box::new(serde_json::from_value(spec.clone()).unwrap())
}

/// A cluster with a service `web` (port 8000 in the mesh), `hosted` (port 9000 of its nodes), a
/// job, a network, a secret and a config that are in use, and another secret.
struct Scene {
    world: World,
    web: String,
    hosted: String,
    secret: String,
    config: String,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new(2, 21);
        let manager = world.view().nodes().last().unwrap().id;
        let mut draft = Draft::new(&world.view(), Timestamp(1));
        draft.edit_node(manager, |node| {
            node.manager_status = Some(ManagerStatus {
                addr: "192.0.2.11:2377".into(),
                ..ManagerStatus::default()
            });
        });
        world.commit(draft.changes());
        let net: NetworkSpec = serde_json::from_value(json!({"Name": "net"})).unwrap();
        world.create_network(net);
        let mut made = |ask: Ask| match world.ask(&ask) {
            Ok(ControlReply::Created(id)) => id,
            other => panic!("{other:?}"),
        };
        let kept = json!({"Name": "key", "Data": "aGFsbG8="});
        let secret_id = made(Ask::CreateSecret(secret(&kept)));
        let config_id = made(Ask::CreateConfig(secret(&kept)));
        made(Ask::CreateSecret(secret(
            &json!({"Name": "other", "Data": "aGFsbG8="}),
        )));
        let web = made(create(&json!({
            "Name": "web",
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8000}]},
            "TaskTemplate": {
                "Networks": [{"Target": "net"}],
                "ContainerSpec": {
                    "Secrets": [{"File": {"Name": "k"}, "SecretID": secret_id, "SecretName": "key"}],
                    "Configs": [{"File": {"Name": "/k"}, "ConfigID": config_id, "ConfigName": "key"}],
                },
            },
        })));
        let hosted = made(create(&json!({
            "Name": "hosted",
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 9000, "PublishMode": "host"}]},
        })));
        Self {
            world,
            web,
            hosted,
            secret: secret_id,
            config: config_id,
        }
    }

    fn version(&self, service: &str) -> u64 {
        let service = self.world.view().service_named(service).cloned();
        service.unwrap().meta.version.index
    }

    fn update(&self, service: &str, over: &Value, rollback: bool) -> Ask {
        let mut all = json!({"Name": service});
        merge(&mut all, over);
        Ask::UpdateService {
            service: service.to_owned(),
            version: self.version(service),
            spec: spec(&all),
            registry_auth: None,
            auth_from_previous: false,
            rollback,
        }
    }

    #[track_caller]
    fn refused(&mut self, rule: &str, ask: &Ask, code: ErrorCode, words: &str) {
        let index = self.world.store.index();
        let refused: ControlError = match self.world.ask(ask) {
            Err(refused) => refused,
            Ok(reply) => panic!("{rule}: answered {reply:?}"),
        };
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (code, words),
            "{rule}"
        );
        assert_eq!(
            self.world.store.index(),
            index,
            "{rule}: something was changed"
        );
    }
}

#[test]
fn services_that_do_not_fit_the_cluster_are_refused() {
    let mut scene = Scene::new();
    let Scene {
        web,
        hosted,
        secret,
        config,
        ..
    } = &scene;
    let ports = |mode: &str, port: u16| json!({"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": port, "PublishMode": mode}]}});
    let file = |list: &str, id: &str, name: &str| {
        let kind = &list[..6];
        json!({"TaskTemplate": {"ContainerSpec": {list: [{"File": {"Name": "/f"},
            format!("{kind}ID"): id, format!("{kind}Name"): name}]}}})
    };
    let twice = json!({"TaskTemplate": {"ContainerSpec": {"Secrets": [
        {"File": {"Name": "a"}, "SecretID": secret, "SecretName": "gone"},
        {"File": {"Name": "b"}, "SecretID": secret, "SecretName": "lost"}]}}});
    let none = "0000000000000000000000009";
    let rows = [
        (
            "a name is taken once",
            json!({"Name": "web"}),
            ErrorCode::AlreadyExists,
            "name conflicts with an existing object: service web already exists".to_owned(),
        ),
        (
            "a port of the mesh is published once",
            ports("ingress", 8000),
            ErrorCode::InvalidArgument,
            format!("port '8000' is already in use by service 'web' ({web}) as an ingress port"),
        ),
        (
            "a port of nodes is not one that the mesh has",
            ports("host", 8000),
            ErrorCode::InvalidArgument,
            format!("port '8000' is already in use by service 'web' ({web}) as an ingress port"),
        ),
        (
            "a port of the mesh is not one that nodes have",
            ports("ingress", 9000),
            ErrorCode::InvalidArgument,
            format!(
                "port '9000' is already in use by service 'hosted' ({hosted}) as a host-published port"
            ),
        ),
        (
            "the way of tasks' traffic between nodes is nobody's",
            json!({"EndpointSpec": {"Ports": [
                {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 4789}]}}),
            ErrorCode::InvalidArgument,
            "port '4789' is needed by the swarm itself: it carries the traffic of tasks between nodes; publish another one".to_owned(),
        ),
        (
            "the managers' own port is nobody's",
            ports("ingress", 2377),
            ErrorCode::InvalidArgument,
            "port '2377' is needed by the swarm itself: nodes reach managers there; publish another one".to_owned(),
        ),
        (
            "nobody attaches to the ingress network",
            json!({"TaskTemplate": {"Networks": [{"Target": "ingress"}]}}),
            ErrorCode::InvalidArgument,
            "Service cannot be explicitly attached to the ingress network \"ingress\"".to_owned(),
        ),
        (
            "a network is there",
            json!({"TaskTemplate": {"Networks": [{"Target": "nosuch"}]}}),
            ErrorCode::NotFound,
            "network nosuch not found".to_owned(),
        ),
        (
            "a network of the nodes' own is alone",
            json!({"TaskTemplate": {"Networks": [{"Target": "host"}, {"Target": "net"}]}}),
            ErrorCode::InvalidArgument,
            "container sharing network namespace with another container or host cannot be connected to any other network".to_owned(),
        ),
        (
            "of the nodes' own networks none is no service's",
            json!({"TaskTemplate": {"Networks": [{"Target": "none"}]}}),
            ErrorCode::NotFound,
            "network none not found".to_owned(),
        ),
        (
            "the deprecated field's networks are there too",
            json!({"Networks": [{"Target": "nosuch"}]}),
            ErrorCode::NotFound,
            "network nosuch not found".to_owned(),
        ),
        (
            "a secret is there",
            file("Secrets", none, "key"),
            ErrorCode::InvalidArgument,
            "secret not found: key".to_owned(),
        ),
        (
            "a secret's name is that of its id",
            file("Secrets", secret, "other"),
            ErrorCode::InvalidArgument,
            "secret not found: other".to_owned(),
        ),
        (
            "all secrets that are missing are named",
            twice,
            ErrorCode::InvalidArgument,
            "secrets not found: gone, lost".to_owned(),
        ),
        (
            "a config is there",
            file("Configs", none, "key"),
            ErrorCode::InvalidArgument,
            "config not found: key".to_owned(),
        ),
        (
            "a config's name is that of its id",
            file("Configs", config, "other"),
            ErrorCode::InvalidArgument,
            "config not found: other".to_owned(),
        ),
        (
            "a constraint is one, and Docker calls its refusal unknown",
            json!({"TaskTemplate": {"Placement": {"Constraints": ["node.role=worker"]}}}),
            ErrorCode::Unknown,
            "constraint expected one operator from ==, !=".to_owned(),
        ),
        (
            "specs are checked again here, whoever forwarded them",
            json!({"Name": "a.b"}),
            ErrorCode::InvalidArgument,
            "name must be valid as a DNS name component".to_owned(),
        ),
        (
            "what is not supported is unimplemented",
            json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "npipe", "Target": "/m"}]}}}),
            ErrorCode::Unimplemented,
            "mount /m: named pipes are Windows's, and weft runs on Linux".to_owned(),
        ),
    ];
    for (rule, over, code, words) in rows {
        scene.refused(rule, &create(&over), code, &words);
    }
    // Host mode beside host mode is no conflict: the scheduler sees to it.
    let beside = json!({"Name": "beside", "EndpointSpec": {"Ports": [
        {"TargetPort": 80, "PublishedPort": 9000, "PublishMode": "host"}]}});
    assert!(scene.world.ask(&create(&beside)).is_ok());
}

#[test]
fn updates_that_cannot_be_are_refused() {
    let mut scene = Scene::new();
    let port = json!({"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8000}]}});
    let renamed = json!({"Name": "renamed"});
    let rows = [
        (
            "a service keeps its name",
            scene.update("hosted", &renamed, false),
            ErrorCode::Unimplemented,
            "renaming services is not supported".to_owned(),
        ),
        (
            "a service keeps its mode",
            scene.update(
                "hosted",
                &json!({"Mode": {"Replicated": null, "Global": {}}}),
                false,
            ),
            ErrorCode::Unimplemented,
            "service mode change is not allowed".to_owned(),
        ),
        (
            "an update takes nobody's port",
            scene.update("hosted", &port, false),
            ErrorCode::InvalidArgument,
            format!(
                "port '8000' is already in use by service 'web' ({}) as an ingress port",
                scene.web
            ),
        ),
        (
            "there is something to go back to",
            scene.update("hosted", &json!({}), true),
            ErrorCode::FailedPrecondition,
            format!("service {} does not have a previous spec", scene.hosted),
        ),
    ];
    for (rule, ask, code, words) in rows {
        scene.refused(rule, &ask, code, &words);
    }
    let mut borrowed = scene.update("hosted", &json!({}), false);
    if let Ask::UpdateService {
        auth_from_previous, ..
    } = &mut borrowed
    {
        *auth_from_previous = true;
    }
    scene.refused(
        "there are credentials to take up again",
        &borrowed,
        ErrorCode::FailedPrecondition,
        "service does not have a previous spec",
    );
    let mut stale = scene.update("hosted", &json!({}), false);
    if let Ask::UpdateService { version, .. } = &mut stale {
        *version -= 1;
    }
    let words = "update out of sequence";
    scene.refused(
        "a client has read what it changes",
        &stale,
        ErrorCode::Aborted,
        words,
    );
    let mut lost = scene.update("hosted", &json!({}), false);
    if let Ask::UpdateService { service, .. } = &mut lost {
        "nosuch".clone_into(service);
    }
    let words = "service nosuch not found";
    scene.refused("a service is there", &lost, ErrorCode::NotFound, words);
}

#[test]
fn credentials_stay_come_back_and_go_back_with_their_spec() {
    let mut scene = Scene::new();
    let auth = |scene: &Scene| {
        let service = scene.world.view().service_named("hosted").cloned().unwrap();
        service.registry_auth.clone()
    };
    // What is given with an update, whether the previous ones are asked for, a rollback; and what is held after.
    let steps = [
        (Some("first"), false, false, "first"),
        (None, false, false, "first"),
        (Some("second"), false, false, "second"),
        (None, true, false, "first"),
        (None, true, false, "second"),
        (Some("third"), true, false, "third"),
        (None, false, true, "second"),
        (None, false, true, "third"),
    ];
    for (step, (given, from_previous, back, held)) in steps.into_iter().enumerate() {
        let mut ask = scene.update("hosted", &json!({}), back);
        if let Ask::UpdateService {
            registry_auth,
            auth_from_previous,
            ..
        } = &mut ask
        {
            *registry_auth = given.map(str::to_owned);
            *auth_from_previous = from_previous;
        }
        scene.world.ask(&ask).unwrap();
        assert_eq!(auth(&scene), held, "after step {step}");
    }
}

#[test]
fn what_is_in_use_is_not_removed_and_names_are_taken_once() {
    let mut scene = Scene::new();
    let network = scene.world.view().network_named("net").cloned().unwrap().id;
    let ingress = scene.world.view().ingress_network().cloned().unwrap().id;
    let version = {
        let view = scene.world.view();
        view.secret_named("other").unwrap().meta.version.index
    };
    let relabel = |spec: Value| Ask::UpdateSecret {
        secret: "other".into(),
        version,
        spec: secret(&spec),
    };
    let net = |spec: Value| Ask::CreateNetwork(Box::new(serde_json::from_value(spec).unwrap()));
    let key = json!({"Name": "key", "Data": "aGFsbG8="});
    let rows = [
        (
            "a secret in use",
            Ask::RemoveSecret("key".into()),
            ErrorCode::InvalidArgument,
            "secret 'key' is in use by the following service: web".to_owned(),
        ),
        (
            "a config in use",
            Ask::RemoveConfig("key".into()),
            ErrorCode::InvalidArgument,
            "config 'key' is in use by the following service: web".to_owned(),
        ),
        (
            "a network in use",
            Ask::RemoveNetwork("net".into()),
            ErrorCode::FailedPrecondition,
            format!("network {network} is in use by service {}", scene.web),
        ),
        (
            "the ingress network while ports are published",
            Ask::RemoveNetwork("ingress".into()),
            ErrorCode::FailedPrecondition,
            format!(
                "ingress network cannot be removed because service {} depends on it",
                scene.web
            ),
        ),
        (
            "a secret's name",
            Ask::CreateSecret(secret(&key)),
            ErrorCode::AlreadyExists,
            "secret key already exists".to_owned(),
        ),
        (
            "a config's name",
            Ask::CreateConfig(secret(&key)),
            ErrorCode::AlreadyExists,
            "config key already exists".to_owned(),
        ),
        (
            "a secret's data stays",
            relabel(json!({"Name": "other", "Data": "bmV1"})),
            ErrorCode::InvalidArgument,
            "only updates to Labels are allowed".to_owned(),
        ),
        (
            "a secret's name stays",
            relabel(json!({"Name": "third"})),
            ErrorCode::InvalidArgument,
            "only updates to Labels are allowed".to_owned(),
        ),
        (
            "a network's name",
            net(json!({"Name": "net"})),
            ErrorCode::AlreadyExists,
            "network with name net already exists".to_owned(),
        ),
        (
            "names that every engine has",
            net(json!({"Name": "host"})),
            ErrorCode::AlreadyExists,
            "network with name host already exists".to_owned(),
        ),
        (
            "names that mean something else",
            net(json!({"Name": "none"})),
            ErrorCode::PermissionDenied,
            "operation is not permitted on predefined none network".to_owned(),
        ),
        (
            "a second ingress network",
            net(json!({"Name": "ingress2", "Ingress": true})),
            ErrorCode::AlreadyExists,
            format!("ingress network ({ingress}) is already present"),
        ),
        (
            "config-only networks",
            net(json!({"Name": "n2", "ConfigFrom": {"Network": "x"}})),
            ErrorCode::Unimplemented,
            "networks made from a config-only network are not supported".to_owned(),
        ),
        (
            "a secret that is not there",
            Ask::GetSecret("nosuch".into()),
            ErrorCode::NotFound,
            "secret nosuch not found".to_owned(),
        ),
    ];
    for (rule, ask, code, words) in rows {
        scene.refused(rule, &ask, code, &words);
    }
    let same = relabel(json!({"Name": "other", "Labels": {"a": "b"}, "Data": "aGFsbG8="}));
    assert!(scene.world.ask(&same).is_ok(), "labels may change");
    let labels = scene
        .world
        .view()
        .secret_named("other")
        .unwrap()
        .spec
        .labels
        .clone();
    assert_eq!(labels.get("a").map(String::as_str), Some("b"));
}

#[test]
fn a_reference_is_an_id_a_name_or_the_beginning_of_one_id() {
    let mut scene = Scene::new();
    let node = |world: &World, number: usize| {
        let view = world.view();
        let node = view.nodes().nth(number).cloned();
        node.unwrap()
    };
    let first = node(&scene.world, 0);
    for reference in [first.id.to_string(), first.description.hostname.clone()] {
        let found = scene.world.ask(&Ask::GetNode(reference.clone()));
        let Ok(ControlReply::Nodes(found)) = found else {
            panic!("{reference}: {found:?}")
        };
        assert_eq!(found[0].id, first.id);
    }
    scene.refused(
        "two ids begin so",
        &Ask::GetNode("0000".into()),
        ErrorCode::InvalidArgument,
        "node 0000 is ambiguous (2 matches found)",
    );
    scene.refused(
        "an empty reference names nothing",
        &Ask::GetNode(String::new()),
        ErrorCode::NotFound,
        "node  not found",
    );
    let id = scene.web.clone();
    let found = scene.world.ask(&Ask::GetService(id[..20].to_owned()));
    assert!(found.is_ok(), "{found:?}");
}

#[test]
fn nodes_are_not_removed_while_they_live_and_change_by_the_version_that_was_read() {
    let mut scene = Scene::new();
    let node = scene.world.view().nodes().next().cloned().unwrap();
    let update = |version: u64, spec: Value| Ask::UpdateNode {
        node: node.id.to_string(),
        version,
        spec: serde_json::from_value::<NodeSpec>(spec).unwrap(),
    };
    let version = node.meta.version.index;
    let live = Ask::RemoveNode {
        node: node.id.to_string(),
        force: false,
    };
    let words = format!("node {} is not down and can't be removed", node.id);
    scene.refused(
        "a node that lives",
        &live,
        ErrorCode::FailedPrecondition,
        &words,
    );
    let stale = update(version - 1, json!({"Availability": "drain"}));
    scene.refused(
        "a stale version",
        &stale,
        ErrorCode::Aborted,
        "update out of sequence",
    );
    let strange = update(version, json!({"Mood": "good"}));
    let words = "Mood \"good\" is not supported by weft";
    scene.refused(
        "an unknown field",
        &strange,
        ErrorCode::Unimplemented,
        words,
    );
    scene.refused(
        "a token is not rotated by a stale client",
        &Ask::UpdateCluster {
            version: 0,
            spec: Box::default(),
            rotate_worker_token: true,
            rotate_manager_token: false,
            rotate_unlock_key: false,
        },
        ErrorCode::Aborted,
        "update out of sequence",
    );
}
