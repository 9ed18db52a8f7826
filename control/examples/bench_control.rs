//! Figures of the control plane, each with its method: run it built for release,
//! `cargo run --release -p weft-control --example bench_control`.
//!
//! Everything runs in this one process on loopback, on a real disk with real syncs; agents are
//! scripted and report each task running as soon as they see it.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use cluster::*;
use weft_control::runtime::Manager;
use weft_proto::{
    ControlApi, ControlReply, ControlRequest,
    dispatcher::{ManagerMessage, NodeMessage},
    identity::Credentials,
};
use weft_types::{
    TaskState, Timestamp,
    container::ContainerSpec,
    network::{IpamConfig, IpamOptions, NetworkSpec},
    secret::{Base64, ConfigSpec},
    service::{NetworkAttachmentConfig, Replicated, ServiceSpec},
    task::TaskStatus,
};

/// Writes in one measurement.
const WRITES: usize = 300;

fn config(name: String) -> ControlRequest {
    ControlRequest::CreateConfig(Box::new(ConfigSpec {
        name,
        data: Base64(vec![b'x'; 100]),
        ..ConfigSpec::default()
    }))
}

async fn write_many(manager: &Arc<Manager>, what: &str) -> f64 {
    let begun = Instant::now();
    for number in 0..WRITES {
        let made = manager.call(config(format!("{what}-{number}"))).await;
        assert!(made.is_ok(), "{made:?}");
    }
    WRITES as f64 / begun.elapsed().as_secs_f64()
}

/// An agent that runs whatever it is given, in no time at all; it finds the leader by trying.
async fn obedient(managers: Vec<SocketAddr>, credentials: Credentials, hostname: String) {
    for at in managers.iter().cycle() {
        session(*at, &credentials, &hostname).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn session(at: SocketAddr, credentials: &Credentials, hostname: &str) {
    if tokio::net::TcpStream::connect(at).await.is_err() {
        return;
    }
    let mut agent = Agent::open(at, credentials, hostname).await;
    agent.keep_alive();
    let mut sequence = 0;
    while let Ok(Some(message)) = agent.hear.message().await {
        match message {
            ManagerMessage::NetState(delta) => {
                let applied = NodeMessage::Applied {
                    revision: delta.revision,
                    draining: Vec::new(),
                };
                if agent.say.send(applied).await.is_err() {
                    return;
                }
            }
            ManagerMessage::Assignments(set) => {
                let updates: Vec<_> = set
                    .tasks
                    .iter()
                    .filter_map(|task| {
                        let state = match task.desired_state {
                            TaskState::Running => TaskState::Running,
                            wished if wished > TaskState::Running && task.withdrawn => {
                                TaskState::Shutdown
                            }
                            _ => return None,
                        };
                        (task.status.state < state).then(|| {
                            let status = TaskStatus {
                                timestamp: Timestamp(1),
                                state,
                                ..TaskStatus::default()
                            };
                            (task.id, status)
                        })
                    })
                    .collect();
                if updates.is_empty() {
                    continue;
                }
                sequence += 1;
                if agent
                    .say
                    .send(NodeMessage::Status { sequence, updates })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            _ => {}
        }
    }
}

fn service(name: &str, replicas: u64) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name.to_owned(),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(Replicated {
        replicas: Some(replicas),
    });
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "busybox:latest".to_owned(),
        ..ContainerSpec::default()
    });
    spec.endpoint_spec = Some(weft_types::service::EndpointSpec {
        ports: Some(vec![weft_types::service::PortConfig {
            target_port: 80,
            published_port: 0,
            ..Default::default()
        }]),
        ..Default::default()
    });
    spec
}

