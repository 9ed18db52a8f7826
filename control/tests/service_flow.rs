//! A service from the request to a node's reports, with scripted agents.

mod cluster;

use std::collections::BTreeMap;

use cluster::*;
use weft_proto::{
    ControlApi, ControlReply, ControlRequest, LogItem, LogLine, LogSelector, LogStream,
    dispatcher::{ManagerMessage, NodeMessage},
};
use weft_types::{
    TaskState, Timestamp,
    container::ContainerSpec,
    netstate::EndpointPhase,
    service::{EndpointSpec, PortConfig, PublishMode, Replicated, ServiceSpec},
    task::TaskStatus,
};

fn web(replicas: u64) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: "web".to_owned(),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(Replicated {
        replicas: Some(replicas),
    });
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "weft/whoami:latest".to_owned(),
        ..ContainerSpec::default()
    });
    spec.endpoint_spec = Some(EndpointSpec {
        ports: Some(vec![PortConfig {
            target_port: 80,
            published_port: 8000,
            ..PortConfig::default()
        }]),
        ..EndpointSpec::default()
    });
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_runs_is_known_everywhere_and_is_withdrawn_before_it_stops() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let tokens = cluster_of(&manager).await.join_tokens;
    let mut first = Agent::open(host.addr, &host.credentials(), "n1").await;
    first.keep_alive();
    let worker = Host::new();
    let credentials = worker.join(host.addr, &tokens.worker).await;
    let mut second = Agent::open(host.addr, &credentials, "n2").await;
    second.keep_alive();
    eventually("two ready nodes", || async {
        let nodes = nodes(&manager).await;
        let mut ready = nodes.iter();
        ready
            .all(|node| node.status.state == weft_types::node::NodeState::Ready)
            .then_some(())
            .filter(|()| nodes.len() == 2)
    })
    .await;

    let create = ControlRequest::CreateService {
        spec: Box::new(web(2)),
        registry_auth: String::new(),
    };
    let Ok(ControlReply::Created(service)) = manager.call(create).await else {
        panic!("the service was not created");
    };

    // Each node gets one task, and reports it running.
    for agent in [&mut first, &mut second] {
        let task = agent.next_task().await;
        agent.report(1, task, running()).await;
    }

    // Both know both as serving on the ingress network.
    for agent in [&mut first, &mut second] {
        let revision = agent
            .until("two serving endpoints", |agent, _| serving(agent, 2))
            .await;
        let applied = NodeMessage::Applied { revision };
        agent.say.send(applied).await.expect("a session");
    }
    eventually("both nodes' acknowledgements in node ls", || async {
        let nodes = nodes(&manager).await;
        nodes
            .iter()
            .all(|node| node.applied_revision >= first.net.revision.min(second.net.revision))
            .then_some(())
    })
    .await;

    // Lines of both nodes' tasks reach the reader; the stream ends by itself.
    let selector = LogSelector {
        services: vec![service.parse().expect("an id")],
        stdout: true,
        ..LogSelector::default()
    };
    let mut lines = manager.logs(selector).await.expect("a log stream");
    for agent in [&mut first, &mut second] {
        let (request, task) = agent
            .until("a log request", |_, message| match message {
                ManagerMessage::LogRequest { request, selector } => {
                    Some((*request, selector.tasks[0]))
                }
                _ => None,
            })
            .await;
        let line = LogLine {
            node: agent.node,
            service: service.parse().ok(),
            task,
            stream: LogStream::Stdout,
            at: Timestamp(1),
            attributes: BTreeMap::new(),
            line: b"hello\n".to_vec(),
        };
        let answer = NodeMessage::Logs {
            request,
            items: vec![LogItem::Line(line)],
            end: true,
        };
        agent.say.send(answer).await.expect("a session");
    }
    let mut said = 0;
    while let Some(item) = lines.recv().await {
        assert!(matches!(item, LogItem::Line(_)), "{item:?}");
        said += 1;
    }
    assert_eq!(said, 2);

    // Removed: each node sees its task on the way out, but it may stop only after all nodes have
    // acknowledged that they do not choose it any more.
    manager
        .call(ControlRequest::RemoveService(service))
        .await
        .expect("removed");
    for agent in [&mut first, &mut second] {
        let withdrawn = agent
            .until("the endpoints to drain", |agent, _| {
                let leaving = agent
                    .net
                    .endpoints
                    .values()
                    .all(|endpoint| endpoint.phase != EndpointPhase::Serving);
                leaving.then(|| agent.tasks.values().any(|task| task.withdrawn))
            })
            .await;
        assert!(
            !withdrawn,
            "a task was withdrawn before it was acknowledged"
        );
    }
    for agent in [&first, &second] {
        let applied = NodeMessage::Applied {
            revision: agent.net.revision,
        };
        agent.say.send(applied).await.expect("a session");
    }
    for agent in [&mut first, &mut second] {
        agent
            .until("leave to stop the task", |agent, _| {
                let mut tasks = agent.tasks.values();
                tasks.any(|task| task.withdrawn).then_some(())
            })
            .await;
    }
    manager.shutdown().await;
}

