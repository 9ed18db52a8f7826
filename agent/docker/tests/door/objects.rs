//! Nodes, services, tasks, networks, secrets, configs, logs.

use serde_json::{Value, json};
use weft_proto::{ControlRequest, LogItem, LogLine, LogStream};
use weft_types::{
    BackendId, Id,
    netstate::{EndpointPhase, NetEndpoint, NetNetwork, NetNode, NetState, NetworkAbout},
};

use crate::{
    bed::{Bed, filters},
    cluster::{FakeNode, NOW, node_id},
};

/// What the stock client sends for `service create --name web --replicas 3 -p 8000:80`.
fn web() -> Value {
    json!({
        "Name": "web", "Labels": {"tier": "front"},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "tool:latest", "Args": ["sleep", "1d"], "Init": false, "DNSConfig": {}},
            "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80,
            "PublishedPort": 8000, "PublishMode": "ingress"}]}
    })
}

async fn with_web() -> (Bed, String) {
    let bed = Bed::new(FakeNode::manager()).await;
    let (status, created) = bed.json("POST", "/v1.41/services/create", web()).await;
    assert_eq!(status, 201, "{created}");
    let id = created["ID"].as_str().unwrap().to_owned();
    assert_eq!(created, json!({"ID": id}));
    (bed, id)
}

#[tokio::test]
async fn nodes_are_listed_found_and_changed() {
    let bed = Bed::new(FakeNode::manager()).await;
    let (status, nodes) = bed.get("/v1.41/nodes").await;
    assert_eq!((status, nodes.as_array().unwrap().len()), (200, 3));
    assert_eq!(
        nodes[0],
        json!({
            "ID": node_id(1), "Version": {"Index": 1}, "CreatedAt": NOW, "UpdatedAt": NOW,
            "Spec": {"Labels": {}, "Role": "manager", "Availability": "active"},
            "Description": {"Hostname": "node1", "Platform": {"Architecture": "x86_64", "OS": "linux"},
                "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1024},
                "Engine": {"EngineVersion": "20.10.24", "Plugins": [{"Type": "Network", "Name": "overlay"}]},
                "TLSInfo": {"TrustRoot": "pem"}},
            "Status": {"State": "ready", "Addr": "192.0.2.11"},
            "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "192.0.2.11:2377"}
        })
    );
    assert!(nodes[1].get("ManagerStatus").is_none());
    for (pairs, count) in [
        (&[("role", "worker")][..], 2),
        (&[("name", "node")], 3),
        (&[("name", "node2"), ("name", "node3")], 2),
        (&[("membership", "accepted")], 3),
        (&[("membership", "pending")], 0),
        (&[("node.label", "zone=a")], 0),
    ] {
        let list = bed.get(&format!("/v1.41/nodes?{}", filters(pairs))).await.1;
        assert_eq!(list.as_array().unwrap().len(), count, "{pairs:?}");
    }
    let spec = json!({"Labels": {"zone": "a"}, "Role": "worker", "Availability": "drain"});
    let updated = bed
        .json("POST", "/v1.41/nodes/node2/update?version=2", spec.clone())
        .await;
    assert_eq!(updated, (200, Value::Null));
    assert_eq!(bed.get("/v1.41/nodes/node2").await.1["Spec"], spec);
}

#[tokio::test]
async fn a_service_is_shown_as_docker_shows_it() {
    let (bed, id) = with_web().await;
    let mut shown = web();
    shown["TaskTemplate"]["ContainerSpec"]["Isolation"] = "default".into();
    shown["TaskTemplate"]["Runtime"] = "container".into();
    let ingress = bed.node.cluster.state().networks[0].id;
    let spec = web()["EndpointSpec"].clone();
    let expected = json!({
        "ID": id, "Version": {"Index": 12}, "CreatedAt": NOW, "UpdatedAt": NOW, "Spec": shown,
        "Endpoint": {"Spec": spec, "Ports": spec["Ports"],
            "VirtualIPs": [{"NetworkID": ingress, "Addr": "10.0.0.5/24"}]}
    });
    let path = format!("/v1.41/services/{id}?insertDefaults=false");
    assert_eq!(bed.get(&path).await, (200, expected.clone()));
    assert_eq!(bed.get("/v1.41/services").await.1, json!([expected]));
    let mut counted = expected.clone();
    counted["ServiceStatus"] = json!({"RunningTasks": 3, "DesiredTasks": 3, "CompletedTasks": 0});
    assert_eq!(
        bed.get("/v1.41/services?status=true").await.1,
        json!([counted])
    );
    let full = bed.get("/v1.41/services/web?insertDefaults=true").await.1;
    assert_eq!(
        full["Spec"]["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"],
        10_000_000_000_u64
    );
    assert_eq!(full["Spec"]["UpdateConfig"]["Order"], "stop-first");
    for (pairs, count) in [
        (&[("name", "we")][..], 1),
        (&[("id", "web")], 0),
        (&[("mode", "global")], 0),
        (&[("mode", "replicated")], 1),
        (&[("label", "tier")], 1),
        (&[("label", "tier=back")], 0),
        (&[("runtime", "plugin")], 0),
    ] {
        let list = bed
            .get(&format!("/v1.41/services?{}", filters(pairs)))
            .await
            .1;
        assert_eq!(list.as_array().unwrap().len(), count, "{pairs:?}");
    }
}

