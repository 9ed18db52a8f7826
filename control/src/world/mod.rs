//! A little world for tests: one store, all loops, and fake agents under virtual time.

mod golden;
mod stories;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use weft_proto::{ControlError, ControlReply, ControlRequest, dispatcher::AssignmentSet};
use weft_types::{
    NetworkId, NodeId, ServiceId, TaskId, TaskState, Timestamp,
    netstate::{EndpointPhase, NetState},
    network::NetworkSpec,
    node::{Availability, Node, NodeSpec, NodeState},
    service::{Service, ServiceSpec},
    task::{Task, TaskStatus},
};

use crate::{
    api,
    dispatcher::{self, Acks, Told},
    fixture, invariant,
    settle::{self, Settler},
    store::{Change, Draft, IdSource, Store, Transaction, View},
};

/// How long agents take for one step.
pub(crate) const TICK: Duration = Duration::from_millis(100);

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) now: Timestamp,
    pub(crate) ids: IdSource,
    /// Nodes whose agent is there, and since when the others are not.
    silent: BTreeMap<NodeId, Timestamp>,
    /// What agents have of tasks, whatever the managers know.
    seen: BTreeMap<TaskId, TaskState>,
    /// The newest report on each task, sent until somebody takes it.
    reports: BTreeMap<TaskId, TaskStatus>,
    settler: Settler,
    /// Tasks whose program ends at the next tick, and its exit status.
    exits: BTreeMap<TaskId, u8>,
    /// The network as each node's kernel holds it.
    held: BTreeMap<NodeId, NetState>,
    /// What each node was told to run.
    work: BTreeMap<NodeId, AssignmentSet>,
    /// What each node was told in its session.
    told: BTreeMap<NodeId, Told>,
}

/// Takes a step of what a node must run and hold.
fn follow(work: &mut AssignmentSet, step: AssignmentSet) {
    if step.complete {
        *work = step;
        return;
    }
    let is_new = |task: &Task| step.tasks.iter().any(|new| new.id == task.id);
    work.tasks
        .retain(|task| !is_new(task) && !step.removed_tasks.contains(&task.id));
    work.tasks.extend(step.tasks);
    work.secrets
        .retain(|secret| !step.removed_secrets.contains(&secret.id));
    work.secrets.extend(step.secrets);
    work.configs
        .retain(|config| !step.removed_configs.contains(&config.id));
    work.configs.extend(step.configs);
}

