//! Containers on swarm networks.

use serde_json::{Value, json};
use weft_proto::{ControlError, ErrorCode};

use crate::{
    bed::{Bed, soon},
    cluster::FakeNode,
};

async fn with_front() -> Bed {
    let bed = Bed::new(FakeNode::manager()).await;
    let body = json!({"Name": "front", "Driver": "overlay", "Attachable": true});
    assert_eq!(bed.json("POST", "/networks/create", body).await.0, 201);
    bed
}

#[tokio::test]
async fn the_engine_makes_it_without_a_network_behind_the_gate() {
    let bed = with_front().await;
    let body = json!({
        "Image": "busybox", "Cmd": ["ip", "addr"], "Entrypoint": null, "Labels": {},
        "HostConfig": {"NetworkMode": "front", "Binds": null, "PortBindings": {}, "Dns": []},
        "NetworkingConfig": {"EndpointsConfig": {"front": {"Aliases": ["al"], "IPAMConfig": null}}}
    });
    let (status, asked) = bed
        .json("POST", "/v1.41/containers/create?name=c", body)
        .await;
    assert_eq!(status, 201, "{asked}");
    assert_eq!(asked["HostConfig"]["NetworkMode"], "none");
    assert_eq!(asked["HostConfig"]["Dns"], json!([]));
    assert_eq!(
        asked["HostConfig"]["Binds"],
        json!(["/state/weft-gate:/.weft-gate:ro"])
    );
    assert_eq!(asked["NetworkingConfig"]["EndpointsConfig"], json!({}));
    assert_eq!(asked["Entrypoint"], json!(["/.weft-gate"]));
    assert_eq!(asked["Cmd"], json!(["ip", "addr"]));
    let wishes: Value =
        serde_json::from_str(asked["Labels"]["io.weft.networks"].as_str().unwrap()).unwrap();
    assert_eq!(wishes[0]["Name"], "front");
    assert_eq!(wishes[0]["Aliases"], json!(["al"]));
}

#[tokio::test]
async fn other_containers_pass_as_they_are() {
    let bed = with_front().await;
    for body in [
        r#"{"Image":"busybox", "HostConfig":{"NetworkMode":"bridge"}}"#,
        r#"{"Image":"busybox","HostConfig":{"NetworkMode":"mine"}}"#,
        r#"{"Image":"busybox"}"#,
        "no json",
    ] {
        let (status, asked) = bed.text("POST", "/containers/create", body).await;
        assert_eq!((status, asked.as_str()), (201, body));
    }
}

#[tokio::test]
async fn what_a_container_on_a_swarm_network_cannot_have_is_said() {
    let bed = with_front().await;
    let host = |field: &str, value: Value| {
        let mut body = json!({"Image": "busybox", "HostConfig": {"NetworkMode": "front"}});
        body["HostConfig"][field] = value;
        body
    };
    let endpoint = |field: &str, value: Value| {
        let mut body = json!({"Image": "busybox", "HostConfig": {"NetworkMode": "front"}});
        body["NetworkingConfig"]["EndpointsConfig"]["front"][field] = value;
        body
    };
    for (body, word) in [
        (host("Links", json!(["db:db"])), "links (--link"),
        (endpoint("Links", json!(["db:db"])), "links (--link"),
        (
            endpoint("MacAddress", json!("02:00:00:00:00:01")),
            "a MAC address",
        ),
        (
            endpoint("IPAMConfig", json!({"LinkLocalIPs": ["169.254.1.1"]})),
            "link-local addresses",
        ),
        (
            endpoint("DriverOpts", json!({"a": "b"})),
            "options for the driver",
        ),
        (endpoint("GwPriority", json!(1)), "a gateway priority"),
    ] {
        let path = "/v1.41/containers/create";
        let (status, message) = bed.refusal("POST", path, &body.to_string()).await;
        let begin = format!("a container on the swarm network front cannot have {word}");
        assert_eq!(status, 501, "{body}: {message}");
        assert!(message.starts_with(&begin), "{body}: {message}");
    }
}

