//! `docker run` and `docker create`: a host is chosen, and asked to make the container.

use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{Method, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use serde_json::Value;
use weft_cluster::{
    Container, Expression, Facts, Host, Image, Wish, place,
    wish::{ID, WishError},
};

use super::{Asked, Cluster, Member, hosts::request, lock, owner};
use crate::{
    body::collect,
    query::encode,
    reply::{ApiError, Body, Reply, whole},
};

/// Containers of one host that are looked at at once.
const LOOKS: usize = 8;

/// Containers whose facts are remembered at most.
const REMEMBERED: usize = 20_000;

/// Labels that classic Swarm gave every engine, and where `docker info` has their values.
const STANDARD: [(&str, &str); 5] = [
    ("storagedriver", "Driver"),
    ("executiondriver", "ExecutionDriver"),
    ("kernelversion", "KernelVersion"),
    ("operatingsystem", "OperatingSystem"),
    ("ostype", "OSType"),
];

/// Containers on their way to a host, by their id in the cluster.
pub(super) type Pending = BTreeMap<String, (weft_types::NodeId, Container)>;

/// One of them, for as long as this is held: who gives up waiting for a host leaves nothing behind.
#[derive(Debug)]
struct OnItsWay<'a> {
    pending: &'a Mutex<Pending>,
    id: String,
}

impl<'a> OnItsWay<'a> {
    fn new(
        pending: &'a Mutex<Pending>,
        id: &str,
        node: weft_types::NodeId,
        container: Container,
    ) -> Self {
        lock(pending).insert(id.to_owned(), (node, container));
        Self {
            pending,
            id: id.to_owned(),
        }
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        lock(self.pending).remove(&self.id);
    }
}

/// A container to be made somewhere.
pub(super) struct Draft {
    /// Body of the request.
    pub(super) body: Value,
    /// Its name; may be empty.
    pub(super) name: String,
    /// The client's request, for its headers and version.
    pub(super) parts: Parts,
}

impl From<WishError> for ApiError {
    fn from(error: WishError) -> Self {
        Self::bad(error.to_string())
    }
}

impl Cluster {
    pub(super) async fn create_container(&self, asked: Asked, body: Incoming) -> Reply {
        let body = collect(body).await?;
        let name = asked.query.get("name").trim_start_matches('/').to_owned();
        let parts = asked.like("/containers/create", asked.raw_query())?;
        let draft = Draft {
            body: crate::body::parse(&body)?,
            name,
            parts,
        };
        let (_, response) = self.make(draft).await?;
        Ok(response)
    }

    /// Chooses a host for a container and has it made there; the host's answer, and which it is.
    pub(super) async fn make(
        &self,
        mut draft: Draft,
    ) -> Result<(Member, Response<Body>), ApiError> {
        let wish = Wish::take(&mut draft.body, &random_id())?;
        let (member, response) = self.try_make(&draft, &wish).await?;
        if response.status() != StatusCode::NOT_FOUND || wish.is_pinned() {
            return Ok((member, response));
        }
        // The image is not there: perhaps it is elsewhere.
        let rule = format!("image=={}", wish.image);
        let Ok(rule) = Expression::parse(&rule) else {
            return Ok((member, response));
        };
        let mut elsewhere = wish.clone();
        elsewhere.affinities.push(rule);
        match self.try_make(&draft, &elsewhere).await {
            Ok(made) => Ok(made),
            // The first answer has the client pull the image and come again.
            Err(_) => Ok((member, response)),
        }
    }

    async fn try_make(
        &self,
        draft: &Draft,
        wish: &Wish,
    ) -> Result<(Member, Response<Body>), ApiError> {
        let id = wish.labels.get(ID).cloned().unwrap_or_default();
        let (member, on_its_way) = self.choose(draft, wish, &id).await?;
        let mut body = draft.body.clone();
        wish.scale_shares(&mut body, member.nano_cpus);
        let made = self
            .pass_to(&member, draft.parts.clone(), body.to_string())
            .await;
        drop(on_its_way);
        let (parts, answer) = made?.into_parts();
        let text = super::read(answer).await?;
        let value: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if let (StatusCode::CREATED, Some(made)) = (parts.status, value["Id"].as_str()) {
            lock(&self.owners).learn(made, member.node);
            lock(&self.facts).insert(made.to_owned(), wish.facts.clone());
            if weft_cluster::wish::is_rescheduled(&wish.labels) {
                self.remember(&member, made).await;
            }
            self.look_again(&member);
        }
        let mut response = Response::from_parts(parts, whole(text.clone()));
        response.headers_mut().remove(header::TRANSFER_ENCODING);
        let length = text.len().into();
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
        Ok((member, response))
    }

