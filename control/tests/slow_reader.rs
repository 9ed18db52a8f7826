//! A reader of logs that stops reading, as one behind a pager does, holds up nothing but its own lines.

mod cluster;

use std::{collections::BTreeMap, time::Duration};

use cluster::*;
use weft_proto::{
    ControlApi, ControlReply, ControlRequest, LogItem, LogLine, LogSelector, LogStream,
    dispatcher::{ManagerMessage, NodeMessage},
};
use weft_types::{
    Timestamp,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_reads_no_further_holds_no_node_up() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
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
        follow: true,
        stdout: true,
        ..LogSelector::default()
    };
    let mut lines = manager.logs(selector).await.expect("a log stream");
    let request = agent
        .until("a log request", |_, message| match message {
            ManagerMessage::LogRequest { request, .. } => Some(*request),
            _ => None,
        })
        .await;
    let line = LogItem::Line(LogLine {
        node: agent.node,
        service: service.parse().ok(),
        task,
        stream: LogStream::Stdout,
        at: Timestamp(1),
        attributes: BTreeMap::new(),
        line: b"hello\n".to_vec(),
    });
    let said = || NodeMessage::Logs {
        request,
        items: vec![line.clone(); TOGETHER],
        end: false,
    };
    for _ in 0..MESSAGES {
        agent.say.send(said()).await.expect("a session");
    }
    agent.report(2, task, running()).await;
    let listed = nodes(&manager).await;
    assert_eq!(listed[0].status.state, NodeState::Ready);

    // Who reads on hears what there was room for, and that there was more.
    let mut heard = 0;
    let words = loop {
        tokio::select! {
            item = lines.recv() => match item.expect("the stream goes on") {
                LogItem::Line(_) => heard += 1,
                LogItem::Warning(words) => break words,
            },
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                agent.say.send(said()).await.expect("a session");
            }
        }
    };
    assert!(words.contains("faster than they were read"), "{words}");
    assert!(heard < MESSAGES * TOGETHER, "{heard} lines");
    manager.shutdown().await;
}
