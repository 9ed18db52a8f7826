//! `docker run --network <swarm network>`: the engine makes the container without a network, the
//! node connects it when it starts.
//!
//! What was wished is kept in a label of the container, so that it outlives this process.

use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft_types::validate::image_reference;

use super::{
    GATE,
    endpoint::{Endpoint, LINKS, cannot_have, is_empty},
};
use crate::{
    door::{Asked, Door},
    node::{AttachRequest, LocalState},
    reply::{ApiError, Reply, whole},
};

/// Label of containers that wish to be on swarm networks: a list of [`Wish`].
pub(crate) const LABEL: &str = "io.weft.networks";

/// Networks that are the engine's own whatever else there is.
const BUILT_IN: [&str; 6] = ["", "default", "bridge", "host", "none", "nat"];

/// A container's wish to be on a swarm network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Wish {
    /// Its id.
    network: String,
    /// Its name when the container was made.
    pub(super) name: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    addresses: Vec<std::net::IpAddr>,
}

/// The wishes that `labels` of a container carry.
pub(super) fn read(label: &str) -> Vec<Wish> {
    serde_json::from_str(label).unwrap_or_default()
}

impl Door {
    pub(crate) async fn create_container(&self, asked: Asked) -> Reply {
        let changed = match serde_json::from_slice(&asked.body) {
            Ok(body) => self.without_swarm_networks(body).await?,
            // The engine words what is wrong with it.
            Err(_) => None,
        };
        let body = match changed {
            Some(body) => body.to_string().into(),
            None => asked.body,
        };
        self.engine.pass_bytes(asked.parts, body).await
    }

    /// What to ask of the engine instead; `None` when the container is all the engine's.
    async fn without_swarm_networks(&self, mut body: Value) -> Result<Option<Value>, ApiError> {
        let names = network_names(&body);
        let active = self.node.status().await.state == LocalState::Active;
        if names.is_empty() || !active {
            return Ok(None);
        }
        // Without a leader the engine's own networks must still serve.
        let known = self.swarm_networks(false).await.unwrap_or_default();
        let manages = self.node.control().await.is_ok();
        let mut wishes = Vec::new();
        for name in &names {
            let find = |view: &&crate::networks::NetworkView| {
                !view.is_predefined() && (view.id() == name || view.is_named(name))
            };
            if let Some(view) = known.iter().find(find) {
                wishes.push(wish(view.id(), view.name(), &body, name)?);
            } else if !manages && !self.engine_may_have_network(name).await {
                // A worker knows only the networks in use here: a manager will say when it starts.
                wishes.push(wish(name, name, &body, name)?);
            }
        }
        let Some(first) = wishes.first() else {
            return Ok(None);
        };
        refuse_what_is_not_built(&body, first, wishes.len() < names.len())?;
        let label = serde_json::to_string(&wishes).unwrap_or_default();
        if !self.add_gate(&mut body).await? {
            return Ok(None);
        }
        for part in ["HostConfig", "NetworkingConfig", "Labels"] {
            if !body[part].is_object() {
                body[part] = json!({});
            }
        }
        body["HostConfig"]["NetworkMode"] = "none".into();
        body["HostConfig"]["Dns"] = json!(["127.0.0.11"]);
        if is_empty(&body["HostConfig"]["DnsOptions"]) {
            body["HostConfig"]["DnsOptions"] = json!(["ndots:0"]);
        }
        body["NetworkingConfig"]["EndpointsConfig"] = json!({});
        body["Labels"][LABEL] = label.into();
        Ok(Some(body))
    }

