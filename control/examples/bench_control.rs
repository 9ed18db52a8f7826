//! Figures of the control plane, each with its method, as rows of a table: run it built for release,
//! `cargo run --release -p weft-control --example bench_control`, or by `cargo xtask bench control`.
//!
//! Everything runs on loopback, on a real disk with real syncs; nodes are scripted and report each
//! task running as soon as they see it. Memory is measured in a process of its own, which `memory`
//! as the only argument begins by itself.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use cluster::*;
use tokio::task::JoinSet;
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

/// Runs of each measurement; the median is told.
const RUNS: usize = 5;

/// Writes in one run.
const WRITES: usize = 300;

/// Tasks at which memory is looked at.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Replicas of each service while memory is measured.
const REPLICAS: usize = 10;

/// Services asked for at once while memory is measured.
const TOGETHER: usize = 50;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long making the tasks of one size may take: what takes longer is told as not reached.
const SIZE_LIMIT: Duration = Duration::from_secs(900);

/// A row of the table.
fn say(what: &str, figure: &str, method: &str) {
    println!("| {what} | {figure} | {method} |");
}

/// The median of some runs, and their span.
fn median(mut runs: Vec<f64>, unit: &str) -> String {
    runs.sort_by(f64::total_cmp);
    let (least, most) = (runs[0], runs[runs.len() - 1]);
    let middle = runs[runs.len() / 2];
    format!("**{middle:.0} {unit}** ({least:.0} to {most:.0})")
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
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

fn config(name: String) -> ControlRequest {
    ControlRequest::CreateConfig(Box::new(ConfigSpec {
        name,
        data: Base64(vec![b'x'; 100]),
        ..ConfigSpec::default()
    }))
}

/// Commits in a second, one writer, each write after the one before.
async fn commits(manager: &Manager, what: &str) -> String {
    let mut runs = Vec::new();
    for run in 0..RUNS {
        let begun = Instant::now();
        for number in 0..WRITES {
            let made = manager.call(config(format!("{what}-{run}-{number}"))).await;
            assert!(made.is_ok(), "{made:?}");
        }
        runs.push(WRITES as f64 / begun.elapsed().as_secs_f64());
    }
    median(runs, "/s")
}

/// A node that runs whatever it is given, in no time at all; it finds the leader by trying.
async fn obedient(managers: Vec<SocketAddr>, credentials: Credentials, hostname: String) {
    for at in managers.iter().cycle() {
        session(*at, &credentials, &hostname).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a node says of tasks that it was just given.
fn obeyed(tasks: &[weft_types::task::Task]) -> Vec<(weft_types::TaskId, TaskStatus)> {
    let updates = tasks.iter().filter_map(|task| {
        let state = match task.desired_state {
            TaskState::Running => TaskState::Running,
            wished if wished > TaskState::Running && task.withdrawn => TaskState::Shutdown,
            _ => return None,
        };
        let status = TaskStatus {
            timestamp: Timestamp(1),
            state,
            ..TaskStatus::default()
        };
        (task.status.state < state).then_some((task.id, status))
    });
    updates.collect()
}

async fn session(at: SocketAddr, credentials: &Credentials, hostname: &str) {
    if tokio::net::TcpStream::connect(at).await.is_err() {
        return;
    }
    let mut agent = Agent::open(at, credentials, hostname).await;
    agent.keep_alive();
    let mut sequence = 0;
    while let Ok(Some(message)) = agent.hear.message().await {
        let answer = match message {
            ManagerMessage::NetState(delta) => NodeMessage::Applied {
                revision: delta.revision,
            },
            ManagerMessage::Assignments(set) => {
                let updates = obeyed(&set.tasks);
                if updates.is_empty() {
                    continue;
                }
                sequence += 1;
                NodeMessage::Status { sequence, updates }
            }
            _ => continue,
        };
        if agent.say.send(answer).await.is_err() {
            return;
        }
    }
}

/// A network with room for all tasks of a run.
async fn network(manager: &Manager, name: &str, subnet: &str) -> String {
    let mut spec = NetworkSpec {
        name: name.to_owned(),
        ipam_options: Some(IpamOptions {
            configs: vec![IpamConfig {
                subnet: subnet.parse().ok(),
                ..IpamConfig::default()
            }],
            ..IpamOptions::default()
        }),
        ..NetworkSpec::default()
    };
    spec.driver_configuration.name = "overlay".to_owned();
    created(manager, ControlRequest::CreateNetwork(Box::new(spec))).await
}

async fn created(manager: &Manager, request: ControlRequest) -> String {
    match manager.call(request).await {
        Ok(ControlReply::Created(id)) => id,
        other => panic!("not created: {other:?}"),
    }
}

fn service(name: &str, network: &str, replicas: usize) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name.to_owned(),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(Replicated {
        replicas: u64::try_from(replicas).ok(),
    });
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "registry.example/team/application:1.2.3".to_owned(),
        env: Some(
            (0..10)
                .map(|n| format!("SETTING_{n}=value of {n}"))
                .collect(),
        ),
        ..ContainerSpec::default()
    });
    spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
        target: network.to_owned(),
        ..NetworkAttachmentConfig::default()
    }]);
    spec
}

