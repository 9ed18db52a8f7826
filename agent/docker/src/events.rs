//! `/events`: the engine's, and the swarm's among them.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use weft_proto::{Event, Object};
use weft_types::{
    Labels,
    node::Node,
    service::{Service, UpdateState},
};

use crate::{
    door::{Asked, Door},
    engine::{Connection, Engine, next_bytes},
    filter::Filters,
    logs::moment,
    node::NodeControl,
    reply::{Body, Reply, whole},
};

#[derive(Debug, Serialize)]
struct EventView {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Action")]
    action: &'static str,
    #[serde(rename = "Actor")]
    actor: Actor,
    scope: &'static str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    attributes: Labels,
}

impl Door {
    pub(crate) async fn events(&self, asked: Asked) -> Reply {
        let filters = Filters::read(asked.query.get("filters"))?;
        let since = moment("since", asked.query.get("since"))?;
        let until = moment("until", asked.query.get("until"))?;
        if self.node.control().await.is_ok() {
            self.history.ready().await;
        }
        let (past, swarm) = self.history.subscribe(since, until);
        let request = http::Request::from_parts(asked.parts, whole(Bytes::new()));
        let (response, connection) = self.engine.send(request).await?;
        if response.status() != StatusCode::OK {
            return Ok(response.map(|body| connection.tie(body)));
        }
        let sieve = Sieve {
            engine: self.engine.anew(),
            node: Arc::clone(&self.node),
            ours: HashSet::new(),
        };
        Ok(response.map(|engine| merged(engine, connection, past, swarm, filters, sieve)))
    }
}

/// Takes out of the engine's events what clients of Docker would not see: that containers which are
/// on swarm networks are "connected" to the engine's network `none`.
struct Sieve {
    engine: Engine,
    node: Arc<dyn NodeControl>,
    /// Containers known to be on swarm networks.
    ours: HashSet<String>,
}

impl Sieve {
    async fn is_hidden(&mut self, event: &serde_json::Value) -> bool {
        let attributes = &event["Actor"]["Attributes"];
        if event["Type"] == "container" {
            if is_on_swarm_networks(attributes)
                && let Some(id) = event["Actor"]["ID"].as_str()
            {
                self.ours.insert(id.to_owned());
            }
            return false;
        }
        let of_none = event["Type"] == "network" && attributes["name"] == "none";
        match attributes["container"].as_str() {
            Some(id) if of_none => self.is_ours(id).await,
            _ => false,
        }
    }

    async fn is_ours(&mut self, id: &str) -> bool {
        if self.ours.contains(id) {
            return true;
        }
        let known = self.node.local_containers().await;
        let ours = known.values().any(|known| known == id)
            || match self.engine.get(&format!("/containers/{id}/json")).await {
                Ok((_, container)) => is_on_swarm_networks(&container["Config"]["Labels"]),
                Err(_) => false,
            };
        if ours {
            self.ours.insert(id.to_owned());
        }
        ours
    }
}

fn is_on_swarm_networks(labels: &serde_json::Value) -> bool {
    ["com.docker.swarm.task.id", crate::containers::WISHES]
        .into_iter()
        .any(|label| labels[label].is_string())
}

/// How long an engine may take to tell of its past, from word to word, before the swarm's is told without it.
const BACKLOG: Duration = Duration::from_millis(200);

/// What the swarm has to tell of its past, not told yet.
struct Past {
    events: VecDeque<Arc<Event>>,
    filters: Filters,
}

impl Past {
    /// Tells of what was before `time`, in nanoseconds, into `told`.
    fn until(&mut self, time: i64, told: &mut BytesMut) {
        while let Some(event) = self.events.pop_front_if(|event| event.at.0 <= time) {
            told.extend_from_slice(&text(&event, &self.filters).unwrap_or_default());
        }
    }
}