/// The revision of a picture with `count` serving endpoints.
fn serving(agent: &Agent, count: usize) -> Option<u64> {
    let endpoints = agent.net.endpoints.values();
    let serving = endpoints.filter(|endpoint| endpoint.phase == EndpointPhase::Serving);
    (serving.count() == count).then_some(agent.net.revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_a_silent_node_end_with_a_warning() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
    let create = ControlRequest::CreateService {
        spec: Box::new(web(1)),
        registry_auth: String::new(),
    };
    let Ok(ControlReply::Created(service)) = manager.call(create).await else {
        panic!("the service was not created");
    };
    let task = agent
        .until("a task", |agent, _| agent.tasks.keys().next().copied())
        .await;
    agent.report(1, task, running()).await;
    let selector = LogSelector {
        services: vec![service.parse().expect("an id")],
        stdout: true,
        ..LogSelector::default()
    };
    let mut lines = manager.logs(selector).await.expect("a log stream");
    let item = tokio::time::timeout(LIMIT, lines.recv())
        .await
        .expect("no hang");
    assert!(matches!(item, Some(LogItem::Warning(_))), "{item:?}");
    assert!(lines.recv().await.is_none(), "the stream goes on");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_node_keeps_its_task_until_nobody_chooses_it() {
    let host = Host::new();
    let (manager, credentials) = with_worker(&host).await;
    let mut leaver = Agent::at_work(host.addr, &credentials, "n2").await;
    let create = ControlRequest::CreateService {
        spec: Box::new(web(1)),
        registry_auth: String::new(),
    };
    manager.call(create).await.expect("created");
    let task = leaver.next_task().await;
    leaver.report(1, task, running()).await;

    let mut stays = Agent::open(host.addr, &host.credentials(), "n1").await;
    stays.keep_alive();
    leaver
        .say
        .send(NodeMessage::Leave)
        .await
        .expect("a session");
    leaver
        .until("its task to be taken out", |agent, _| {
            let task = agent.tasks.get(&task)?;
            (task.desired_state > TaskState::Running).then_some(())
        })
        .await;
    // Its replacement is prepared elsewhere meanwhile, and starts when the old one has stopped.
    stays
        .until("the replacement", |agent, _| {
            agent.tasks.keys().next().copied()
        })
        .await;
    for agent in [&leaver, &stays] {
        let applied = NodeMessage::Applied {
            revision: agent.net.revision,
        };
        agent.say.send(applied).await.expect("a session");
    }
    leaver
        .until("leave to stop it", |agent, _| {
            agent.tasks.get(&task)?.withdrawn.then_some(())
        })
        .await;
    let stopped = TaskStatus {
        state: TaskState::Shutdown,
        ..running()
    };
    let report = NodeMessage::Status {
        sequence: 2,
        updates: vec![(task, stopped)],
    };
    leaver.say.send(report).await.expect("a session");
    stays.next_task().await;
    eventually("the node to be let go", || async {
        let nodes = nodes(&manager).await;
        let node = nodes.iter().find(|node| node.id == leaver.node)?;
        (node.status.state == weft_types::node::NodeState::Down).then_some(())
    })
    .await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_where_managers_listen_is_not_published() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let published = |mode| {
        let mut spec = web(1);
        for port in spec
            .endpoint_spec
            .iter_mut()
            .flat_map(|spec| &mut spec.ports)
        {
            for port in port {
                port.published_port = host.addr.port();
                port.publish_mode = mode;
            }
        }
        ControlRequest::CreateService {
            spec: Box::new(spec),
            registry_auth: String::new(),
        }
    };
    let refused = manager.call(published(PublishMode::Ingress)).await;
    let refused = refused.expect_err("every node would lose its managers");
    assert_eq!(
        refused.message,
        format!(
            "port '{}' is needed by the swarm itself: nodes reach managers there; publish another \
             one",
            host.addr.port()
        )
    );
    // Where no manager runs it may be free.
    let made = manager.call(published(PublishMode::Host)).await;
    assert!(made.is_ok(), "{made:?}");
    manager.shutdown().await;
}
