//! What a node says of itself anew, and what it is told again.

mod cluster;

use cluster::*;
use weft_control::runtime::Manager;
use weft_proto::{
    ControlApi, ControlReply, ControlRequest,
    dispatcher::{ManagerMessage, NodeMessage},
};
use weft_types::{
    TaskState,
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
