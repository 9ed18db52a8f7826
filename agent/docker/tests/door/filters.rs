//! What lists are narrowed by, and what requests ask of the managers beside their bodies.

use serde_json::{Value, json};
use weft_proto::{ControlRequest, LogItem, LogLine, LogStream};
use weft_types::{Id, TaskState, service::Service};

use crate::{
    bed::{Bed, filters},
    cluster::{FakeNode, NOW, node_id},
};

/// A cluster in which every filter tells two objects of a kind apart.
async fn bed() -> Bed {
    let bed = Bed::new(FakeNode::manager()).await;
    {
        let mut state = bed.node.cluster.state();
        let node = &mut state.nodes[1];
        node.spec.labels = [("zone".to_owned(), "a".to_owned())].into();
        node.description.engine.labels = [("disk".to_owned(), "ssd".to_owned())].into();
    }
    for (name, labels, mode) in [
        (
            "web",
            json!({"tier": "front", "team": "x"}),
            json!({"Replicated": {"Replicas": 2}}),
        ),
        ("agent", json!({"tier": "back"}), json!({"Global": {}})),
    ] {
        let body = json!({"Name": name, "Labels": labels, "Mode": mode,
            "TaskTemplate": {"ContainerSpec": {"Image": "tool"}}});
        let created = bed.json("POST", "/v1.41/services/create", body).await;
        assert_eq!(created.0, 201, "{created:?}");
    }
    for (name, label) in [("on1", "a"), ("on2", "b")] {
        let body = json!({"Name": name, "Driver": "overlay", "Attachable": true,
            "Labels": {"of": label}});
        let created = bed.json("POST", "/v1.41/networks/create", body).await;
        assert_eq!(created.0, 201, "{created:?}");
    }
    for kind in ["secrets", "configs"] {
        for (name, label) in [("key", "a"), ("monkey", "b")] {
            let body = json!({"Name": name, "Data": "YQ==", "Labels": {"of": label}});
            let path = format!("/v1.41/{kind}/create");
            assert_eq!(bed.json("POST", &path, body).await.0, 201);
        }
    }
    bed
}

/// What lists call an object.
fn name(object: &Value) -> String {
    let places = ["/Spec/Name", "/Description/Hostname", "/Name", "/Slot"];
    let found = places.into_iter().find_map(|place| object.pointer(place));
    found.map_or_else(String::new, |name| name.to_string().replace('"', ""))
}

