//! What a node says of itself anew, and what it is told again.

mod cluster;

use cluster::*;
use tokio::sync::mpsc;
use weft_control::runtime::Manager;
use weft_proto::{
    ControlApi, ControlReply, ControlRequest, LogItem, LogLine, LogSelector, LogStream,
    dispatcher::{ManagerMessage, NodeMessage},
};
use weft_types::{
    NodeId, TaskId, TaskState, Timestamp,
    container::ContainerSpec,
    service::{Replicated, ServiceSpec},
    task::{Placement, Task},
};

fn service(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name.to_owned(),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(Replicated { replicas: Some(1) });
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "weft/whoami:latest".to_owned(),
        ..ContainerSpec::default()
    });
    spec
}

async fn create(manager: &Manager, spec: ServiceSpec) -> String {
    let create = ControlRequest::CreateService {
        spec: Box::new(spec),
        registry_auth: String::new(),
    };
    match manager.call(create).await {
        Ok(ControlReply::Created(service)) => service,
        other => panic!("the service was not created: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_lost_is_told_whole_by_the_next() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
    create(&manager, service("first")).await;
    let first = agent.next_task().await;
    // The session breaks before its node has heard of the next task and of the end of this one.
    create(&manager, service("second")).await;
    let remove = ControlRequest::RemoveService("first".to_owned());
    manager.call(remove).await.expect("removed");
    eventually("the next task, and the end of the first", || async {
        let tasks = tasks(&manager).await;
        let old = tasks.iter().find(|task| task.id == first);
        let is_next = |task: &Task| task.service_name == "second" && task.node_id.is_some();
        let is_over = old.is_none_or(|task| task.desired_state == TaskState::Remove);
        (is_over && tasks.iter().any(is_next)).then_some(())
    })
    .await;
    drop(agent);
    let mut agent = Agent::open(host.addr, &host.credentials(), "n1").await;
    agent.keep_alive();
    let said = agent
        .until("its first assignments", |_, message| match message {
            ManagerMessage::Assignments(set) => Some(set.clone()),
            _ => None,
        })
        .await;
    assert!(said.complete);
    // The first is to stop, unless it was forgotten already; the second is to run.
    let known = said.tasks.iter().find(|task| task.id == first);
    assert!(known.is_none_or(|task| task.desired_state == TaskState::Remove));
    let mut others = said.tasks.iter().filter(|task| task.id != first);
    let next = others.next().expect("the next task");
    assert_eq!(next.service_name, "second");
    assert_eq!(next.desired_state, TaskState::Running);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_lost_the_thread_of_the_network_is_told_all_of_it() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
    let base = |_: &Agent, message: &ManagerMessage| match message {
        ManagerMessage::NetState(delta) => Some(delta.base),
        _ => None,
    };
    assert_eq!(agent.until("the network", base).await, 0);
    for _ in 0..2 {
        let gap = NodeMessage::NetStateGap;
        agent.say.send(gap).await.expect("a session");
        agent
            .until("the whole network again", |agent, message| {
                base(agent, message).filter(|base| *base == 0)
            })
            .await;
    }
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_tells_of_itself_in_its_session_counts_at_once() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
    let mut spec = service("fast");
    spec.task_template.placement = Some(Placement {
        constraints: Some(vec!["engine.labels.disk==ssd".to_owned()]),
        ..Placement::default()
    });
    create(&manager, spec).await;
    eventually("the reason why its task waits", || async {
        let tasks = tasks(&manager).await;
        let reason = &tasks.first()?.status.err;
        reason.contains("scheduling constraints").then_some(())
    })
    .await;
    let mut described = description("n1");
    let label = ("disk".to_owned(), "ssd".to_owned());
    described.engine.labels.extend([label]);
    let describe = |described| NodeMessage::Description(Box::new(described));
    let say = agent.say.clone();
    let told = say.send(describe(described)).await;
    told.expect("a session");
    let task = agent.next_task().await;
    agent.report(1, task, running()).await;
    // The label goes, and the task with it.
    let told = say.send(describe(description("n1"))).await;
    told.expect("a session");
    agent
        .until("its task to be taken away", |agent, _| {
            let task = agent.tasks.get(&task)?;
            (task.desired_state > TaskState::Running).then_some(())
        })
        .await;
    let nodes = nodes(&manager).await;
    assert!(nodes[0].description.engine.labels.is_empty());
    manager.shutdown().await;
}

/// Follows the log of a service.
async fn follow(manager: &Manager, service: &str) -> mpsc::Receiver<LogItem> {
    let selector = LogSelector {
        services: vec![service.parse().expect("an id")],
        stdout: true,
        follow: true,
        tail: Some(5),
        ..LogSelector::default()
    };
    manager.logs(selector).await.expect("a log stream")
}

/// A node is asked for the lines of tasks.
fn log_request(_: &Agent, message: &ManagerMessage) -> Option<(u64, LogSelector)> {
    match message {
        ManagerMessage::LogRequest { request, selector } => Some((*request, selector.clone())),
        _ => None,
    }
}

fn said(node: NodeId, request: u64, task: TaskId, at: i64, words: &str) -> NodeMessage {
    let line = LogItem::Line(LogLine {
        node,
        service: None,
        task,
        stream: LogStream::Stdout,
        at: Timestamp(at),
        attributes: Default::default(),
        line: words.into(),
    });
    NodeMessage::Logs {
        request,
        items: vec![line],
        end: false,
    }
}

/// The next line that a reader reads.
async fn heard(lines: &mut mpsc::Receiver<LogItem>) -> String {
    loop {
        let next = tokio::time::timeout(LIMIT, lines.recv()).await;
        match next.expect("a line in time").expect("the stream goes on") {
            LogItem::Line(line) => return String::from_utf8(line.line).expect("text"),
            // A node that is away for long is missed.
            LogItem::Warning(words) => assert!(words.ends_with("is not available"), "{words}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_node_that_comes_again_is_asked_for_what_was_not_read() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
    let service = create(&manager, service("talker")).await;
    let task = agent.next_task().await;
    agent.report(1, task, running()).await;
    let mut lines = follow(&manager, &service).await;
    let (request, asked) = agent.until("a log request", log_request).await;
    assert_eq!(asked.tail, Some(5));
    let node = agent.node;
    let say = agent.say.clone();
    let words = said(node, request, task, 7, "before");
    say.send(words).await.expect("a session");
    assert_eq!(heard(&mut lines).await, "before");
    drop(agent);

    let mut agent = Agent::open(host.addr, &host.credentials(), "n1").await;
    agent.keep_alive();
    let (request, asked) = agent.until("another log request", log_request).await;
    assert_eq!(asked.tasks, [task]);
    assert_eq!((asked.since, asked.tail), (Timestamp(7), None));
    for (at, words) in [(7, "before"), (8, "after")] {
        let words = said(node, request, task, at, words);
        agent.say.send(words).await.expect("a session");
    }
    assert_eq!(heard(&mut lines).await, "after");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_comes_is_followed_though_others_talk_without_a_pause() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
    let mut spec = service("talker");
    spec.mode.replicated = Some(Replicated { replicas: Some(2) });
    let service = create(&manager, spec).await;
    let [first, second] = agent
        .until("two tasks to run", |agent, _| {
            let tasks: Vec<TaskId> = agent.tasks.keys().copied().collect();
            tasks.try_into().ok()
        })
        .await;
    agent.report(1, first, running()).await;
    let mut lines = follow(&manager, &service).await;
    tokio::spawn(async move { while lines.recv().await.is_some() {} });
    let (request, asked) = agent.until("a log request", log_request).await;
    assert_eq!(asked.tasks, [first]);
    let (say, node) = (agent.say.clone(), agent.node);
    let talks = tokio::spawn(async move {
        while say.send(said(node, request, first, 1, "on")).await.is_ok() {}
    });
    let report = NodeMessage::Status {
        sequence: 2,
        updates: vec![(second, running())],
    };
    agent.say.send(report).await.expect("a session");
    let (again, asked) = agent.until("a log request for it", log_request).await;
    assert_eq!((again, asked.tasks), (request, vec![second]));
    talks.abort();
    manager.shutdown().await;
}
