//! A whole agent against a scripted manager, a pretend engine and a pretend network.

mod damage;
mod network;

use std::{collections::VecDeque, net::SocketAddr, path::Path, sync::Arc};

use crate::fixture::{task, wait_for};
use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use weft_agent::{
    Agent, AgentConfig, Notice,
    executor::{
        LogEntry,
        fake::{FakeExecutor, Verb},
    },
    network::fake::FakeWiring,
    runtime::Dial,
    task::{Failure, Health},
};
use weft_proto::{
    LogItem, LogSelector,
    dispatcher::{AssignmentSet, ManagerMessage, NodeMessage},
};
use weft_types::{
    Id, NodeId, TaskId, TaskState,
    service::NetworkAttachmentConfig,
    task::{Task, TaskSpec, TaskStatus},
};

/// The manager's end of one session.
struct Line {
    to_node: mpsc::Sender<ManagerMessage>,
    from_node: mpsc::Receiver<NodeMessage>,
    addr: SocketAddr,
}

/// Hands each session that the node opens to the test.
struct Switchboard {
    lines: mpsc::Sender<Line>,
    refusals: Mutex<VecDeque<String>>,
}

#[async_trait]
impl Dial for Switchboard {
    async fn open(
        &self,
        addr: SocketAddr,
        from_node: mpsc::Receiver<NodeMessage>,
    ) -> Result<mpsc::Receiver<ManagerMessage>, String> {
        if let Some(refusal) = self.refusals.lock().await.pop_front() {
            return Err(refusal);
        }
        let (to_node, receiver) = mpsc::channel(64);
        let line = Line {
            to_node,
            from_node,
            addr,
        };
        self.lines
            .send(line)
            .await
            .map_err(|_| "the test is over".to_owned())?;
        Ok(receiver)
    }
}

/// An agent and everything around it.
struct World {
    state: tempfile::TempDir,
    engine: Arc<FakeExecutor>,
    wiring: Arc<FakeWiring>,
}

struct Node {
    agent: Agent,
    notices: mpsc::Receiver<Notice>,
    lines: mpsc::Receiver<Line>,
    board: Arc<Switchboard>,
}

const MANAGER: &str = "192.0.2.1:2377";

impl World {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().expect("a directory"),
            engine: Arc::default(),
            wiring: Arc::default(),
        }
    }

    fn boot(&self) -> Node {
        let (lines_in, lines) = mpsc::channel(8);
        let board = Arc::new(Switchboard {
            lines: lines_in,
            refusals: Mutex::default(),
        });
        let (agent, notices) = Agent::start(AgentConfig {
            node: NodeId::numbered(1),
            state_dir: Path::new(self.state.path()).to_owned(),
            managers: vec![MANAGER.parse().expect("an address")],
            data_path_addr: None,
            wireguard: None,
            executor: Arc::clone(&self.engine) as _,
            wiring: Arc::clone(&self.wiring) as _,
            dial: Arc::clone(&board) as _,
            guests: tokio::sync::watch::channel(Default::default()).1,
        })
        .expect("an agent");
        Node {
            agent,
            notices,
            lines,
            board,
        }
    }
}

impl Node {
    /// The next session, welcomed.
    async fn session(&mut self) -> Line {
        let mut line = self.lines.recv().await.expect("a session");
        let hello = line.from_node.recv().await;
        assert!(
            matches!(hello, Some(NodeMessage::Hello { .. })),
            "first comes Hello, not {hello:?}"
        );
        line.say(ManagerMessage::Welcome {
            session: Id::numbered(1),
            heartbeat_millis: 60_000,
        })
        .await;
        line
    }
}

impl Line {
    async fn say(&self, message: ManagerMessage) {
        self.to_node.send(message).await.expect("the node listens");
    }

    async fn assign(&self, tasks: Vec<Task>) {
        let set = AssignmentSet {
            complete: true,
            tasks,
            ..AssignmentSet::default()
        };
        self.say(ManagerMessage::Assignments(Box::new(set))).await;
    }

