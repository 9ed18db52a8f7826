//! `docker run --network <swarm network>`: the engine makes the container on those of its own networks
//! that it is to be on too, or on none, and the node connects it to the swarm's when it starts.
//!
//! One that publishes ports (`-p`) without a network of the engine's gets the engine's `bridge` for them,
//! which clients are not shown: Docker has `docker_gwbridge` for that.
//!
//! What was wished is kept in a label of the container, so that it outlives this process.

use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
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

/// Label of containers that are on the engine's `bridge` for their published ports alone.
pub(super) const GATEWAY_LABEL: &str = "io.weft.gateway";
/// The network that they are on then.
pub(super) const GATEWAY: &str = "bridge";

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

impl Wish {
    /// Name and end of the network while the container does not run.
    pub(super) fn view(&self) -> (String, Value) {
        let of = |v6: bool| {
            let mut addresses = self.addresses.iter();
            addresses.find(|address| address.is_ipv6() == v6)
        };
        let fixed = [("IPv4Address", of(false)), ("IPv6Address", of(true))];
        let fixed = fixed.into_iter().filter_map(|(field, address)| {
            address.map(|address| (field.to_owned(), address.to_string().into()))
        });
        let ipam: Map<String, Value> = fixed.collect();
        let view = json!({
            "IPAMConfig": if ipam.is_empty() { Value::Null } else { ipam.into() },
            "Links": null, "Aliases": self.aliases, "NetworkID": self.network, "EndpointID": "",
            "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": "", "DriverOpts": null,
        });
        (self.name.clone(), view)
    }
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
        let mut beside = Vec::new();
        let mut leads_out = false;
        for name in &names {
            let find = |view: &&crate::networks::NetworkView| {
                !view.is_predefined() && (view.id() == name || view.is_named(name))
            };
            if let Some(view) = known.iter().find(find) {
                wishes.push(wish(view.id(), view.name(), &body, name)?);
                leads_out |= !view.is_internal();
            } else if !manages && !self.engine_may_have_network(name).await {
                // A worker knows only the networks in use here: a manager will say when it starts.
                wishes.push(wish(name, name, &body, name)?);
                leads_out = true;
            } else {
                beside.push(name.clone());
            }
        }
        let Some(first) = wishes.first() else {
            return Ok(None);
        };
        let mode = body["HostConfig"]["NetworkMode"].as_str();
        let mode = mode.unwrap_or_default().to_owned();
        let ends = &body["NetworkingConfig"]["EndpointsConfig"];
        let asked = |name: &&str| mode == *name || ends.get(*name).is_some();
        let own = [GATEWAY, "host", "none"].into_iter().filter(asked);
        beside.extend(own.map(str::to_owned));
        refuse_what_is_not_built(&body, first, &beside)?;
        let publishes = publishes(&body) && beside.is_empty();
        if publishes && !leads_out {
            return Err(cannot_have(
                &first.name,
                "published ports (-p): it is internal, nothing leads into it or out",
            ));
        }
        let mode = match beside.first() {
            _ if publishes => GATEWAY.to_owned(),
            None => "none".to_owned(),
            Some(first) if !beside.contains(&mode) => first.clone(),
            Some(_) => mode,
        };
        let label = serde_json::to_string(&wishes).unwrap_or_default();
        if !self.add_gate(&mut body).await? {
            return Ok(None);
        }
        for part in ["HostConfig", "NetworkingConfig", "Labels"] {
            if !body[part].is_object() {
                body[part] = json!({});
            }
        }
        body["HostConfig"]["NetworkMode"] = mode.into();
        let mut kept = Map::new();
        if let Some(endpoints) = body["NetworkingConfig"]["EndpointsConfig"].as_object_mut() {
            kept = std::mem::take(endpoints);
            kept.retain(|name, _| beside.contains(name));
        }
        body["NetworkingConfig"]["EndpointsConfig"] = Value::Object(kept);
        body["Labels"][LABEL] = label.into();
        if publishes {
            body["Labels"][GATEWAY_LABEL] = GATEWAY.into();
        }
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
        let known = match self.node.status().await.state {
            LocalState::Active => self.wishing(&reference).await,
            _ => None,
        };
        let response = self.engine.pass_bytes(asked.parts, asked.body).await?;
        let Some((id, name, wishes)) = known else {
            return Ok(response);
        };
        if response.status() != StatusCode::NO_CONTENT {
            return Ok(response);
        }
        if wishes.is_empty()
            && let Err(error) = self.node.settle(&id).await
        {
            // Connected after it was made, so without a gate: Docker does not let it run either.
            self.kill(&id).await;
            return Err(ApiError::internal(format!(
                "Could not attach to the swarm's networks: {}",
                ApiError::from_manager(error).message
            )));
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

    /// Id and name of a container, and the wishes for swarm networks that it was made with.
    async fn wishing(&self, reference: &str) -> Option<(String, String, Vec<Wish>)> {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if reference.is_empty() || !reference.bytes().all(safe) {
            return None;
        }
        let path = format!("/containers/{reference}/json");
        let (_, container) = self.engine.get(&path).await.ok()?;
        let wishes = container["Config"]["Labels"][LABEL].as_str();
        let wishes = read(wishes.unwrap_or_default());
        let name = container["Name"].as_str()?.trim_start_matches('/');
        let id = container["Id"].as_str()?.to_owned();
        Some((id, name.to_owned(), wishes))
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
/// `beside` are the engine's networks that it is to be on too: what is wished of these is the engine's to judge.
fn refuse_what_is_not_built(body: &Value, wish: &Wish, beside: &[String]) -> Result<(), ApiError> {
    let host = &body["HostConfig"];
    let mode = host["NetworkMode"].as_str().unwrap_or_default();
    let given = |value: &Value| !is_empty(value);
    let is_one = |name: &String| ["host", "none"].contains(&name.as_str());
    let what = if mode.starts_with("container:") || beside.iter().any(is_one) {
        "another container's network, the host's, or none beside it"
    } else if beside.is_empty() && given(&body["MacAddress"]) {
        "a MAC address of its own"
    } else if beside.is_empty() && given(&host["Links"]) {
        LINKS
    } else {
        return Ok(());
    };
    Err(cannot_have(&wish.name, what))
}

/// Whether ports of it are to be published.
fn publishes(body: &Value) -> bool {
    let host = &body["HostConfig"];
    !is_empty(&host["PortBindings"]) || host["PublishAllPorts"] == true
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