    /// Puts the gate before the program; `false` when the engine should refuse the request itself.
    async fn add_gate(&self, body: &mut Value) -> Result<bool, ApiError> {
        let Some(gate) = self.node.gate() else {
            return Err(ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "this node cannot put a container on a swarm network yet; run it as a service (docker service create)",
            ));
        };
        let image = body["Image"].as_str().unwrap_or_default().to_owned();
        let hex = image.len() <= 71 && image.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        if !image_reference(&image) && !hex && !image.starts_with("sha256:") {
            return Ok(false);
        }
        let (status, facts) = self.engine.get(&format!("/images/{image}/json")).await?;
        if status != StatusCode::OK {
            return Ok(false);
        }
        let own = words(&body["Entrypoint"]);
        let (entrypoint, default) = match own.as_deref() {
            None | Some([]) => (
                words(&facts["Config"]["Entrypoint"]).unwrap_or_default(),
                words(&facts["Config"]["Cmd"]).unwrap_or_default(),
            ),
            // An empty word takes the image's away.
            Some([word]) if word.is_empty() => (vec![], vec![]),
            Some(words) => (words.to_vec(), vec![]),
        };
        let command = words(&body["Cmd"]).filter(|words| !words.is_empty());
        let command = command.unwrap_or(default);
        if entrypoint.is_empty() && command.is_empty() {
            return Ok(false);
        }
        let mut gated = vec![GATE.to_owned()];
        gated.extend(entrypoint);
        body["Entrypoint"] = json!(gated);
        body["Cmd"] = json!(command);
        if !body["HostConfig"].is_object() {
            body["HostConfig"] = json!({});
        }
        let bind = Value::from(format!("{}:{GATE}:ro", gate.display()));
        match body["HostConfig"]["Binds"].as_array_mut() {
            Some(binds) => binds.push(bind),
            None => body["HostConfig"]["Binds"] = json!([bind]),
        }
        Ok(true)
    }

    /// Starts or restarts a container, and connects it where it wishes.
    pub(crate) async fn start_container(&self, reference: String, asked: Asked) -> Reply {
        let wishing = match self.node.status().await.state {
            LocalState::Active => self.wishing(&reference).await,
            _ => None,
        };
        let response = self.engine.pass_bytes(asked.parts, asked.body).await?;
        let Some((id, name, wishes)) = wishing else {
            return Ok(response);
        };
        if response.status() != StatusCode::NO_CONTENT {
            return Ok(response);
        }
        for wish in wishes {
            let attached = self.node.attach(AttachRequest {
                container_id: id.clone(),
                container_name: name.clone(),
                network: wish.network,
                aliases: wish.aliases,
                addresses: wish.addresses,
                starting: true,
            });
            if let Err(error) = attached.await {
                // The gate holds its program back: nothing of it has run.
                self.kill(&id).await;
                return Err(ApiError::internal(format!(
                    "Could not attach to network {}: {}",
                    wish.name,
                    ApiError::from_manager(error).message
                )));
            }
        }
        Ok(response)
    }

    /// Id, name and wishes of a container that wishes to be on swarm networks.
    async fn wishing(&self, reference: &str) -> Option<(String, String, Vec<Wish>)> {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if reference.is_empty() || !reference.bytes().all(safe) {
            return None;
        }
        let path = format!("/containers/{reference}/json");
        let (_, container) = self.engine.get(&path).await.ok()?;
        let wishes = read(container["Config"]["Labels"][LABEL].as_str()?);
        let name = container["Name"].as_str()?.trim_start_matches('/');
        let id = container["Id"].as_str()?.to_owned();
        (!wishes.is_empty()).then(|| (id, name.to_owned(), wishes))
    }

    async fn kill(&self, id: &str) {
        let request =
            Request::post(format!("/containers/{id}/kill")).body(whole(bytes::Bytes::new()));
        let Ok(request) = request else { return };
        if let Err(refusal) = self.engine.send(request).await {
            let why = refusal.message;
            tracing::warn!(id, why, "cannot end a container that has no network");
        }
    }
}

/// Names of networks that a container asks for, beyond the engine's built-in ones.
fn network_names(body: &Value) -> Vec<String> {
    let mode = body["HostConfig"]["NetworkMode"].as_str();
    let endpoints = body["NetworkingConfig"]["EndpointsConfig"].as_object();
    let keys = endpoints.into_iter().flat_map(|map| map.keys());
    let mut names: Vec<String> = Vec::new();
    for name in mode.into_iter().chain(keys.map(String::as_str)) {
        let plain = !BUILT_IN.contains(&name) && !name.starts_with("container:");
        if plain && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn wish(id: &str, name: &str, body: &Value, key: &str) -> Result<Wish, ApiError> {
    let endpoint = &body["NetworkingConfig"]["EndpointsConfig"][key];
    let Endpoint { aliases, addresses } = Endpoint::read(endpoint, name)?;
    Ok(Wish {
        network: id.to_owned(),
        name: name.to_owned(),
        aliases,
        addresses,
    })
}

/// Refuses what a container on a swarm network cannot have here, rather than to leave it out.
fn refuse_what_is_not_built(body: &Value, wish: &Wish, mixed: bool) -> Result<(), ApiError> {
    let host = &body["HostConfig"];
    let mode = host["NetworkMode"].as_str().unwrap_or_default();
    let given = |value: &Value| !is_empty(value);
    let what = if mixed || ["bridge", "host", "none"].contains(&mode) {
        "a network of the engine beside it"
    } else if given(&host["PortBindings"]) || host["PublishAllPorts"] == true {
        "published ports (-p); publish a service's instead"
    } else if given(&host["Dns"]) {
        "name servers of its own (--dns)"
    } else if given(&body["MacAddress"]) {
        "a MAC address of its own"
    } else if given(&host["Links"]) {
        LINKS
    } else {
        return Ok(());
    };
    Err(cannot_have(&wish.name, what))
}

/// A command: a list of words, or one word. `None` when absent.
fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(word) => Some(vec![word.clone()]),
        Value::Array(list) => {
            let words = list.iter().filter_map(Value::as_str);
            Some(words.map(str::to_owned).collect())
        }
        _ => None,
    }
}
