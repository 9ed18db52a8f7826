//! Golden scripts: state in, changes out, in `control/tests/golden/*.txt`.
//!
//! A script's lines are wishes and time; under each stands, after `> `, what changed meanwhile.
//! `WEFT_GOLDEN=write cargo test -p weft-control golden` writes what is so now, to be read as a
//! difference.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use weft_proto::ControlRequest;
use weft_types::{
    NodeId, TaskId, TaskState, Timestamp,
    node::Availability,
    service::{
        Empty, PortConfig, Protocol, PublishMode, Replicated, ReplicatedJob, ServiceMode,
        ServiceSpec, UpdateConfig,
    },
    task::{Placement, PlacementPreference, RestartPolicy, Spread},
};

use super::World;
use crate::{fixture, store::Change};

/// One script under way.
struct Telling {
    world: World,
    /// What was last told of each task: node, desired, observed, why it waits.
    known: BTreeMap<TaskId, (Option<NodeId>, TaskState, TaskState, String)>,
    /// Tasks by the names they have here, `service.place#attempt`.
    names: BTreeMap<TaskId, String>,
    /// What was last told of each service's update, and when that had begun.
    statuses: BTreeMap<String, (String, Option<Timestamp>)>,
    begun: Timestamp,
}

fn node(name: &str) -> NodeId {
    let number = name.strip_prefix('n').and_then(|n| n.parse().ok());
    NodeId::numbered(number.unwrap_or_else(|| panic!("{name} is no node")))
}

fn node_name(id: NodeId) -> String {
    let number = (1..100).find(|number| NodeId::numbered(*number) == id);
    number.map_or_else(|| "nowhere".to_owned(), |number| format!("n{number}"))
}

fn seconds(text: &str) -> Duration {
    let seconds = text.strip_suffix('s').and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("{text} is no time")))
}

fn nanos(text: &str) -> i64 {
    i64::try_from(seconds(text).as_nanos()).unwrap()
}

