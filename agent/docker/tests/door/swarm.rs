//! Ping, version, info, and the swarm itself.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Empty;
use serde_json::{Value, json};
use weft_docker::LocalState;
use weft_proto::{ControlError, dial::DialError};

use crate::{
    bed::{Bed, filters},
    cluster::{FakeNode, NOW, node_id},
};

/// The head of the answer to a ping.
async fn ping(bed: &Bed, method: &str) -> HeaderMap {
    let request = Request::builder().method(method).uri("/_ping");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = bed.send(request).await;
    assert_eq!(response.status(), 200);
    response.headers().clone()
}

/// All values of a field.
fn values<'a>(head: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = head.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_ping_tells_versions_and_the_node_s_part() {
    for (node, swarm) in [
        (FakeNode::inactive(), "inactive"),
        (FakeNode::worker(), "active/worker"),
        (FakeNode::manager(), "active/manager"),
    ] {
        let bed = Bed::new(node).await;
        let headers = ping(&bed, "HEAD").await;
        assert_eq!(headers["swarm"], swarm);
        assert_eq!(headers["api-version"], "1.41");
        assert_eq!(headers["ostype"], "linux");
        assert_eq!(headers["server"], "Docker/20.10.24 (linux)");
    }
}

#[tokio::test]
async fn a_ping_says_what_docker_s_does_with_an_engine_and_without() {
    let own = Bed::alone(FakeNode::manager()).await;
    let old = Bed::new(FakeNode::manager()).await;
    let new = Bed::speaking(FakeNode::manager(), 50).await;
    // Which builder there is only the engine knows.
    for (bed, builder) in [(&new, &["2"][..]), (&old, &[]), (&own, &[])] {
        for method in ["HEAD", "GET"] {
            let head = ping(bed, method).await;
            for (name, due) in [
                ("Builder-Version", builder),
                ("Cache-Control", &["no-cache, no-store, must-revalidate"]),
                ("Content-Type", &["text/plain; charset=utf-8"]),
                ("Docker-Experimental", &["false"]),
                ("Ostype", &["linux"]),
                ("Pragma", &["no-cache"]),
                ("Swarm", &["active/manager"]),
            ] {
                assert_eq!(values(&head, name), due, "{method} {name}");
            }
        }
    }
    assert_eq!(values(&ping(&own, "HEAD").await, "Content-Length"), ["0"]);
}

#[tokio::test]
async fn a_ping_tells_each_state_of_a_node() {
    let bed = Bed::new(FakeNode::inactive()).await;
    for (state, manages, due) in [
        (LocalState::Inactive, false, "inactive"),
        (LocalState::Pending, false, "pending"),
        (LocalState::Error, false, "error"),
        (LocalState::Locked, false, "locked"),
        (LocalState::Active, false, "active/worker"),
        (LocalState::Active, true, "active/manager"),
    ] {
        {
            let mut status = bed.node.status.lock().unwrap();
            status.state = state;
            status.control_available = manages;
        }
        assert_eq!(values(&ping(&bed, "HEAD").await, "Swarm"), [due]);
    }
}

#[tokio::test]
async fn version_and_info_are_the_engine_s_with_ours_put_in() {
    let bed = Bed::new(FakeNode::worker()).await;
    let (_, version) = bed.get("/version").await;
    assert_eq!(version["ApiVersion"], "1.41");
    assert_eq!(version["MinAPIVersion"], "1.24");
    assert_eq!(version["KernelVersion"], "6");
    assert_eq!(version["Components"][0]["Details"]["MinAPIVersion"], "1.24");
    assert_eq!(version["Components"][1]["Name"], "weft");
    let (_, info) = bed.get("/v1.41/info").await;
    assert_eq!(
        info,
        json!({
            "ID": "E", "Name": "node1", "NCPU": 2, "Odd": [1.5, null], "Driver": "overlay2",
            "OSType": "linux",
            "Swarm": {"NodeID": node_id(2), "NodeAddr": "192.0.2.12", "LocalNodeState": "active",
                "ControlAvailable": false, "Error": "",
                "RemoteManagers": [{"NodeID": node_id(1), "Addr": "192.0.2.11:2377"}]}
        })
    );
    let bed = Bed::new(FakeNode::inactive()).await;
    assert_eq!(
        bed.get("/info").await.1["Swarm"],
        json!({"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive",
            "ControlAvailable": false, "Error": "", "RemoteManagers": null})
    );
}

