//! Containers of failed hosts made anew elsewhere, if their owner asked for it.
//!
//! Every manager remembers the containers concerned, so that whichever leads when a host fails can
//! act; only the leader does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weft_cluster::{
    reschedule::{INSTEAD_OF, Move, Seen, moves},
    wish::{again, is_rescheduled},
};

use super::{
    Cluster, Member, Nodes,
    create::{Draft, create_query},
    hosts::request,
    lock,
};
use crate::reply::ApiError;

/// Between two looks at which nodes are up.
const LOOK: Duration = Duration::from_secs(2);

/// Between two looks at what is on them, and what is added for each node.
const SURVEY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(250));

/// What was last seen of hosts, for when they are gone.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Their `docker ps -a`.
    pub(super) lists: Nodes<Value>,
    /// Inspections of containers that are to be made anew if need be, by id.
    wanted: HashMap<String, Value>,
}

/// The keeper's own memory.
#[derive(Default)]
struct Watchman {
    down_since: Nodes<Duration>,
    replaced: BTreeSet<String>,
    tried: BTreeMap<String, Duration>,
    surveyed: Option<Duration>,
}

impl Cluster {
    /// Watches over the hosts for as long as it is polled.
    pub(super) async fn keep(&self) {
        let begun = Instant::now();
        let mut watchman = Watchman::default();
        loop {
            sleep(LOOK).await;
            // Not a manager, or no leader: others watch, or nothing can be done.
            if let Ok(manager) = self.node.control().await
                && let Ok(members) = self.members().await
            {
                self.watch(&members, &mut watchman, begun.elapsed()).await;
                if manager.standing().await.leads {
                    self.act(&members, &mut watchman, begun.elapsed()).await;
                }
            }
        }
    }

    async fn watch(&self, members: &[Member], watchman: &mut Watchman, now: Duration) {
        let known = std::mem::take(&mut watchman.down_since);
        let down = members.iter().filter(|member| !member.is_up);
        watchman.down_since = down
            .map(|member| (member.node, known.get(&member.node).copied().unwrap_or(now)))
            .collect();
        let came_back = known
            .keys()
            .any(|node| !watchman.down_since.contains_key(node));
        let nodes = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let period = SURVEY.0.max(SURVEY.1.saturating_mul(nodes));
        let is_due = watchman.surveyed.is_none_or(|at| now >= at + period);
        if !is_due && !came_back {
            return;
        }
        watchman.surveyed = Some(now);
        let Ok(hosts) = self.look(members).await else {
            return;
        };
        let wanted: Vec<(&Member, String)> = hosts
            .iter()
            .filter_map(|host| {
                let member = members.iter().find(|member| member.origin.id == host.id)?;
                Some((member, host))
            })
            .flat_map(|(member, host)| {
                let containers = host.containers.iter();
                let wanted = containers.filter(|container| is_rescheduled(&container.labels));
                wanted.map(move |container| (member, container.id.clone()))
            })
            .collect();
        let ids: BTreeSet<&String> = wanted.iter().map(|(_, id)| id).collect();
        lock(&self.memory).wanted.retain(|id, _| ids.contains(id));
        for (member, id) in wanted {
            let is_known = lock(&self.memory).wanted.contains_key(&id);
            if member.is_up && !is_known {
                self.remember(member, &id).await;
            }
        }
    }

    /// Looks at a host again, beside what is being done: something on it has changed.
    pub(super) fn look_again(&self, member: &Member) {
        let (Some(me), member) = (self.me.upgrade(), member.clone()) else {
            return;
        };
        tokio::spawn(async move {
            // Who does not answer stays as it was last seen.
            let _seen = me.look(std::slice::from_ref(&member)).await;
        });
    }

    /// Notes how a container is made, and that it is there.
    pub(super) async fn remember(&self, member: &Member, id: &str) {
        let Ok(answer) = member.get(&format!("/containers/{id}/json")).await else {
            return;
        };
        if answer.status == StatusCode::OK {
            lock(&self.memory)
                .wanted
                .insert(id.to_owned(), answer.value);
            tracing::info!(
                container = id,
                "remembered: made anew elsewhere when its host fails"
            );
        }
    }