#[tokio::test]
async fn networks_of_the_engine_s_stay_beside_the_swarm_s() {
    let bed = with_front().await;
    let body = json!({"Name": "dark", "Driver": "overlay", "Attachable": true, "Internal": true});
    assert_eq!(bed.json("POST", "/networks/create", body).await.0, 201);
    let path = "/v1.41/containers/create";
    let ports = json!({"80/tcp": [{"HostPort": "8080"}]});
    for (mode, ends, host, due, kept, wished) in [
        // For published ports alone there is the engine's bridge.
        (
            "front",
            json!({"front": {}}),
            json!({"PortBindings": ports}),
            "bridge",
            json!({}),
            "front",
        ),
        (
            "front",
            json!({}),
            json!({"PublishAllPorts": true}),
            "bridge",
            json!({}),
            "front",
        ),
        (
            "front",
            json!({}),
            json!({"Dns": ["192.0.2.1"]}),
            "none",
            json!({}),
            "front",
        ),
        (
            "mine",
            json!({"mine": {"Aliases": ["m"]}, "front": {}}),
            json!({"PortBindings": ports}),
            "mine",
            json!({"mine": {"Aliases": ["m"]}}),
            "front",
        ),
        (
            "front",
            json!({"mine": {}, "front": {}}),
            json!({}),
            "mine",
            json!({"mine": {}}),
            "front",
        ),
        (
            "bridge",
            json!({"front": {}}),
            json!({"Links": ["db"]}),
            "bridge",
            json!({}),
            "front",
        ),
        (
            "mine",
            json!({"dark": {}}),
            json!({"PortBindings": ports}),
            "mine",
            json!({}),
            "dark",
        ),
    ] {
        let mut body = json!({"Image": "busybox", "HostConfig": host});
        body["HostConfig"]["NetworkMode"] = mode.into();
        body["NetworkingConfig"]["EndpointsConfig"] = ends;
        let (status, asked) = bed.json("POST", path, body.clone()).await;
        assert_eq!(status, 201, "{body}: {asked}");
        assert_eq!(asked["HostConfig"]["NetworkMode"], due, "{body}");
        assert_eq!(asked["NetworkingConfig"]["EndpointsConfig"], kept, "{body}");
        for (field, value) in host.as_object().unwrap() {
            assert_eq!(asked["HostConfig"][field], *value, "{body}");
        }
        let labels = &asked["Labels"];
        let wishes: Value =
            serde_json::from_str(labels["io.weft.networks"].as_str().unwrap()).unwrap();
        assert_eq!(wishes[0]["Name"], wished, "{body}");
        let is_hidden = mode == "front" && due == "bridge";
        assert_eq!(labels["io.weft.gateway"] == "bridge", is_hidden, "{body}");
    }
    for (mode, ends, host, words) in [
        (
            "dark",
            json!({}),
            json!({"PortBindings": ports}),
            "network dark cannot have published ports (-p): it is internal",
        ),
        (
            "none",
            json!({"front": {}}),
            json!({}),
            "another container's network, the host's, or none beside it",
        ),
        (
            "container:x",
            json!({"front": {}}),
            json!({}),
            "another container's network",
        ),
        (
            "front",
            json!({"host": {}}),
            json!({}),
            "another container's network",
        ),
    ] {
        let mut body = json!({"Image": "busybox", "HostConfig": host});
        body["HostConfig"]["NetworkMode"] = mode.into();
        body["NetworkingConfig"]["EndpointsConfig"] = ends;
        let (status, message) = bed.refusal("POST", path, &body.to_string()).await;
        assert_eq!(status, 501, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
}

#[tokio::test]
async fn a_container_of_the_swarm_s_comes_onto_the_engine_s_networks() {
    let bed = with_front().await;
    let settled = |id: &str| format!("settle {}", id.repeat(64));
    let asked = || std::mem::take(&mut *bed.node.asked.lock().unwrap());
    let wish = |container: &str| json!({"Container": container}).to_string();
    // One that runs on the swarm's networks alone has an interface that the engine would make too.
    let path = "/v1.41/networks/mine/connect";
    let (status, message) = bed.refusal("POST", path, &wish("alone")).await;
    assert_eq!(status, 501, "{message}");
    assert!(
        message.contains("stop it, connect it, and start it again"),
        "{message}"
    );
    assert_eq!(asked(), Vec::<String>::new());
    // Before it starts, the engine's `none` makes room.
    let said = bed.text("POST", path, &wish("wishing")).await;
    assert_eq!(
        said,
        (
            200,
            format!("{{\"Container\":\"{}\",\"Force\":false}}", "w".repeat(64))
        )
    );
    assert_eq!(asked(), Vec::<String>::new());
    // One that runs on both is looked at when the engine's have changed.
    for verb in ["connect", "disconnect"] {
        let path = format!("/v1.41/networks/mine/{verb}");
        assert_eq!(bed.text("POST", &path, &wish("both")).await.0, 200);
        assert_eq!(asked(), [settled("b")], "{verb}");
    }
    // What was connected after it was made is on its networks when the start is answered.
    assert_eq!(bed.text("POST", "/containers/both/start", "").await.0, 204);
    assert_eq!(asked(), [settled("b")]);
}

fn not_attachable() -> ControlError {
    let text = "network front not manually attachable";
    ControlError::new(ErrorCode::PermissionDenied, text)
}

#[tokio::test]
async fn it_is_connected_when_it_starts_and_ended_if_it_cannot_be() {
    let bed = with_front().await;
    let started = bed
        .text("POST", "/v1.41/containers/wishing/start", "")
        .await;
    assert_eq!(started, (204, String::new()));
    assert_eq!(
        *bed.node.asked.lock().unwrap(),
        ["attach wishing [\"al\"] [10.0.1.9]"]
    );
    *bed.node.refusal.lock().unwrap() = Some(not_attachable());
    let refused = bed
        .refusal("POST", "/v1.41/containers/wishing/start", "")
        .await;
    let text = "Could not attach to network front: rpc error: code = PermissionDenied desc = network front not manually attachable";
    assert_eq!(refused, (500, text.to_owned()));
    let killed = &bed.engine.as_ref().unwrap().cancelled;
    soon("the container to be ended", killed.notified()).await;
    assert_eq!(bed.text("POST", "/containers/other/start", "").await.0, 204);
}

#[tokio::test]
async fn it_is_connected_and_disconnected_when_somebody_says_so() {
    let bed = with_front().await;
    let front = bed.node.cluster.state().networks[1].id;
    let wish = json!({"Container": "wishing", "EndpointConfig": {
        "Aliases": ["al"], "IPAMConfig": {"IPv4Address": "10.0.1.9"}}});
    let path = "/v1.41/networks/front/connect";
    let connected = bed.text("POST", path, &wish.to_string()).await;
    assert_eq!(connected, (200, String::new()));
    let path = "/v1.41/networks/front/disconnect";
    for (container, force, due) in [
        ("wishing", false, (200, "")),
        // One that is not there any more is taken off by force alone.
        ("gone", false, (404, "No such container: gone")),
        ("gone", true, (200, "")),
    ] {
        let wish = json!({"Container": container, "Force": force});
        let (status, message) = bed.refusal("POST", path, &wish.to_string()).await;
        assert_eq!((status, message.as_str()), due, "{wish}");
    }
    let wishing = "w".repeat(64);
    assert_eq!(
        *bed.node.asked.lock().unwrap(),
        [
            "attach wishing [\"al\"] [10.0.1.9]".to_owned(),
            format!("detach {wishing} {front} false"),
            format!("detach gone {front} true"),
        ]
    );
}

#[tokio::test]
async fn why_it_is_not_connected_is_said_with_docker_s_status() {
    let bed = with_front().await;
    let wish = r#"{"Container":"wishing"}"#;
    for verb in ["connect", "disconnect"] {
        for (network, wish, message) in [
            (
                "front",
                r#"{"Container":"gone"}"#,
                "No such container: gone",
            ),
            ("front", r#"{"Container":""}"#, "No such container: "),
            // The engine's own words, for it may have one.
            ("nosuch", wish, "page not found"),
        ] {
            let path = format!("/v1.41/networks/{network}/{verb}");
            let refused = bed.refusal("POST", &path, wish).await;
            assert_eq!(refused, (404, message.to_owned()), "{path} {wish}");
        }
    }
    let twice = "endpoint with name wishing already exists in network front";
    let off = "container wishing is not connected to network front";
    for (verb, refusal, status, message) in [
        (
            "connect",
            not_attachable(),
            403,
            "rpc error: code = PermissionDenied desc = network front not manually attachable",
        ),
        ("connect", ControlError::exists(twice), 409, twice),
        (
            "connect",
            ControlError::not_found("network front not found"),
            404,
            "network front not found",
        ),
        ("disconnect", ControlError::unknown(off), 500, off),
    ] {
        *bed.node.refusal.lock().unwrap() = Some(refusal);
        let path = format!("/v1.41/networks/front/{verb}");
        let refused = bed.refusal("POST", &path, wish).await;
        assert_eq!(refused, (status, message.to_owned()));
    }
}

#[tokio::test]
async fn sums_name_the_programs_and_not_the_gate() {
    let bed = Bed::new(FakeNode::manager()).await;
    let (status, usage) = bed.get("/v1.41/system/df").await;
    assert_eq!((status, &usage["LayersSize"]), (200, &1.into()));
    let commands = [0, 1].map(|at| usage["Containers"][at]["Command"].clone());
    assert_eq!(
        commands,
        ["sleep 9", "sleep 8"].map(serde_json::Value::from)
    );
}

#[tokio::test]
async fn an_image_made_of_a_container_begins_with_its_program() {
    let bed = Bed::new(FakeNode::manager()).await;
    let path = "/v1.41/commit?container=gated&repo=r";
    let (status, made) = bed.json("POST", path, Value::Null).await;
    assert_eq!(status, 201, "{made}");
    let body: Value = serde_json::from_str(made["Body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({"Entrypoint": ["tini"], "Cmd": ["serve"]}));
    let query = made["Query"].as_str().unwrap();
    assert_eq!(
        query,
        "container=gated&repo=r&changes=LABEL%20io.weft.networks%3D%22%22"
    );
    let path = "/v1.41/commit?container=wishing";
    let (_, made) = bed.json("POST", path, json!({"User": "u"})).await;
    assert_eq!(made["Body"], r#"{"User":"u"}"#, "another's passes as it is");
}
