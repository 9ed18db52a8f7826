//! What is in use, references, nodes and the cluster.

use weft_types::{NodeId, TaskId, Timestamp};

use super::*;
use crate::store::Draft;

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
    let config_version = {
        let view = scene.world.view();
        view.config_named("key").unwrap().meta.version.index
    };
    let change_config = |config: &str, version: u64, spec: Value| Ask::UpdateConfig {
        config: config.into(),
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
            "a config's data stays",
            change_config(
                "key",
                config_version,
                json!({"Name": "key", "Data": "bmV1"}),
            ),
            ErrorCode::InvalidArgument,
            "only updates to Labels are allowed".to_owned(),
        ),
        (
            "a config's name stays",
            change_config("key", config_version, json!({"Name": "third"})),
            ErrorCode::InvalidArgument,
            "only updates to Labels are allowed".to_owned(),
        ),
        (
            "a client has read the config that it changes",
            change_config("key", config_version - 1, json!({"Name": "key"})),
            ErrorCode::Aborted,
            "update out of sequence".to_owned(),
        ),
        (
            "a client has read the secret that it changes",
            Ask::UpdateSecret {
                secret: "other".into(),
                version: version - 1,
                spec: secret(&json!({"Name": "other"})),
            },
            ErrorCode::Aborted,
            "update out of sequence".to_owned(),
        ),
        (
            "a config that is not there is not changed",
            change_config("nosuch", config_version, json!({"Name": "nosuch"})),
            ErrorCode::NotFound,
            "config nosuch not found".to_owned(),
        ),
        (
            "a config that is not there is not removed",
            Ask::RemoveConfig("nosuch".into()),
            ErrorCode::NotFound,
            "config nosuch not found".to_owned(),
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
    scene.refused(
        "a field that means nothing, with a secret's new labels",
        &Ask::UpdateSecret {
            secret: "other".into(),
            version: scene
                .world
                .view()
                .secret_named("other")
                .unwrap()
                .meta
                .version
                .index,
            spec: secret(&json!({"Name": "other", "Colour": "red"})),
        },
        ErrorCode::Unimplemented,
        "Colour \"red\" is not supported by weft",
    );
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

#[test]
fn a_cluster_s_spec_is_as_new_as_its_last_change_by_a_user() {
    let mut scene = Scene::new();
    let read = |scene: &Scene| scene.world.view().cluster().unwrap().meta.version.index;
    let update = |version: u64| Ask::UpdateCluster {
        version,
        spec: Box::default(),
        rotate_worker_token: true,
        rotate_manager_token: false,
        rotate_unlock_key: false,
    };
    let words = "update out of sequence";
    scene.world.ask(&update(read(&scene))).unwrap();
    let first = read(&scene);
    // A step of a rotation, or a node's removal, is written meanwhile.
    let mut draft = Draft::new(&scene.world.view(), Timestamp(1));
    draft.edit_cluster(|cluster| cluster.root_rotation_in_progress ^= true);
    scene.world.commit(draft.changes());
    assert!(read(&scene) > first);
    scene.world.ask(&update(first)).unwrap();
    for (rule, version) in [
        ("another user was faster", first),
        ("nobody read what is not there yet", read(&scene) + 1),
    ] {
        scene.refused(rule, &update(version), ErrorCode::Aborted, words);
    }
}

#[test]
fn a_network_stays_while_a_task_is_on_it() {
    let mut scene = Scene::new();
    let open: NetworkSpec =
        serde_json::from_value(json!({"Name": "open", "Attachable": true})).unwrap();
    let network = scene.world.create_network(open);
    let attach = Ask::AttachNetwork {
        node: NodeId::numbered(1),
        container_id: "ab".repeat(32),
        container_name: "mine".into(),
        network: "open".into(),
        aliases: vec![],
        addresses: vec![],
    };
    let task: TaskId = match scene.world.ask(&attach) {
        Ok(ControlReply::Created(id)) => id.parse().unwrap(),
        other => panic!("{other:?}"),
    };
    let remove = Ask::RemoveNetwork("open".into());
    scene.refused(
        "a user's container is on it",
        &remove,
        ErrorCode::FailedPrecondition,
        &format!("network {network} is in use by task {task}"),
    );
    scene.world.ask(&Ask::DetachNetwork(task)).unwrap();
    scene.world.ask(&remove).unwrap();
    assert!(scene.world.view().network_named("open").is_none());
}

#[test]
fn an_unlock_key_that_is_rotated_is_another() {
    let mut scene = Scene::new();
    let mut key_after = |locks: bool, rotate: bool| {
        let cluster = scene.world.view().cluster().cloned().unwrap();
        let mut spec = cluster.spec.clone();
        spec.encryption_config.auto_lock_managers = locks;
        let update = Ask::UpdateCluster {
            version: cluster.meta.version.index,
            spec: Box::new(spec),
            rotate_worker_token: false,
            rotate_manager_token: false,
            rotate_unlock_key: rotate,
        };
        scene.world.ask(&update).unwrap();
        match scene.world.ask(&Ask::GetUnlockKey) {
            Ok(ControlReply::Key(key)) => key,
            other => panic!("{other:?}"),
        }
    };
    let first = key_after(true, false);
    assert!(first.starts_with("SWMKEY-1-"), "{first}");
    assert_eq!(key_after(true, false), first, "nobody asked for another");
    let second = key_after(true, true);
    assert!(second.starts_with("SWMKEY-1-"), "{second}");
    assert_ne!(second, first);
    assert_eq!(key_after(false, false), "", "nothing is locked");
    let third = key_after(true, false);
    assert!(third != first && third != second, "{third}");
}
