//! `/networks`: the swarm's and the engine's, as one list.

mod create;
mod view;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use weft_proto::ControlRequest;
use weft_types::network::{Network, NodeNetwork};

use crate::{
    body::{parse, parse_due, parse_go},
    containers::Endpoint,
    door::{Asked, Door, expect_reply},
    filter::Filters,
    go_types,
    node::{AttachRequest, DetachRequest, LocalState, NotManager},
    reply::{ApiError, Reply, empty, json as json_reply, ok},
};
use view::Here;
pub(crate) use view::{NetworkView, endpoint_id, mac};

/// Label of swarm twins of the engine's own networks.
const PREDEFINED: &str = "com.docker.swarm.predefined";

impl Door {
    pub(crate) async fn list_networks(&self, asked: &Asked) -> Reply {
        let filters = Filters::read(asked.query.get("filters"))?;
        let (status, mut list) = self.engine.get(asked.target()).await?;
        let Some(networks) = list.as_array_mut().filter(|_| status == StatusCode::OK) else {
            return Ok(json_reply(status, &list));
        };
        for view in self.swarm_networks(false).await? {
            if !view.is_predefined() && view.fits(&filters) {
                let value = serde_json::to_value(&view).unwrap_or_default();
                networks.push(value);
            }
        }
        Ok(ok(&list))
    }

    pub(crate) async fn inspect_network(&self, id: String, asked: Asked) -> Reply {
        let scope = asked.query.get("scope").to_owned();
        // In any other scope is nothing of the swarm's.
        if matches!(scope.as_str(), "" | "swarm")
            && let Some(view) = self.find_swarm_network(&id, &asked, &scope).await?
        {
            asked.query.truth("verbose")?;
            return Ok(ok(&view));
        }
        if scope == "swarm" {
            // How `docker service create --network host` asks what to send as the target.
            return match NodeNetwork::named(&id) {
                Some(network) if self.node.control().await.is_ok() => {
                    Ok(ok(&NetworkView::twin(network)))
                }
                _ => Err(not_found(&id)),
            };
        }
        self.engine.pass_bytes(asked.parts, asked.body).await
    }

