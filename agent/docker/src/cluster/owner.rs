//! Requests about one container: found on its host, handed over to it.

use std::collections::HashMap;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc;
use weft_cluster::{Container, Reference, find, reference::NotFound};
use weft_types::NodeId;

use super::{Asked, Cluster, Member, lock};
use crate::{
    body::collect,
    ordered::Ordered,
    query::encode,
    reply::{ApiError, Reply, whole},
    server::Takeover,
};

/// Ids remembered at most; then all are forgotten, and found again by asking.
const REMEMBERED: usize = 20_000;

/// Verbs after which `docker ps` shows something else.
const CHANGES: [&str; 6] = ["start", "stop", "restart", "kill", "rename", "update"];

/// Which host a whole id is on. Ids never move.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<String, NodeId>);

impl Owners {
    pub(super) fn learn(&mut self, id: &str, node: NodeId) {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(id.to_owned(), node);
    }
}

impl From<NotFound> for ApiError {
    fn from(error: NotFound) -> Self {
        let status = match error {
            NotFound::None(_) => StatusCode::NOT_FOUND,
            NotFound::Several { .. } | NotFound::Prefix(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl Cluster {
    /// The host that `reference` is on, and the container there.
    pub(super) async fn owner(&self, reference: &str) -> Result<(Member, Container), ApiError> {
        let members = self.members().await?;
        let known = lock(&self.owners).0.get(reference).copied();
        if let Some(node) = known
            && let Some(member) = members.iter().find(|m| m.node == node && m.is_up)
        {
            let container = Container {
                id: reference.to_owned(),
                ..Container::default()
            };
            return Ok((member.clone(), container));
        }
        let asked = Reference::parse(reference);
        let named: Vec<Member> = match asked.node() {
            Some(node) => members.into_iter().filter(|m| m.is_called(node)).collect(),
            None => members,
        };
        let hosts = self.look(&named).await?;
        let (host, container) = find(&hosts, reference)?;
        let member = named.iter().find(|m| m.origin.id == host.id);
        let member = member.ok_or_else(|| NotFound::None(reference.to_owned()))?;
        if !member.is_up {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "container {reference} is on node {}, which is down; see `docker node ls`",
                    member.origin.name
                ),
            ));
        }
        lock(&self.owners).learn(&container.id, member.node);
        Ok((member.clone(), container.clone()))
    }

    /// A request about one container.
    pub(super) async fn container(
        &self,
        mut asked: Asked,
        body: Incoming,
        reference: &str,
        verb: &str,
        taken: &mpsc::Sender<Takeover>,
    ) -> Reply {
        let (member, container) = self.owner(reference).await?;
        let slash = if verb.is_empty() { "" } else { "/" };
        let path = format!("{}/containers/{}{slash}{verb}", asked.prefix, container.id);
        let mut query = asked.raw_query().to_owned();
        if verb == "rename" {
            let name = asked.query.get("name");
            let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
            self.check_name(name).await?;
            query = encode(&[("name".to_owned(), name.to_owned())]);
        }
        asked.parts.uri = super::uri(&path, &query)?;
        match (asked.parts.method.clone(), verb) {
            (Method::GET, "json") => inspect(&member, asked.parts).await,
            (Method::POST, "exec") => {
                let body = collect(body).await?;
                self.create_exec(&member, asked.parts, body).await
            }
            (method, verb) => {
                if verb == "update" || method == Method::DELETE {
                    lock(&self.facts).remove(&container.id);
                }
                let changes = method == Method::DELETE || CHANGES.contains(&verb);
                let request = Request::from_parts(asked.parts, body);
                let response = self.pass(&member.engine, request, taken).await?;
                if changes && response.status().is_success() {
                    self.look_again(&member);
                }
                Ok(response)
            }
        }
    }

    /// Refuses a name that a container has anywhere.
    pub(super) async fn check_name(&self, name: &str) -> Result<(), ApiError> {
        let members = self.members().await?;
        let hosts = self.look(&members).await?;
        check(name, hosts.iter().flat_map(|host| &host.containers))
    }

    async fn create_exec(&self, member: &Member, parts: Parts, body: Bytes) -> Reply {
        let response = self.pass_to(member, parts, body).await?;
        let (parts, body) = response.into_parts();
        let text = super::read(body).await?;
        let made: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if let Some(id) = made["Id"].as_str() {
            lock(&self.owners).learn(id, member.node);
        }
        Ok(http::Response::from_parts(parts, whole(text)))
    }

    /// A request about something that runs in a container beside its program.
    pub(super) async fn exec(
        &self,
        asked: Asked,
        body: Incoming,
        id: &str,
        verb: &str,
        taken: &mpsc::Sender<Takeover>,
    ) -> Reply {
        let members = self.members().await?;
        let known = lock(&self.owners).0.get(id).copied();
        let owner = match known {
            Some(node) => members.iter().find(|member| member.node == node),
            None => {
                let question = super::hosts::request(Method::GET, &format!("/exec/{id}/json"))?;
                let answers = self.ask_all(&members, &question, &Bytes::new()).await;
                let found = answers.into_iter().find(|a| a.status == StatusCode::OK);
                let node = found.map(|answer| answer.member.node);
                members.iter().find(|member| Some(member.node) == node)
            }
        };
        let owner = owner.ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                format!("No such exec instance: {id}"),
            )
        })?;
        tracing::trace!(id, verb, node = owner.origin.name, "exec");
        let request = Request::from_parts(asked.parts, body);
        self.pass(&owner.engine, request, taken).await
    }

    /// `docker commit`: where the container is.
    pub(super) async fn commit(&self, asked: Asked, body: Incoming) -> Reply {
        let (member, container) = self.owner(asked.query.get("container")).await?;
        let pairs: Vec<_> = asked
            .query
            .pairs()
            .map(|(key, value)| match key {
                "container" => (key.to_owned(), container.id.clone()),
                _ => (key.to_owned(), value.to_owned()),
            })
            .collect();
        let parts = asked.like("/commit", &encode(&pairs))?;
        self.pass_to(&member, parts, collect(body).await?).await
    }
}