fn cluster() -> serde_json::Value {
    json!({
        "ID": "0000000000000000000000025", "Version": {"Index": 9},
        "CreatedAt": NOW, "UpdatedAt": NOW,
        "Spec": {"Name": "default", "Labels": {},
            "Orchestration": {"TaskHistoryRetentionLimit": 5},
            "Raft": {"SnapshotInterval": 10000, "KeepOldSnapshots": 0,
                "LogEntriesForSlowFollowers": 500, "ElectionTick": 10, "HeartbeatTick": 1},
            "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_u64},
            "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_u64},
            "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": false}},
        "TLSInfo": {"TrustRoot": "pem"}, "RootRotationInProgress": false,
        "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "DataPathPort": 4789,
    })
}

#[tokio::test]
async fn the_cluster_is_shown_without_its_secrets() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut expected = cluster();
    let info = bed.get("/v1.41/info").await.1["Swarm"].clone();
    assert_eq!(info["Cluster"], expected);
    assert_eq!((&info["Nodes"], &info["Managers"]), (&3.into(), &1.into()));
    expected["JoinTokens"] = json!({"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"});
    assert_eq!(bed.get("/v1.41/swarm").await, (200, expected));
    assert_eq!(
        bed.get("/v1.41/swarm/unlockkey").await,
        (200, json!({"UnlockKey": ""}))
    );
}

#[tokio::test]
async fn warnings_of_the_swarm_stand_among_the_engine_s() {
    let bed = Bed::new(FakeNode::manager()).await;
    assert_eq!(bed.get("/v1.41/info").await.1.get("Warnings"), None);
    {
        let mut state = bed.node.cluster.state();
        state.nodes[1].manager_status = state.nodes[0].manager_status.clone();
    }
    let info = bed.get("/v1.41/info").await.1;
    let warning = info["Warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("WARNING: Running Swarm in a two-manager configuration."));
    assert_eq!(info["Swarm"]["Warnings"], json!([warning]));
}

/// What the stock client sends.
fn init(advertise: &str) -> serde_json::Value {
    json!({
        "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": advertise, "DataPathAddr": "",
        "DataPathPort": 0, "ForceNewCluster": false,
        "Spec": {"Labels": null, "Orchestration": {}, "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {}, "CAConfig": {}, "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": false}},
        "AutoLockManagers": false, "Availability": "", "DefaultAddrPool": [], "SubnetSize": 24
    })
}

#[tokio::test]
async fn init_is_checked_and_handed_on() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let refused = bed.json("POST", "/v1.41/swarm/init", init("nosuch0")).await;
    assert_eq!(refused.0, 400);
    for (field, value, words) in [
        ("DataPathPort", json!(80), "not in valid range"),
        ("DataPathPort", json!(1023), "not in valid range"),
        ("DataPathPort", json!(49152), "not in valid range"),
        ("DefaultAddrPool", json!(["x"]), "invalid CIDR address: x"),
        ("DefaultAddrPool", json!(["10.0.0.0/25"]), "too small"),
        (
            "DefaultAddrPool",
            json!(["10.0.0.0/8", "10.1.0.0/16"]),
            "overlaps",
        ),
        ("SubnetSize", json!(30), "out of range"),
        (
            "Availability",
            json!("sleepy"),
            "invalid Availability: \"sleepy\"",
        ),
    ] {
        let mut body = init("192.0.2.11");
        body[field] = value;
        let (status, text) = bed
            .refusal("POST", "/v1.41/swarm/init", &body.to_string())
            .await;
        assert_eq!(status, 400, "{field}: {text}");
        assert!(text.contains(words), "{field}: {text}");
    }
    for (field, value) in [
        ("DataPathPort", json!(1024)),
        ("DataPathPort", json!(49151)),
        ("SubnetSize", json!(29)),
        ("DefaultAddrPool", json!(["10.0.0.0/24"])),
    ] {
        let bed = Bed::new(FakeNode::inactive()).await;
        let mut body = init("192.0.2.11");
        body[field] = value;
        let made = bed.json("POST", "/v1.41/swarm/init", body).await;
        assert_eq!(made, (200, json!(node_id(1))), "{field}");
    }
    let made = bed
        .json("POST", "/v1.41/swarm/init", init("192.0.2.11"))
        .await;
    assert_eq!(made, (200, json!(node_id(1))));
    assert_eq!(
        *bed.node.asked.lock().unwrap(),
        ["init nosuch0", "init 192.0.2.11"]
    );
}

#[tokio::test]
async fn join_and_leave_are_handed_on() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let join = |token: &str| {
        json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "", "DataPathAddr": "",
            "RemoteAddrs": ["192.0.2.11:2377"], "JoinToken": token, "Availability": ""})
    };
    let refused = bed.json("POST", "/v1.41/swarm/join", join("garbage")).await;
    assert_eq!(refused, (500, json!({"message": "invalid join token"})));
    let joined = bed
        .text("POST", "/v1.41/swarm/join", &join("good").to_string())
        .await;
    assert_eq!(joined, (200, String::new()));
    let empty = r#"{"RemoteAddrs":[]}"#;
    assert_eq!(bed.refusal("POST", "/v1.41/swarm/join", empty).await.0, 400);

    let bed = Bed::new(FakeNode::worker()).await;
    let left = bed.text("POST", "/v1.41/swarm/leave", "").await;
    assert_eq!(left, (200, String::new()));
    let bed = Bed::new(FakeNode::manager()).await;
    let left = bed.text("POST", "/v1.41/swarm/leave?force=1", "").await;
    assert_eq!(left, (200, String::new()));
    assert_eq!(*bed.node.asked.lock().unwrap(), ["leave true"]);
}

