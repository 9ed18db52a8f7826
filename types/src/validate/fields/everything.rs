//! A service spec in which every field says something.

use serde_json::{Map, Value, json};

use super::MOUNT_OPTIONS;
use crate::{
    Labels,
    container::{
        ConfigReference, ContainerSpec, DnsConfig, FileTarget, Healthcheck, Mount, SecretReference,
        Ulimit,
    },
    service::{
        Empty, EndpointMode, EndpointSpec, NetworkAttachmentConfig, PortConfig, Protocol,
        PublishMode, Replicated, ReplicatedJob, ServiceMode, ServiceSpec, UpdateConfig,
    },
    task::{
        DiscreteResource, GenericResource, LogDriver, NamedResource, NetworkAttachmentSpec,
        Placement, PlacementPreference, Platform, ResourceRequirements, Resources, RestartPolicy,
        Spread, TaskSpec,
    },
};

/// Every field of every type, spelt out: a new one does not compile until it is set here, and has
/// no row until it has been thought about.
pub(super) fn everything() -> Value {
    let text = || Some("x".to_owned());
    let labels = || Labels::from([("a".to_owned(), "b".to_owned())]);
    let more = |name: &str| {
        [(name.to_owned(), json!(1))]
            .into_iter()
            .collect::<Map<_, _>>()
    };
    let list = || Some(vec!["x".to_owned()]);
    let file = || {
        Some(FileTarget {
            name: "f".into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 292,
        })
    };
    let attachment = || NetworkAttachmentConfig {
        target: "n".into(),
        aliases: list(),
        driver_opts: Some(labels()),
    };
    let update = || UpdateConfig {
        parallelism: 1,
        delay: 1,
        failure_action: "pause".into(),
        monitor: Some(1),
        max_failure_ratio: 0.5,
        order: "stop-first".into(),
    };
    let amount = || Resources {
        nano_cpus: 1,
        memory_bytes: 1,
        pids: 1,
        generic_resources: Some(vec![GenericResource {
            named_resource_spec: Some(NamedResource {
                kind: "k".into(),
                value: "v".into(),
            }),
            discrete_resource_spec: Some(DiscreteResource {
                kind: "k".into(),
                value: 1,
            }),
        }]),
    };
    let mut mount_options = more("ClusterOptions");
    mount_options.extend(MOUNT_OPTIONS.map(|name| (name.to_owned(), json!(1))));
    let container = ContainerSpec {
        image: "x".into(),
        labels: Some(labels()),
        command: list(),
        args: list(),
        hostname: text(),
        env: list(),
        dir: text(),
        user: text(),
        groups: list(),
        privileges: Some(
            json!({"CredentialSpec": 1, "SELinuxContext": 1, "Seccomp": 1,
            "AppArmor": 1, "NoNewPrivileges": true, "Unheard": 1}),
        ),
        init: Some(true),
        stop_signal: text(),
        tty: true,
        open_stdin: true,
        read_only: true,
        mounts: Some(vec![Mount {
            kind: "x".into(),
            source: "x".into(),
            target: "x".into(),
            read_only: true,
            rest: mount_options,
        }]),
        stop_grace_period: Some(1),
        healthcheck: Some(Healthcheck {
            test: list(),
            interval: Some(1),
            timeout: Some(1),
            start_period: Some(1),
            start_interval: Some(1),
            retries: Some(1),
            rest: more("Unheard"),
        }),
        hosts: list(),
        dns_config: Some(DnsConfig {
            nameservers: list(),
            search: list(),
            options: list(),
        }),
        secrets: Some(vec![SecretReference {
            file: file(),
            secret_id: crate::SecretId::numbered(1),
            secret_name: "x".into(),
        }]),
        configs: Some(vec![ConfigReference {
            file: file(),
            runtime: Some(json!({})),
            config_id: crate::ConfigId::numbered(1),
            config_name: "x".into(),
        }]),
        isolation: text(),
        sysctls: Some(labels()),
        capability_add: list(),
        capability_drop: list(),
        ulimits: Some(vec![Ulimit {
            name: "x".into(),
            hard: 1,
            soft: 1,
        }]),
        oom_score_adj: Some(1),
        rest: more("Unheard"),
    };
    let spec = ServiceSpec {
        name: "x".into(),
        labels: labels(),
        task_template: TaskSpec {
            container_spec: Some(container),
            network_attachment_spec: Some(NetworkAttachmentSpec {
                container_id: "x".into(),
            }),
            resources: Some(ResourceRequirements {
                limits: Some(amount()),
                reservations: Some(amount()),
                rest: more("Unheard"),
            }),
            restart_policy: Some(RestartPolicy {
                condition: "any".into(),
                delay: Some(1),
                max_attempts: Some(1),
                window: Some(1),
            }),
            placement: Some(Placement {
                constraints: list(),
                preferences: Some(vec![PlacementPreference {
                    spread: Some(Spread {
                        spread_descriptor: "x".into(),
                    }),
                }]),
                max_replicas: 1,
                platforms: Some(vec![Platform {
                    architecture: "x".into(),
                    os: "x".into(),
                }]),
                rest: more("Unheard"),
            }),
            networks: Some(vec![attachment()]),
            log_driver: Some(LogDriver {
                name: "x".into(),
                options: Some(labels()),
            }),
            force_update: 1,
            runtime: text(),
            rest: more("Unheard"),
        },
        mode: ServiceMode {
            replicated: Some(Replicated { replicas: Some(1) }),
            global: Some(Empty {}),
            replicated_job: Some(ReplicatedJob {
                max_concurrent: Some(1),
                total_completions: Some(1),
            }),
            global_job: Some(Empty {}),
        },
        update_config: Some(update()),
        rollback_config: Some(update()),
        networks: Some(vec![attachment()]),
        endpoint_spec: Some(EndpointSpec {
            mode: Some(EndpointMode::Vip),
            ports: Some(vec![PortConfig {
                name: "x".into(),
                protocol: Protocol::Tcp,
                target_port: 1,
                published_port: 1,
                publish_mode: PublishMode::Ingress,
            }]),
        }),
        rest: more("Unheard"),
    };
    serde_json::to_value(spec).unwrap()
}