/// Refuses `name` if one of `containers` has it; classic Swarm's words.
pub(super) fn check<'a>(
    name: &str,
    mut containers: impl Iterator<Item = &'a Container>,
) -> Result<(), ApiError> {
    let name = name.trim_start_matches('/');
    if name.is_empty() || !containers.any(|other| other.names.iter().any(|taken| taken == name)) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        format!(
            "Conflict: The name {name} is already assigned. You have to delete (or rename) that container to be able to assign {name} to a container again."
        ),
    ))
}

/// `docker inspect`: the host's answer, saying which host that is.
async fn inspect(member: &Member, parts: Parts) -> Reply {
    let response = member.engine.pass_bytes(parts, Bytes::new()).await?;
    if response.status() != StatusCode::OK {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let mut text = super::read(body).await?;
    if let Ok(mut container) = serde_json::from_slice::<Ordered>(&text) {
        show_host(&mut container, member);
        if let Ok(changed) = serde_json::to_vec(&container) {
            text = changed.into();
        }
    }
    parts.headers.remove(header::TRANSFER_ENCODING);
    let length = text.len().into();
    parts.headers.insert(header::CONTENT_LENGTH, length);
    Ok(http::Response::from_parts(parts, whole(text)))
}

fn show_host(container: &mut Ordered, member: &Member) {
    let origin = &member.origin;
    if let Some(settings) = container.get_mut("NetworkSettings")
        && let Some(Ordered::Object(ports)) = settings.get_mut("Ports")
    {
        let bound = ports.iter_mut().filter_map(|(_, bound)| bound.list_mut());
        for ip in bound.flatten().filter_map(|one| one.get_mut("HostIp")) {
            if let Ordered::Text(address) = ip {
                *address = origin.reach(address).to_owned();
            }
        }
    }
    let node = serde_json::json!({
        "ID": origin.id, "IP": origin.addr, "Addr": origin.addr, "Name": origin.name,
        "Cpus": member.nano_cpus / 1_000_000_000, "Memory": member.memory_bytes,
        "Labels": member.labels,
    });
    if let Ordered::Object(fields) = container {
        fields.retain(|(name, _)| name != "Node");
        fields.push(("Node".to_owned(), node.into()));
    }
}