#[tokio::test]
async fn why_a_node_cannot_join_is_said_with_docker_s_status() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let body = json!({"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["192.0.2.11:2377"],
        "JoinToken": "good"});
    let token = "A valid join token is necessary to join this cluster";
    for (error, status, message) in [
        (
            DialError::Digest {
                expected: "ab".to_owned(),
            },
            500,
            "remote CA does not match fingerprint. Expected: ab",
        ),
        (
            DialError::Refused(ControlError::invalid(token)),
            400,
            "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster",
        ),
        (
            DialError::Connect {
                addr: "192.0.2.11:2377".parse().unwrap(),
                cause: "connection refused".to_owned(),
            },
            503,
            "rpc error: code = Unavailable desc = connection error: cannot reach the manager at 192.0.2.11:2377: connection refused",
        ),
    ] {
        *bed.node.refusal.lock().unwrap() = Some(error.into());
        let path = "/v1.41/swarm/join";
        let refused = bed.refusal("POST", path, &body.to_string()).await;
        assert_eq!(refused, (status, message.to_owned()));
    }
}

#[tokio::test]
async fn answers_are_those_of_the_version_asked() {
    let bed = Bed::speaking(FakeNode::manager(), 50).await;
    let body =
        |name: &str| json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "a"}}});
    let (status, old) = bed
        .json("POST", "/v1.43/services/create", body("old"))
        .await;
    assert_eq!((status, old.get("Warnings")), (201, None));
    let (status, new) = bed
        .json("POST", "/v1.44/services/create", body("new"))
        .await;
    assert_eq!((status, new.get("Warnings")), (201, Some(&Value::Null)));
    let newest = bed.get("/version").await.1;
    assert_eq!(newest["ApiVersion"], "1.50");
    for (version, word) in [
        ("1.24", "Invalid"),
        ("1.41", "Invalid"),
        ("1.42", "invalid"),
        ("1.50", "invalid"),
    ] {
        let path = format!("/v{version}/nodes?{}", filters(&[("bad", "x")]));
        let refused = bed.refusal("GET", &path, "").await;
        assert_eq!(refused, (400, format!("{word} filter 'bad'")), "{version}");
    }
    for (version, status) in [("1.40", false), ("1.41", true), ("1.50", true)] {
        let list = bed
            .get(&format!("/v{version}/services?status=true"))
            .await
            .1;
        assert_eq!(list[0].get("ServiceStatus").is_some(), status, "{version}");
    }
    for (version, word) in [("1.23", "too old"), ("1.51", "too new")] {
        let (status, message) = bed.refusal("GET", &format!("/v{version}/nodes"), "").await;
        assert!(
            status == 400 && message.contains(word),
            "{version}: {message}"
        );
    }
}