/// Edits `spec` as `wishes`, words of the form `key=value`, say.
fn edit(spec: &mut ServiceSpec, wishes: &[&str]) {
    for wish in wishes {
        let (key, value) = wish.split_once('=').unwrap_or((wish, ""));
        let count = || value.parse::<u64>().unwrap();
        let (config, rest) = match key.strip_prefix("rollback-") {
            Some(rest) => (&mut spec.rollback_config, rest),
            None => (&mut spec.update_config, key),
        };
        if steer(config, rest, value) {
            continue;
        }
        match key {
            "image" => {
                let template = &mut spec.task_template;
                let container = template.container_spec.as_mut().unwrap();
                value.clone_into(&mut container.image);
            }
            "force" => spec.task_template.force_update += 1,
            "restart" => value.clone_into(&mut restart(spec).condition),
            "restart-delay" => restart(spec).delay = Some(nanos(value)),
            "attempts" => restart(spec).max_attempts = Some(count()),
            "window" => restart(spec).window = Some(nanos(value)),
            "constraint" => placement(spec)
                .constraints
                .get_or_insert_default()
                .push(value.to_owned()),
            "spread" => {
                placement(spec)
                    .preferences
                    .get_or_insert_default()
                    .push(PlacementPreference {
                        spread: Some(Spread {
                            spread_descriptor: value.to_owned(),
                        }),
                    })
            }
            "max-per-node" => placement(spec).max_replicas = count(),
            "replicas" => {
                spec.mode.replicated = Some(Replicated {
                    replicas: Some(count()),
                })
            }
            "global" => {
                spec.mode = ServiceMode {
                    global: Some(Empty {}),
                    ..ServiceMode::default()
                }
            }
            "global-job" => {
                spec.mode = ServiceMode {
                    global_job: Some(Empty {}),
                    ..ServiceMode::default()
                }
            }
            "job" => {
                let (total, concurrent) = value.split_once('/').unwrap();
                spec.mode = ServiceMode {
                    replicated_job: Some(ReplicatedJob {
                        max_concurrent: concurrent.parse().ok(),
                        total_completions: total.parse().ok(),
                    }),
                    ..ServiceMode::default()
                };
            }
            "host-port" => {
                let (port, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
                spec.endpoint_spec.get_or_insert_default().ports = Some(vec![PortConfig {
                    target_port: 80,
                    published_port: port.parse().unwrap(),
                    protocol: match protocol {
                        "tcp" => Protocol::Tcp,
                        "udp" => Protocol::Udp,
                        _ => panic!("a port of {protocol}"),
                    },
                    publish_mode: PublishMode::Host,
                    ..PortConfig::default()
                }]);
            }
            _ => panic!("nobody knows what {wish} means"),
        }
    }
}

/// Sets what `key` names of how an update, or a rollback, goes about; `false` when it names nothing
/// of that.
fn steer(config: &mut Option<UpdateConfig>, key: &str, value: &str) -> bool {
    let mut steered = config.clone().unwrap_or_else(|| UpdateConfig {
        parallelism: 1,
        ..UpdateConfig::default()
    });
    match key {
        "order" => value.clone_into(&mut steered.order),
        "parallelism" => steered.parallelism = value.parse().unwrap(),
        "delay" => steered.delay = nanos(value),
        "monitor" => steered.monitor = Some(nanos(value)),
        "on-failure" => value.clone_into(&mut steered.failure_action),
        "ratio" => steered.max_failure_ratio = value.parse().unwrap(),
        _ => return false,
    }
    *config = Some(steered);
    true
}

fn restart(spec: &mut ServiceSpec) -> &mut RestartPolicy {
    spec.task_template.restart_policy.get_or_insert_default()
}

fn placement(spec: &mut ServiceSpec) -> &mut Placement {
    spec.task_template.placement.get_or_insert_default()
}

impl Telling {
    fn new(nodes: u32) -> Self {
        let world = World::new(nodes, 1);
        Self {
            begun: world.now,
            world,
            known: BTreeMap::new(),
            names: BTreeMap::new(),
            statuses: BTreeMap::new(),
        }
    }

    /// Carries out one line and says what changed.
    fn carry_out(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut told = String::new();
        match words.as_slice() {
            ["service", name, wishes @ ..] => {
                let mut spec = fixture::service(0, name, 1).spec;
                edit(&mut spec, wishes);
                self.world.create(spec);
            }
            ["update", name, wishes @ ..] => {
                let id = self.service(name);
                self.world.update(id, |spec| edit(spec, wishes));
            }
            ["rollback", name] => {
                let service = self.world.service(self.service(name));
                let request = ControlRequest::UpdateService {
                    service: service.id.to_string(),
                    version: service.meta.version.index,
                    spec: Box::new(service.spec),
                    registry_auth: None,
                    auth_from_previous: false,
                    rollback: true,
                };
                self.world.ask(&request).unwrap();
            }
            ["remove", name] => {
                let request = ControlRequest::RemoveService((*name).to_owned());
                self.world.ask(&request).unwrap();
            }
            ["node", name, "label", label] => {
                let (key, value) = label.split_once('=').unwrap();
                let view = self.world.view();
                let known = view.node(node(name)).unwrap();
                let mut spec = known.spec.clone();
                spec.labels.insert(key.to_owned(), value.to_owned());
                let request = ControlRequest::UpdateNode {
                    node: known.id.to_string(),
                    version: known.meta.version.index,
                    spec,
                };
                self.world.ask(&request).unwrap();
            }
            ["node", name, "engine-label", label] => {
                let (key, value) = label.split_once('=').unwrap();
                let view = self.world.view();
                let mut known = view.node(node(name)).unwrap().as_ref().clone();
                let labels = &mut known.description.engine.labels;
                labels.insert(key.to_owned(), value.to_owned());
                self.world.commit(vec![Change::put(known)]);
            }
            ["node", name, "down"] => self.world.silence(node(name)),
            ["node", name, "back"] => self.world.revive(node(name)),
            ["node", name, "removed"] => {
                let request = ControlRequest::RemoveNode {
                    node: node(name).to_string(),
                    force: true,
                };
                self.world.ask(&request).unwrap();
            }
            ["history", limit] => {
                let cluster = self.world.view().cluster().unwrap().as_ref().clone();
                let mut spec = cluster.spec;
                spec.orchestration.task_history_retention_limit = Some(limit.parse().unwrap());
                let request = ControlRequest::UpdateCluster {
                    version: cluster.meta.version.index,
                    spec: Box::new(spec),
                    rotate_worker_token: false,
                    rotate_manager_token: false,
                    rotate_unlock_key: false,
                };
                self.world.ask(&request).unwrap();
            }
            ["leader", "changes"] => self.world.change_leader(),
            ["node", name, wish] => {
                let availability = match *wish {
                    "active" => Availability::Active,
                    "pause" => Availability::Pause,
                    "drain" => Availability::Drain,
                    _ => panic!("a node cannot be {wish}"),
                };
                self.world.availability(node(name), availability);
            }
            ["crash", place] => self.world.crash(self.running(place)),
            ["finish", place] => self.world.finish(self.running(place)),
            ["wait", time] => {
                let until = self.world.now.after(seconds(time));
                self.tell_changes(&mut told);
                while self.world.now < until {
                    self.world.tick();
                    self.tell_changes(&mut told);
                }
            }
            _ => panic!("nobody knows what {line:?} means"),
        }
        self.tell_changes(&mut told);
        told
    }

    fn service(&self, name: &str) -> weft_types::ServiceId {
        let view = self.world.view();
        let service = view.service_named(name);
        service.unwrap_or_else(|| panic!("there is no {name}")).id
    }

    /// The task that is meant to run in a place, and does.
    fn running(&self, place: &str) -> TaskId {
        let view = self.world.view();
        let runs = |id: &TaskId| {
            let task = view.task(*id);
            task.is_some_and(|task| {
                task.status.state == TaskState::Running && task.desired_state == TaskState::Running
            })
        };
        let mut known = self.names.iter();
        let found = known.find(|(id, name)| name.split('#').next() == Some(place) && runs(id));
        *found.unwrap_or_else(|| panic!("{place} does not run")).0
    }

    /// Tells what is otherwise than when it was last told.
    fn tell_changes(&mut self, told: &mut String) {
        let view = self.world.view();
        let at = self.world.now.since(self.begun).as_secs_f64();
        let mut lines = Vec::new();
        let mut tasks: Vec<_> = view.tasks().cloned().collect();
        tasks.sort_by_key(|task| (task.meta.created_at, task.slot, task.node_id, task.id));
        for task in &tasks {
            let name = self.name(task);
            let now = (
                task.node_id,
                task.desired_state,
                task.status.state,
                task.status.err.clone(),
            );
            let old = self.known.insert(task.id, now.clone());
            let mut words = Vec::new();
            if old.is_none() {
                words.push("made".to_owned());
            }
            let was_placed = old.as_ref().is_some_and(|old| old.0.is_some());
            if let (Some(node), false) = (task.node_id, was_placed) {
                words.push(format!("on {}", node_name(node)));
            }
            if old.as_ref().is_none_or(|old| old.1 != task.desired_state) {
                words.push(format!("to be {}", task.desired_state));
            }
            let is_new_state = old.as_ref().is_none_or(|old| old.2 != task.status.state);
            if is_new_state && task.status.state >= TaskState::Running {
                words.push(format!("is {}", task.status.state));
            }
            if !now.3.is_empty() && old.as_ref().is_none_or(|old| old.3 != now.3) {
                words.push(format!("({})", now.3));
            }
            if !words.is_empty() {
                lines.push(format!("{name} {}", words.join(", ")));
            }
        }
        let gone: Vec<TaskId> = self
            .known
            .keys()
            .filter(|id| view.task(**id).is_none())
            .copied()
            .collect();
        for id in gone {
            self.known.remove(&id);
            let name = self.names.get(&id).cloned().unwrap_or_default();
            lines.push(format!("{name} forgotten"));
        }
        for service in view.services() {
            let status = service.update_status.as_ref();
            let text = status.map_or_else(String::new, |status| {
                format!("{:?} ({})", status.state, self.renamed(&status.message))
            });
            let name = &service.spec.name;
            let now = (text, status.and_then(|status| status.started_at));
            if self.statuses.entry(name.clone()).or_default() != &now {
                lines.push(format!("{name}: {}", now.0));
                self.statuses.insert(name.clone(), now);
            }
        }
        lines.sort();
        for line in lines {
            let _ = writeln!(told, "> {at:>5.1}s {line}");
        }
    }

    /// Text with tasks' ids replaced by their names here.
    fn renamed(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (id, name) in &self.names {
            text = text.replace(&id.to_string(), name);
        }
        text
    }

    fn name(&mut self, task: &weft_types::task::Task) -> String {
        if let Some(name) = self.names.get(&task.id) {
            return name.clone();
        }
        let place = match task.node_id {
            Some(node) if task.slot == 0 && self.is_global(task) => node_name(node),
            _ => task.slot.to_string(),
        };
        let stem = format!("{}.{place}#", task.service_name);
        let earlier = self.names.values().filter(|name| name.starts_with(&stem));
        let name = format!("{stem}{}", earlier.count() + 1);
        self.names.insert(task.id, name.clone());
        name
    }

    fn is_global(&self, task: &weft_types::task::Task) -> bool {
        let view = self.world.view();
        let service = task.service_id.and_then(|id| view.service(id).cloned());
        service.is_some_and(|service| {
            service.spec.mode.global.is_some() || service.spec.mode.global_job.is_some()
        })
    }
}

/// The script with what changes under each of its lines now.
fn told_anew(script: &str) -> String {
    let mut out = String::new();
    let mut telling: Option<Telling> = None;
    for line in script.lines().filter(|line| !line.starts_with('>')) {
        out.push_str(line);
        out.push('\n');
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        match (line.strip_prefix("nodes "), &mut telling) {
            (Some(count), _) => telling = Some(Telling::new(count.parse().unwrap())),
            (None, Some(telling)) => out.push_str(&telling.carry_out(line)),
            (None, None) => panic!("a script begins with its nodes"),
        }
    }
    out
}

#[test]
fn golden_scripts_tell_what_they_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut scripts: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 12, "golden scripts are missing");
    for path in scripts {
        let script = fs::read_to_string(&path).unwrap();
        let told = told_anew(&script);
        if std::env::var_os("WEFT_GOLDEN").is_some() {
            fs::write(&path, told).unwrap();
            continue;
        }
        let first = script
            .lines()
            .zip(told.lines())
            .find(|(old, new)| old != new);
        assert!(
            script == told,
            "{}: {first:?}\nwrite it anew with WEFT_GOLDEN=write and read the difference\n{told}",
            path.display()
        );
    }
}