#[tokio::test]
async fn a_service_is_updated_and_removed() {
    let (bed, id) = with_web().await;
    let service = bed.get("/v1.41/services/web").await.1;
    let version = service["Version"]["Index"].as_u64().unwrap();
    let mut spec = service["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = 5.into();
    let path = format!("/v1.41/services/{id}/update?registryAuthFrom=spec&version={version}");
    let updated = bed.json("POST", &path, spec.clone()).await;
    assert_eq!(updated, (200, json!({"Warnings": null})));
    let after = bed.get("/v1.41/services/web").await.1;
    assert_eq!(after["Spec"], spec);
    assert_eq!(after["PreviousSpec"], service["Spec"]);
    spec["Name"] = "other".into();
    let version = after["Version"]["Index"].as_u64().unwrap();
    let path = format!("/v1.41/services/{id}/update?version={version}");
    let refused = bed.refusal("POST", &path, &spec.to_string()).await;
    let text = "rpc error: code = Unimplemented desc = renaming services is not supported";
    assert_eq!(refused, (501, text.into()));
    assert_eq!(
        bed.text("DELETE", "/v1.41/services/web", "").await,
        (200, String::new())
    );
    assert_eq!(bed.get("/v1.41/services").await.1, json!([]));
}

#[tokio::test]
async fn registry_credentials_are_handed_on() {
    let (bed, _) = with_web().await;
    let mut body = web();
    body["Name"] = "other".into();
    let request = http::Request::post("/v1.41/services/create")
        .header("X-Registry-Auth", "e30=")
        .body(body.to_string());
    assert_eq!(bed.send(request.unwrap()).await.status(), 201);
    let state = bed.node.cluster.state();
    assert!(state.requests.iter().any(|request| matches!(
        request,
        ControlRequest::CreateService { registry_auth, .. } if registry_auth == "e30="
    )));
}

#[tokio::test]
async fn the_nodes_own_networks_are_named_alike_on_all_nodes() {
    let (bed, _) = with_web().await;
    for (name, id) in [("host", "h".repeat(64)), ("bridge", "b".repeat(64))] {
        // The CLI asks so, and sends the id that it is told.
        let (status, twin) = bed
            .get(&format!("/v1.41/networks/{name}?scope=swarm"))
            .await;
        assert_eq!(
            (status, &twin["Name"], &twin["Driver"]),
            (200, &name.into(), &name.into())
        );
        for (sent, target) in [("cli", twin["Id"].as_str().unwrap()), ("api", &id)] {
            let mut spec = web();
            let service = format!("{sent}-{name}");
            spec["Name"] = service.clone().into();
            spec["EndpointSpec"] = json!({});
            spec["TaskTemplate"]["Networks"] = json!([{"Target": target}]);
            let (status, created) = bed.json("POST", "/v1.41/services/create", spec).await;
            assert_eq!(status, 201, "{created}");
            let shown = bed.get(&format!("/v1.41/services/{service}")).await.1;
            assert_eq!(
                shown["Spec"]["TaskTemplate"]["Networks"],
                json!([{"Target": name}]),
                "{service}"
            );
        }
    }
    assert_eq!(bed.get("/v1.41/networks/none?scope=swarm").await.0, 404);
}

#[tokio::test]
async fn tasks_show_their_networks_whole_and_nothing_internal() {
    let (bed, id) = with_web().await;
    let path = format!(
        "/v1.41/tasks?{}",
        filters(&[("service", &id), ("node", "node2")])
    );
    let tasks = bed.get(&path).await.1;
    let mut spec = web()["TaskTemplate"].clone();
    spec["ContainerSpec"]["Isolation"] = "default".into();
    let ingress = bed.node.cluster.state().networks[0].id;
    assert_eq!(
        tasks,
        json!([{
            "ID": tasks[0]["ID"], "Version": tasks[0]["Version"], "CreatedAt": NOW, "UpdatedAt": NOW,
            "Labels": {}, "Spec": spec, "ServiceID": id, "Slot": 2, "NodeID": node_id(2),
            "Status": {"Timestamp": NOW, "State": "running", "Message": "started",
                "ContainerStatus": {"ContainerID": "ab".repeat(32), "PID": 42, "ExitCode": 0},
                "PortStatus": {}},
            "DesiredState": "running",
            "NetworksAttachments": [{
                "Network": {
                    "ID": ingress, "Version": {"Index": 11}, "CreatedAt": NOW, "UpdatedAt": NOW,
                    "Spec": {"Name": "ingress", "Labels": {}, "DriverConfiguration": {}, "Ingress": true, "Scope": "swarm"},
                    "DriverState": {"Name": "overlay",
                        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4096"}},
                    "IPAMOptions": {"Driver": {"Name": "default"},
                        "Configs": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}]}
                },
                "Addresses": ["10.0.0.12/24"]
            }]
        }])
    );
    for (pairs, count) in [
        (&[("name", "web.2")][..], 1),
        (&[("node", "self")], 1),
        (&[("desired-state", "running")], 3),
        (&[("desired-state", "shutdown")], 0),
        (&[("label", "tier=front")], 3),
        (&[("_up-to-date", "true")], 3),
        (&[("runtime", "attachment")], 0),
    ] {
        let list = bed.get(&format!("/v1.41/tasks?{}", filters(pairs))).await.1;
        assert_eq!(list.as_array().unwrap().len(), count, "{pairs:?}");
    }
    let task = tasks[0]["ID"].as_str().unwrap();
    assert_eq!(bed.get(&format!("/v1.41/tasks/{task}")).await.1, tasks[0]);
}