#[tokio::test]
async fn fields_newer_than_the_version_asked_are_left_out() {
    let bed = Bed::speaking(FakeNode::manager(), 50).await;
    let body = |name: &str| {
        json!({"Name": name, "Mode": {"ReplicatedJob": {"MaxConcurrent": 2}}, "TaskTemplate": {
            "ContainerSpec": {"Image": "a", "Sysctls": {"net.core.somaxconn": "9"}, "OomScoreAdj": 7},
            "RestartPolicy": {"Condition": "none"}}})
    };
    for (minor, kept) in [
        (24, [false, false, false]),
        (40, [true, false, false]),
        (41, [true, true, false]),
        (46, [true, true, true]),
    ] {
        let name = format!("s{minor}");
        let path = format!("/v1.{minor}/services/create");
        let created = bed.json("POST", &path, body(&name)).await;
        assert_eq!(created.0, 201, "{created:?}");
        let spec = |shown: &Value| {
            [
                "/TaskTemplate/ContainerSpec/Sysctls",
                "/Mode/ReplicatedJob",
                "/TaskTemplate/ContainerSpec/OomScoreAdj",
            ]
            .map(|pointer| shown["Spec"].pointer(pointer).is_some())
        };
        let shown = bed.get(&format!("/v1.50/services/{name}")).await.1;
        assert_eq!(spec(&shown), kept, "1.{minor}: {shown}");
        // The mode stays, or the update is refused: only what the version may say is sent.
        let mut next = shown["Spec"].clone();
        next["TaskTemplate"]["ContainerSpec"]["OomScoreAdj"] = 8.into();
        let version = &shown["Version"]["Index"];
        let path = format!("/v1.{minor}/services/{name}/update?version={version}");
        let updated = bed.json("POST", &path, next).await;
        assert_eq!(updated.0, 200, "{updated:?}");
        let shown = bed.get(&format!("/v1.50/services/{name}")).await.1;
        assert_eq!(spec(&shown), kept, "1.{minor}: {shown}");
    }
    for kind in ["secret", "config"] {
        let body = json!({"Name": "t", "Data": "YQ==", "Templating": {"Name": "golang"}});
        let path = |minor: u32| format!("/v1.{minor}/{kind}s/create");
        let refused = bed.refusal("POST", &path(36), &body.to_string()).await;
        let words =
            format!("{kind} templating is not supported on the specified API version: 1.36");
        assert_eq!(refused, (400, words));
        assert_eq!(bed.json("POST", &path(37), body).await.0, 201);
    }
    let bed = Bed::speaking(FakeNode::inactive(), 50).await;
    for (field, odd, minor) in [
        ("DefaultAddrPool", json!(["x"]), 39),
        ("SubnetSize", json!(30), 39),
        ("DataPathPort", json!(80), 40),
    ] {
        let mut body = init("192.0.2.11");
        body["ForceNewCluster"] = true.into();
        body[field] = odd;
        let path = |minor: u32| format!("/v1.{minor}/swarm/init");
        let refused = bed.json("POST", &path(minor), body.clone()).await;
        assert_eq!(refused.0, 400, "{field}: {refused:?}");
        let left_out = bed.json("POST", &path(minor - 1), body).await;
        assert_eq!(left_out.0, 200, "{field}: {left_out:?}");
    }
}