/// A kind of object, what its list is narrowed by, and what is left of it.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[tokio::test]
async fn every_filter_tells_objects_apart() {
    let bed = bed().await;
    let (node, web, on1, task, secret, config) = {
        let state = bed.node.cluster.state();
        (
            state.nodes[1].id.to_string(),
            state.services[0].id.to_string(),
            state.networks[1].id.to_string(),
            state.tasks[0].id.to_string(),
            state.secrets[0].id.to_string(),
            state.configs[0].id.to_string(),
        )
    };
    let rows: &[Row<'_>] = &[
        ("nodes", &[("id", &node)], &["node2"]),
        (
            "nodes",
            &[("id", &node[..24])],
            &["node1", "node2", "node3"],
        ),
        ("nodes", &[("name", "node2")], &["node2"]),
        ("nodes", &[("name", "ode2")], &[]),
        ("nodes", &[("label", "disk=ssd")], &["node2"]),
        ("nodes", &[("label", "zone")], &[]),
        ("nodes", &[("node.label", "zone=a")], &["node2"]),
        ("nodes", &[("node.label", "disk")], &[]),
        ("nodes", &[("role", "manager")], &["node1"]),
        ("nodes", &[("membership", "pending")], &[]),
        // Values of a key are alternatives, keys are conditions.
        (
            "nodes",
            &[("name", "node1"), ("name", "node2")],
            &["node1", "node2"],
        ),
        ("nodes", &[("name", "node1"), ("role", "worker")], &[]),
        ("services", &[("id", &web)], &["web"]),
        ("services", &[("id", &web[..20])], &["web"]),
        ("services", &[("name", "we")], &["web"]),
        ("services", &[("name", "eb")], &[]),
        ("services", &[("label", "tier")], &["agent", "web"]),
        ("services", &[("label", "tier=front")], &["web"]),
        (
            "services",
            &[("label", "tier"), ("label", "team=x")],
            &["web"],
        ),
        ("services", &[("mode", "global")], &["agent"]),
        ("services", &[("mode", "replicated")], &["web"]),
        ("services", &[("runtime", "plugin")], &[]),
        ("tasks", &[("id", &task)], &["1"]),
        ("tasks", &[("id", &task[..20])], &["1"]),
        ("tasks", &[("name", "web.2")], &["2"]),
        ("tasks", &[("service", "web"), ("node", "node1")], &["1"]),
        ("tasks", &[("label", "tier=back")], &[]),
        ("tasks", &[("desired-state", "shutdown")], &[]),
        ("tasks", &[("desired-state", "RUNNING")], &["1", "2"]),
        ("secrets", &[("id", &secret)], &["key"]),
        ("secrets", &[("id", &secret[..20])], &["key"]),
        ("secrets", &[("name", "mon")], &["monkey"]),
        ("secrets", &[("names", "key")], &["key"]),
        ("secrets", &[("label", "of=b")], &["monkey"]),
        ("configs", &[("id", &config)], &["key"]),
        ("configs", &[("id", &config[..20])], &["key"]),
        ("configs", &[("name", "key")], &["key"]),
        ("configs", &[("label", "of=a")], &["key"]),
        ("networks", &[("id", &on1), ("scope", "swarm")], &["on1"]),
        (
            "networks",
            &[("name", "on"), ("scope", "swarm")],
            &["on1", "on2"],
        ),
        ("networks", &[("name", "^n1$"), ("scope", "swarm")], &[]),
        (
            "networks",
            &[("name", "o[nm]1|x"), ("scope", "swarm")],
            &["on1"],
        ),
        ("networks", &[("name", "on1("), ("scope", "swarm")], &[]),
        (
            "networks",
            &[("idOrName", "on2"), ("scope", "swarm")],
            &["on2"],
        ),
        (
            "networks",
            &[("label", "of=a"), ("scope", "swarm")],
            &["on1"],
        ),
        ("networks", &[("driver", "null"), ("scope", "swarm")], &[]),
        ("networks", &[("type", "builtin"), ("scope", "swarm")], &[]),
        (
            "networks",
            &[("dangling", "false"), ("scope", "swarm")],
            &[],
        ),
    ];
    for (kind, pairs, due) in rows {
        let path = format!("/v1.41/{kind}?{}", filters(pairs));
        let (status, list) = bed.get(&path).await;
        assert_eq!(status, 200, "{kind} {pairs:?}: {list}");
        // The pretended engine does not filter its own.
        let ours = |object: &&Value| object["Scope"] != "local";
        let list = list.as_array().unwrap().iter().filter(ours);
        let mut names: Vec<String> = list.map(name).collect();
        names.sort();
        assert_eq!(names, *due, "{kind} {pairs:?}");
    }
    for kind in ["nodes", "services", "tasks", "secrets", "configs"] {
        let path = format!("/v1.50/{kind}?{}", filters(&[("color", "red")]));
        let old = path.replace("1.50", "1.41");
        let refused = bed.refusal("GET", &old, "").await;
        assert_eq!(
            refused,
            (400, "Invalid filter 'color'".to_owned()),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn attachments_are_listed_to_who_asks_for_them() {
    let bed = bed().await;
    {
        let mut state = bed.node.cluster.state();
        let task = &mut state.tasks[0].spec;
        task.container_spec = None;
        task.network_attachment_spec = serde_json::from_value(json!({"ContainerID": "c"})).unwrap();
    }
    for (pairs, slots) in [
        (&[("service", "web")][..], &[2][..]),
        (&[("service", "web"), ("runtime", "attachment")], &[1]),
        (&[("service", "web"), ("runtime", "container")], &[2]),
    ] {
        let list = bed.get(&format!("/v1.41/tasks?{}", filters(pairs))).await.1;
        let list = list.as_array().unwrap().iter();
        let found: Vec<u64> = list.map(|task| task["Slot"].as_u64().unwrap()).collect();
        assert_eq!(found, slots, "{pairs:?}");
    }
}

#[tokio::test]
async fn networks_are_pruned_by_label_and_age() {
    for (query, due) in [
        (filters(&[("label", "of=a")]), &["old", "on1"][..]),
        (filters(&[("label!", "of=a")]), &["old", "on2"]),
        (filters(&[("until", "1")]), &["old"]),
    ] {
        let bed = bed().await;
        let path = format!("/v1.41/networks/prune?{query}");
        let pruned = bed.json("POST", &path, Value::Null).await.1;
        assert_eq!(pruned, json!({"NetworksDeleted": due}), "{query}");
    }
}

#[tokio::test]
async fn what_requests_ask_beside_their_bodies_is_handed_on() {
    let bed = bed().await;
    let asked = |test: &dyn Fn(&ControlRequest) -> bool| {
        let state = bed.node.cluster.state();
        state.requests.iter().any(test)
    };
    let up_to_date = async |path: String| {
        bed.node.cluster.state().requests.clear();
        bed.get(&path).await;
        asked(&|request| {
            matches!(
                request,
                ControlRequest::ListTasks {
                    up_to_date: true,
                    ..
                }
            )
        })
    };
    assert!(!up_to_date("/v1.41/tasks".to_owned()).await);
    for (value, due) in [("true", true), ("false", false)] {
        let path = format!("/v1.41/tasks?{}", filters(&[("_up-to-date", value)]));
        assert_eq!(up_to_date(path).await, due, "{value}");
    }

    let service = bed.get("/v1.41/services/web").await.1;
    let spec = service["Spec"].to_string();
    let index = service["Version"]["Index"].as_u64().unwrap();
    let request = http::Request::post(format!(
        "/v1.41/services/web/update?version={index}&rollback=previous&registryAuthFrom=spec"
    ))
    .header("X-Registry-Auth", "e30=")
    .body(spec.clone());
    assert_eq!(bed.send(request.unwrap()).await.status(), 200);
    assert!(asked(&|request| matches!(
        request,
        ControlRequest::UpdateService { rollback: true, auth_from_previous: false,
            registry_auth: Some(auth), version, .. } if auth == "e30=" && *version == index
    )));
    let service = bed.get("/v1.41/services/web").await.1;
    let path = format!(
        "/v1.41/services/web/update?version={}&registryAuthFrom=previous-spec",
        service["Version"]["Index"]
    );
    assert_eq!(bed.text("POST", &path, &spec).await.0, 200);
    assert!(asked(&|request| matches!(
        request,
        ControlRequest::UpdateService {
            rollback: false,
            auth_from_previous: true,
            registry_auth: None,
            ..
        }
    )));

    let stale = bed.refusal("POST", &path, &spec).await;
    let words = "rpc error: code = Unknown desc = update out of sequence";
    assert_eq!(stale, (500, words.to_owned()));
    let missing = "/v1.41/services/web/update";
    assert_eq!(bed.refusal("POST", missing, &spec).await.0, 400);

    for (query, due) in [("", false), ("?force=1", true), ("?force=0", false)] {
        bed.node.cluster.state().requests.clear();
        bed.text("DELETE", &format!("/v1.41/nodes/node3{query}"), "")
            .await;
        let forced =
            asked(&|request| matches!(request, ControlRequest::RemoveNode { force: true, .. }));
        assert_eq!(forced, due, "{query}");
    }
}

#[tokio::test]
async fn a_status_counts_by_mode() {
    let bed = bed().await;
    let add = |service: &Service, state: TaskState, desired: TaskState, iteration: u64| {
        let task = json!({
            "ID": Id::<()>::numbered(900 + u128::from(iteration) * 10 + state as u128),
            "Version": {"Index": 1}, "CreatedAt": NOW, "UpdatedAt": NOW,
            "Spec": service.spec.task_template, "ServiceID": service.id, "NodeID": node_id(1),
            "Status": {"Timestamp": NOW, "State": state}, "DesiredState": desired,
            "JobIteration": {"Index": iteration}, "NetworksAttachments": [],
        });
        let task = serde_json::from_value(task).unwrap();
        bed.node.cluster.state().tasks.push(task);
    };
    let body = json!({"Name": "job", "Mode": {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}},
        "TaskTemplate": {"ContainerSpec": {"Image": "tool"}, "RestartPolicy": {"Condition": "none"}}});
    assert_eq!(
        bed.json("POST", "/v1.41/services/create", body).await.0,
        201
    );
    {
        let mut state = bed.node.cluster.state();
        let job = state
            .services
            .iter_mut()
            .find(|service| service.spec.name == "job");
        let status = json!({"JobIteration": {"Index": 2}, "LastExecution": NOW});
        job.unwrap().job_status = serde_json::from_value(status).unwrap();
    }
    let services = bed.node.cluster.state().services.clone();
    let of = |name: &str| {
        services
            .iter()
            .find(|service| service.spec.name == name)
            .unwrap()
    };
    add(of("agent"), TaskState::Running, TaskState::Running, 0);
    add(of("agent"), TaskState::Complete, TaskState::Shutdown, 0);
    add(of("job"), TaskState::Complete, TaskState::Complete, 1);
    add(of("job"), TaskState::Complete, TaskState::Complete, 2);
    add(of("job"), TaskState::Running, TaskState::Complete, 2);
    let list = bed.get("/v1.41/services?status=true").await.1;
    for (name, running, desired, completed) in
        [("web", 2, 2, 0), ("agent", 1, 1, 0), ("job", 1, 2, 1)]
    {
        let list = list.as_array().unwrap();
        let service = list.iter().find(|service| service["Spec"]["Name"] == name);
        assert_eq!(
            service.unwrap()["ServiceStatus"],
            json!({"RunningTasks": running, "DesiredTasks": desired, "CompletedTasks": completed}),
            "{name}"
        );
    }
    let plain = bed.get("/v1.41/services?status=false").await.1;
    assert_eq!(plain[0].get("ServiceStatus"), None);
}

#[tokio::test]
async fn logs_name_their_type_where_engines_do() {
    let bed = Bed::speaking(FakeNode::manager(), 50).await;
    for (name, tty) in [("plain", false), ("term", true)] {
        let body =
            json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "a", "TTY": tty}}});
        assert_eq!(
            bed.json("POST", "/v1.50/services/create", body).await.0,
            201
        );
    }
    bed.node.cluster.state().lines = vec![LogItem::Line(LogLine {
        node: node_id(1),
        service: Some(Id::numbered(5)),
        task: Id::numbered(6),
        stream: LogStream::Stdout,
        at: NOW,
        attributes: Default::default(),
        line: "one\n".into(),
    })];
    for (minor, name, due) in [
        (41, "plain", None),
        (
            42,
            "plain",
            Some("application/vnd.docker.multiplexed-stream"),
        ),
        (42, "term", Some("application/vnd.docker.raw-stream")),
    ] {
        let path = format!("/v1.{minor}/services/{name}/logs?stdout=1");
        let request = http::Request::get(path).body(String::new()).unwrap();
        let response = bed.send(request).await;
        let kind = response.headers().get("content-type");
        assert_eq!(
            kind.map(|kind| kind.to_str().unwrap()),
            due,
            "{name} 1.{minor}"
        );
    }
    let raw = bed
        .text("GET", "/v1.50/services/term/logs?stdout=1", "")
        .await;
    assert_eq!(raw, (200, "one\n".to_owned()));
}
