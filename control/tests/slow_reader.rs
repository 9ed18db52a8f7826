//! A reader of logs that stops reading, as one behind a pager does, holds up nothing but its own lines.

mod cluster;

use std::{collections::BTreeMap, sync::Arc};

use cluster::*;
use tokio::sync::mpsc;
use weft_control::runtime::Manager;
use weft_proto::{
    ControlApi, ControlReply, ControlRequest, LogItem, LogLine, LogSelector, LogStream,
    dispatcher::{ManagerMessage, NodeMessage},
};
use weft_types::{
    TaskId, Timestamp,
    container::ContainerSpec,
    node::NodeState,
    service::{Replicated, ServiceSpec},
};

/// Lines in one message.
const TOGETHER: usize = 10;
/// Messages, far more than there is room for on the way.
const MESSAGES: usize = 1000;

fn talker() -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: "talker".to_owned(),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(Replicated { replicas: Some(1) });
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "busybox:latest".to_owned(),
        ..ContainerSpec::default()
    });
    spec
}

/// A node whose only task talks more than its reader reads.
struct Talk {
    manager: Arc<Manager>,
    agent: Agent,
    task: TaskId,
    /// Its log, as somebody reads it.
    lines: mpsc::Receiver<LogItem>,
    request: u64,
}

impl Talk {
    async fn begin(host: &Host, follow: bool) -> Self {
        let (manager, mut agent) = with_agent(host).await;
        let create = ControlRequest::CreateService {
            spec: Box::new(talker()),
            registry_auth: String::new(),
        };
        let Ok(ControlReply::Created(service)) = manager.call(create).await else {
            panic!("the service was not created");
        };
        let task = agent.next_task().await;
        agent.report(1, task, running()).await;
        let selector = LogSelector {
            services: vec![service.parse().expect("an id")],
            follow,
            stdout: true,
            ..LogSelector::default()
        };
        let lines = manager.logs(selector).await.expect("a log stream");
        let request = agent
            .until("a log request", |_, message| match message {
                ManagerMessage::LogRequest { request, .. } => Some(*request),
                _ => None,
            })
            .await;
        Self {
            manager,
            agent,
            task,
            lines,
            request,
        }
    }

    async fn say(&self, end: bool) {
        let line = LogItem::Line(LogLine {
            node: self.agent.node,
            service: None,
            task: self.task,
            stream: LogStream::Stdout,
            at: Timestamp(1),
            attributes: BTreeMap::new(),
            line: b"hello\n".to_vec(),
        });
        let said = NodeMessage::Logs {
            request: self.request,
            items: vec![line; TOGETHER],
            end,
        };
        self.agent.say.send(said).await.expect("a session");
    }

    /// Says far more than there is room for, and then something else, which is heard.
    async fn overflow(&mut self, end: bool) {
        for message in 1..=MESSAGES {
            self.say(end && message == MESSAGES).await;
        }
        self.agent.report(2, self.task, running()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_reads_no_further_holds_no_node_up() {
    let host = Host::new();
    let mut talk = Talk::begin(&host, true).await;
    talk.overflow(false).await;
    let listed = nodes(&talk.manager).await;
    assert_eq!(listed[0].status.state, NodeState::Ready);

    // Who reads on hears what there was room for, and that there was more, though nothing else is said.
    let mut heard = 0;
    let words = loop {
        match talk.lines.recv().await.expect("the stream goes on") {
            LogItem::Line(_) => heard += 1,
            LogItem::Warning(words) => break words,
        }
    };
    assert!(words.contains("faster than they were read"), "{words}");
    assert!(heard < MESSAGES * TOGETHER, "{heard} lines");
    // What comes after that is heard again.
    talk.say(false).await;
    let next = talk.lines.recv().await;
    assert!(matches!(next, Some(LogItem::Line(_))), "{next:?}");
    talk.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_end_found_no_room_ends_with_the_count_of_what_is_missed() {
    let host = Host::new();
    let mut talk = Talk::begin(&host, false).await;
    talk.overflow(true).await;
    let (mut heard, mut warnings) = (0, Vec::new());
    while let Some(item) = talk.lines.recv().await {
        match item {
            LogItem::Line(_) => heard += 1,
            LogItem::Warning(words) => warnings.push(words),
        }
    }
    let missed = MESSAGES * TOGETHER - heard;
    let node = talk.agent.node;
    let due = format!("node {node} said {missed} lines faster than they were read");
    assert!(
        warnings.len() == 1 && warnings[0].ends_with(&due),
        "{due}: {warnings:?}"
    );
    talk.manager.shutdown().await;
}
