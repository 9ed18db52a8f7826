//! Refusals, word for word.

use weft_docker::{LocalState, NotManager};
use weft_proto::{ControlError, ErrorCode};
use weft_types::node::{ManagerStatus, Reachability};

use crate::{
    bed::{Bed, filters},
    cluster::FakeNode,
};

const PLAIN: &str = r#"{"Name":"e1","TaskTemplate":{"ContainerSpec":{"Image":"tool:latest"}}}"#;

/// Method, path, body, status, message.
type Row<'a> = (&'a str, &'a str, &'a str, u16, &'a str);

async fn check(bed: &Bed, rows: &[Row<'_>]) {
    for (method, path, body, status, message) in rows {
        let refusal = bed.refusal(method, path, body).await;
        assert_eq!(
            refusal,
            (*status, (*message).to_owned()),
            "{method} {path} {body}"
        );
    }
}

#[tokio::test]
async fn on_a_manager() {
    let bed = Bed::new(FakeNode::manager()).await;
    assert_eq!(bed.text("POST", "/services/create", PLAIN).await.0, 201);
    let rows = [
        (
            "POST",
            "/v1.41/services/create",
            PLAIN,
            409,
            "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service e1 already exists",
        ),
        (
            "POST",
            "/v1.41/services/create",
            "{bad",
            400,
            "invalid character 'b' looking for beginning of object key string",
        ),
        (
            "POST",
            "/v1.41/services/create",
            r#"{"Name":"x"}"#,
            400,
            "mismatched Runtime and *Spec fields",
        ),
        (
            "POST",
            "/v1.41/services/create",
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a"}},"Mode":{"Replicated":{"Replicas":"2"}}}"#,
            400,
            "json: cannot unmarshal string into Go struct field ReplicatedService.Mode.Replicated.Replicas of type uint64",
        ),
        (
            "POST",
            "/v1.41/services/create",
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a"}},"EndpointSpec":{"Mode":5}}"#,
            400,
            "json: cannot unmarshal number into Go struct field EndpointSpec.EndpointSpec.Mode of type swarm.ResolutionMode",
        ),
        (
            "POST",
            "/v1.41/nodes/node1/update?version=1",
            r#"{"Role":5,"Availability":"active"}"#,
            400,
            "json: cannot unmarshal number into Go struct field NodeSpec.Role of type swarm.NodeRole",
        ),
        (
            "POST",
            "/v1.41/networks/ingress/disconnect",
            r#"{"Container":"a","Force":"yes"}"#,
            400,
            "json: cannot unmarshal string into Go struct field DisconnectOptions.Force of type bool",
        ),
        (
            "POST",
            "/v1.41/networks/ingress/connect",
            r#"{"Container":"wishing","EndpointConfig":{"MacAddress":"02:00:00:00:00:01"}}"#,
            501,
            "a container on the swarm network ingress cannot have a MAC address of its own",
        ),
        (
            "POST",
            "/v1.41/networks/ingress/connect",
            r#"{"Container":"wishing","EndpointConfig":{"Links":["db:db"]}}"#,
            501,
            "a container on the swarm network ingress cannot have links (--link, links:); give the other container an alias on the network (--network-alias, aliases:) instead",
        ),
        (
            "POST",
            "/v1.41/networks/create",
            r#"{"Name":"x","Driver":"overlay","Tenant":"a"}"#,
            501,
            "rpc error: code = Unimplemented desc = Tenant \"a\" is not supported by weft",
        ),
        (
            "GET",
            "/v1.41/services?status=perhaps",
            "",
            400,
            "invalid value for status: perhaps: strconv.ParseBool: parsing \"perhaps\": invalid syntax",
        ),
        (
            "POST",
            "/v1.41/services/create",
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{}}}"#,
            400,
            "rpc error: code = InvalidArgument desc = ContainerSpec: image reference must be provided",
        ),
        (
            "POST",
            "/v1.41/services/create",
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a"},"Placement":{"Constraints":["node.role=x"]}}}"#,
            500,
            "rpc error: code = Unknown desc = constraint expected one operator from ==, !=",
        ),
        (
            "POST",
            "/v1.41/services/create",
            r#"{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"a"}},"Mode":{"Plural":{}}}"#,
            400,
            "invalid Mode: \"Plural\"",
        ),
        (
            "GET",
            "/v1.41/services/nosuch",
            "",
            404,
            "service nosuch not found",
        ),
        (
            "DELETE",
            "/v1.41/services/nosuch",
            "",
            404,
            "service nosuch not found",
        ),
        (
            "GET",
            "/v1.41/tasks/nosuch",
            "",
            404,
            "task nosuch not found",
        ),
        (
            "GET",
            "/v1.41/nodes/nosuch",
            "",
            404,
            "node nosuch not found",
        ),
        (
            "GET",
            "/v1.41/secrets/nosuch",
            "",
            404,
            "secret nosuch not found",
        ),
        (
            "GET",
            "/v1.41/configs/nosuch",
            "",
            404,
            "config nosuch not found",
        ),
        (
            "GET",
            "/v1.41/networks/nosuch?scope=swarm",
            "",
            404,
            "network nosuch not found",
        ),
        (
            "GET",
            "/v1.41/services?filters=notjson",
            "",
            400,
            "invalid character 'o' in literal null (expecting 'u')",
        ),
        (
            "POST",
            "/v1.41/services/e1/update",
            PLAIN,
            400,
            "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax",
        ),
        (
            "POST",
            "/v1.41/services/e1/update?version=abc",
            PLAIN,
            400,
            "invalid service version 'abc': strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "POST",
            "/v1.41/services/e1/update?version=1",
            PLAIN,
            500,
            "rpc error: code = Unknown desc = update out of sequence",
        ),
        (
            "POST",
            "/v1.41/services/e1/update?version=1&rollback=sideways",
            PLAIN,
            500,
            "unrecognized rollback option sideways",
        ),
        (
            "POST",
            "/v1.41/services/e1/update?version=1&registryAuthFrom=nowhere",
            PLAIN,
            500,
            "unsupported registryAuthFrom value",
        ),
        (
            "POST",
            "/v1.41/services/e1/update?version=1&registryAuthFrom=previous-spec",
            PLAIN,
            500,
            "service does not have a previous spec",
        ),
        (
            "POST",
            "/v1.41/nodes/node1/update?version=1",
            r#"{"Role":"boss","Availability":"active"}"#,
            400,
            "invalid Role: \"boss\"",
        ),
        (
            "POST",
            "/v1.41/nodes/node1/update?version=1",
            r#"{"Role":"manager","Availability":"sleepy"}"#,
            400,
            "invalid Availability: \"sleepy\"",
        ),
        (
            "POST",
            "/v1.41/nodes/node1/update?version=9",
            r#"{"Role":"manager","Availability":"active"}"#,
            500,
            "rpc error: code = Unknown desc = update out of sequence",
        ),
        (
            "POST",
            "/v1.41/swarm/update",
            r#"{"Name":"default"}"#,
            400,
            "invalid swarm version '': strconv.ParseUint: parsing \"\": invalid syntax",
        ),
        (
            "POST",
            "/v1.41/swarm/update?version=9",
            r#"{"Name":"other"}"#,
            400,
            "swarm spec must be named \"default\"",
        ),
        (
            "POST",
            "/v1.41/swarm/update?version=1",
            r#"{"Name":"default"}"#,
            500,
            "rpc error: code = Unknown desc = update out of sequence",
        ),
        (
            "POST",
            "/v1.41/swarm/leave",
            "",
            503,
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
        ),
        (
            "POST",
            "/v1.41/swarm/unlock",
            r#"{"UnlockKey":"x"}"#,
            409,
            "swarm is not locked",
        ),
        (
            "POST",
            "/v1.41/swarm/join",
            r#"{"ListenAddr":"0.0.0.0:2377","RemoteAddrs":["192.0.2.1:2377"],"JoinToken":"x"}"#,
            503,
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        ),
        ("GET", "/v1.41/nosuchroute", "", 404, "page not found"),
        ("PUT", "/v1.41/swarm", "", 404, "page not found"),
        (
            "GET",
            "/v1.99/nodes",
            "",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.41",
        ),
        (
            "GET",
            "/v1.5/nodes",
            "",
            400,
            "client version 1.5 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        ),
        (
            "GET",
            "/v1.41/services/e1/logs",
            "",
            500,
            "Bad parameters: you must choose at least one stream",
        ),
        (
            "POST",
            "/v1.41/secrets/create",
            r#"{"Name":"bad/name","Data":"eA=="}"#,
            400,
            "rpc error: code = InvalidArgument desc = invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        ),
        (
            "POST",
            "/v1.41/secrets/e1/update",
            r#"{"Name":"sx"}"#,
            400,
            "invalid secret version",
        ),
        (
            "POST",
            "/v1.41/networks/create",
            r#"{"Name":"bridge","Driver":"overlay"}"#,
            409,
            "network with name bridge already exists",
        ),
        (
            "POST",
            "/v1.41/networks/create",
            r#"{"Name":"ingress","Driver":"bridge"}"#,
            409,
            "network with name ingress already exists",
        ),
        (
            "POST",
            "/v1.41/networks/create",
            r#"{"Name":"docker_gwbridge","Driver":"overlay"}"#,
            403,
            "operation is not permitted on predefined docker_gwbridge network",
        ),
        (
            "POST",
            "/v1.41/networks/create",
            r#"{"Name":"six","Driver":"overlay","EnableIPv4":false,"EnableIPv6":true}"#,
            400,
            "IPv4 cannot be disabled in a Swarm scoped network",
        ),
    ];
    check(&bed, &rows).await;
    for (key, value, path, status, message) in [
        ("bad", "x", "services", 400, "Invalid filter 'bad'"),
        ("foo", "bar", "nodes", 400, "Invalid filter 'foo'"),
        (
            "desired-state",
            "nope",
            "tasks",
            500,
            "Invalid desired-state filter: 'nope'",
        ),
        (
            "service",
            "nosuch",
            "tasks",
            404,
            "service nosuch not found",
        ),
        ("node", "nosuch", "tasks", 404, "node nosuch not found"),
        ("role", "boss", "nodes", 500, "Invalid role filter: 'boss'"),
        (
            "membership",
            "x",
            "nodes",
            500,
            "Invalid membership filter: 'x'",
        ),
    ] {
        let path = format!("/v1.41/{path}?{}", filters(&[(key, value)]));
        check(&bed, &[("GET", &path, "", status, message)]).await;
    }
}

#[tokio::test]
async fn where_there_is_no_manager() {
    let worker = NotManager::Worker.to_string();
    let bed = Bed::new(FakeNode::worker()).await;
    for (method, path, body) in [
        ("GET", "/v1.41/nodes", ""),
        ("GET", "/v1.41/services?status=true", ""),
        ("POST", "/v1.41/services/create", r#"{"Name":"bad name"}"#),
        ("GET", "/v1.41/secrets", ""),
        ("GET", "/v1.41/configs", ""),
        ("GET", "/v1.41/swarm", ""),
        ("GET", "/v1.41/swarm/unlockkey", ""),
        ("GET", "/v1.41/tasks", ""),
        ("POST", "/v1.41/swarm/update?version=1", "{}"),
        ("DELETE", "/v1.41/services/web", ""),
        ("GET", "/v1.41/services/web/logs?stdout=1", ""),
        ("POST", "/v1.41/swarm/unlock", r#"{"UnlockKey":"x"}"#),
        (
            "POST",
            "/v1.41/secrets/create",
            r#"{"Name":"a","Data":"YQ=="}"#,
        ),
    ] {
        check(&bed, &[(method, path, body, 503, &worker)]).await;
    }
    let text = "Cannot create a multi-host network from a worker node. Please create the network from a manager node.";
    let body = r#"{"Name":"onworker","Driver":"overlay"}"#;
    check(&bed, &[("POST", "/v1.41/networks/create", body, 403, text)]).await;

    let bed = Bed::new(FakeNode::inactive()).await;
    let text = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    let rows = [
        ("GET", "/v1.41/nodes", "", 503, text),
        (
            "POST",
            "/v1.41/swarm/leave",
            "",
            503,
            "This node is not part of a swarm",
        ),
        (
            "POST",
            "/v1.41/swarm/leave?force=1",
            "",
            503,
            "This node is not part of a swarm",
        ),
    ];
    check(&bed, &rows).await;
}

#[tokio::test]
async fn a_manager_that_would_leave_is_told_what_is_left() {
    let bed = Bed::new(FakeNode::manager()).await;
    let begin =
        "You are attempting to leave the swarm on a node that is participating as a manager. ";
    let end = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
    let lost = "Removing this node leaves 1 managers out of 3. Without a Raft quorum your swarm will be inaccessible. ";
    for (reached, said) in [
        ([true, true, true], ""),
        ([true, true, false], lost),
        // Without it nothing changes.
        ([false, true, true], ""),
    ] {
        for (node, reached) in bed.node.cluster.state().nodes.iter_mut().zip(reached) {
            let reachability = if reached {
                Reachability::Reachable
            } else {
                Reachability::Unreachable
            };
            node.manager_status = Some(ManagerStatus {
                reachability,
                ..ManagerStatus::default()
            });
        }
        let text = format!("{begin}{said}{end}");
        check(&bed, &[("POST", "/v1.41/swarm/leave", "", 503, &text)]).await;
    }
}

#[tokio::test]
async fn on_a_locked_manager() {
    let bed = Bed::new(FakeNode::inactive()).await;
    *bed.node.not_manager.lock().unwrap() = Some(NotManager::Locked);
    bed.node.status.lock().unwrap().state = LocalState::Locked;
    let rows = [
        (
            "GET",
            "/v1.41/nodes",
            "",
            503,
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.",
        ),
        (
            "POST",
            "/v1.41/swarm/leave",
            "",
            503,
            "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
        ),
        (
            "POST",
            "/v1.41/swarm/init",
            "{}",
            503,
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        ),
        (
            "POST",
            "/v1.41/swarm/unlock",
            r#"{"UnlockKey":"garbage"}"#,
            400,
            "invalid key string",
        ),
        (
            "POST",
            "/v1.41/swarm/unlock",
            r#"{"UnlockKey":"SWMKEY-1-wrong"}"#,
            401,
            "swarm could not be unlocked: invalid key provided",
        ),
    ];
    check(&bed, &rows).await;
    let right = r#"{"UnlockKey":"SWMKEY-1-right"}"#;
    assert_eq!(
        bed.text("POST", "/v1.41/swarm/unlock", right).await,
        (200, String::new())
    );
}

#[tokio::test]
async fn without_a_leader() {
    let bed = Bed::new(FakeNode::manager()).await;
    let text = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";
    let refusal = ControlError::new(ErrorCode::Unavailable, text);
    bed.node.cluster.state().refusal = Some(refusal);
    let prefixed = format!("rpc error: code = Unknown desc = {text}");
    let leave = "You are attempting to leave the swarm on a node that is participating as a manager. The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
    let rows = [
        ("GET", "/v1.41/nodes", "", 500, prefixed.as_str()),
        ("GET", "/v1.41/swarm", "", 500, prefixed.as_str()),
        (
            "POST",
            "/v1.41/services/create",
            PLAIN,
            500,
            prefixed.as_str(),
        ),
        ("POST", "/v1.41/swarm/leave", "", 503, leave),
    ];
    check(&bed, &rows).await;
    let swarm = bed.get("/v1.41/info").await.1["Swarm"].clone();
    assert_eq!(swarm["Error"], prefixed);
    assert_eq!(swarm["ControlAvailable"], true);
    assert_eq!(
        swarm["Cluster"],
        serde_json::json!({
            "ID": "", "Version": {}, "CreatedAt": "0001-01-01T00:00:00Z",
            "UpdatedAt": "0001-01-01T00:00:00Z",
            "Spec": {"Labels": null, "Orchestration": {}, "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
                "Dispatcher": {}, "CAConfig": {}, "TaskDefaults": {},
                "EncryptionConfig": {"AutoLockManagers": false}},
            "TLSInfo": {}, "RootRotationInProgress": false, "DefaultAddrPool": null,
            "SubnetSize": 0, "DataPathPort": 0
        })
    );
    assert!(swarm.get("Nodes").is_none());
}
