//! Every field of cluster, network, node, secret and config specs, and what becomes of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    super::{Refusal, cluster_spec, config_spec, network_spec, node_spec, secret_spec, unread},
    tests::paths,
};
use crate::{
    Labels,
    cluster::{
        CaConfig, ClusterSpec, DispatcherConfig, EncryptionConfig, OrchestrationConfig, RaftConfig,
        TaskDefaults,
    },
    network::{Driver, IpamConfig, IpamOptions, NetworkSpec},
    node::{Availability, NodeSpec, Role},
    secret::{Base64, SecretSpec},
    task::LogDriver,
};

/// A field, a value of it, and the words of the refusal; `Ok` names what follows it.
type Row = (&'static str, Value, Result<&'static str, &'static str>);

fn labels() -> Labels {
    Labels::from([("a".to_owned(), "b".to_owned())])
}

fn more() -> serde_json::Map<String, Value> {
    [("Unheard".to_owned(), json!(1))].into_iter().collect()
}

fn driver() -> Driver {
    Driver {
        name: "x".into(),
        options: Some(labels()),
    }
}

fn every_field_has_a_row(everything: impl serde::Serialize, rows: &[Row]) {
    let known: BTreeSet<&str> = rows.iter().map(|(path, ..)| *path).collect();
    let mut found = BTreeSet::new();
    paths(
        "",
        &serde_json::to_value(everything).unwrap(),
        &known,
        &mut found,
    );
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, known);
}

fn each_row_holds<T>(base: &Value, rows: &[Row], check: impl Fn(&T) -> Result<(), Refusal>)
where
    T: serde::de::DeserializeOwned + serde::Serialize,
{
    for (path, value, told) in rows {
        let mut sent = base.clone();
        let mut at = &mut sent;
        for step in path.split('.') {
            at = match step.parse::<usize>() {
                Ok(index) => {
                    if at.is_null() {
                        *at = json!([{}]);
                    }
                    &mut at[index]
                }
                Err(_) => &mut at[step],
            };
        }
        *at = value.clone();
        let spec: T = serde_json::from_value(sent.clone()).expect(path);
        let back = serde_json::to_value(&spec).expect(path);
        assert_eq!(unread(&sent, &back), None, "{path} gets lost");
        match (check(&spec), told) {
            (Ok(()), Ok(_)) => {}
            (Err(refusal), Err(words)) => assert_eq!(refusal.message, *words, "{path}"),
            (outcome, _) => panic!("{path}: {outcome:?}"),
        }
    }
}

#[test]
fn of_a_cluster() {
    let foreign = "certificate authorities other than the cluster's own are not supported by weft: leave them out; managers sign by themselves, and `docker swarm ca --rotate` gives the cluster a new root";
    let rows: Vec<Row> = vec![
        (
            "Name",
            json!("mine"),
            Err("swarm spec name must be \"default\" or empty"),
        ),
        (
            "Labels",
            json!({"weft.encrypted": "true"}),
            Ok("dispatcher/netstate"),
        ),
        (
            "Orchestration.TaskHistoryRetentionLimit",
            json!(1),
            Ok("orchestrator/reaper"),
        ),
        ("Raft.SnapshotInterval", json!(5), Ok("runtime/disk")),
        (
            "Raft.KeepOldSnapshots",
            json!(1),
            Err("keeping old raft snapshots is not supported"),
        ),
        (
            "Raft.LogEntriesForSlowFollowers",
            json!(5),
            Ok("runtime/disk"),
        ),
        (
            "Raft.ElectionTick",
            json!(3),
            Err("raft ticks other than 10 (election) and 1 (heartbeat) are not supported"),
        ),
        (
            "Raft.HeartbeatTick",
            json!(-1),
            Err("raft ticks cannot be negative"),
        ),
        (
            "Dispatcher.HeartbeatPeriod",
            json!(5),
            Err("heartbeat time period cannot be below 1ms"),
        ),
        (
            "CAConfig.NodeCertExpiry",
            json!(5),
            Err("minimum certificate expiry time is: 1h0m0s"),
        ),
        ("CAConfig.ExternalCAs", json!([{"URL": "x"}]), Err(foreign)),
        ("CAConfig.SigningCACert", json!("x"), Err(foreign)),
        ("CAConfig.SigningCAKey", json!("x"), Err(foreign)),
        ("CAConfig.ForceRotate", json!(1), Ok("runtime/rotation")),
        (
            "TaskDefaults.LogDriver",
            json!({"Name": "json-file"}),
            Ok("scheduler"),
        ),
        (
            "EncryptionConfig.AutoLockManagers",
            json!(true),
            Ok("api/cluster"),
        ),
        (
            "Unheard",
            json!(1),
            Err("Unheard 1 is not supported by weft"),
        ),
    ];
    let everything = ClusterSpec {
        name: "x".into(),
        labels: labels(),
        orchestration: OrchestrationConfig {
            task_history_retention_limit: Some(1),
        },
        raft: RaftConfig {
            snapshot_interval: Some(1),
            keep_old_snapshots: Some(1),
            log_entries_for_slow_followers: Some(1),
            election_tick: 1,
            heartbeat_tick: 1,
        },
        dispatcher: DispatcherConfig {
            heartbeat_period: 1,
        },
        ca_config: CaConfig {
            node_cert_expiry: 1,
            external_cas: Some(vec![json!(1)]),
            signing_ca_cert: "x".into(),
            signing_ca_key: "x".into(),
            force_rotate: 1,
        },
        task_defaults: TaskDefaults {
            log_driver: Some(LogDriver {
                name: "x".into(),
                options: Some(labels()),
            }),
        },
        encryption_config: EncryptionConfig {
            auto_lock_managers: true,
        },
        rest: more(),
    };
    every_field_has_a_row(everything, &rows);
    let base = json!({"Name": "default"});
    each_row_holds::<ClusterSpec>(&base, &rows, cluster_spec);
    let rows: Vec<Row> = vec![(
        "TaskDefaults.LogDriver",
        json!({"Options": {"max-size": "1m"}}),
        Err("TaskDefaults.LogDriver: option max-size=1m without the name of a driver"),
    )];
    each_row_holds::<ClusterSpec>(&base, &rows, cluster_spec);
}

