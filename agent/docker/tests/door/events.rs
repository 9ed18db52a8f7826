//! One stream of events: the engine's and the swarm's.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use serde_json::{Value, json};
use weft_proto::{ControlApi, ControlRequest, Object};
use weft_types::{
    TaskState,
    node::{Node, NodeState, Reachability, Role},
};

use crate::{
    bed::{Bed, filters, soon},
    cluster::{FakeNode, NOW, node_id},
};

struct Stream {
    body: hyper::body::Incoming,
    rest: String,
}

impl Stream {
    async fn open(bed: &Bed, query: &str) -> Self {
        let mut stream = Self::raw(bed, query).await;
        assert_eq!(stream.next().await["Type"], "container");
        stream
    }

    async fn raw(bed: &Bed, query: &str) -> Self {
        let path = format!("/v1.41/events?{query}");
        let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
        let body = bed.send(request).await.into_body();
        Self {
            body,
            rest: String::new(),
        }
    }

    async fn next(&mut self) -> Value {
        while !self.rest.contains('\n') {
            let frame = soon("an event", self.body.frame()).await.unwrap().unwrap();
            self.rest
                .push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
        let (line, rest) = self.rest.split_once('\n').unwrap();
        let event = serde_json::from_str(line).unwrap();
        self.rest = rest.to_owned();
        event
    }
}

#[tokio::test]
async fn changes_are_told_with_what_changed() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut stream = Stream::open(&bed, "").await;
    let cluster = &bed.node.cluster;
    let body = json!({"Name": "ev", "TaskTemplate": {"ContainerSpec": {"Image": "tool:latest"}}});
    let spec = serde_json::from_value(body).unwrap();
    let request = ControlRequest::CreateService {
        spec: Box::new(spec),
        registry_auth: String::new(),
    };
    cluster.call(request).await.unwrap();
    let old = cluster.state().services[0].clone();
    cluster.tell(None, Some(Object::Service(Box::new(old.clone()))));
    let event = stream.next().await;
    assert_eq!(
        event,
        json!({"Type": "service", "Action": "create", "scope": "swarm",
            "Actor": {"ID": old.id, "Attributes": {"name": "ev"}},
            "time": NOW.0 / 1_000_000_000, "timeNano": NOW.0})
    );

    let mut new = old.clone();
    new.spec.mode.replicated = Some(weft_types::service::Replicated { replicas: Some(2) });
    if let Some(container) = &mut new.spec.task_template.container_spec {
        container.image = "tool:2".into();
    }
    let boxed =
        |service: &weft_types::service::Service| Some(Object::Service(Box::new(service.clone())));
    cluster.tell(boxed(&old), boxed(&new));
    assert_eq!(
        stream.next().await["Actor"]["Attributes"],
        json!({"name": "ev", "image.old": "tool:latest", "image.new": "tool:2",
            "replicas.old": "1", "replicas.new": "2"})
    );

    // What only we keep is no news; tasks are never told.
    let mut internal = new.clone();
    internal.allocation_error = "other".into();
    cluster.tell(boxed(&new), boxed(&internal));
    let mut task = None;
    if let Some(first) = cluster.state().tasks.first() {
        task = Some(first.clone());
    }
    if let Some(mut task) = task {
        task.desired_state = TaskState::Shutdown;
        cluster.tell(None, Some(Object::Task(Box::new(task))));
    }
    cluster.tell(boxed(&new), None);
    assert_eq!(stream.next().await["Action"], "remove");

    let old = cluster.state().nodes[2].clone();
    let mut new = old.clone();
    new.spec.availability = weft_types::node::Availability::Pause;
    cluster.tell(
        Some(Object::Node(Box::new(old))),
        Some(Object::Node(Box::new(new))),
    );
    assert_eq!(
        stream.next().await["Actor"],
        json!({"ID": node_id(3), "Attributes":
            {"availability.new": "pause", "availability.old": "active", "name": "node3"}})
    );
}

