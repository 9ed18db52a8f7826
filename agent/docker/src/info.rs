//! `/_ping`, `/version` and `/info`: the engine's answers with ours put in.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Body as HttpBody;
use serde::Serialize;
use serde_json::{Value, json};
use weft_proto::{ControlReply, ControlRequest};

use crate::{
    door::{Asked, Door},
    node::{LocalState, LocalStatus},
    reply::{ApiError, Body, BodyError, Reply, ok, whole},
    view::ClusterView,
};

/// `info.Swarm`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SwarmInfo {
    #[serde(rename = "NodeID")]
    node_id: String,
    node_addr: String,
    local_node_state: &'static str,
    control_available: bool,
    error: String,
    remote_managers: Option<Vec<Peer>>,
    #[serde(skip_serializing_if = "is_zero")]
    nodes: usize,
    #[serde(skip_serializing_if = "is_zero")]
    managers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Peer {
    #[serde(rename = "NodeID")]
    node_id: String,
    addr: String,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// How long the engine may take to answer a ping before it is answered without it.
const PING_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

const TWO_MANAGERS: &str =
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.";

impl Door {
    /// The engine's answer with our headers; ours alone while the engine is away, so that the
    /// swarm can still be asked.
    pub(crate) async fn ping<B>(&self, request: Request<B>) -> Reply
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let head = request.method() == Method::HEAD;
        let status = self.node.status().await;
        let pass = self.engine.pass(request, self.stop());
        let passed = match tokio::time::timeout(PING_PATIENCE, pass).await {
            Ok(passed) => passed,
            Err(_) => Err(ApiError::internal("the engine does not answer a ping")),
        };
        let newest = passed.as_ref().ok().and_then(|response| {
            let header = response.headers().get("Api-Version")?;
            header.to_str().ok()?.parse().ok()
        });
        if newest.is_some() {
            let known = self.engine.facts(false).await.map(|facts| facts.newest);
            if known != newest {
                self.engine.facts(true).await;
            }
        }
        let span = self.engine.span().await;
        let mut response = match passed {
            Ok(response) => response,
            Err(refusal) => {
                tracing::warn!(why = refusal.message, "ping answered without the engine");
                own_ping(head)
            }
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::try_from(span.newest.to_string()) {
            headers.insert("Api-Version", value);
        }
        headers.insert("Swarm", HeaderValue::from_static(swarm_header(&status)));
        Ok(response)
    }

    pub(crate) async fn version(&self, asked: &Asked) -> Reply {
        let span = self.engine.span().await;
        let ours = json!({
            "Name": "weft",
            "Version": env!("CARGO_PKG_VERSION"),
            "Details": {
                "ApiVersion": span.newest.to_string(),
                "MinAPIVersion": span.oldest.to_string(),
                "Role": "swarm mode, networks and this API",
            }
        });
        let mut version = match self.engine.get_object(asked.target()).await {
            Ok((StatusCode::OK, version)) => version,
            Ok((status, refusal)) => return Ok(crate::reply::json(status, &refusal)),
            Err(refusal) => json!({
                "Platform": {"Name": format!("weft ({})", refusal.message)},
                "Components": [], "Version": "", "GitCommit": "", "GoVersion": "",
                "Os": "linux", "Arch": std::env::consts::ARCH, "KernelVersion": "", "BuildTime": "",
            }),
        };
        version["ApiVersion"] = span.newest.to_string().into();
        version["MinAPIVersion"] = span.oldest.to_string().into();
        if let Some(components) = version["Components"].as_array_mut() {
            for component in components
                .iter_mut()
                .filter(|c| c["Details"].is_object() && c["Name"] == "Engine")
            {
                component["Details"]["ApiVersion"] = span.newest.to_string().into();
                component["Details"]["MinAPIVersion"] = span.oldest.to_string().into();
            }
            components.push(ours);
        }
        Ok(ok(&version))
    }

    pub(crate) async fn info(&self, asked: &Asked) -> Reply {
        let mut info = match self.engine.get_object(asked.target()).await {
            Ok((StatusCode::OK, info)) => info,
            Ok((status, refusal)) => return Ok(crate::reply::json(status, &refusal)),
            // The client asks `info` for its own node's id: the swarm must stay usable.
            Err(refusal) => json!({"Warnings": [format!("WARNING: {}", refusal.message)]}),
        };
        let swarm = self.swarm_info().await;
        // The CLI prints the engine's warnings only, so the swarm's stand among them too.
        let mut warnings = match info.get_mut("Warnings").map(Value::take) {
            Some(Value::Array(warnings)) => warnings,
            _ => Vec::new(),
        };
        warnings.extend(swarm.warnings.iter().map(|text| Value::from(*text)));
        if !warnings.is_empty() {
            info["Warnings"] = warnings.into();
        }
        info["Swarm"] = serde_json::to_value(swarm).unwrap_or(Value::Null);
        Ok(ok(&info))
    }

    async fn swarm_info(&self) -> SwarmInfo {
        let status = self.node.status().await;
        let peers = status.remote_managers.iter().map(|(id, addr)| Peer {
            node_id: id.map(|id| id.to_string()).unwrap_or_default(),
            addr: addr.clone(),
        });
        let peers: Vec<Peer> = peers.collect();
        let mut info = SwarmInfo {
            node_id: status.node_id.map(|id| id.to_string()).unwrap_or_default(),
            node_addr: status.node_addr.clone(),
            local_node_state: status.state.as_str(),
            control_available: status.control_available,
            error: status.error.clone(),
            remote_managers: (!peers.is_empty()).then_some(peers),
            nodes: 0,
            managers: 0,
            cluster: None,
            warnings: vec![],
        };
        if status.control_available {
            match self.ask(ControlRequest::GetCluster).await {
                Ok(ControlReply::Cluster(cluster)) => {
                    info.cluster = Some(ClusterView::of(*cluster, false));
                }
                Ok(_) => {}
                Err(refusal) => {
                    info.error = refusal.message;
                    info.cluster = Some(ClusterView::unknown());
                    return info;
                }
            }
            if let Ok(nodes) = self.nodes().await {
                info.nodes = nodes.len();
                let managers = nodes.iter().filter(|node| node.manager_status.is_some());
                info.managers = managers.count();
            }
            if info.managers == 2 {
                info.warnings.push(TWO_MANAGERS);
            }
        }
        info
    }
}

fn own_ping(head: bool) -> Response<Body> {
    let body = if head { "" } else { "OK" };
    let mut response = Response::new(whole(Bytes::from_static(body.as_bytes())));
    let fields = [
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        (
            header::CACHE_CONTROL.as_str(),
            "no-cache, no-store, must-revalidate",
        ),
        (header::PRAGMA.as_str(), "no-cache"),
        ("ostype", "linux"),
        ("docker-experimental", "false"),
    ];
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    if head {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

fn swarm_header(status: &LocalStatus) -> &'static str {
    match (status.state, status.control_available) {
        (LocalState::Active, true) => "active/manager",
        (LocalState::Active, false) => "active/worker",
        (state, _) => state.as_str(),
    }
}