#[tokio::test]
async fn networks_are_one_list() {
    let bed = Bed::new(FakeNode::manager()).await;
    let body = json!({"Driver": "overlay", "Scope": "", "Internal": false, "Attachable": true,
        "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.50.0.0/24", "Gateway": "10.50.0.1"}]},
        "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Options": {"encrypted": ""},
        "Labels": {"a": "b"}, "Name": "on1", "CheckDuplicate": true});
    let (status, created) = bed
        .json("POST", "/v1.41/networks/create", body.clone())
        .await;
    assert_eq!((status, &created["Warning"]), (201, &"".into()));
    let taken = bed.json("POST", "/v1.41/networks/create", body).await;
    assert_eq!(
        taken,
        (
            409,
            json!({"message": "network with name on1 already exists"})
        )
    );
    let list = bed.get("/v1.41/networks").await.1;
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|network| network["Name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&list), ["bridge", "host", "ingress", "on1"]);
    let expected = json!({
        "Name": "on1", "Id": created["Id"], "Created": NOW, "Scope": "swarm", "Driver": "overlay",
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "10.50.0.0/24", "Gateway": "10.50.0.1"}]},
        "Internal": false, "Attachable": true, "Ingress": false, "ConfigFrom": {"Network": ""},
        "ConfigOnly": false, "Containers": null,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"}, "Labels": {"a": "b"}
    });
    assert_eq!(list[3], expected);
    let id = created["Id"].as_str().unwrap();
    for path in ["on1", id, &id[..20], "on1?scope=swarm"] {
        let (status, network) = bed.get(&format!("/v1.41/networks/{path}")).await;
        assert_eq!((status, &network), (200, &expected), "{path}");
    }
    assert_eq!(
        bed.get("/v1.41/networks/bridge").await.1["Driver"],
        "bridge"
    );
    assert_eq!(bed.get("/v1.41/networks/nosuch").await.0, 404);
    let local = json!({"Name": "mine", "Driver": "bridge"});
    let (status, made) = bed
        .json("POST", "/v1.41/networks/create", local.clone())
        .await;
    assert_eq!(
        (status, &made["Was"]),
        (201, &local.to_string().len().into())
    );
    assert_eq!(
        bed.text("DELETE", "/v1.41/networks/on1", "").await,
        (204, String::new())
    );
}

#[tokio::test]
async fn unused_networks_of_both_kinds_are_pruned() {
    let bed = Bed::new(FakeNode::manager()).await;
    let body = json!({"Driver": "overlay", "Name": "unused"});
    assert_eq!(bed.json("POST", "/networks/create", body).await.0, 201);
    let pruned = bed
        .json("POST", "/v1.41/networks/prune", Value::Null)
        .await
        .1;
    assert_eq!(pruned, json!({"NetworksDeleted": ["old", "unused"]}));
}