#[test]
fn of_a_network() {
    let option = |name: &str, value: &str| json!({"Options": {name: value}});
    let rows: Vec<Row> = vec![
        (
            "Name",
            json!("a.b"),
            Err("name must be valid as a DNS name component"),
        ),
        ("Labels", json!({"a": "b"}), Ok("shown")),
        (
            "DriverConfiguration",
            option("foo", "bar"),
            Err(
                "network option foo=bar is not supported by weft: encrypted, com.docker.network.driver.mtu and com.docker.network.driver.overlay.vxlanid_list are",
            ),
        ),
        ("IPv6Enabled", json!(true), Ok("allocator/network")),
        ("Internal", json!(true), Ok("dispatcher/netstate")),
        ("Attachable", json!(true), Ok("api/attachment")),
        ("Ingress", json!(true), Ok("allocator/task")),
        (
            "IPAMOptions.Driver",
            option("foo", "bar"),
            Err("IPAM option foo=bar is not supported by weft"),
        ),
        (
            "IPAMOptions.Configs.0.Subnet",
            json!("10.9.0.0/24"),
            Ok("allocator/network"),
        ),
        (
            "IPAMOptions.Configs.0.Range",
            json!("10.9.0.0/28"),
            Err("ipam configuration: invalid subnet "),
        ),
        (
            "IPAMOptions.Configs.0.Gateway",
            json!("10.9.0.1"),
            Err("ipam configuration: invalid subnet "),
        ),
        // Refused by the manager, which knows of no such networks.
        ("ConfigFrom", json!({"Network": "x"}), Ok("api/network")),
        ("Scope", json!("swarm"), Ok("shown")),
        (
            "Unheard",
            json!(1),
            Err("Unheard 1 is not supported by weft"),
        ),
    ];
    let everything = NetworkSpec {
        name: "x".into(),
        labels: labels(),
        driver_configuration: driver(),
        ipv6_enabled: true,
        internal: true,
        attachable: true,
        ingress: true,
        ipam_options: Some(IpamOptions {
            driver: driver(),
            configs: vec![IpamConfig {
                subnet: "10.9.0.0/24".parse().ok(),
                range: "10.9.0.0/28".parse().ok(),
                gateway: "10.9.0.1".parse().ok(),
            }],
        }),
        config_from: Some(json!("x")),
        scope: "swarm".into(),
        rest: more(),
    };
    every_field_has_a_row(everything, &rows);
    each_row_holds::<NetworkSpec>(&json!({"Name": "net"}), &rows, network_spec);
    let rows: Vec<Row> = vec![
        (
            "DriverConfiguration",
            option("encrypted", ""),
            Ok("dataplane"),
        ),
        (
            "DriverConfiguration",
            option("encrypted", "false"),
            Ok("dataplane"),
        ),
        (
            "DriverConfiguration",
            option("encrypted", "maybe"),
            Err("network option encrypted=maybe: it is true or false"),
        ),
        (
            "DriverConfiguration",
            option("com.docker.network.driver.mtu", "1400"),
            Ok("dispatcher/netstate"),
        ),
        (
            "DriverConfiguration",
            option("com.docker.network.driver.mtu", "12"),
            Err("network option com.docker.network.driver.mtu=12: name bytes from 576 to 65535"),
        ),
        (
            "DriverConfiguration",
            json!({"Name": "macvlan"}),
            Err("unsupported driver \"macvlan\": swarm networks are of driver overlay here"),
        ),
        (
            "IPAMOptions",
            json!({"Driver": {"Name": "null"}}),
            Err("invalid IPAM specified"),
        ),
        (
            "IPAMOptions",
            json!({"Driver": {}, "Configs": [{"Subnet": "10.9.0.0/24", "Range": "10.8.0.0/28"}]}),
            Err("ipam configuration: subnet 10.9.0.0/24 does not contain range 10.8.0.0/28"),
        ),
        (
            "IPAMOptions",
            json!({"Driver": {}, "Configs": [{"Subnet": "10.9.0.0/24", "Gateway": "10.8.0.1"}]}),
            Err("ipam configuration: subnet 10.9.0.0/24 does not contain gateway 10.8.0.1"),
        ),
        (
            "IPAMOptions",
            json!({"Driver": {}, "Configs": [{"Subnet": "10.9.0.0/16"}, {"Subnet": "10.9.1.0/24"}]}),
            Err("ipam configuration: subnets 10.9.0.0/16 and 10.9.1.0/24 overlap"),
        ),
        (
            "IPAMOptions",
            json!({"Driver": {}, "Configs": [{"Subnet": "2001:db8:1::/64"}]}),
            Err(
                "ipam configuration: subnet 2001:db8:1::/64 needs IPv6 to be enabled on the network (--ipv6)",
            ),
        ),
    ];
    each_row_holds::<NetworkSpec>(&json!({"Name": "net"}), &rows, network_spec);
    let both = json!({"Name": "net", "Attachable": true});
    let rows: Vec<Row> = vec![(
        "Ingress",
        json!(true),
        Err("cannot create an attachable routing-mesh network"),
    )];
    each_row_holds::<NetworkSpec>(&both, &rows, network_spec);
}