/// Events of both, whole objects after each other, those of the past by their time; ends with the engine's.
fn merged(
    engine: Incoming,
    connection: Connection,
    past: VecDeque<Arc<Event>>,
    swarm: Receiver<Arc<Event>>,
    filters: Filters,
    sieve: Sieve,
) -> Body {
    struct State {
        engine: Incoming,
        /// Bytes of an object that is not whole yet.
        rest: BytesMut,
        _connection: Connection,
        past: Past,
        swarm: Option<Receiver<Arc<Event>>>,
        sieve: Sieve,
    }
    let state = State {
        engine,
        rest: BytesMut::new(),
        _connection: connection,
        past: Past {
            events: past,
            filters,
        },
        swarm: Some(swarm),
        sieve,
    };
    let frames = stream::unfold(state, |mut state| async move {
        loop {
            let waits = !state.past.events.is_empty();
            let next_swarm = async {
                match &mut state.swarm {
                    Some(events) if !waits => events.recv().await,
                    _ => std::future::pending().await,
                }
            };
            let mut told = BytesMut::new();
            tokio::select! {
                bytes = next_bytes(&mut state.engine) => {
                    let Some(Ok(bytes)) = bytes else {
                        state.past.until(i64::MAX, &mut told);
                        told.extend_from_slice(&std::mem::take(&mut state.rest));
                        return (!told.is_empty()).then_some((told.freeze(), state));
                    };
                    state.rest.extend_from_slice(&bytes);
                    let Some(end) = state.rest.iter().rposition(|byte| *byte == b'\n') else {
                        continue;
                    };
                    for line in state.rest.split_to(end + 1).split_inclusive(|byte| *byte == b'\n') {
                        let event = serde_json::from_slice::<serde_json::Value>(line);
                        let event = event.unwrap_or_default();
                        let time = event["timeNano"].as_i64().unwrap_or(i64::MAX);
                        state.past.until(time, &mut told);
                        if !state.sieve.is_hidden(&event).await {
                            told.extend_from_slice(line);
                        }
                    }
                    if !told.is_empty() {
                        return Some((told.freeze(), state));
                    }
                }
                () = tokio::time::sleep(BACKLOG), if waits => {
                    state.past.until(i64::MAX, &mut told);
                    if !told.is_empty() {
                        return Some((told.freeze(), state));
                    }
                }
                event = next_swarm => match event {
                    Ok(event) => {
                        if let Some(text) = text(&event, &state.past.filters) {
                            return Some((text, state));
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "a client reads events too slowly");
                    }
                    Err(RecvError::Closed) => state.swarm = None,
                }
            }
        }
    });
    let frames = futures::StreamExt::map(frames, |bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    StreamBody::new(frames)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Whether clients are told of `event` at all.
pub(crate) fn is_told(event: &Event) -> bool {
    view(event).is_some()
}

fn text(event: &Event, filters: &Filters) -> Option<Bytes> {
    let view = view(event)?;
    if !fits(&view, filters) {
        return None;
    }
    let mut text = serde_json::to_vec(&view).ok()?;
    text.push(b'\n');
    Some(text.into())
}

fn fits(view: &EventView, filters: &Filters) -> bool {
    let name = view.actor.attributes.get("name").map_or("", String::as_str);
    // Filters for things that swarm events are never about.
    let foreign = ["container", "image", "volume", "plugin", "daemon"];
    let objects = ["service", "node", "network", "secret", "config"];
    let about = |kind: &&str| {
        filters.any(kind, |wish| {
            view.kind == *kind && (wish == view.actor.id || wish == name)
        })
    };
    !foreign.into_iter().any(|key| filters.has(key))
        && filters.exact("type", view.kind)
        && filters.exact("event", view.action)
        && filters.exact("scope", view.scope)
        && filters.labels("label", &view.actor.attributes)
        && objects.iter().all(about)
}

/// What Docker says of a change; nothing of tasks, the cluster, and what only we keep.
fn view(event: &Event) -> Option<EventView> {
    let (old, new) = (event.old.as_ref(), event.new.as_ref());
    let object = new.or(old)?;
    let mut action = match (old, new) {
        (None, Some(_)) => "create",
        (Some(_), None) => "remove",
        _ => "update",
    };
    let mut attributes = Labels::new();
    let (kind, id, name) = match object {
        Object::Service(service) => {
            if let (Some(Object::Service(old)), Some(Object::Service(new))) = (old, new) {
                if !service_changed(old, new, &mut attributes) {
                    return None;
                }
                if new.pending_delete && !old.pending_delete {
                    action = "remove";
                    attributes.clear();
                }
            } else if action == "remove" && service.pending_delete {
                return None;
            }
            ("service", service.id.to_string(), service.spec.name.clone())
        }
        Object::Node(node) => {
            if let (Some(Object::Node(old)), Some(Object::Node(new))) = (old, new)
                && !node_changed(old, new, &mut attributes)
            {
                return None;
            }
            let name = match node.spec.name.as_str() {
                "" => node.description.hostname.clone(),
                name => name.to_owned(),
            };
            ("node", node.id.to_string(), name)
        }
        Object::Network(network) => {
            if let (Some(Object::Network(old)), Some(Object::Network(new))) = (old, new) {
                let same = (&old.spec, &old.driver_state, &old.ipam)
                    == (&new.spec, &new.driver_state, &new.ipam);
                if new.pending_delete && !old.pending_delete {
                    action = "remove";
                } else if same {
                    return None;
                }
            } else if action == "remove" && network.pending_delete {
                return None;
            }
            ("network", network.id.to_string(), network.spec.name.clone())
        }
        Object::Secret(secret) => ("secret", secret.id.to_string(), secret.spec.name.clone()),
        Object::Config(config) => ("config", config.id.to_string(), config.spec.name.clone()),
        Object::Cluster(_) | Object::Task(_) => return None,
    };
    attributes.insert("name".to_owned(), name);
    Some(EventView {
        kind,
        action,
        actor: Actor { id, attributes },
        scope: "swarm",
        time: event.at.0.div_euclid(1_000_000_000),
        time_nano: event.at.0,
    })
}

/// Notes `field.old` and `field.new` if they differ; empty values are left out.
fn note(attributes: &mut Labels, field: &str, old: &str, new: &str) {
    if old == new {
        return;
    }
    for (which, value) in [("old", old), ("new", new)] {
        if !value.is_empty() {
            attributes.insert(format!("{field}.{which}"), value.to_owned());
        }
    }
}

fn service_changed(old: &Service, new: &Service, attributes: &mut Labels) -> bool {
    let image = |service: &Service| {
        let container = service.spec.task_template.container_spec.as_ref();
        container.map_or_else(String::new, |container| container.image.clone())
    };
    note(attributes, "image", &image(old), &image(new));
    let replicas = |service: &Service| {
        let replicas = service.replicas();
        replicas.map_or_else(String::new, |replicas| replicas.to_string())
    };
    note(attributes, "replicas", &replicas(old), &replicas(new));
    let update = |service: &Service| {
        let status = service.update_status.as_ref();
        status.map_or("", |status| update_word(status.state))
    };
    // An update resets the state to nothing, which Docker does not tell.
    if new.update_status.is_some() {
        note(attributes, "updatestate", update(old), update(new));
    }
    let kept = |service: &Service| {
        (
            service.spec.clone(),
            service.endpoint.clone(),
            service.update_status.clone(),
            service.pending_delete,
        )
    };
    kept(old) != kept(new)
}

fn update_word(state: UpdateState) -> &'static str {
    match state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "paused",
        UpdateState::Completed => "completed",
        UpdateState::RollbackStarted => "rollback_started",
        UpdateState::RollbackPaused => "rollback_paused",
        UpdateState::RollbackCompleted => "rollback_completed",
    }
}

fn node_changed(old: &Node, new: &Node, attributes: &mut Labels) -> bool {
    let facts = |node: &Node| {
        let manager = node.manager_status.as_ref();
        [
            ("availability", word(&node.spec.availability)),
            // The one in force, which follows the one that is wished.
            ("role", word(&node.role)),
            ("state", word(&node.status.state)),
            (
                "leader",
                manager.map_or_else(String::new, |m| m.leader.to_string()),
            ),
            (
                "reachability",
                manager.map_or_else(String::new, |m| word(&m.reachability)),
            ),
        ]
    };
    for ((field, old), (_, new)) in facts(old).into_iter().zip(facts(new)) {
        note(attributes, field, &old, &new);
    }
    old.spec != new.spec || !attributes.is_empty()
}

/// The word that a choice is in JSON.
fn word<T: Serialize>(choice: &T) -> String {
    let value = serde_json::to_value(choice).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