    async fn act(&self, members: &[Member], watchman: &mut Watchman, now: Duration) {
        let seen: Vec<Seen> = {
            let memory = lock(&self.memory);
            members
                .iter()
                .map(|member| {
                    let mut host = member.host();
                    let list = memory.lists.get(&member.node).unwrap_or(&Value::Null);
                    let list = list.as_array().map_or(&[][..], Vec::as_slice);
                    host.containers = list.iter().map(weft_cluster::Container::listed).collect();
                    Seen {
                        host,
                        down_since: watchman.down_since.get(&member.node).copied(),
                    }
                })
                .collect()
        };
        let (moves, _) = moves(&seen, &watchman.replaced, &watchman.tried, now);
        for one in moves {
            match one {
                Move::Anew { host, container } => {
                    let running = seen
                        .iter()
                        .flat_map(|seen| &seen.host.containers)
                        .any(|other| other.id == container && other.is_running);
                    match self.make_anew(&container, running).await {
                        Ok(member) => {
                            tracing::info!(
                                node = host,
                                container,
                                to = member.origin.name,
                                "the node failed: its container is made anew"
                            );
                            watchman.replaced.insert(container);
                        }
                        Err(refusal) => {
                            tracing::warn!(
                                node = host,
                                container,
                                why = refusal.message,
                                "the node failed, and its container cannot be made anew; trying again"
                            );
                            watchman.tried.insert(container, now);
                        }
                    }
                }
                Move::Remove { host, container } => {
                    let member = members.iter().find(|member| member.origin.id == host);
                    if let Some(member) = member {
                        self.remove(member, &container).await;
                    }
                }
            }
        }
    }

    async fn make_anew(&self, id: &str, running: bool) -> Result<Member, ApiError> {
        let inspected = lock(&self.memory).wanted.get(id).cloned();
        let inspected = inspected
            .ok_or_else(|| ApiError::internal("it was never seen while its node was there"))?;
        let mut body = again(&inspected);
        let before = inspected["Config"]["Labels"][INSTEAD_OF].as_str();
        let ids = match before {
            Some(before) => format!("{before},{id}"),
            None => id.to_owned(),
        };
        body["Labels"][INSTEAD_OF] = json!(ids);
        let name = inspected["Name"].as_str().unwrap_or_default();
        let name = name.trim_start_matches('/').to_owned();
        let path = format!("/containers/create?{}", create_query(&name));
        let mut parts = request(Method::POST, &path)?;
        let json = http::HeaderValue::from_static("application/json");
        parts.headers.insert(http::header::CONTENT_TYPE, json);
        let (member, response) = self.make(Draft { body, name, parts }).await?;
        let status = response.status();
        let text = super::read(response.into_body()).await?;
        let made: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let Some(made) = made["Id"].as_str() else {
            let why = made["message"].as_str().unwrap_or_default();
            return Err(ApiError::new(status, why));
        };
        if running && let Err(refusal) = self.start(&member, made).await {
            // It stands where it was made; its owner sees why it does not run.
            tracing::warn!(
                container = made,
                why = refusal.message,
                "a container that was made anew does not start"
            );
        }
        Ok(member)
    }

    async fn remove(&self, member: &Member, id: &str) {
        let path = format!("/containers/{id}?force=1");
        let Ok(parts) = request(Method::DELETE, &path) else {
            return;
        };
        match member.ask(parts, Bytes::new()).await {
            Ok(answer) if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND => {
                tracing::info!(
                    node = member.origin.name,
                    container = id,
                    "the node is back: removed a container that another stands for"
                );
                let mut memory = lock(&self.memory);
                memory.wanted.remove(id);
                if let Some(Value::Array(list)) = memory.lists.get_mut(&member.node) {
                    list.retain(|entry| entry["Id"] != id);
                }
            }
            Ok(answer) => {
                tracing::warn!(container = id, status = %answer.status, "cannot remove a container that another stands for");
            }
            Err(refusal) => {
                tracing::warn!(
                    container = id,
                    why = refusal.message,
                    "cannot remove a container that another stands for"
                );
            }
        }
    }
}
