//! The last value that is right and the first that is not, of everything that has a limit.

use serde_json::{Value, json};

use super::*;

/// A service whose parts are these, or nothing where they say nothing.
fn service(container: Value, more: Value) -> Result<(), Refusal> {
    let mut json = json!({"Name": "e", "TaskTemplate": {"ContainerSpec": {"Image": "a"}}});
    merge(&mut json["TaskTemplate"]["ContainerSpec"], container);
    merge(&mut json, more);
    service_spec(&serde_json::from_value(json).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[test]
fn of_a_service_the_first_wrong_value_is_refused_and_the_last_right_one_is_not() {
    let none = || json!({});
    let update = |field: &str, value: Value| json!({"UpdateConfig": {field: value}});
    let limit = |field: &str, value: i64| json!({"TaskTemplate": {"Resources": {"Limits": {field: value}}}});
    let condition = |value: &str| json!({"TaskTemplate": {"RestartPolicy": {"Condition": value}}});
    let secrets = |files: [&str; 2]| {
        let id = crate::SecretId::numbered(1).to_string();
        let reference =
            |file: &str| json!({"SecretID": id, "SecretName": "s", "File": {"Name": file}});
        json!({"Secrets": files.map(reference)})
    };
    let tasks = |count: u64| json!({"Mode": {"Replicated": {"Replicas": count}}});
    let job = |concurrent: u64| json!({"Mode": {"ReplicatedJob": {"MaxConcurrent": concurrent}}});
    let two_modes = json!({"Mode": {"Global": {}, "Replicated": {}}});
    let job_with_update = json!({"Mode": {"GlobalJob": {}}, "UpdateConfig": {"Parallelism": 1}});
    let job_with_rollback = json!({"Mode": {"GlobalJob": {}}, "RollbackConfig": {"Order": ""}});
    let replicated_job_with_update =
        json!({"Mode": {"ReplicatedJob": {"MaxConcurrent": 1}}, "UpdateConfig": {"Delay": 0}});
    let runs = |total: u64| json!({"Mode": {"ReplicatedJob": {"TotalCompletions": total}}});
    let rollback = |field: &str, value: Value| json!({"RollbackConfig": {field: value}});
    let reserve = |field: &str, value: i64| json!({"TaskTemplate": {"Resources": {"Reservations": {field: value}}}});
    let restart =
        |field: &str, value: i64| json!({"TaskTemplate": {"RestartPolicy": {field: value}}});
    let probe = |field: &str, value: i64| json!({"Healthcheck": {field: value}});
    let configs = |files: [&str; 2]| {
        let id = crate::ConfigId::numbered(1).to_string();
        let reference =
            |file: &str| json!({"ConfigID": id, "ConfigName": "c", "File": {"Name": file}});
        json!({"Configs": files.map(reference)})
    };
    let mounts =
        |targets: [&str; 2]| json!({"Mounts": targets.map(|target| json!({"Target": target}))});
    let port = |mode: &str, publish: &str| json!({"EndpointSpec": {"Mode": mode, "Ports": [{"TargetPort": 80, "PublishMode": publish}]}});
    let two_ports = |first: u16, second: u16| {
        json!({"EndpointSpec": {"Ports": [
        {"TargetPort": 80, "PublishedPort": first}, {"TargetPort": 81, "PublishedPort": second}]}})
    };
    let rows = [
        ((none(), tasks(MAX_TASKS)), (none(), tasks(MAX_TASKS + 1))),
        ((none(), job(1)), (none(), job(0))),
        (
            (none(), json!({"Mode": {"Global": {}}})),
            (none(), two_modes),
        ),
        (
            (none(), json!({"Mode": {"GlobalJob": {}}})),
            (none(), job_with_update),
        ),
        (
            (none(), json!({"Mode": {"GlobalJob": {}}})),
            (none(), job_with_rollback),
        ),
        (
            (none(), json!({"Mode": {"ReplicatedJob": {}}})),
            (none(), replicated_job_with_update),
        ),
        ((none(), runs(MAX_TASKS)), (none(), runs(MAX_TASKS + 1))),
        (
            (mounts(["/a", "/b"]), none()),
            (mounts(["/a", "/a"]), none()),
        ),
        ((configs(["a", "b"]), none()), (configs(["a", "a"]), none())),
        (
            (none(), port("dnsrr", "host")),
            (none(), port("dnsrr", "ingress")),
        ),
        (
            (none(), two_ports(8000, 8001)),
            (none(), two_ports(8000, 8000)),
        ),
        (
            (none(), reserve("MemoryBytes", MIN_MEMORY_BYTES)),
            (none(), reserve("MemoryBytes", MIN_MEMORY_BYTES - 1)),
        ),
        (
            (none(), reserve("NanoCPUs", MIN_NANO_CPUS)),
            (none(), reserve("NanoCPUs", -1)),
        ),
        (
            (none(), restart("Delay", 0)),
            (none(), restart("Delay", -1)),
        ),
        (
            (none(), restart("Window", 0)),
            (none(), restart("Window", -1)),
        ),
        (
            (probe("Interval", 1_000_000), none()),
            (probe("Interval", 999_999), none()),
        ),
        (
            (probe("Timeout", 0), none()),
            (probe("Timeout", -1), none()),
        ),
        (
            (probe("StartPeriod", 1_000_000), none()),
            (probe("StartPeriod", 1), none()),
        ),
        (
            (probe("StartInterval", 1_000_000), none()),
            (probe("StartInterval", 999_999), none()),
        ),
        (
            (none(), rollback("Delay", 0.into())),
            (none(), rollback("Delay", (-1).into())),
        ),
        (
            (none(), rollback("Monitor", 0.into())),
            (none(), rollback("Monitor", (-1).into())),
        ),
        (
            (none(), rollback("FailureAction", "continue".into())),
            (none(), rollback("FailureAction", "wait".into())),
        ),
        (
            (none(), rollback("MaxFailureRatio", 0.0.into())),
            (none(), rollback("MaxFailureRatio", (-0.01).into())),
        ),
        ((none(), limit("Pids", 0)), (none(), limit("Pids", -1))),
        (
            (none(), limit("MemoryBytes", MIN_MEMORY_BYTES)),
            (none(), limit("MemoryBytes", MIN_MEMORY_BYTES - 1)),
        ),
        (
            (none(), limit("NanoCPUs", MIN_NANO_CPUS)),
            (none(), limit("NanoCPUs", MIN_NANO_CPUS - 1)),
        ),
        (
            (json!({"StopGracePeriod": 0}), none()),
            (json!({"StopGracePeriod": -1}), none()),
        ),
        (
            (json!({"Healthcheck": {"Retries": 0}}), none()),
            (json!({"Healthcheck": {"Retries": -1}}), none()),
        ),
        ((secrets(["a", "b"]), none()), (secrets(["a", "a"]), none())),
        (
            (none(), condition("on-failure")),
            (none(), condition("always")),
        ),
        (
            (none(), update("Delay", 0.into())),
            (none(), update("Delay", (-1).into())),
        ),
        (
            (none(), update("Monitor", 0.into())),
            (none(), update("Monitor", (-1).into())),
        ),
        (
            (none(), update("FailureAction", "rollback".into())),
            (none(), update("FailureAction", "stop".into())),
        ),
        (
            (none(), update("Order", "start-first".into())),
            (none(), update("Order", "start".into())),
        ),
        (
            (none(), update("MaxFailureRatio", 1.0.into())),
            (none(), update("MaxFailureRatio", 1.01.into())),
        ),
    ];
    for ((container, more), wrong) in rows {
        let text = format!("{container} {more}");
        assert_eq!(service(container, more), Ok(()), "{text}");
        let text = format!("{} {}", wrong.0, wrong.1);
        let refused = service(wrong.0, wrong.1);
        let kind = refused.map_err(|refusal| refusal.kind);
        assert_eq!(kind, Err(RefusalKind::Invalid), "{text}");
    }
}

#[test]
fn of_a_cluster_the_shortest_times_are_right_and_shorter_ones_are_not() {
    let cluster = |json: Value| cluster_spec(&serde_json::from_value(json).unwrap());
    let period = |nanos: i64| cluster(json!({"Dispatcher": {"HeartbeatPeriod": nanos}}));
    let expiry = |nanos: i64| cluster(json!({"CAConfig": {"NodeCertExpiry": nanos}}));
    for (least, given) in [
        (1_000_000, &period as &dyn Fn(i64) -> Result<(), Refusal>),
        (3_600_000_000_000, &expiry),
    ] {
        assert_eq!(given(0), Ok(()), "nothing said");
        assert_eq!(given(least), Ok(()));
        assert!(given(least - 1).is_err(), "{least} less one");
    }
    assert!(period(-1).is_err());
    let ticks = |json: Value| cluster(json!({"Raft": json}));
    assert!(ticks(json!({"ElectionTick": -1})).is_err());
}

#[test]
fn names_have_a_length() {
    let secret = |length: usize| {
        secret_spec(&SecretSpec {
            name: "x".repeat(length),
            data: crate::secret::Base64(vec![0]),
            ..SecretSpec::default()
        })
    };
    assert_eq!(secret(64), Ok(()));
    assert!(secret(65).is_err());
    assert_eq!(name(&"x".repeat(63)), Ok(()));
    assert!(image_reference(&format!("a:{}", "x".repeat(128))));
    assert!(!image_reference(&format!("a:{}", "x".repeat(129))));
    assert!(image_reference(&"x".repeat(255)));
    assert!(!image_reference(&"x".repeat(256)));
}

#[test]
fn names_begin_and_end_with_a_letter_or_a_digit() {
    let data = || crate::secret::Base64(vec![0]);
    let secret = |name: &str| {
        secret_spec(&SecretSpec {
            name: name.into(),
            data: data(),
            ..SecretSpec::default()
        })
    };
    let config = |name: &str| {
        config_spec(&ConfigSpec {
            name: name.into(),
            data: data(),
            ..ConfigSpec::default()
        })
    };
    let network =
        |name: &str| network_spec(&serde_json::from_value(json!({"Name": name})).unwrap());
    let named = |name: &str| service(json!({}), json!({"Name": name}));
    for right in ["a", "7", "Ab", "a-b", "a__b", "a--9"] {
        for outcome in [secret(right), config(right), network(right), named(right)] {
            assert_eq!(outcome, Ok(()), "{right}");
        }
    }
    for wrong in [
        "", "-", "-a", "a-", "_a", "a_", " a", "a b", "a\n", "\u{e4}", "a/b",
    ] {
        for outcome in [secret(wrong), config(wrong), network(wrong), named(wrong)] {
            let kind = outcome.map_err(|refusal| refusal.kind);
            assert_eq!(kind, Err(RefusalKind::Invalid), "{wrong:?}");
        }
    }
    // Dots are of files' names alone.
    assert_eq!((secret("a.b"), config("a.b")), (Ok(()), Ok(())));
    assert!(secret(".a").is_err() && config("a.").is_err());
    assert!(network("a.b").is_err() && named("a.b").is_err());
}

#[test]
fn secrets_and_configs_say_something() {
    let empty = SecretSpec {
        name: "a".into(),
        ..SecretSpec::default()
    };
    let words = "secret data must be larger than 0 and less than 512000 bytes";
    assert_eq!(secret_spec(&empty).unwrap_err().message, words);
    let words = "config data must be larger than 0 and less than 1024000 bytes";
    assert_eq!(config_spec(&empty).unwrap_err().message, words);
    let mut largest = empty;
    largest.data = crate::secret::Base64(vec![0; 1_023_999]);
    assert_eq!(config_spec(&largest), Ok(()));
}

#[test]
fn a_network_s_packets_have_a_least_size() {
    let network = |mtu: &str| {
        let json = json!({"Name": "n", "DriverConfiguration": {"Options": {
            "com.docker.network.driver.mtu": mtu
        }}});
        network_spec(&serde_json::from_value(json).unwrap())
    };
    assert_eq!(network("576"), Ok(()));
    assert!(network("575").is_err());
    assert!(network("65536").is_err());
}