#[test]
fn of_a_node() {
    let rows: Vec<Row> = vec![
        ("Name", json!("mine"), Ok("shown")),
        ("Labels", json!({"a": "b"}), Ok("orchestrator/constraint")),
        ("Role", json!("manager"), Ok("runtime/members")),
        ("Availability", json!("drain"), Ok("orchestrator/task")),
        (
            "Unheard",
            json!(1),
            Err("Unheard 1 is not supported by weft"),
        ),
    ];
    let everything = NodeSpec {
        name: "x".into(),
        labels: labels(),
        role: Role::Manager,
        availability: Availability::Drain,
        rest: more(),
    };
    every_field_has_a_row(everything, &rows);
    each_row_holds::<NodeSpec>(&json!({}), &rows, node_spec);
}

#[test]
fn of_secrets_and_configs() {
    let everything = SecretSpec {
        name: "x".into(),
        labels: labels(),
        data: Base64(vec![1]),
        driver: Some(driver()),
        templating: Some(driver()),
        rest: more(),
    };
    let shape = "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]";
    let rows = |kind: &'static str| -> Vec<Row> {
        let is_secret = kind == "secret";
        vec![
            ("Name", json!("-x"), Err(shape)),
            ("Labels", json!({"a": "b"}), Ok("shown")),
            (
                "Data",
                json!(""),
                Err(if is_secret {
                    "secret data must be larger than 0 and less than 512000 bytes"
                } else {
                    "config data must be larger than 0 and less than 1024000 bytes"
                }),
            ),
            (
                "Driver",
                json!({"Name": "vault"}),
                Err(if is_secret {
                    "secret data must be empty when using an external secret driver"
                } else {
                    "configs have no drivers"
                }),
            ),
            ("Templating", json!({"Name": "golang"}), Ok("agent/deliver")),
            (
                "Unheard",
                json!(1),
                Err("Unheard 1 is not supported by weft"),
            ),
        ]
    };
    let base = json!({"Name": "key", "Data": "aGFsbG8="});
    every_field_has_a_row(everything, &rows("secret"));
    each_row_holds::<SecretSpec>(&base, &rows("secret"), secret_spec);
    each_row_holds::<SecretSpec>(&base, &rows("config"), config_spec);
    let jinja = "template driver \"jinja\" of secret key is not known: golang is";
    let driven = "external secret drivers are not supported";
    let option = "option a=b of the template driver of secret key is not supported by weft";
    let rows: Vec<Row> = vec![
        ("Templating", json!({"Name": "jinja"}), Err(jinja)),
        (
            "Templating",
            json!({"Name": "golang", "Options": {"a": "b"}}),
            Err(option),
        ),
        ("Name", json!(""), Err("name must be provided")),
    ];
    each_row_holds::<SecretSpec>(&base, &rows, secret_spec);
    let rows: Vec<Row> = vec![
        ("Driver", json!({"Name": "vault"}), Err(driven)),
        ("Driver", json!({"Options": {"a": "b"}}), Err(driven)),
    ];
    each_row_holds::<SecretSpec>(&json!({"Name": "key"}), &rows, secret_spec);
    // A template that no agent could expand.
    let bad = json!({"Name": "key", "Data": "e3tyYW5nZSAueH19"});
    let refused = "expanding secret key failed: template: expansion:1:2: executing \"expansion\" at <range .x>: can't evaluate range .x: weft knows fields, index, join, secret, config and env";
    let rows: Vec<Row> = vec![("Templating", json!({"Name": "golang"}), Err(refused))];
    each_row_holds::<SecretSpec>(&bad, &rows, secret_spec);
}