/// What becomes of a node.
type Edit = fn(&mut Node);

#[tokio::test]
async fn what_becomes_of_a_node_is_told() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut stream = Stream::open(&bed, "").await;
    let old = bed.node.cluster.state().nodes[0].clone();
    let tell = |new: Node| {
        let boxed = |node| Some(Object::Node(Box::new(node)));
        bed.node.cluster.tell(boxed(old.clone()), boxed(new));
    };
    // What its kernel holds is no news: the role is told next.
    let mut internal = old.clone();
    internal.applied_revision += 1;
    tell(internal);
    let rows: [(Edit, Value); 5] = [
        (
            |node| node.role = Role::Manager,
            json!({"role.old": "worker", "role.new": "manager"}),
        ),
        (
            |node| node.status.state = NodeState::Down,
            json!({"state.old": "ready", "state.new": "down"}),
        ),
        (
            |node| node.manager_status.as_mut().unwrap().leader = false,
            json!({"leader.old": "true", "leader.new": "false"}),
        ),
        (
            |node| {
                let status = node.manager_status.as_mut().unwrap();
                status.reachability = Reachability::Unreachable;
            },
            json!({"reachability.old": "reachable", "reachability.new": "unreachable"}),
        ),
        // A role that is wished is not there yet.
        (|node| node.spec.role = Role::Worker, json!({})),
    ];
    for (edit, mut due) in rows {
        let mut new = old.clone();
        edit(&mut new);
        tell(new);
        due["name"] = "node1".into();
        assert_eq!(
            stream.next().await["Actor"],
            json!({"ID": old.id, "Attributes": due})
        );
    }
}

#[tokio::test]
async fn filters_hold_for_both() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut stream = Stream::open(&bed, &filters(&[("node", "node2"), ("scope", "swarm")])).await;
    let nodes = bed.node.cluster.state().nodes.clone();
    for node in &nodes {
        let object = Object::Node(Box::new(node.clone()));
        bed.node.cluster.tell(None, Some(object));
    }
    assert_eq!(stream.next().await["Actor"]["ID"], node_id(2).to_string());
}

#[tokio::test]
async fn the_past_is_told_to_who_asks_for_it() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut live = Stream::open(&bed, "").await;
    let nodes = bed.node.cluster.state().nodes.clone();
    let object = Object::Node(Box::new(nodes[1].clone()));
    bed.node.cluster.tell(None, Some(object));
    assert_eq!(live.next().await["Type"], "node");

    let mut late = Stream::raw(&bed, "since=1").await;
    let event = late.next().await;
    assert_eq!(event["Actor"]["ID"], node_id(2).to_string());
    assert_eq!(late.next().await["Type"], "container");
    // Told once, and what follows comes too.
    let object = Object::Node(Box::new(nodes[2].clone()));
    bed.node.cluster.tell(None, Some(object));
    assert_eq!(late.next().await["Actor"]["ID"], node_id(3).to_string());

    // Among what the engine remembers, by the time of each.
    let mut dated = Stream::raw(&bed, "since=2").await;
    for action in ["die", "create", "create", "start"] {
        assert_eq!(dated.next().await["Action"], action);
    }

    let mut none = Stream::raw(&bed, "since=4000000000").await;
    assert_eq!(none.next().await["Type"], "container");
}

#[tokio::test]
async fn the_engine_s_none_is_not_told_of_containers_on_swarm_networks() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut stream = Stream::open(&bed, "all").await;
    let task = stream.next().await;
    assert_eq!(task["Action"], "create");
    let own = stream.next().await;
    assert_eq!(own["Actor"]["Attributes"]["container"], "u1");
    // Of `wishing` and the task only what is not about `none` is told.
    let bridge = stream.next().await;
    assert_eq!(bridge["Actor"]["Attributes"]["name"], "bridge");
}