    /// The best host; the container is on its way there from now on.
    async fn choose(
        &self,
        draft: &Draft,
        wish: &Wish,
        id: &str,
    ) -> Result<(Member, OnItsWay<'_>), ApiError> {
        let _one_at_a_time = self.placing.lock().await;
        let members = self.members().await?;
        let hosts = self.candidates(&members).await?;
        let up = members.iter().filter(|member| member.is_up);
        let up: Vec<&str> = up.map(|member| member.origin.id.as_str()).collect();
        // A name that only a failed host has may be needed by who stands in for it.
        let there = hosts.iter().filter(|host| up.contains(&host.id.as_str()));
        owner::check(&draft.name, there.flat_map(|host| &host.containers))?;
        let best = self.best(&members, hosts, wish).await?;
        let names = if draft.name.is_empty() {
            Vec::new()
        } else {
            vec![draft.name.clone()]
        };
        let container = Container {
            id: id.to_owned(),
            names,
            labels: wish.labels.clone(),
            is_running: true,
            facts: wish.facts.clone(),
        };
        let on_its_way = OnItsWay::new(&self.pending, id, best.node, container);
        tracing::debug!(
            node = best.origin.name,
            name = draft.name,
            "a container is placed"
        );
        Ok((best, on_its_way))
    }

    /// The host for something that is not there for long enough to count: a build.
    pub(super) async fn choose_for_build(&self, wish: &Wish) -> Result<Member, ApiError> {
        let members = self.members().await?;
        let hosts = self.candidates(&members).await?;
        self.best(&members, hosts, wish).await
    }

    /// The hosts with what is on them, and what is on its way there.
    async fn candidates(&self, members: &[Member]) -> Result<Vec<Host>, ApiError> {
        let mut hosts = self.look(members).await?;
        let pending = lock(&self.pending);
        for host in &mut hosts {
            let on_their_way = pending
                .iter()
                .filter(|(_, (node, _))| node.as_str() == host.id);
            for (id, (_, container)) in on_their_way {
                let is_there = |other: &Container| other.labels.get(ID) == Some(id);
                if !host.containers.iter().any(is_there) {
                    host.containers.push(container.clone());
                }
            }
        }
        Ok(hosts)
    }

    /// The host that the policy prefers for `wish`.
    async fn best(
        &self,
        members: &[Member],
        mut hosts: Vec<Host>,
        wish: &Wish,
    ) -> Result<Member, ApiError> {
        self.fill(members, &mut hosts, wish).await?;
        let dice = rand::random();
        let best = place(&hosts, wish, &self.policy, dice)
            .map_err(|why| ApiError::internal(why.to_string()))?;
        let best = best
            .first()
            .and_then(|host| members.iter().find(|member| member.origin.id == host.id));
        let best = best.ok_or_else(|| ApiError::internal("no host was chosen"))?;
        Ok(best.clone())
    }

    /// Adds to `hosts` what placing needs and lists of containers do not say.
    async fn fill(
        &self,
        members: &[Member],
        hosts: &mut [Host],
        wish: &Wish,
    ) -> Result<(), ApiError> {
        let rules = wish.constraints.iter().chain(&wish.affinities);
        let keys: Vec<&str> = rules.map(Expression::key).collect();
        let work = hosts.iter_mut().filter_map(|host| {
            let member = members.iter().find(|member| member.origin.id == host.id)?;
            (member.is_up && host.is_ready).then_some((member, host))
        });
        let work: Vec<BoxFuture<'_, _>> = work
            .map(|(member, host)| self.fill_one(member, host, wish, &keys).boxed())
            .collect();
        for filled in futures::future::join_all(work).await {
            // A host that does not answer lacks what it did not say, and is not chosen for it.
            if let Err(refusal) = filled {
                tracing::warn!(why = refusal.message, "a host says less than was asked");
            }
        }
        Ok(())
    }