#[tokio::test]
async fn networks_in_use_stay() {
    let (bed, _) = with_web().await;
    for name in ["used", "unused"] {
        let body = json!({"Driver": "overlay", "Name": name});
        assert_eq!(bed.json("POST", "/networks/create", body).await.0, 201);
    }
    let mut spec = web();
    spec["Name"] = "user".into();
    spec["EndpointSpec"] = json!({});
    spec["TaskTemplate"]["Networks"] = json!([{"Target": "used"}]);
    let (status, user) = bed.json("POST", "/v1.41/services/create", spec).await;
    assert_eq!(status, 201, "{user}");
    let path = "/v1.41/networks/prune";
    let pruned = bed.json("POST", path, Value::Null).await.1;
    assert_eq!(pruned, json!({"NetworksDeleted": ["old", "unused"]}));
    let used = bed.get("/v1.41/networks/used").await.1;
    let refused = bed.refusal("DELETE", "/v1.41/networks/used", "").await;
    let words = format!(
        "rpc error: code = FailedPrecondition desc = network {} is in use by service {}",
        used["Id"].as_str().unwrap(),
        user["ID"].as_str().unwrap()
    );
    assert_eq!(refused, (400, words));
}

#[tokio::test]
async fn a_reference_to_two_networks_is_refused() {
    let bed = Bed::new(FakeNode::manager()).await;
    let body = json!({"Driver": "overlay", "Name": "on1"});
    assert_eq!(bed.json("POST", "/networks/create", body).await.0, 201);
    let id = {
        let mut state = bed.node.cluster.state();
        let mut twin = state.networks[1].clone();
        twin.id = Id::numbered(5);
        state.networks.push(twin);
        state.networks[1].id
    };
    for (reference, found) in [
        ("on1", "2 matches found based on name"),
        ("0000", "3 matches found based on ID prefix"),
    ] {
        let due = format!("network {reference} is ambiguous ({found})");
        for (method, verb) in [
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/connect"),
            ("POST", "/disconnect"),
        ] {
            let path = format!("/v1.41/networks/{reference}{verb}");
            let wish = r#"{"Container":"wishing"}"#;
            let refused = bed.refusal(method, &path, wish).await;
            assert_eq!(refused, (400, due.clone()), "{method} {path}");
        }
    }
    let whole = bed.get(&format!("/v1.41/networks/{id}")).await;
    assert_eq!((whole.0, &whole.1["Name"]), (200, &"on1".into()));
}

/// `docker inspect` without a type asks for one kind after the other until one is not 404.
#[tokio::test]
async fn a_name_of_unknown_kind_is_found_where_it_is() {
    let (bed, _) = with_web().await;
    for (kind, name) in [("secrets", "key"), ("configs", "conf")] {
        let body = json!({"Name": name, "Data": "YQ=="});
        let path = format!("/v1.41/{kind}/create");
        assert_eq!(bed.json("POST", &path, body).await.0, 201);
    }
    let task = bed.node.cluster.state().tasks[0].id.to_string();
    for (name, due) in [
        ("ingress", "networks"),
        ("web", "services"),
        (task.as_str(), "tasks"),
        ("node2", "nodes"),
        ("key", "secrets"),
        ("conf", "configs"),
    ] {
        let mut found = "";
        for (kind, verb) in [
            ("containers", "/json"),
            ("images", "/json"),
            ("networks", ""),
            ("volumes", ""),
            ("services", ""),
            ("tasks", ""),
            ("nodes", ""),
            ("plugins", "/json"),
            ("secrets", ""),
            ("configs", ""),
        ] {
            let path = format!("/v1.41/{kind}/{name}{verb}");
            let (status, text) = bed.text("GET", &path, "").await;
            if status != 404 {
                assert_eq!(status, 200, "{path}: {text}");
                found = kind;
                break;
            }
        }
        assert_eq!(found, due, "{name}");
    }
}