async fn create(manager: &Manager, spec: ServiceSpec) -> String {
    let request = ControlRequest::CreateService {
        spec: Box::new(spec),
        registry_auth: String::new(),
    };
    created(manager, request).await
}

async fn scale(manager: &Manager, id: &str, spec: ServiceSpec) {
    let spec = Box::new(spec);
    let updated = async || {
        let services = manager
            .call(ControlRequest::GetService(id.to_owned()))
            .await;
        let Ok(ControlReply::Services(services)) = services else {
            panic!("no service: {services:?}");
        };
        let request = ControlRequest::UpdateService {
            service: id.to_owned(),
            version: services[0].meta.version.index,
            spec: spec.clone(),
            registry_auth: None,
            auth_from_previous: false,
            rollback: false,
        };
        manager.call(request).await
    };
    // The service may change between the two calls.
    while let Err(error) = updated().await {
        assert!(error.message.contains("out of sequence"), "{error}");
    }
}

/// How many tasks run.
async fn running_now(manager: &Manager) -> usize {
    let tasks = tasks(manager).await;
    let running = tasks
        .iter()
        .filter(|task| task.status.state == TaskState::Running);
    running.count()
}

/// Waits until just so many tasks run, looking every `pause`.
async fn running(manager: &Manager, wanted: usize, pause: Duration) {
    let begun = Instant::now();
    loop {
        let running = running_now(manager).await;
        if running == wanted {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{running} of {wanted} tasks run"
        );
        tokio::time::sleep(pause).await;
    }
}

/// From a request until every node has acknowledged a revision with all of its outcome.
async fn create_to_acknowledged(manager: &Manager, network: &str) -> String {
    let mut runs = Vec::new();
    for run in 0..RUNS {
        let begun = Instant::now();
        let id = create(manager, service(&format!("seen-{run}"), network, 1)).await;
        running(manager, run + 1, Duration::from_millis(2)).await;
        let tasks = tasks(manager).await;
        let own = tasks
            .iter()
            .filter(|task| task.service_id.is_some_and(|of| of.as_str() == id));
        let index = own.map(|task| task.meta.version.index).max().unwrap_or(0);
        while !nodes(manager)
            .await
            .iter()
            .all(|node| node.applied_revision >= index)
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        runs.push(millis(begun));
    }
    median(runs, "ms")
}

async fn one_to_many(manager: &Manager, network: &str, wanted: usize) -> (String, String) {
    let others = RUNS;
    let id = create(manager, service("many", network, 1)).await;
    running(manager, others + 1, Duration::from_millis(10)).await;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        for (wanted, runs) in [(wanted, &mut up), (1, &mut down)] {
            let begun = Instant::now();
            scale(manager, &id, service("many", network, wanted)).await;
            running(manager, others + wanted, Duration::from_millis(10)).await;
            runs.push(millis(begun));
        }
    }
    (median(up, "ms"), median(down, "ms"))
}

/// Kills the leader, again and again; from its end to the next acknowledged write elsewhere.
async fn fail_over(hosts: &[Host], managers: &mut [Arc<Manager>]) -> String {
    let mut runs = Vec::new();
    for run in 0..RUNS {
        let leader = leader_of(managers).await;
        let other = Arc::clone(&managers[(leader + 1) % managers.len()]);
        managers[leader].shutdown().await;
        let begun = Instant::now();
        let mut number = 0;
        while other
            .call(config(format!("after-{run}-{number}")))
            .await
            .is_err()
        {
            number += 1;
            assert!(begun.elapsed() < PATIENCE, "no new leader");
        }
        runs.push(millis(begun));
        managers[leader] = hosts[leader].restart().await;
        let back = Arc::clone(&managers[leader]);
        eventually("the dead one to serve again", || async {
            back.call(ControlRequest::GetCluster).await.ok()
        })
        .await;
    }
    median(runs, "ms")
}