    /// Reads on, storing reports, until one is found; answers it.
    async fn until(&mut self, what: &str, is_it: impl Fn(&NodeMessage) -> bool) -> NodeMessage {
        let found = async {
            loop {
                let message = self
                    .from_node
                    .recv()
                    .await
                    .expect("the node goes on talking");
                if let NodeMessage::Status { sequence, .. } = &message {
                    self.say(ManagerMessage::StatusStored(*sequence)).await;
                }
                if is_it(&message) {
                    return message;
                }
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(60), found).await;
        found.unwrap_or_else(|_| panic!("waited 60 s in vain for: {what}"))
    }

    async fn until_seen(&mut self, id: TaskId, state: TaskState) -> TaskStatus {
        let reached = |message: &NodeMessage| match message {
            NodeMessage::Status { updates, .. } => updates
                .iter()
                .any(|(task, status)| *task == id && status.state == state),
            _ => false,
        };
        let message = self
            .until(&format!("task {id} seen {state}"), reached)
            .await;
        let NodeMessage::Status { updates, .. } = message else {
            unreachable!("only reports are looked for")
        };
        let status = updates.into_iter().find(|(task, _)| *task == id);
        status.expect("it was found").1
    }
}

#[tokio::test]
async fn with_another_certificate_the_node_calls_anew() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    let mut glance = node.agent.glance();
    let welcomed = glance.wait_for(|glance| glance.is_connected);
    drop(welcomed.await.expect("the agent lives"));
    node.agent.renewed().await;
    let again = tokio::time::timeout(std::time::Duration::from_secs(60), node.session()).await;
    let again = again.expect("waited 60 s in vain for another session");
    assert_eq!(again.addr, line.addr);
    let ended = async { while line.from_node.recv().await.is_some() {} };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), ended).await;
    ended.expect("waited 60 s in vain for the first session's end");
}

#[tokio::test]
async fn a_task_is_run_reported_and_removed() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = task(1, TaskState::Running);
    let id = task.id;
    line.assign(vec![task]).await;
    let status = line.until_seen(id, TaskState::Running).await;
    assert_eq!(status.message, "started");
    assert!(world.wiring.held().sandboxes.contains(&id));
    world.engine.exit(id, 3);
    let status = line.until_seen(id, TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (3)");
    wait_for("the sandbox to go", || {
        !world.wiring.held().sandboxes.contains(&id)
    })
    .await;
    assert!(
        world.engine.container_of(id).is_some(),
        "history keeps its container"
    );
    line.assign(Vec::new()).await;
    wait_for("the container to go", || {
        world.engine.container_of(id).is_none()
    })
    .await;
}

/// Task number `number` on the network `host`.
fn on_the_nodes_own_network(number: u128) -> Task {
    let mut task = task(number, TaskState::Running);
    let mut spec = TaskSpec::clone(&task.spec);
    spec.networks = Some(vec![NetworkAttachmentConfig {
        target: "host".to_owned(),
        ..NetworkAttachmentConfig::default()
    }]);
    task.spec = spec.into();
    task
}

#[tokio::test]
async fn a_program_without_a_gate_may_end_before_its_start_is_told() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    for (number, code, state) in [(1, 0, TaskState::Complete), (2, 3, TaskState::Failed)] {
        world.engine.held().ends_at_once = Some(code);
        let task = on_the_nodes_own_network(number);
        let id = task.id;
        line.assign(vec![task]).await;
        line.until_seen(id, state).await;
    }
}

#[tokio::test]
async fn a_task_on_the_nodes_own_network_is_run_without_a_sandbox() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = on_the_nodes_own_network(1);
    let id = task.id;
    line.assign(vec![task]).await;
    line.until_seen(id, TaskState::Running).await;
    assert!(
        world.wiring.held().sandboxes.is_empty(),
        "the node's own namespace was made a sandbox"
    );
    line.assign(Vec::new()).await;
    wait_for("the container to go", || {
        world.engine.container_of(id).is_none()
    })
    .await;
}

#[tokio::test]
async fn no_gate_waits_for_a_data_plane_that_is_still_starting() {
    let world = World::new();
    let starting = world.wiring.starting.lock().await;
    let mut node = world.boot();
    let mut line = node.session().await;
    let gated = task(1, TaskState::Running);
    line.assign(vec![gated.clone()]).await;
    line.until_seen(gated.id, TaskState::Starting).await;
    // Who needs nothing of it is not held up.
    let free = on_the_nodes_own_network(2);
    line.assign(vec![gated.clone(), free.clone()]).await;
    line.until_seen(free.id, TaskState::Running).await;
    let container = world.engine.container_of(gated.id).expect("a container");
    assert_eq!(container.starts, 0, "its gate's minute runs already");
    drop(starting);
    line.until_seen(gated.id, TaskState::Running).await;
}

