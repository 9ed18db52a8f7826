//! Every field of a service spec, and what becomes of it.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use super::{everything::everything, *};
use crate::validate::service_spec;

/// What becomes of a field.
enum Told {
    /// This file follows it.
    By(&'static str),
    /// A spec that asks for it is refused so.
    Refused(&'static str),
}
use Told::{By, Refused};

const UPDATE: &str = "control/src/orchestrator/update.rs";
const BODY: &str = "agent/src/executor/engine/body.rs";
const FILES: &str = "agent/src/executor/engine/files.rs";
const DELIVER: &str = "agent/src/deliver.rs";
const RESTART: &str = "control/src/orchestrator/restart.rs";
const FILTER: &str = "control/src/scheduler/filter.rs";
const ENDPOINT: &str = "control/src/allocator/endpoint.rs";
const TASK: &str = "control/src/orchestrator/task.rs";

/// Path, a value of it, and what becomes of it. Elements of lists are `0`.
fn rows() -> Vec<(&'static str, Value, Told)> {
    let c = |name: &'static str| -> &'static str {
        Box::leak(format!("TaskTemplate.ContainerSpec.{name}").into_boxed_str())
    };
    let t = |name: &'static str| -> &'static str {
        Box::leak(format!("TaskTemplate.{name}").into_boxed_str())
    };
    let mut rows = vec![
        ("Name", json!("web"), By("control/src/api/service.rs")),
        ("Labels", json!({"a": "b"}), By(TASK)),
        (
            "Mode.Replicated.Replicas",
            json!(3),
            By("control/src/orchestrator/mod.rs"),
        ),
        (
            "Mode.Global",
            json!({}),
            By("control/src/orchestrator/mod.rs"),
        ),
        (
            "Mode.ReplicatedJob.MaxConcurrent",
            json!(2),
            By("control/src/orchestrator/job.rs"),
        ),
        (
            "Mode.ReplicatedJob.TotalCompletions",
            json!(4),
            By("control/src/orchestrator/job.rs"),
        ),
        (
            "Mode.GlobalJob",
            json!({}),
            By("control/src/orchestrator/mod.rs"),
        ),
        (
            "Networks.0.Target",
            json!("n"),
            By("control/src/api/service.rs"),
        ),
        (
            "Networks.0.Aliases",
            json!(["a"]),
            By("control/src/dispatcher/netstate.rs"),
        ),
        (
            "Networks.0.DriverOpts",
            json!({"com.docker.network.endpoint.ifname": "y"}),
            Refused(
                "Networks: option com.docker.network.endpoint.ifname=y of network n is not supported by weft",
            ),
        ),
        ("EndpointSpec.Mode", json!("dnsrr"), By(ENDPOINT)),
        ("EndpointSpec.Ports.0.Name", json!("http"), By(ENDPOINT)),
        ("EndpointSpec.Ports.0.Protocol", json!("udp"), By(ENDPOINT)),
        ("EndpointSpec.Ports.0.TargetPort", json!(80), By(ENDPOINT)),
        (
            "EndpointSpec.Ports.0.PublishedPort",
            json!(80),
            By(ENDPOINT),
        ),
        (
            "EndpointSpec.Ports.0.PublishMode",
            json!("host"),
            By(ENDPOINT),
        ),
        (
            "Unheard",
            json!(1),
            Refused("Unheard 1 is not supported by weft"),
        ),
        (
            t("Unheard"),
            json!(1),
            Refused("TaskTemplate.Unheard 1 is not supported by weft"),
        ),
        (
            t("NetworkAttachmentSpec.ContainerID"),
            json!("x"),
            Refused("mismatched Runtime and *Spec fields"),
        ),
        (t("ForceUpdate"), json!(1), By(TASK)),
        (
            t("Runtime"),
            json!("plugin"),
            Refused("plugin services are not supported"),
        ),
        (t("LogDriver.Name"), json!("json-file"), By(BODY)),
        (t("LogDriver.Options"), json!({"max-size": "1m"}), By(BODY)),
        (
            t("Networks.0.Target"),
            json!("n"),
            By("control/src/allocator/task.rs"),
        ),
        (
            t("Networks.0.Aliases"),
            json!(["a"]),
            By("control/src/dispatcher/netstate.rs"),
        ),
        (
            t("Networks.0.DriverOpts"),
            json!({"com.docker.network.endpoint.ifname": "y"}),
            Refused(
                "TaskTemplate.Networks: option com.docker.network.endpoint.ifname=y of network n is not supported by weft",
            ),
        ),
        (
            t("RestartPolicy.Condition"),
            json!("on-failure"),
            By(RESTART),
        ),
        (t("RestartPolicy.Delay"), json!(1), By(RESTART)),
        (t("RestartPolicy.MaxAttempts"), json!(1), By(RESTART)),
        (t("RestartPolicy.Window"), json!(1), By(RESTART)),
        (
            t("Placement.Constraints"),
            json!(["node.role==worker"]),
            By("control/src/orchestrator/constraint.rs"),
        ),
        (
            t("Placement.Preferences.0.Spread.SpreadDescriptor"),
            json!("node.labels.zone"),
            By("control/src/scheduler/spread.rs"),
        ),
        (t("Placement.MaxReplicas"), json!(2), By(FILTER)),
        (
            t("Placement.Platforms.0.Architecture"),
            json!("x86_64"),
            By(FILTER),
        ),
        (t("Placement.Platforms.0.OS"), json!("linux"), By(FILTER)),
        (
            t("Placement.Unheard"),
            json!(true),
            Refused("TaskTemplate.Placement.Unheard true is not supported by weft"),
        ),
        (t("Resources.Limits.NanoCPUs"), json!(1_000_000), By(BODY)),
        (
            t("Resources.Limits.MemoryBytes"),
            json!(4_194_304),
            By(BODY),
        ),
        (t("Resources.Limits.Pids"), json!(9), By(BODY)),
        (
            t("Resources.Limits.GenericResources"),
            json!([{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]),
            Refused("generic resources can be reserved, not limited"),
        ),
        (
            t("Resources.Reservations.NanoCPUs"),
            json!(1_000_000),
            By(FILTER),
        ),
        (
            t("Resources.Reservations.MemoryBytes"),
            json!(4_194_304),
            By(FILTER),
        ),
        (
            t("Resources.Reservations.Pids"),
            json!(9),
            Refused("Pids can be limited, not reserved"),
        ),
        (
            t("Resources.Reservations.GenericResources.0.DiscreteResourceSpec"),
            json!({"Kind": "gpu", "Value": 2}),
            By("control/src/scheduler/node_table.rs"),
        ),
        (
            t("Resources.Reservations.GenericResources.0.NamedResourceSpec"),
            json!({"Kind": "gpu", "Value": "g1"}),
            By("control/src/scheduler/node_table.rs"),
        ),
        (
            t("Resources.Unheard"),
            json!(5),
            Refused("TaskTemplate.Resources.Unheard 5 is not supported by weft"),
        ),
        (
            c("Unheard"),
            json!(1),
            Refused("ContainerSpec.Unheard 1 is not supported by weft"),
        ),
        (
            c("Isolation"),
            json!("hyperv"),
            Refused("ContainerSpec.Isolation \"hyperv\" is not supported by weft"),
        ),
        (
            c("Healthcheck.Unheard"),
            json!(1),
            Refused("Healthcheck.Unheard 1 is not supported by weft"),
        ),
        (
            c("Privileges.CredentialSpec"),
            json!({"File": "x"}),
            Refused("Privileges.CredentialSpec {\"File\":\"x\"} is not supported by weft"),
        ),
        (
            c("Privileges.Unheard"),
            json!({"a": 1}),
            Refused("Privileges.Unheard {\"a\":1} is not supported by weft"),
        ),
        (c("Privileges.NoNewPrivileges"), json!(true), By(BODY)),
        (
            c("Privileges.Seccomp"),
            json!({"Mode": "unconfined"}),
            By(BODY),
        ),
        (
            c("Privileges.AppArmor"),
            json!({"Mode": "disabled"}),
            By(BODY),
        ),
        (
            c("Privileges.SELinuxContext"),
            json!({"Disable": true}),
            By(BODY),
        ),
        (c("Mounts.0.Type"), json!("bind"), By(BODY)),
        (c("Mounts.0.Source"), json!("v"), By(BODY)),
        (c("Mounts.0.Target"), json!("/v"), By(BODY)),
        (c("Mounts.0.ReadOnly"), json!(true), By(BODY)),
        (
            c("Mounts.0.ClusterOptions"),
            json!({"a": 1}),
            Refused("mount /m: ClusterOptions {\"a\":1} is not supported by weft"),
        ),
        (
            c("Secrets.0"),
            json!({"File": {"Name": "k", "UID": "0", "GID": "0", "Mode": 292},
                "SecretID": "0000000000000000000000001", "SecretName": "key"}),
            By(DELIVER),
        ),
        (
            c("Configs.0.File"),
            json!({"Name": "/k", "UID": "0", "GID": "0", "Mode": 292}),
            By(DELIVER),
        ),
        (
            c("Configs.0.ConfigID"),
            json!("0000000000000000000000001"),
            By(DELIVER),
        ),
        (
            c("Configs.0.ConfigName"),
            json!("site"),
            By("control/src/api/service.rs"),
        ),
        (
            c("Configs.0.Runtime"),
            json!({}),
            Refused("Runtime of config site {} is not supported by weft"),
        ),
        (c("Hosts"), json!(["192.0.2.1 a"]), By(FILES)),
        (
            c("DNSConfig.Nameservers"),
            json!(["192.0.2.53"]),
            By("agent/src/network.rs"),
        ),
        (c("DNSConfig.Search"), json!(["example.org"]), By(FILES)),
        (c("DNSConfig.Options"), json!(["ndots:1"]), By(FILES)),
        (c("StopGracePeriod"), json!(1), By("agent/src/task.rs")),
    ];
    for option in MOUNT_OPTIONS {
        let path = Box::leak(format!("TaskTemplate.ContainerSpec.Mounts.0.{option}").into());
        rows.push((path, json!({"a": 1}), By(BODY)));
    }
    for (name, value) in [
        ("Image", json!("web:1")),
        ("Labels", json!({"a": "b"})),
        ("Command", json!(["sh"])),
        ("Args", json!(["x"])),
        ("Hostname", json!("h-{{.Task.Slot}}")),
        ("Env", json!(["A={{.Node.ID}}"])),
        ("Dir", json!("/")),
        ("User", json!("1:1")),
        ("Groups", json!(["2"])),
        ("Init", json!(true)),
        ("StopSignal", json!("SIGINT")),
        ("TTY", json!(true)),
        ("OpenStdin", json!(true)),
        ("ReadOnly", json!(true)),
        ("Sysctls", json!({"net.core.somaxconn": "9"})),
        ("CapabilityAdd", json!(["CAP_NET_ADMIN"])),
        ("CapabilityDrop", json!(["CAP_CHOWN"])),
        ("Ulimits", json!([{"Name": "nofile", "Hard": 9, "Soft": 8}])),
        ("OomScoreAdj", json!(5)),
        ("Healthcheck.Test", json!(["CMD", "true"])),
        ("Healthcheck.Interval", json!(1_000_000)),
        ("Healthcheck.Timeout", json!(1_000_000)),
        ("Healthcheck.StartPeriod", json!(1_000_000)),
        ("Healthcheck.StartInterval", json!(1_000_000)),
        ("Healthcheck.Retries", json!(3)),
    ] {
        rows.push((c(name), value, By(BODY)));
    }
    for config in ["UpdateConfig", "RollbackConfig"] {
        for (name, value) in [
            ("Parallelism", json!(2)),
            ("Delay", json!(1)),
            ("FailureAction", json!("continue")),
            ("Monitor", json!(1)),
            ("MaxFailureRatio", json!(0.5)),
            ("Order", json!("start-first")),
        ] {
            rows.push((
                Box::leak(format!("{config}.{name}").into()),
                value,
                By(UPDATE),
            ));
        }
    }
    rows
}

/// Paths of `value` down to where a row begins, or to the leaves.
pub(super) fn paths(
    prefix: &str,
    value: &Value,
    rows: &BTreeSet<&str>,
    found: &mut BTreeSet<String>,
) {
    let below: Vec<(String, &Value)> = match value {
        _ if rows.contains(prefix) => Vec::new(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .take(1)
            .map(|item| ("0".to_owned(), item))
            .collect(),
        _ => Vec::new(),
    };
    if below.is_empty() {
        found.insert(prefix.to_owned());
    }
    for (name, value) in below {
        let path = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        paths(&path, value, rows, found);
    }
}

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    let rows = rows();
    let known: BTreeSet<&str> = rows.iter().map(|(path, ..)| *path).collect();
    let mut found = BTreeSet::new();
    paths("", &everything(), &known, &mut found);
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, known);
}

/// Sets `path` in a spec that is right, with what its neighbours need.
fn with(path: &str, value: &Value) -> Value {
    let mut spec = json!({"Name": "e", "TaskTemplate": {"ContainerSpec": {"Image": "tool"}}});
    let id = "0000000000000000000000001";
    for (begins, list, neighbour) in [
        (
            "EndpointSpec.Ports",
            "/EndpointSpec",
            json!({"Ports": [{"TargetPort": 1}]}),
        ),
        ("Networks", "/Networks", json!([{"Target": "n"}])),
        (
            "TaskTemplate.Networks",
            "/TaskTemplate/Networks",
            json!([{"Target": "n"}]),
        ),
        (
            "TaskTemplate.LogDriver.Options",
            "/TaskTemplate/LogDriver",
            json!({"Name": "json-file"}),
        ),
        (
            "TaskTemplate.ContainerSpec.Mounts",
            "/TaskTemplate/ContainerSpec/Mounts",
            json!([{"Target": "/m"}]),
        ),
        (
            "TaskTemplate.ContainerSpec.Configs",
            "/TaskTemplate/ContainerSpec/Configs",
            json!([{"File": {"Name": "/k"}, "ConfigID": id, "ConfigName": "site"}]),
        ),
    ] {
        if path.starts_with(begins) {
            let (above, name) = list.rsplit_once('/').unwrap();
            spec.pointer_mut(above).unwrap()[name] = neighbour;
        }
    }
    let mut at = &mut spec;
    for step in path.split('.') {
        at = match step.parse::<usize>() {
            Ok(index) => {
                if at.is_null() {
                    *at = json!([]);
                }
                let items = at.as_array_mut().unwrap();
                if items.len() <= index {
                    items.push(json!({}));
                }
                &mut items[index]
            }
            Err(_) => &mut at[step],
        };
    }
    *at = value.clone();
    spec
}

/// Whether a file has a word for a field at all. What a mount says goes to the engine as it is.
fn names(file: &Path, path: &str) -> bool {
    let plain = |text: &str| text.replace('_', "").to_lowercase();
    let mut steps = path.split('.').rev();
    let field = if path.contains(".Mounts.") {
        Some("Mount")
    } else {
        steps.find(|step| step.parse::<usize>().is_err())
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    field.is_some_and(|field| plain(&text).contains(&plain(field)))
}

#[test]
fn each_field_is_followed_somewhere_or_refused_in_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut forgotten = Vec::new();
    for (path, value, told) in rows() {
        let sent = with(path, &value);
        let spec: ServiceSpec = serde_json::from_value(sent.clone()).expect(path);
        let back = serde_json::to_value(&spec).expect(path);
        assert_eq!(unread(&sent, &back), None, "{path} gets lost");
        match (service_spec(&spec), told) {
            (Ok(()), By(file)) => {
                let found = names(&root.join(file), path);
                forgotten.extend((!found).then(|| format!("{path}: nothing in {file}")));
            }
            (Err(refusal), Refused(words)) => assert_eq!(refusal.message, words, "{path}"),
            (outcome, _) => panic!("{path}: {outcome:?}"),
        }
    }
    assert_eq!(forgotten, [""; 0]);
}

#[test]
fn choices_that_weft_does_not_have_are_refused() {
    let m = "TaskTemplate.ContainerSpec.Mounts.0.Type";
    for (path, value, words) in [
        (
            m,
            json!("cluster"),
            "mount /m: cluster volumes (CSI) are not supported by weft: use a volume driver of the nodes' engines",
        ),
        (
            m,
            json!("npipe"),
            "mount /m: named pipes are Windows's, and weft runs on Linux",
        ),
        (m, json!("magic"), "mount /m: invalid mount type \"magic\""),
        (
            "EndpointSpec.Ports.0.Protocol",
            json!("sctp"),
            "published ports of protocol sctp are not supported by weft: publish tcp or udp",
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges.Seccomp",
            json!({"Mode": "strict"}),
            "Privileges.Seccomp.Mode \"strict\" is not supported by weft",
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges.AppArmor",
            json!({"Mode": "enforced"}),
            "Privileges.AppArmor.Mode \"enforced\" is not supported by weft",
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges.SELinuxContext",
            json!({"Range": "s0"}),
            "Privileges.SELinuxContext.Range \"s0\" is not supported by weft",
        ),
        (
            "TaskTemplate.ContainerSpec.DNSConfig.Nameservers",
            json!(["192.0.2.53", "resolver"]),
            "DNSConfig: nameserver \"resolver\" is no IP address",
        ),
        (
            "TaskTemplate.ContainerSpec.Hosts",
            json!(["192.0.2.1 a b", "host-gateway a"]),
            "ContainerSpec: \"host-gateway a\" in Hosts is not an IP address and names",
        ),
        (
            "TaskTemplate.ContainerSpec.Hosts",
            json!(["192.0.2.1"]),
            "ContainerSpec: \"192.0.2.1\" in Hosts is not an IP address and names",
        ),
        (
            "TaskTemplate.ContainerSpec.Hosts",
            json!(["192.0.2.1 a\n192.0.2.2 b"]),
            "ContainerSpec: \"192.0.2.1 a\\n192.0.2.2 b\" in Hosts is not an IP address and names",
        ),
        (
            "TaskTemplate.LogDriver",
            json!({"Options": {"max-size": "1m"}}),
            "TaskTemplate.LogDriver: option max-size=1m without the name of a driver",
        ),
        (
            "TaskTemplate.Networks",
            json!([{"Target": "n"}, {"Target": "n", "Aliases": ["a"]}]),
            "TaskTemplate.Networks: network n is named twice",
        ),
        (
            "TaskTemplate.Placement.Preferences.0",
            json!({}),
            "a placement preference needs a Spread: weft knows no other strategy",
        ),
        (
            "TaskTemplate.Resources.Reservations.GenericResources.0.DiscreteResourceSpec",
            json!({"Kind": "gpu", "Value": 0}),
            "invalid argument for resource gpu: 0 of it cannot be reserved",
        ),
        (
            "TaskTemplate.Runtime",
            json!("magic"),
            "unsupported runtime",
        ),
    ] {
        let spec = serde_json::from_value(with(path, &value)).expect(path);
        assert_eq!(service_spec(&spec).unwrap_err().message, words, "{path}");
    }
}

#[test]
fn options_of_an_attachment_that_mean_nothing_are_kept() {
    let sent = with("TaskTemplate.Networks.0.DriverOpts", &json!({"foo": "bar"}));
    let spec = serde_json::from_value(sent).expect("a spec");
    service_spec(&spec).expect("Docker accepts it");
    let kept = serde_json::to_value(&spec).expect("JSON");
    assert_eq!(
        kept["TaskTemplate"]["Networks"][0]["DriverOpts"]["foo"],
        "bar"
    );
}

#[test]
fn what_was_sent_and_not_understood_is_found() {
    let sent = json!({"A": 1, "L": [{"X": 1, "Y": ""}, {"Z": true}], "Empty": {}, "No": null});
    let read = json!({"A": 1, "L": [{"X": 1}, {}], "More": 5});
    assert_eq!(
        unread(&sent, &read),
        Some(("L.1.Z".to_owned(), json!(true)))
    );
    assert_eq!(unread(&json!({"a": 0}), &json!({})), None);
    assert_eq!(
        unread(&json!({"A": {"b": 2}}), &json!({"A": {}})),
        Some(("A.b".to_owned(), json!(2)))
    );
}
