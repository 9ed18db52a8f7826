//! Specs in, bodies or refusals out.

use serde_json::{Value, json};
use weft_types::{NodeId, task::Task};

use super::*;

fn made(spec: Value) -> Result<Value, Refusal> {
    made_by(json!({ "ContainerSpec": spec }))
}

fn made_by(task_spec: Value) -> Result<Value, Refusal> {
    let task: Task = serde_json::from_value(json!({
        "ID": "0000000000000000000000001",
        "Name": "web.2.0000000000000000000000001",
        "Spec": task_spec,
        "ServiceID": "0000000000000000000000002",
        "Slot": 2,
        "ServiceName": "web",
        "ServiceLabels": { "tier": "front" },
        "GenericResources": [
            { "NamedResourceSpec": { "Kind": "gpu", "Value": "g1" } },
            { "NamedResourceSpec": { "Kind": "gpu", "Value": "g2" } }
        ],
    }))
    .expect("the fixture is a task");
    let place = Place {
        node: Some(NodeId::numbered(3)),
        hostname: "n1".to_owned(),
        ..Place::default()
    };
    let image = ImageFacts {
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["serve".to_owned()],
    };
    let files = HostFiles {
        gate: "/s/weft-gate".into(),
        resolv_conf: "/s/resolv.conf".into(),
        hosts: "/s/hosts".into(),
        delivered: vec![("/s/files/0".into(), "/run/secrets/key".into())],
    };
    body(&task, &place, &image, &files)
}

#[test]
fn the_images_own_words_go_behind_the_gate() {
    let body = made(json!({ "Image": "web" })).expect("a body");
    let words = |body: &Value| (body["Entrypoint"].clone(), body["Cmd"].clone());
    let due = (json!(["/.weft-gate", "/entry"]), json!(["serve"]));
    assert_eq!(words(&body), due);
    let body = made(json!({ "Image": "web", "Args": ["one", "two"] })).expect("a body");
    let due = (json!(["/.weft-gate", "/entry"]), json!(["one", "two"]));
    assert_eq!(words(&body), due);
    let body =
        made(json!({ "Image": "web", "Command": ["sh"], "Args": ["-c", "x"] })).expect("a body");
    let due = (json!(["/.weft-gate", "sh"]), json!(["-c", "x"]));
    assert_eq!(words(&body), due);
    let body = made(json!({ "Image": "web", "Command": ["sh"] })).expect("a body");
    assert_eq!(words(&body), (json!(["/.weft-gate", "sh"]), json!([])));
}

#[test]
fn on_a_network_of_the_node_nothing_of_ours_stands_in_the_way() {
    let spec = json!({ "Image": "web", "Hosts": ["192.0.2.7 db db.lan"],
        "DNSConfig": { "Nameservers": ["192.0.2.53"], "Search": ["lan"] } });
    for network in ["host", "bridge"] {
        let body = made_by(json!({ "ContainerSpec": spec, "Networks": [{ "Target": network }] }))
            .expect("a body");
        assert_eq!(body["Entrypoint"], json!(["/entry"]));
        assert_eq!(body["Cmd"], json!(["serve"]));
        let config = &body["HostConfig"];
        assert_eq!(config["NetworkMode"], network);
        assert_eq!(config["Binds"], json!(["/s/files/0:/run/secrets/key:ro"]));
        assert_eq!(config["Dns"], json!(["192.0.2.53"]));
        assert_eq!(config["DnsSearch"], json!(["lan"]));
        assert_eq!(config["DnsOptions"], Value::Null);
        assert_eq!(
            config["ExtraHosts"],
            json!(["db:192.0.2.7", "db.lan:192.0.2.7"])
        );
    }
    let ours = made_by(
        json!({ "ContainerSpec": spec, "Networks": [{ "Target": "0000000000000000000000004" }] }),
    );
    assert_eq!(ours.expect("a body")["HostConfig"]["NetworkMode"], "none");
}

#[test]
fn labels_of_swarm_win_over_the_users() {
    let labels = json!({ "com.docker.swarm.task.id": "forged", "mine": "1" });
    let body = made(json!({ "Image": "web", "Labels": labels })).expect("a body");
    assert_eq!(
        body["Labels"],
        json!({
            "mine": "1",
            "com.docker.swarm.node.id": "0000000000000000000000003",
            "com.docker.swarm.service.id": "0000000000000000000000002",
            "com.docker.swarm.service.name": "web",
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": "0000000000000000000000001",
            "com.docker.swarm.task.name": "web.2.0000000000000000000000001",
        })
    );
}

