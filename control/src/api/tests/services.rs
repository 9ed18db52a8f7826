//! Services: what is refused, and credentials.

use super::*;
use crate::{fixture, store::Change};

#[test]
fn services_that_do_not_fit_the_cluster_are_refused() {
    let mut scene = Scene::new();
    let net = scene.world.view().network_named("net").cloned().unwrap().id;
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
            "a network is named once, by whichever name",
            json!({"TaskTemplate": {"Networks": [{"Target": "net"}, {"Target": net}]}}),
            ErrorCode::InvalidArgument,
            "network net is named twice".to_owned(),
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
fn a_port_that_was_asked_for_and_is_not_given_yet_is_taken() {
    let mut scene = Scene::new();
    let ports = json!({"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8100}]}});
    let mut first = fixture::service(900, "first", 0);
    first.spec.endpoint_spec = spec(&ports).endpoint_spec;
    let words = format!(
        "port '8100' is already in use by service 'first' ({}) as an ingress port",
        first.id
    );
    // Written, and the allocator has not had its turn.
    scene.world.commit(vec![Change::put(first)]);
    scene.refused(
        "who asks first is served first",
        &create(&ports),
        ErrorCode::InvalidArgument,
        &words,
    );
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