    async fn fill_one(
        &self,
        member: &Member,
        host: &mut Host,
        wish: &Wish,
        keys: &[&str],
    ) -> Result<(), ApiError> {
        self.fill_facts(member, host).await;
        if !wish.network.is_empty() {
            let answer = member.get("/networks").await?;
            let list = answer.value.as_array().map_or(&[][..], Vec::as_slice);
            let own = list.iter().filter(|network| network["Scope"] == "local");
            let names = own.flat_map(|network| [&network["Name"], &network["Id"]]);
            host.networks = names
                .filter_map(|name| name.as_str().map(ToOwned::to_owned))
                .collect();
        }
        if keys.contains(&"image") {
            let answer = member.get("/images/json").await?;
            let list = answer.value.as_array().map_or(&[][..], Vec::as_slice);
            host.images = list.iter().map(Image::listed).collect();
        }
        if STANDARD.iter().any(|(label, _)| keys.contains(label)) {
            let info = member.get("/info").await?.value;
            for (label, field) in STANDARD {
                let value = info[field].as_str().unwrap_or_default();
                let label = host.labels.entry(label.to_owned());
                label.or_insert_with(|| value.to_owned());
            }
        }
        Ok(())
    }

    /// What the containers of `host` take of it.
    pub(super) async fn fill_facts(&self, member: &Member, host: &mut Host) {
        let unknown: Vec<String> = {
            let facts = lock(&self.facts);
            let ids = host.containers.iter().map(|container| &container.id);
            ids.filter(|id| !facts.contains_key(*id) && id.len() == 64)
                .cloned()
                .collect()
        };
        let looks: Vec<BoxFuture<'_, _>> = unknown
            .into_iter()
            .map(|id| facts_of(member, id).boxed())
            .collect();
        let looks = stream::iter(looks).buffer_unordered(LOOKS);
        let found: Vec<Option<(String, Facts)>> = looks.collect().await;
        let mut facts = lock(&self.facts);
        if facts.len() >= REMEMBERED {
            facts.clear();
        }
        facts.extend(found.into_iter().flatten());
        for container in &mut host.containers {
            if let Some(known) = facts.get(&container.id) {
                container.facts = known.clone();
            }
        }
    }

    /// Starts a container that was just made.
    pub(super) async fn start(&self, member: &Member, id: &str) -> Result<(), ApiError> {
        let path = format!("/containers/{id}/start");
        let answer = member
            .ask(request(Method::POST, &path)?, Bytes::new())
            .await?;
        if answer.status.is_success() || answer.status == StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        let why = answer.value["message"].as_str().unwrap_or_default();
        Err(ApiError::new(answer.status, why))
    }
}

async fn facts_of(member: &Member, id: String) -> Option<(String, Facts)> {
    let path = format!("/containers/{id}/json");
    let answer = member.get(&path).await.ok()?;
    let facts = Facts::inspected(&answer.value, member.nano_cpus);
    (answer.status == StatusCode::OK).then_some((id, facts))
}

/// Query of a create request of ours.
pub(super) fn create_query(name: &str) -> String {
    encode(&[("name".to_owned(), name.to_owned())])
}

/// 64 hexadecimal digits.
fn random_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn who_gives_up_waiting_leaves_nothing_on_its_way() {
        let pending = Mutex::new(Pending::new());
        let mut making = Box::pin(async {
            let node = weft_types::NodeId::numbered(1);
            let _on_its_way = OnItsWay::new(&pending, "1", node, Container::default());
            std::future::pending::<()>().await;
        });
        let mut context = Context::from_waker(Waker::noop());
        assert!(making.as_mut().poll(&mut context).is_pending());
        assert_eq!(lock(&pending).len(), 1);
        drop(making);
        assert!(lock(&pending).is_empty());
    }
}