/// What such a set asks of its node.
fn asked(work: &AssignmentSet) -> impl PartialEq + std::fmt::Debug {
    let tasks = work.tasks.iter().map(|task| {
        let asks = (task.desired_state, task.withdrawn, task.start_after);
        (task.id, (asks, task.spec_version))
    });
    let tasks: BTreeMap<_, _> = tasks.collect();
    let secrets = work.secrets.iter().map(|secret| (secret.id, secret.meta));
    let configs = work.configs.iter().map(|config| (config.id, config.meta));
    let secrets: BTreeMap<_, _> = secrets.collect();
    let configs: BTreeMap<_, _> = configs.collect();
    (tasks, secrets, configs)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl World {
    /// A cluster of so many ready nodes, with its ingress network.
    pub(crate) fn new(nodes: u32, seed: u64) -> Self {
        let mut world = Self {
            store: Store::new(),
            now: Timestamp(1_800_000_000_000_000_000),
            ids: IdSource::seeded(seed),
            silent: BTreeMap::new(),
            seen: BTreeMap::new(),
            reports: BTreeMap::new(),
            settler: Settler::default(),
            exits: BTreeMap::new(),
            held: BTreeMap::new(),
            work: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        let mut changes = vec![
            Change::put(fixture::cluster()),
            Change::put(fixture::network(1, "ingress")),
        ];
        changes.extend((1..=nodes).map(|number| Change::put(fixture::node(number))));
        world.commit(changes);
        world.settle();
        world
    }

    pub(crate) fn view(&self) -> View {
        self.store.view()
    }

    pub(crate) fn commit(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let index = self.store.index() + 1;
        let before = self.view();
        let transaction = Transaction {
            now: self.now,
            changes,
        };
        self.store
            .apply(index, &transaction)
            .unwrap_or_else(|error| panic!("a loop proposed what the store refuses: {error}"));
        invariant::check(&before, &self.view()).unwrap_or_else(|broken| panic!("{broken}"));
    }

    /// Runs the loops until they are content, and checks that they then are.
    pub(crate) fn settle(&mut self) {
        for _ in 0..50 {
            let outcome = self.settler.settle(&self.view(), self.now, &mut self.ids);
            if outcome.changes.is_empty() {
                // What changed says all there is to do.
                let fresh = settle::settle(&self.view(), self.now, &mut self.ids);
                assert_eq!(fresh.changes, [], "the settler overlooked something");
                return;
            }
            self.commit(outcome.changes);
        }
        let outcome = settle::settle(&self.view(), self.now, &mut self.ids);
        panic!("the loops do not settle: {:#?}", outcome.changes);
    }

    pub(crate) fn ask(&mut self, request: &ControlRequest) -> Result<ControlReply, ControlError> {
        let (changes, reply) = api::handle(&self.view(), self.now, &mut self.ids, request)?;
        self.commit(changes);
        self.settle();
        Ok(reply)
    }

    pub(crate) fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let request = ControlRequest::CreateService {
            spec: Box::new(spec),
            registry_auth: String::new(),
        };
        match self.ask(&request) {
            Ok(ControlReply::Created(id)) => id.parse().unwrap(),
            other => panic!("service was not created: {other:?}"),
        }
    }

    pub(crate) fn create_network(&mut self, spec: NetworkSpec) -> NetworkId {
        match self.ask(&ControlRequest::CreateNetwork(Box::new(spec))) {
            Ok(ControlReply::Created(id)) => id.parse().unwrap(),
            other => panic!("network was not created: {other:?}"),
        }
    }

    pub(crate) fn update(&mut self, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) {
        let service = self.service(id);
        let mut spec = service.spec.clone();
        edit(&mut spec);
        self.ask(&ControlRequest::UpdateService {
            service: id.to_string(),
            version: service.meta.version.index,
            spec: Box::new(spec),
            registry_auth: None,
            auth_from_previous: false,
            rollback: false,
        })
        .unwrap();
    }

    pub(crate) fn service(&self, id: ServiceId) -> Service {
        self.view().service(id).unwrap().as_ref().clone()
    }

    pub(crate) fn tasks(&self, id: ServiceId) -> Vec<Task> {
        let view = self.view();
        let tasks = view.tasks_of(id).map(|task| task.as_ref().clone());
        tasks.collect()
    }

    /// Tasks meant to run that do.
    pub(crate) fn running(&self, id: ServiceId) -> Vec<Task> {
        let mut tasks = self.tasks(id);
        tasks.retain(|task| {
            task.desired_state == TaskState::Running && task.status.state == TaskState::Running
        });
        tasks
    }

    pub(crate) fn crash(&mut self, task: TaskId) {
        self.exits.insert(task, 1);
    }

    /// The task's program ends by itself, and well.
    pub(crate) fn finish(&mut self, task: TaskId) {
        self.exits.insert(task, 0);
    }

    /// Another manager leads: it remembers nothing, and hears of the nodes with the next tick.
    pub(crate) fn change_leader(&mut self) {
        self.settler = Settler::default();
        let changes = dispatcher::unknown(&self.view(), self.now);
        self.commit(changes);
        self.settle();
    }

    pub(crate) fn silence(&mut self, node: NodeId) {
        self.silent.entry(node).or_insert(self.now);
    }

    pub(crate) fn revive(&mut self, node: NodeId) {
        if self.silent.remove(&node).is_some() {
            self.ready(node);
            // A node that comes back takes the network over before it stops anything: others
            // have long agreed on what it never heard.
            self.told.remove(&node);
            self.tell(node);
        }
    }

    pub(crate) fn availability(&mut self, node: NodeId, availability: Availability) {
        self.update_node(node, |spec| spec.availability = availability);
    }

    pub(crate) fn update_node(&mut self, node: NodeId, edit: impl FnOnce(&mut NodeSpec)) {
        let view = self.view();
        let Some(known) = view.node(node) else { return };
        let mut spec = known.spec.clone();
        edit(&mut spec);
        self.ask(&ControlRequest::UpdateNode {
            node: node.to_string(),
            version: known.meta.version.index,
            spec,
        })
        .unwrap();
    }

    /// Time goes on by one tick: agents step and report, silent nodes are found out, loops run.
    pub(crate) fn tick(&mut self) {
        self.now = self.now.after(TICK);
        let silent: Vec<(NodeId, Timestamp)> = self.silent.iter().map(|(n, t)| (*n, *t)).collect();
        for (node, since) in silent {
            if self.now.since(since) > secs(15) {
                let changes = dispatcher::down(&self.view(), self.now, node, "heartbeat failure");
                self.commit(changes);
            }
        }
        let nodes: Vec<NodeId> = self.view().nodes().map(|node| node.id).collect();
        for node in nodes {
            if self.silent.contains_key(&node) {
                continue;
            }
            let is_unknown = |node: &Arc<Node>| node.status.state == NodeState::Unknown;
            if self.view().node(node).is_some_and(is_unknown) {
                self.ready(node);
            }
            let assigned = dispatcher::assignments(&self.view(), node);
            let mut reports = Vec::new();
            for task in &assigned.tasks {
                if self.step(task) {
                    self.may_stop(task);
                }
                // Reports are sent again and again: the newest state is what counts.
                if let Some(status) = self.reports.get(&task.id) {
                    reports.push((task.id, status.clone()));
                }
            }
            let changes = dispatcher::status(&self.view(), self.now, node, &reports);
            self.commit(changes);
        }
        let acks = self.spread_network();
        let outcome = dispatcher::withdraw(&self.view(), self.now, &acks);
        self.commit(outcome.changes);
        self.settle();
    }

    /// One step of a task's agent; the image says how the program behaves.
    /// Says whether a running program was told to stop.
    fn step(&mut self, task: &Task) -> bool {
        use TaskState as S;
        let seen = self.seen.get(&task.id).copied();
        let seen = seen.unwrap_or(task.status.state).max(task.status.state);
        let image = task
            .spec
            .container_spec
            .as_ref()
            .map_or("", |c| c.image.as_str());
        let stop = task.desired_state > S::Complete;
        let run = (S::Running..=S::Complete).contains(&task.desired_state);
        let (next, err) = match seen {
            _ if seen.is_terminal() => return false,
            S::Running if self.exits.contains_key(&task.id) => match self.exits.remove(&task.id) {
                Some(0) => (S::Complete, ""),
                _ => (S::Failed, "task: non-zero exit (1)"),
            },
            _ if stop && (task.withdrawn || seen < S::Running) => (S::Shutdown, ""),
            S::Assigned => (S::Accepted, ""),
            S::Accepted => (S::Preparing, ""),
            S::Preparing if image == "missing" => (S::Rejected, "No such image: missing"),
            S::Preparing => (S::Ready, ""),
            S::Ready if run => (S::Starting, ""),
            S::Starting if image == "unhealthy" => (S::Failed, "task: non-zero exit (137)"),
            S::Starting => (S::Running, ""),
            S::Running if image == "crash" => (S::Failed, "task: non-zero exit (3)"),
            S::Running if image == "job" => (S::Complete, ""),
            _ => return false,
        };
        self.seen.insert(task.id, next);
        let status = TaskStatus {
            timestamp: self.now,
            state: next,
            err: err.to_owned(),
            ..TaskStatus::default()
        };
        self.reports.insert(task.id, status);
        seen == S::Running && next == S::Shutdown
    }

    /// Nodes take over at once what they are told of the network.
    fn spread_network(&mut self) -> Acks {
        let view = self.view();
        let mut acks = Acks::default();
        for node in view.nodes().map(|node| node.id) {
            if self.silent.contains_key(&node) {
                continue;
            }
            self.tell(node);
            let index = view.index();
            acks.applied.insert(node, index);
        }
        acks
    }

    /// Tells a node, by steps, what the view says of network and work, and looks that it then knows
    /// all of it.
    fn tell(&mut self, node: NodeId) {
        let view = self.view();
        let told = self.told.entry(node).or_default();
        let held = self.held.entry(node).or_default();
        if let Some(delta) = told.network(&view, node) {
            held.apply(delta).unwrap();
        }
        let state = dispatcher::project(&view, node);
        assert!(
            held.same_facts(&state),
            "a difference for {node} went unseen"
        );
        let all = dispatcher::assignments(&view, node);
        let work = self.work.entry(node).or_default();
        if let Some(step) = told.assignments(&view, node) {
            follow(work, step);
        }
        assert_eq!(asked(work), asked(&all), "{node} was not told its work");
    }

    /// A program was told to stop: no live node may choose it any more, unless it was waited for
    /// as long as its grace period.
    fn may_stop(&self, task: &Task) {
        if self.now.since(task.desired_since) >= secs(10) {
            return;
        }
        for (node, state) in &self.held {
            if self.silent.contains_key(node) {
                continue;
            }
            let chosen = state.endpoints.values().any(|endpoint| {
                endpoint.task == task.id && endpoint.phase == EndpointPhase::Serving
            });
            assert!(!chosen, "{} stops while {node} may choose it", task.name);
        }
    }

    fn ready(&mut self, node: NodeId) {
        let mut draft = Draft::new(&self.view(), self.now);
        draft.edit_node(node, |node| {
            node.status.state = NodeState::Ready;
            node.status.message.clear();
        });
        self.commit(draft.changes());
        self.settle();
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.now.after(time);
        while self.now < until {
            self.tick();
        }
    }

    /// Ticks until `is` holds.
    pub(crate) fn until(&mut self, limit: Duration, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = self.now;
        while !is(self) {
            assert!(
                self.now.since(begun) < limit,
                "waited {limit:?} for: {what}\n{}",
                self.picture()
            );
            self.tick();
        }
    }

    /// All tasks, for people.
    pub(crate) fn picture(&self) -> String {
        let mut lines: Vec<String> = self
            .view()
            .tasks()
            .map(|task| {
                format!(
                    "{} v{} on {:?}: {} of {} {}",
                    task.name,
                    task.spec_version.index,
                    task.node_id,
                    task.status.state,
                    task.desired_state,
                    task.status.err
                )
            })
            .collect();
        lines.sort();
        lines.extend(self.view().services().map(|service| {
            format!(
                "{} {:?} {}",
                service.spec.name, service.update_status, service.allocation_error
            )
        }));
        lines.join("\n")
    }
}
