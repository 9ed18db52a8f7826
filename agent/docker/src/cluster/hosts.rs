//! The nodes of the cluster as hosts, and questions to all of them at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use http::{HeaderMap, Method, Request, StatusCode, request::Parts};
use serde_json::Value;
use tokio::time::timeout;
use weft_cluster::{Container, Host, merge::Origin};
use weft_proto::{ControlReply, ControlRequest};
use weft_types::{
    Labels, NodeId,
    node::{Availability, ManagerStatus, NodeState},
};

use super::{Answer, Cluster, lock};
use crate::{
    body::collect,
    engine::Engine,
    reply::{ApiError, whole},
};

/// How long a host may take to answer a question: then it is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) origin: Origin,
    /// The managers hear of it.
    pub(super) is_up: bool,
    /// It takes new containers.
    pub(super) is_active: bool,
    pub(super) is_here: bool,
    /// Its front door.
    pub(super) engine: Arc<Engine>,
    pub(super) labels: Labels,
    pub(super) nano_cpus: i64,
    pub(super) memory_bytes: i64,
    /// State and message of the node, for people.
    pub(super) state: String,
    pub(super) release: String,
}

impl Member {
    /// As placing sees it, with nothing on it yet.
    pub(super) fn host(&self) -> Host {
        Host {
            id: self.origin.id.clone(),
            name: self.origin.name.clone(),
            addr: self.origin.addr.clone(),
            is_ready: self.is_up && self.is_active,
            labels: self.labels.clone(),
            nano_cpus: self.nano_cpus,
            memory_bytes: self.memory_bytes,
            ..Host::default()
        }
    }

    /// Whether a client that says `name` means this host.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.origin.name == name || self.origin.id == name
    }

    /// Asks it, with a deadline.
    pub(super) fn ask(&self, parts: Parts, body: Bytes) -> BoxFuture<'_, Result<Answer, ApiError>> {
        let asked = async move {
            let mut request = Request::from_parts(parts, whole(body.clone()));
            let length = body.len().into();
            let headers = request.headers_mut();
            headers.insert(http::header::CONTENT_LENGTH, length);
            let (response, _connection) = self.engine.send(request).await?;
            let status = response.status();
            let text = collect(response.into_body()).await?;
            let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
            Ok(Answer {
                member: self.clone(),
                status,
                value,
            })
        };
        async {
            let answer = timeout(PATIENCE, asked).await;
            answer.unwrap_or_else(|_| Err(self.late()))
        }
        .boxed()
    }

    fn late(&self) -> ApiError {
        let (name, seconds) = (&self.origin.name, PATIENCE.as_secs());
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("node {name} does not answer within {seconds} s"),
        )
    }

    /// Asks it `GET path`.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, ApiError> {
        self.ask(request(Method::GET, path)?, Bytes::new()).await
    }
}

/// A request of ours, without a version.
pub(super) fn request(method: Method, path: &str) -> Result<Parts, ApiError> {
    let request = Request::builder().method(method).uri(path).body(());
    let request = request.map_err(|error| ApiError::bad(format!("{path}: {error}")))?;
    let (mut parts, ()) = request.into_parts();
    parts.headers = HeaderMap::new();
    Ok(parts)
}