#[tokio::test]
async fn reports_are_sent_again_until_they_are_stored() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = task(1, TaskState::Running);
    let id = task.id;
    line.assign(vec![task]).await;
    // This manager hears everything and stores nothing.
    while let Some(message) = line.from_node.recv().await {
        if let NodeMessage::Status { updates, .. } = message
            && updates
                .iter()
                .any(|(_, status)| status.state == TaskState::Running)
        {
            break;
        }
    }
    drop(line);
    let mut line = node.session().await;
    line.until_seen(id, TaskState::Running).await;
}

#[tokio::test]
async fn a_restarted_agent_adopts_what_runs_with_no_manager_in_sight() {
    let world = World::new();
    let id = {
        let mut node = world.boot();
        let mut line = node.session().await;
        let task = task(1, TaskState::Running);
        let id = task.id;
        line.assign(vec![task]).await;
        line.until_seen(id, TaskState::Running).await;
        id
    };
    assert!(
        world.wiring.held().named_early.is_empty(),
        "its gate would have let it go before it had its network"
    );
    // The kernel keeps sandboxes; the pretend one forgets so that we can see them made again.
    world.wiring.held().sandboxes.clear();
    let mut node = world.boot();
    wait_for("the sandbox to be taken up", || {
        world.wiring.held().sandboxes.contains(&id)
    })
    .await;
    assert!(
        world.wiring.held().named_early.contains(&id),
        "its names waited for its sandbox"
    );
    let container = world
        .engine
        .container_of(id)
        .expect("the container is still there");
    assert_eq!(container.starts, 1, "it was not started again");
    let mut line = node.session().await;
    line.until_seen(id, TaskState::Running).await;
}

#[tokio::test]
async fn a_task_that_dies_with_no_manager_in_sight_is_told_later() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = task(1, TaskState::Running);
    let id = task.id;
    line.assign(vec![task]).await;
    line.until_seen(id, TaskState::Running).await;
    for _ in 0..3 {
        node.board
            .refusals
            .lock()
            .await
            .push_back("no leader".to_owned());
    }
    drop(line);
    world.engine.exit(id, 1);
    let mut line = node.session().await;
    line.until_seen(id, TaskState::Failed).await;
    assert_eq!(
        world
            .engine
            .container_of(id)
            .map(|container| container.starts),
        Some(1)
    );
}

#[tokio::test]
async fn a_failed_pull_is_the_tasks_end_and_a_silent_engine_is_not() {
    let world = World::new();
    world
        .engine
        .fail(Verb::Prepare, Failure::passing("no answer"));
    let mut node = world.boot();
    let mut line = node.session().await;
    let patient = task(1, TaskState::Running);
    line.assign(vec![patient.clone()]).await;
    line.until_seen(patient.id, TaskState::Running).await;
    world.engine.fail(
        Verb::Prepare,
        Failure::lasting("No such image: nosuch:latest"),
    );
    let unlucky = task(2, TaskState::Running);
    line.assign(vec![patient, unlucky.clone()]).await;
    let status = line.until_seen(unlucky.id, TaskState::Rejected).await;
    assert_eq!(status.err, "No such image: nosuch:latest");
}

#[tokio::test]
async fn a_probed_task_enters_when_it_is_healthy() {
    let world = World::new();
    world.engine.held().probed = true;
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = task(1, TaskState::Running);
    let id = task.id;
    line.assign(vec![task]).await;
    line.until_seen(id, TaskState::Starting).await;
    wait_for("the sandbox", || {
        world.wiring.held().sandboxes.contains(&id)
    })
    .await;
    world.engine.probe(id, Health::Healthy);
    line.until_seen(id, TaskState::Running).await;
}

#[tokio::test]
async fn a_follower_sends_the_node_to_the_leader() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.lines.recv().await.expect("a session");
    line.from_node.recv().await;
    line.say(ManagerMessage::Redirect(Some("192.0.2.9:2377".to_owned())))
        .await;
    let line = node.session().await;
    assert_eq!(line.addr, "192.0.2.9:2377".parse().expect("an address"));
}

fn words(words: &[&str]) -> Vec<LogEntry> {
    let entries = words.iter().map(|word| LogEntry {
        stream: weft_proto::LogStream::Stdout,
        at: crate::fixture::at(1),
        line: word.as_bytes().to_vec(),
        attributes: [("tier".to_owned(), "front".to_owned())].into(),
    });
    entries.collect()
}