#[test]
fn templates_are_filled_in_and_resources_named() {
    let spec = json!({
        "Image": "web",
        "Hostname": "h-{{.Task.Slot}}-{{ .Node.Hostname }}",
        "Env": ["TIER={{index .Service.Labels \"tier\"}}", "ID={{.Task.ID}}"],
        "Mounts": [{ "Type": "volume", "Source": "v-{{.Task.Slot}}", "Target": "/data" }],
    });
    let body = made(spec).expect("a body");
    assert_eq!(body["Hostname"], "h-2-n1");
    let env = json!([
        "TIER=front",
        "ID=0000000000000000000000001",
        "DOCKER_RESOURCE_GPU=g1,g2"
    ]);
    assert_eq!(body["Env"], env);
    assert_eq!(body["HostConfig"]["Mounts"][0]["Source"], "v-2");
    let refused = made(json!({ "Image": "web", "Hostname": "{{.Service.Nosuch}}" }));
    assert!(matches!(refused, Err(Refusal::Expand(_))), "{refused:?}");
}

#[test]
fn the_hosts_files_make_way_for_the_users_mounts() {
    let body = made(json!({ "Image": "web" })).expect("a body");
    let binds = json!([
        "/s/weft-gate:/.weft-gate:ro",
        "/s/resolv.conf:/etc/resolv.conf",
        "/s/hosts:/etc/hosts",
        "/s/files/0:/run/secrets/key:ro",
    ]);
    assert_eq!(body["HostConfig"]["Binds"], binds);
    assert_eq!(body["HostConfig"]["NetworkMode"], "none");
    let mount = json!({ "Type": "bind", "Source": "/mine", "Target": "/etc/hosts" });
    let body = made(json!({ "Image": "web", "Mounts": [mount] })).expect("a body");
    let binds = body["HostConfig"]["Binds"].to_string();
    assert!(!binds.contains("/etc/hosts"), "{binds}");
}

#[test]
fn limits_reservations_and_log_driver_reach_the_engine() {
    let body = made_by(json!({
        "ContainerSpec": { "Image": "web", "Init": true, "Sysctls": { "net.core.somaxconn": "9" },
            "CapabilityAdd": ["CAP_NET_ADMIN"], "Ulimits": [{ "Name": "nofile", "Hard": 9, "Soft": 8 }],
            "Privileges": { "NoNewPrivileges": true, "Seccomp": { "Mode": "unconfined" } } },
        "Resources": { "Limits": { "NanoCPUs": 500_000_000, "MemoryBytes": 1_048_576, "Pids": 7 },
            "Reservations": { "MemoryBytes": 4096 } },
        "LogDriver": { "Name": "json-file", "Options": { "max-size": "1m" } },
    }))
    .expect("a body");
    let config = &body["HostConfig"];
    assert_eq!(config["NanoCpus"], 500_000_000);
    assert_eq!(config["Memory"], 1_048_576);
    assert_eq!(config["PidsLimit"], 7);
    assert_eq!(config["MemoryReservation"], 4096);
    assert_eq!(
        config["LogConfig"],
        json!({ "Type": "json-file", "Config": { "max-size": "1m" } })
    );
    assert_eq!(config["Init"], true);
    assert_eq!(config["CapAdd"], json!(["CAP_NET_ADMIN"]));
    assert_eq!(
        config["SecurityOpt"],
        json!(["no-new-privileges", "seccomp=unconfined"])
    );
    assert_eq!(config["Sysctls"], json!({ "net.core.somaxconn": "9" }));
    assert_eq!(
        config["Ulimits"],
        json!([{ "Name": "nofile", "Hard": 9, "Soft": 8 }])
    );
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (spec, named) in [
        (
            json!({ "Image": "web", "Brandnew": 1 }),
            "ContainerSpec.Brandnew",
        ),
        (
            json!({ "Image": "web", "Isolation": "hyperv" }),
            "ContainerSpec.Isolation",
        ),
        (
            json!({ "Image": "web", "Mounts": [{ "Type": "npipe", "Target": "/x" }] }),
            "mount type",
        ),
        (
            json!({ "Image": "web", "Privileges": { "CredentialSpec": { "File": "x" } } }),
            "Privileges.CredentialSpec",
        ),
        (
            json!({ "Image": "web", "Healthcheck": { "Brandnew": 1 } }),
            "Healthcheck.Brandnew",
        ),
    ] {
        let refused = made(spec).expect_err("a refusal");
        assert!(
            refused.to_string().contains(named),
            "{refused} should name {named}"
        );
    }
    let empty = made(json!({ "Image": "web", "Brandnew": null, "Isolation": "default" }));
    assert!(empty.is_ok(), "what says nothing is no wish: {empty:?}");
}