impl Cluster {
    /// All nodes, by name.
    pub(super) async fn members(&self) -> Result<Vec<Member>, ApiError> {
        let manager = self.node.control().await?;
        let nodes = match manager.call(ControlRequest::ListNodes).await {
            Ok(ControlReply::Nodes(nodes)) => nodes,
            Ok(_) => return Err(ApiError::internal("the manager did not answer with nodes")),
            Err(error) => return Err(ApiError::from_manager(error)),
        };
        let here = self.node.status().await.node_id;
        let names: Vec<String> = nodes
            .iter()
            .map(|node| node.description.hostname.clone())
            .collect();
        let mut members: Vec<Member> = nodes
            .into_iter()
            .map(|node| {
                let hostname = &node.description.hostname;
                let is_unique = names.iter().filter(|name| *name == hostname).count() == 1;
                let id = node.id.to_string();
                let name = if is_unique && !hostname.is_empty() {
                    hostname.clone()
                } else {
                    id.clone()
                };
                let is_here = Some(node.id) == here;
                let mut labels = node.description.engine.labels.clone();
                labels.extend(node.spec.labels.clone());
                let engine = if is_here {
                    Arc::clone(&self.here)
                } else {
                    let manager = Arc::clone(&manager);
                    Arc::new(Engine::beyond(manager, node.id, name.clone()))
                };
                Member {
                    node: node.id,
                    origin: Origin {
                        id,
                        name,
                        addr: address(&node.status.addr, node.manager_status.as_ref()),
                    },
                    is_up: node.status.state == NodeState::Ready,
                    is_active: node.spec.availability == Availability::Active,
                    is_here,
                    engine,
                    labels,
                    nano_cpus: node.description.resources.nano_cpus,
                    memory_bytes: node.description.resources.memory_bytes,
                    state: describe(node.status.state, &node.status.message),
                    release: node.description.engine.engine_version.clone(),
                }
            })
            .collect();
        members.sort_by(|one, other| one.origin.name.cmp(&other.origin.name));
        Ok(members)
    }

    /// What the hosts that are up answer to the same request; who does not answer is left out, with a
    /// warning in the log.
    pub(super) async fn ask_all(
        &self,
        members: &[Member],
        parts: &Parts,
        body: &Bytes,
    ) -> Vec<Answer> {
        let up: Vec<&Member> = members.iter().filter(|member| member.is_up).collect();
        let asked: Vec<BoxFuture<'_, _>> = up
            .iter()
            .map(|member| member.ask(parts.clone(), body.clone()))
            .collect();
        let mut answers = Vec::new();
        for (member, answer) in up.into_iter().zip(join_all(asked).await) {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(refusal) => {
                    tracing::warn!(
                        node = member.origin.name,
                        why = refusal.message,
                        "left out of an answer for the cluster"
                    );
                }
            }
        }
        answers
    }

    /// The hosts with their containers, as `docker ps -a` shows them now; those that are down or do not
    /// answer as they were last seen, and not ready.
    pub(super) async fn look(&self, members: &[Member]) -> Result<Vec<Host>, ApiError> {
        let parts = request(Method::GET, "/containers/json?all=1")?;
        let answers = self.ask_all(members, &parts, &Bytes::new()).await;
        let mut hosts = Vec::new();
        for member in members {
            let answer = answers
                .iter()
                .find(|answer| answer.member.node == member.node)
                .filter(|answer| answer.status == StatusCode::OK);
            let mut host = member.host();
            let mut memory = lock(&self.memory);
            let list = match answer {
                Some(answer) => {
                    memory.lists.insert(member.node, answer.value.clone());
                    &answer.value
                }
                None => {
                    host.is_ready = false;
                    memory.lists.get(&member.node).unwrap_or(&Value::Null)
                }
            };
            let list = list.as_array().map_or(&[][..], Vec::as_slice);
            host.containers = list.iter().map(Container::listed).collect();
            hosts.push(host);
        }
        Ok(hosts)
    }
}

/// Where a host is reached, without a port.
fn address(seen: &str, manager: Option<&ManagerStatus>) -> String {
    if !seen.is_empty() {
        return seen.to_owned();
    }
    let addr = manager.and_then(|manager| manager.addr.parse::<SocketAddr>().ok());
    addr.map_or_else(String::new, |addr| addr.ip().to_string())
}

fn describe(state: NodeState, message: &str) -> String {
    let state = match state {
        NodeState::Ready => "Healthy",
        NodeState::Down => "Down",
        NodeState::Disconnected => "Disconnected",
        NodeState::Unknown => "Pending",
    };
    match message {
        "" => state.to_owned(),
        message => format!("{state} ({message})"),
    }
}