async fn running(manager: &Manager, wanted: usize) -> Duration {
    let begun = Instant::now();
    loop {
        let running = tasks(manager).await;
        let running = running
            .iter()
            .filter(|task| task.status.state == TaskState::Running)
            .count();
        if running >= wanted {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{running} of {wanted} tasks run"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Resident memory of this process, in MiB.
fn rss_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn say(what: &str, figure: String, method: &str) {
    println!("{what:<46} {figure:>12}   {method}");
}

#[tokio::main]
async fn main() {
    log_to_stderr();
    let hosts = [Host::new(), Host::new(), Host::new()];
    let first = hosts[0].init().await;
    let rate = write_many(&first, "one").await;
    say(
        "commits/s, 1 manager",
        format!("{rate:.0}"),
        "one writer, each write waits for the one before",
    );

    let tokens = cluster_of(&first).await.join_tokens;
    let second = hosts[1].join_manager(hosts[0].addr, &tokens.manager).await;
    let third = hosts[2].join_manager(hosts[0].addr, &tokens.manager).await;
    let rate = write_many(&first, "three").await;
    say(
        "commits/s, 3 managers",
        format!("{rate:.0}"),
        "same, through the leader",
    );

    for (host, name) in hosts.iter().zip(["n1", "n2", "n3"]) {
        let credentials = host.credentials();
        let managers = hosts.iter().map(|host| host.addr).collect();
        tokio::spawn(obedient(managers, credentials, name.to_owned()));
    }
    eventually("three ready nodes", || async {
        let nodes = nodes(&first).await;
        let ready = nodes
            .iter()
            .filter(|node| node.status.state == weft_types::node::NodeState::Ready);
        (ready.count() == 3).then_some(())
    })
    .await;

    let begun = Instant::now();
    let create = ControlRequest::CreateService {
        spec: Box::new(service("web", 1)),
        registry_auth: String::new(),
    };
    first.call(create).await.expect("created");
    running(&first, 1).await;
    let index = tasks(&first).await[0].meta.version.index;
    loop {
        let nodes = nodes(&first).await;
        if nodes.iter().all(|node| node.applied_revision >= index) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    say(
        "service create → every node acknowledges it",
        format!("{} ms", begun.elapsed().as_millis()),
        "1 replica running, its endpoint held by 3 scripted nodes",
    );

    // A network that holds them all.
    let mut spec = NetworkSpec {
        name: "wide".to_owned(),
        ipam_options: Some(IpamOptions {
            configs: vec![IpamConfig {
                subnet: "10.64.0.0/16".parse().ok(),
                ..IpamConfig::default()
            }],
            ..IpamOptions::default()
        }),
        ..NetworkSpec::default()
    };
    spec.driver_configuration.name = "overlay".to_owned();
    let Ok(ControlReply::Created(network)) = first
        .call(ControlRequest::CreateNetwork(Box::new(spec)))
        .await
    else {
        panic!("no network");
    };
    let many = |replicas| {
        let mut spec = service("many", replicas);
        spec.endpoint_spec = None;
        spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
            target: network.clone(),
            ..NetworkAttachmentConfig::default()
        }]);
        Box::new(spec)
    };
    let create = ControlRequest::CreateService {
        spec: many(1),
        registry_auth: String::new(),
    };
    let Ok(ControlReply::Created(id)) = first.call(create).await else {
        panic!("not created");
    };
    running(&first, 2).await;
    for wanted in [500u64, 2_000] {
        let Ok(ControlReply::Services(services)) =
            first.call(ControlRequest::GetService(id.clone())).await
        else {
            panic!("no service");
        };
        let request = ControlRequest::UpdateService {
            service: id.clone(),
            version: services[0].meta.version.index,
            spec: many(wanted),
            registry_auth: None,
            rollback: false,
        };
        let begun = Instant::now();
        first.call(request).await.expect("scaled");
        running(&first, usize::try_from(wanted).unwrap_or(usize::MAX)).await;
        say(
            &format!("scale to {wanted} tasks"),
            format!("{} ms", begun.elapsed().as_millis()),
            "until all are reported running by 3 scripted nodes",
        );
        say(
            &format!("memory with {wanted} tasks"),
            format!("{:.0} MiB", rss_mib()),
            "3 managers and 3 scripted nodes in one process",
        );
    }

    let begun = Instant::now();
    first.shutdown().await;
    let begun_dead = Instant::now();
    let mut number = 0;
    while second
        .call(config(format!("after-{number}")))
        .await
        .is_err()
    {
        number += 1;
        assert!(begun.elapsed() < Duration::from_secs(30), "no new leader");
    }
    say(
        "leader's death → next acknowledged write",
        format!("{} ms", begun_dead.elapsed().as_millis()),
        "written through a follower",
    );
    second.shutdown().await;
    third.shutdown().await;
}