/// One manager and three nodes, more and more tasks: what its process holds.
async fn memory() {
    let host = Host::new();
    let manager = host.init().await;
    let token = cluster_of(&manager).await.join_tokens.worker;
    let before = rss_mib();
    for name in ["m1", "m2", "m3"] {
        let credentials = Host::new().join(host.addr, &token).await;
        tokio::spawn(obedient(vec![host.addr], credentials, name.to_owned()));
    }
    let mut made = 0;
    let mut networks = Vec::new();
    for wanted in SIZES {
        let begun = Instant::now();
        let making = async {
            while made < wanted {
                // A network has room for 25,000 tasks.
                let number = made / REPLICAS;
                if number.is_multiple_of(25_000 / REPLICAS) {
                    let part = number / (25_000 / REPLICAS);
                    let subnet = format!("10.{}.0.0/16", 64 + part);
                    networks.push(network(&manager, &format!("wide{part}"), &subnet).await);
                }
                let network = networks.last().cloned().unwrap_or_default();
                // Together, as a deployment makes them: one look of the loops serves many.
                let mut asked = JoinSet::new();
                for number in number..number + TOGETHER {
                    let (manager, network) = (Arc::clone(&manager), network.clone());
                    asked.spawn(async move {
                        let spec = service(&format!("s{number}"), &network, REPLICAS);
                        create(&manager, spec).await
                    });
                }
                made += asked.join_all().await.len() * REPLICAS;
            }
            while running_now(&manager).await != wanted {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        if tokio::time::timeout(SIZE_LIMIT, making).await.is_err() {
            let limit = SIZE_LIMIT.as_secs();
            let running = running_now(&manager).await;
            say(
                &format!("memory with {wanted} tasks"),
                "not reached",
                &format!(
                    "{running} tasks ran after {limit} s, {:.0} MiB resident",
                    rss_mib()
                ),
            );
            break;
        }
        let took = begun.elapsed().as_secs();
        manager.compact().await;
        let snapshot = fs::metadata(host.path().join("raft/snapshot")).map_or(0, |file| file.len());
        say(
            &format!("memory with {wanted} tasks"),
            &format!("**{:.0} MiB**", rss_mib()),
            &format!(
                "resident, the whole process: 1 manager, 3 scripted nodes and this program's own \
                 lists ({before:.0} MiB when empty); {} services of {REPLICAS} replicas, {TOGETHER} asked for at once, made in \
                 {took} s; snapshot on disk {:.1} MiB",
                made / REPLICAS,
                snapshot as f64 / f64::from(1 << 20)
            ),
        );
    }
    manager.shutdown().await;
}

async fn speed() {
    let hosts = [Host::new(), Host::new(), Host::new()];
    let first = hosts[0].init().await;
    let rate = commits(&first, "one").await;
    say(
        "commits, 1 manager",
        &rate,
        "one writer, each write waits for the one before; 300 writes a run",
    );
    let tokens = cluster_of(&first).await.join_tokens;
    let second = hosts[1].join_manager(hosts[0].addr, &tokens.manager).await;
    let third = hosts[2].join_manager(hosts[0].addr, &tokens.manager).await;
    let rate = commits(&first, "three").await;
    say("commits, 3 managers", &rate, "the same, through the leader");

    for (host, name) in hosts.iter().zip(["n1", "n2", "n3"]) {
        let managers = hosts.iter().map(|host| host.addr).collect();
        tokio::spawn(obedient(managers, host.credentials(), name.to_owned()));
    }
    eventually("three ready nodes", || async {
        let nodes = nodes(&first).await;
        let ready = |node: &&weft_types::node::Node| {
            node.status.state == weft_types::node::NodeState::Ready
        };
        (nodes.iter().filter(ready).count() == 3).then_some(())
    })
    .await;
    let wide = network(&first, "wide", "10.64.0.0/16").await;
    let took = create_to_acknowledged(&first, &wide).await;
    say(
        "`service create` → all nodes acknowledge it",
        &took,
        "3 managers, 1 replica on an overlay network; until it runs and its endpoint is acknowledged \
         by 3 scripted nodes",
    );
    let (up, down) = one_to_many(&first, &wide, 500).await;
    let method = "3 managers, 3 scripted nodes; until all are reported running, or gone";
    say("1 → 500 tasks", &up, method);
    say("500 → 1 tasks", &down, method);
    let mut managers = [first, second, third];
    let took = fail_over(&hosts, &mut managers).await;
    say(
        "leader's death → next acknowledged write",
        &took,
        "the leader of 3 ends; a client writes through a follower until a write is acknowledged",
    );
    for manager in managers {
        manager.shutdown().await;
    }
}

/// Measures memory in a process that has done nothing else.
fn measure_memory_apart() {
    let me = std::env::current_exe().expect("this program has a path");
    let ended = std::process::Command::new(me).arg("memory").status();
    assert!(ended.is_ok_and(|ended| ended.success()), "no memory rows");
}

#[tokio::main]
async fn main() {
    log_to_stderr();
    if std::env::args().nth(1).is_some_and(|part| part == "memory") {
        memory().await;
        return;
    }
    println!("| What | Figure | Method |");
    println!("| --- | --- | --- |");
    speed().await;
    measure_memory_apart();
}