#[tokio::test]
async fn a_worker_shows_the_networks_it_uses() {
    let bed = Bed::new(FakeNode::worker()).await;
    let network = Id::numbered(9);
    let node = |number: u32| NetNode {
        index: number,
        hostname: format!("node{number}"),
        addr: format!("192.0.2.1{number}").parse().unwrap(),
        addresses: Default::default(),
        alive: true,
        wireguard: None,
        zone: String::new(),
    };
    let endpoint = |on: u128| NetEndpoint {
        task: Id::numbered(on),
        network,
        node: node_id(on),
        addresses: vec![format!("10.0.2.{on}/24").parse().unwrap()],
        service: None,
        name: format!("nd.{on}"),
        names: vec![],
        phase: EndpointPhase::Serving,
        host_ports: vec![],
    };
    let mut state = NetState::default();
    state.nodes.insert(node_id(2), node(2));
    state.nodes.insert(node_id(3), node(3));
    state.endpoints.insert(BackendId(2), endpoint(2));
    state.endpoints.insert(BackendId(3), endpoint(3));
    let facts = NetNetwork {
        name: "on2".into(),
        vni: 4099,
        subnets: vec!["10.0.2.0/24".parse().unwrap()],
        gateways: vec!["10.0.2.1".parse().unwrap()],
        mtu_bytes: None,
        ingress: false,
        internal: false,
        encrypted: false,
        about: NetworkAbout {
            created_at: NOW,
            attachable: true,
            labels: [("a".to_owned(), "b".to_owned())].into(),
        },
    };
    state.networks.insert(network, facts);
    *bed.node.net_state.lock().unwrap() = std::sync::Arc::new(state);
    let container = "c".repeat(64);
    let own = [(Id::numbered(2), container.clone())];
    *bed.node.containers.lock().unwrap() = own.into();
    let view = bed.get("/v1.41/networks/on2?verbose=true").await.1;
    assert_eq!(view["Containers"][&container]["IPv4Address"], "10.0.2.2/24");
    assert_eq!(
        view["Containers"][&container]["MacAddress"],
        "02:00:00:00:00:02"
    );
    assert_eq!(view["Containers"].as_object().unwrap().len(), 1);
    assert_eq!(view["Peers"][1]["IP"], "192.0.2.13");
    assert_eq!(
        view["Services"][""]["Tasks"][1]["Info"]["Host IP"],
        "192.0.2.13"
    );
    assert_eq!(
        view["Options"]["com.docker.network.driver.overlay.vxlanid_list"],
        "4099"
    );
    assert_eq!(view["Attachable"], true);
    assert_eq!(view["Created"], NOW.to_string());
    assert_eq!(view["Labels"]["a"], "b");
    let removed = bed.refusal("DELETE", "/v1.41/networks/on2", "").await;
    assert_eq!(removed.0, 503);
}

#[tokio::test]
async fn secrets_hide_their_data_and_configs_show_it() {
    let bed = Bed::new(FakeNode::manager()).await;
    for (kind, data) in [("secrets", None), ("configs", Some("c2hvd24="))] {
        let body = json!({"Name": "sx", "Labels": {"a": "b"}, "Data": "c2hvd24="});
        let (status, created) = bed
            .json("POST", &format!("/v1.41/{kind}/create"), body)
            .await;
        assert_eq!(status, 201);
        let mut spec = json!({"Name": "sx", "Labels": {"a": "b"}});
        if let Some(data) = data {
            spec["Data"] = data.into();
        }
        let expected = json!({"ID": created["ID"], "Version": {"Index": bed.node.cluster.state().index},
            "CreatedAt": NOW, "UpdatedAt": NOW, "Spec": spec});
        assert_eq!(bed.get(&format!("/v1.41/{kind}/sx")).await.1, expected);
        let path = format!("/v1.41/{kind}?{}", filters(&[("name", "s")]));
        assert_eq!(bed.get(&path).await.1, json!([expected]));
        let path = format!("/v1.41/{kind}?{}", filters(&[("names", "s")]));
        assert_eq!(bed.get(&path).await.1, json!([]));
    }
    assert_eq!(
        bed.text("DELETE", "/v1.41/secrets/sx", "").await,
        (204, String::new())
    );
}

#[tokio::test]
async fn logs_are_framed_and_missing_lines_are_told_last() {
    let (bed, _) = with_web().await;
    let line = |stream, text: &str| {
        LogItem::Line(LogLine {
            node: node_id(1),
            service: Some(Id::numbered(5)),
            task: Id::numbered(6),
            stream,
            at: NOW,
            attributes: Default::default(),
            line: text.into(),
        })
    };
    bed.node.cluster.state().lines = vec![
        line(LogStream::Stdout, "out one\n"),
        LogItem::Warning("node x is not available".into()),
        line(LogStream::Stderr, "err two\n"),
    ];
    let path = "/v1.41/services/web/logs?stdout=1&stderr=1&tail=all";
    let (status, text) = bed.text("GET", path, "").await;
    assert_eq!(status, 200);
    let lament = "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. some logs could not be retrieved for the following reasons: node x is not available";
    let expected =
        "\u{1}\0\0\0\0\0\0\u{8}out one\n\u{2}\0\0\0\0\0\0\u{8}err two\n\u{3}\0\0\0\0\0\0";
    assert!(text.starts_with(expected), "{text:?}");
    assert!(text.ends_with(lament), "{text:?}");
}