    pub(crate) async fn remove_network(&self, id: String, asked: Asked) -> Reply {
        match self.find_swarm_network(&id, &asked, "").await? {
            None => self.engine.pass_bytes(asked.parts, asked.body).await,
            Some(view) => {
                self.ask(ControlRequest::RemoveNetwork(view.id().to_owned()))
                    .await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
        }
    }

    pub(crate) async fn prune_networks(&self, asked: Asked) -> Reply {
        let filters = Filters::read(asked.query.get("filters"))?;
        let target = asked.target().to_owned();
        let request = http::Request::post(target)
            .body(crate::reply::whole(Bytes::new()))
            .map_err(|error| ApiError::bad(error.to_string()))?;
        let (response, connection) = self.engine.send(request).await?;
        if response.status() != StatusCode::OK {
            return Ok(response.map(|body| connection.tie(body)));
        }
        let mut pruned: Value = parse(&crate::body::collect(response.into_body()).await?)?;
        if self.node.control().await.is_err() || !pruned.is_object() {
            return Ok(ok(&pruned));
        }
        let until = crate::logs::moment("until", filters.values("until").next().unwrap_or(""))?;
        let mut names: Vec<Value> = pruned["NetworksDeleted"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for network in expect_reply!(self.ask(ControlRequest::ListNetworks).await?, Networks)? {
            let labels = &network.spec.labels;
            let spared = network.spec.ingress
                || labels.contains_key(PREDEFINED)
                || !filters.labels("label", labels)
                || (filters.has("label!") && filters.labels("label!", labels))
                || (!until.is_zero() && network.meta.created_at > until);
            if spared {
                continue;
            }
            let request = ControlRequest::RemoveNetwork(network.id.to_string());
            // Those in use are refused, and stay.
            if self.ask(request).await.is_ok() {
                names.push(network.spec.name.into());
            }
        }
        // Where there was nothing to do, Docker's answer is no list.
        if !names.is_empty() {
            pruned["NetworksDeleted"] = names.into();
        }
        Ok(ok(&pruned))
    }

    pub(crate) async fn connect_network(&self, id: String, asked: Asked) -> Reply {
        let Some((network, network_name)) = self.guest_network(&id, &asked).await? else {
            return self.connect_beside(asked).await;
        };
        let body = parse_due(&asked.body, &go_types::CONNECT)?;
        let (container_id, container_name) = self.container(&body).await?;
        let Endpoint { aliases, addresses } =
            Endpoint::read(&body["EndpointConfig"], &network_name)?;
        let attached = self.node.attach(AttachRequest {
            container_id,
            container_name,
            network,
            aliases,
            addresses,
            starting: false,
        });
        attached.await.map_err(ApiError::from_manager)?;
        Ok(empty(StatusCode::OK))
    }

    pub(crate) async fn disconnect_network(&self, id: String, asked: Asked) -> Reply {
        let Some((network, _)) = self.guest_network(&id, &asked).await? else {
            let guest = self.guest_of(&asked).await;
            let response = self.engine.pass_bytes(asked.parts, asked.body).await?;
            return self.settled(guest, response).await;
        };
        let body = parse_due(&asked.body, &go_types::DISCONNECT)?;
        let force = body["Force"].as_bool().unwrap_or(false);
        let container_id = match self.container(&body).await {
            Ok((id, _)) => id,
            Err(_) if force => body["Container"].as_str().unwrap_or_default().to_owned(),
            Err(refusal) => return Err(refusal),
        };
        let detached = self.node.detach(DetachRequest {
            container_id,
            network,
            force,
        });
        detached.await.map_err(ApiError::from_node)?;
        Ok(empty(StatusCode::OK))
    }

    /// Connects a container to a network of the engine's, also one that is on the swarm's.
    async fn connect_beside(&self, asked: Asked) -> Reply {
        let guest = self.guest_of(&asked).await;
        if let Some(guest) = guest.as_ref().filter(|guest| guest.is_alone) {
            if guest.is_running {
                return Err(ApiError::new(
                    StatusCode::NOT_IMPLEMENTED,
                    format!(
                        "container {} runs on swarm networks alone: stop it, connect it, and start it again",
                        guest.id
                    ),
                ));
            }
            // To the engine it is on no network, which it can be beside none.
            let off = json!({"Container": guest.id, "Force": false}).to_string();
            let request = http::Request::post("/networks/none/disconnect")
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(crate::reply::whole(off.into()))
                .map_err(|error| ApiError::bad(error.to_string()))?;
            let _answer = self.engine.send(request).await?;
        }
        let response = self.engine.pass_bytes(asked.parts, asked.body).await?;
        self.settled(guest, response).await
    }

    /// The container that `asked` is about, if the swarm may have a part in it.
    async fn guest_of(&self, asked: &Asked) -> Option<Guest> {
        if self.node.status().await.state != LocalState::Active {
            return None;
        }
        let body: Value = serde_json::from_slice(&asked.body).ok()?;
        let reference = body["Container"].as_str()?;
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if reference.is_empty() || !reference.bytes().all(safe) {
            return None;
        }
        let path = format!("/containers/{reference}/json");
        let (_, container) = self.engine.get(&path).await.ok()?;
        let networks = container["NetworkSettings"]["Networks"].as_object();
        let mut networks = networks.into_iter().flat_map(|networks| networks.keys());
        let wishes = container["Config"]["Labels"][crate::containers::WISHES].is_string();
        Some(Guest {
            id: container["Id"].as_str()?.to_owned(),
            is_running: container["State"]["Running"] == true,
            is_alone: wishes && networks.all(|name| name == "none"),
        })
    }

    /// An answer of the engine's, when the container's swarm networks agree with what it did.
    async fn settled(
        &self,
        guest: Option<Guest>,
        response: http::Response<crate::reply::Body>,
    ) -> Reply {
        if let Some(guest) = guest.filter(|guest| guest.is_running)
            && response.status().is_success()
        {
            let settled = self.node.settle(&guest.id).await;
            settled.map_err(ApiError::from_manager)?;
        }
        Ok(response)
    }

    /// Id and name of the swarm's network that a container is connected to, or taken from. A worker on
    /// which nothing uses the network knows neither; then both are what was said, and a manager
    /// decides, as when a container starts.
    async fn guest_network(
        &self,
        reference: &str,
        asked: &Asked,
    ) -> Result<Option<(String, String)>, ApiError> {
        if let Some(view) = self.find_swarm_network(reference, asked, "").await? {
            return Ok(Some((view.id().to_owned(), view.name().to_owned())));
        }
        let is_worker = self.node.status().await.state == LocalState::Active
            && matches!(self.node.control().await, Err(NotManager::Worker));
        let may_be = is_worker && !self.engine_may_have_network(reference).await;
        Ok(may_be.then(|| (reference.to_owned(), reference.to_owned())))
    }

    pub(crate) async fn create_network(&self, asked: Asked) -> Reply {
        let body = parse_go(&asked.body)?;
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        if !create::is_swarm(&body) {
            // One name space for both.
            if self.node.control().await.is_ok()
                && self
                    .swarm_networks(false)
                    .await?
                    .iter()
                    .any(|n| n.is_named(&name))
            {
                return Err(taken(&name));
            }
            return self.engine.pass_bytes(asked.parts, asked.body).await;
        }
        go_types::check(&body, &go_types::NETWORK)?;
        go_types::heard(&body, &go_types::NETWORK)?;
        if let Err(why) = self.node.control().await {
            return Err(create::refuse_here(why));
        }
        if self
            .swarm_networks(false)
            .await?
            .iter()
            .any(|n| n.is_named(&name))
            || self.engine_has_network(&name).await
        {
            return Err(taken(&name));
        }
        let spec = create::spec(&body)?;
        let request = ControlRequest::CreateNetwork(Box::new(spec));
        let id = expect_reply!(self.ask(request).await?, Created)?;
        let created = json!({"Id": id, "Warning": ""});
        Ok(json_reply(StatusCode::CREATED, &created))
    }

    /// Whether the engine has a network of this name or id, or cannot be asked.
    pub(crate) async fn engine_may_have_network(&self, reference: &str) -> bool {
        let Ok((_, list)) = self.engine.get("/networks").await else {
            return true;
        };
        let mut known = list.as_array().into_iter().flatten();
        known.any(|network| {
            let id = network["Id"].as_str().unwrap_or_default();
            network["Name"] == reference || (!reference.is_empty() && id.starts_with(reference))
        })
    }

    /// Puts the name in the place of the id where a service spec names a network that every node
    /// has: the id is another one on each.
    pub(crate) async fn name_node_networks(&self, spec: &mut Value) {
        /// Length of the engine's ids, in hexadecimal digits; the cluster's are shorter.
        const ENGINE_ID: usize = 64;
        for field in ["/TaskTemplate/Networks", "/Networks"] {
            let wishes = spec.pointer_mut(field).and_then(Value::as_array_mut);
            for wish in wishes.into_iter().flatten() {
                let Some(Value::String(target)) = wish.get_mut("Target") else {
                    continue;
                };
                if target.len() != ENGINE_ID {
                    continue;
                }
                // An engine that does not answer leaves the id, which the manager does not know.
                let Ok((_, list)) = self.engine.get("/networks").await else {
                    continue;
                };
                let mut known = list.as_array().into_iter().flatten();
                let found = known.find(|network| network["Id"] == target.as_str());
                let name = found.and_then(|network| network["Name"].as_str());
                if let Some(own) = name.and_then(NodeNetwork::named) {
                    own.name().clone_into(target);
                }
            }
        }
    }

    async fn engine_has_network(&self, name: &str) -> bool {
        // A slow or absent engine must not stop the swarm's own networks from being made.
        let Ok((_, list)) = self.engine.get("/networks").await else {
            return false;
        };
        let mut names = list.as_array().into_iter().flatten();
        names.any(|network| network["Name"] == name)
    }

    /// The swarm network that `reference` names, if it names one: by id, name, or, where the
    /// engine has none such, unique prefix of the id.
    async fn find_swarm_network(
        &self,
        reference: &str,
        asked: &Asked,
        scope: &str,
    ) -> Result<Option<NetworkView>, ApiError> {
        let verbose = asked.query.flag("verbose");
        let networks = self.swarm_networks(verbose).await?;
        let pick = |test: &dyn Fn(&NetworkView) -> bool| -> Vec<usize> {
            let found = networks.iter().enumerate().filter(|(_, view)| test(view));
            found.map(|(at, _)| at).collect()
        };
        // The engine's own stand for their twins, unless the swarm's are asked for.
        let visible = |view: &NetworkView| scope == "swarm" || !view.is_predefined();
        let mut found = pick(&|view| view.id() == reference);
        if found.is_empty() {
            found = pick(&|view| view.is_named(reference) && visible(view));
            ambiguous(reference, found.len(), "name")?;
        }
        if found.is_empty() && !reference.is_empty() {
            found = pick(&|view| view.id().starts_with(reference) && visible(view));
            if !found.is_empty() && scope != "swarm" && self.engine_knows(reference).await {
                found.clear();
            }
            ambiguous(reference, found.len(), "ID prefix")?;
        }
        let at = found.first().copied();
        Ok(at.and_then(|at| networks.into_iter().nth(at)))
    }

    async fn engine_knows(&self, reference: &str) -> bool {
        let plain = reference
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let path = format!("/networks/{reference}");
        plain && matches!(self.engine.get(&path).await, Ok((StatusCode::OK, _)))
    }

    /// The swarm's networks as this node may show them: all on managers, those in use here on
    /// workers.
    pub(crate) async fn swarm_networks(&self, verbose: bool) -> Result<Vec<NetworkView>, ApiError> {
        let status = self.node.status().await;
        if !matches!(status.state, LocalState::Active | LocalState::Error) {
            return Ok(vec![]);
        }
        let state = self.node.net_state().await;
        let containers = self.node.local_containers().await;
        let here = Here {
            node: status.node_id,
            state: &state,
            containers: &containers,
            verbose,
        };
        match self.node.control().await {
            Ok(_) => {
                let networks =
                    expect_reply!(self.ask(ControlRequest::ListNetworks).await?, Networks)?;
                let views = networks.iter().map(|n: &Network| here.stored(n));
                Ok(views.collect())
            }
            Err(NotManager::Worker) => Ok(here.all()),
            Err(_) => Ok(vec![]),
        }
    }

    /// Id and name of the container that a connect or disconnect is about.
    async fn container(&self, body: &Value) -> Result<(String, String), ApiError> {
        let reference = body["Container"].as_str().unwrap_or_default();
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let missing = || {
            ApiError::new(
                StatusCode::NOT_FOUND,
                format!("No such container: {reference}"),
            )
        };
        if reference.is_empty() || !reference.bytes().all(safe) {
            return Err(missing());
        }
        let path = format!("/containers/{reference}/json");
        let (status, container) = self.engine.get(&path).await?;
        let text = |key: &str| container[key].as_str().unwrap_or_default().to_owned();
        if status != StatusCode::OK {
            let message = text("message");
            return Err(ApiError::new(status, message));
        }
        let name = text("Name").trim_start_matches('/').to_owned();
        Ok((text("Id"), name))
    }
}

/// A container that the swarm may have a part in.
struct Guest {
    id: String,
    is_running: bool,
    /// It was made for swarm networks and is on none of the engine's.
    is_alone: bool,
}

fn not_found(reference: &str) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("network {reference} not found"),
    )
}

fn taken(name: &str) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        format!("network with name {name} already exists"),
    )
}

fn ambiguous(reference: &str, count: usize, by: &str) -> Result<(), ApiError> {
    match count {
        0 | 1 => Ok(()),
        _ => Err(ApiError::bad(format!(
            "network {reference} is ambiguous ({count} matches found based on {by})"
        ))),
    }
}