impl Line {
    /// Everything that comes for a log request: lines, then warnings.
    async fn logs(&mut self, wished: u64) -> (Vec<String>, Vec<String>) {
        let (mut lines, mut warnings) = (Vec::new(), Vec::new());
        loop {
            let mine = |message: &NodeMessage| matches!(message, NodeMessage::Logs { request, .. } if *request == wished);
            let NodeMessage::Logs { items, end, .. } = self.until("lines", mine).await else {
                unreachable!("only logs are looked for")
            };
            for item in items {
                match item {
                    LogItem::Line(line) => {
                        assert_eq!(line.attributes["tier"], "front");
                        lines.push(String::from_utf8_lossy(&line.line).into_owned());
                    }
                    LogItem::Warning(text) => warnings.push(text),
                }
            }
            if end {
                return (lines, warnings);
            }
        }
    }
}

#[tokio::test]
async fn logs_are_served_to_the_end() {
    let world = World::new();
    world.engine.held().log = words(&["one\n", "two\n", "three\n"]);
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = task(1, TaskState::Running);
    let id = task.id;
    line.assign(vec![task]).await;
    line.until_seen(id, TaskState::Running).await;
    let selector = LogSelector {
        tasks: vec![id],
        stdout: true,
        tail: Some(2),
        ..LogSelector::default()
    };
    let request = |request| ManagerMessage::LogRequest {
        request,
        selector: selector.clone(),
    };
    line.say(request(4)).await;
    let told = line.logs(4).await;
    assert_eq!(
        told,
        (vec!["two\n".to_owned(), "three\n".to_owned()], vec![])
    );
    // A log that breaks off says so, and what there was is told.
    let broken = Failure::passing("the engine went away");
    world.engine.fail(Verb::Logs, broken);
    line.say(request(5)).await;
    let (lines, warnings) = line.logs(5).await;
    assert_eq!(lines.len(), 2);
    assert_eq!(warnings, [format!("task {id}: the engine went away")]);
    // A task that is not here has no lines, and nobody waits for them.
    let elsewhere = LogSelector {
        tasks: vec![TaskId::numbered(99)],
        stdout: true,
        ..LogSelector::default()
    };
    line.say(ManagerMessage::LogRequest {
        request: 6,
        selector: elsewhere,
    })
    .await;
    assert_eq!(line.logs(6).await, (vec![], vec![]));
}

/// Asks for what a task says, and goes on saying.
fn follow(request: u64, task: TaskId) -> ManagerMessage {
    let selector = LogSelector {
        tasks: vec![task],
        stdout: true,
        follow: true,
        ..LogSelector::default()
    };
    ManagerMessage::LogRequest { request, selector }
}

#[tokio::test]
async fn who_follows_hears_a_task_that_has_no_container_yet() {
    let world = World::new();
    world.engine.held().log = words(&["first\n"]);
    world
        .engine
        .fail(Verb::Prepare, Failure::passing("the registry is slow"));
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = task(1, TaskState::Running);
    let id = task.id;
    line.assign(vec![task]).await;
    line.until_seen(id, TaskState::Preparing).await;
    line.say(follow(4, id)).await;
    assert_eq!(line.logs(4).await.0, ["first\n"]);
}

#[tokio::test]
async fn who_is_asked_for_a_task_that_came_later_goes_on_with_the_others() {
    let world = World::new();
    world.engine.held().log = words(&["said\n"]);
    let mut node = world.boot();
    let mut line = node.session().await;
    let (late, running) = (task(1, TaskState::Running), task(2, TaskState::Running));
    let ids = [late.id, running.id];
    line.assign(vec![running.clone()]).await;
    line.until_seen(ids[1], TaskState::Running).await;
    world
        .engine
        .fail(Verb::Prepare, Failure::passing("the registry is slow"));
    line.assign(vec![running, late]).await;
    line.until_seen(ids[0], TaskState::Preparing).await;
    for id in ids {
        line.say(follow(4, id)).await;
    }
    // The one that runs, and the one that had no container yet when the other was asked for.
    for _ in ids {
        assert_eq!(line.logs(4).await.0, ["said\n"]);
    }
}

#[tokio::test]
async fn a_removed_node_stops_its_tasks_and_says_so() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    let task = task(1, TaskState::Running);
    let id = task.id;
    line.assign(vec![task]).await;
    line.until_seen(id, TaskState::Running).await;
    line.say(ManagerMessage::Removed).await;
    assert_eq!(node.notices.recv().await, Some(Notice::Removed));
    wait_for("the container to go", || {
        world.engine.container_of(id).is_none()
    })
    .await;
    wait_for("an empty node", || node.agent.glance().borrow().is_empty).await;
}
