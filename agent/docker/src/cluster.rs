//! The cluster socket: all hosts behind one engine's API, as classic Swarm was.
//!
//! Open on every node, useful on managers. It keeps nothing that it could not lose: each request
//! looks at the hosts anew, over tunnels to their own front doors. What is decided is decided in
//! `weft-cluster`; here are the sockets.
//!
//! ```text
//! route    what a request is about
//! hosts    the nodes, and asking them: all at once, each with a deadline
//! owner    which host a container is on
//! lists    ps, images, networks, volumes, df, prune: put together
//! scoped   one network or volume: a host's own, or the cluster's
//! create   where a new container goes
//! build    on this host, or where its rules say
//! images   pull, load, tag, remove: on all hosts
//! streams  events and progress of all hosts, as one stream
//! info     `docker info`: every host's state
//! keep     containers made anew when their host fails
//! ```

mod build;
mod create;
mod hosts;
mod images;
mod info;
mod keep;
mod lists;
mod owner;
mod route;
mod scoped;
mod streams;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, Uri, header, request::Parts};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use weft_cluster::{Facts, Policy};
use weft_types::NodeId;

use self::{
    hosts::Member,
    keep::Memory,
    owner::Owners,
    route::{Target, target},
};
use crate::{
    body::collect,
    engine::Engine,
    node::NodeControl,
    query::Query,
    reply::{ApiError, Body, Reply},
    route::{is_raw, split_version},
    server::{Answers, DoorError, Listening, Takeover},
};

/// Where the cluster socket is and how containers are placed.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Path of the socket to listen on; made with mode 0660.
    pub socket: PathBuf,
    /// Group (name or number) that may use it, as for the front door.
    pub group: Option<String>,
    /// Socket of this node's own front door.
    pub door: PathBuf,
    /// How containers are placed.
    pub policy: Policy,
}

/// What answers are made from.
struct Cluster {
    me: Weak<Self>,
    node: Arc<dyn NodeControl>,
    /// This node's own front door.
    here: Arc<Engine>,
    policy: Policy,
    owners: Mutex<Owners>,
    /// What containers take of their hosts, by id: it does not change while they live.
    facts: Mutex<HashMap<String, Facts>>,
    /// Held while a container's host is chosen.
    placing: tokio::sync::Mutex<()>,
    pending: Mutex<create::Pending>,
    memory: Mutex<Memory>,
    stop: watch::Receiver<()>,
}

/// A request, its path taken apart.
struct Asked {
    parts: Parts,
    /// The version prefix as it came, such as `/v1.41`; may be empty.
    prefix: String,
    query: Query,
}

impl Asked {
    /// A request like this one for `path` (without a version) with `query`; without a body.
    fn like(&self, path: &str, query: &str) -> Result<Parts, ApiError> {
        let mut parts = self.parts.clone();
        parts.uri = uri(&format!("{}{path}", self.prefix), query)?;
        for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            parts.headers.remove(name);
        }
        Ok(parts)
    }

    /// The query as it came.
    fn raw_query(&self) -> &str {
        self.parts.uri.query().unwrap_or("")
    }
}

fn uri(path: &str, query: &str) -> Result<Uri, ApiError> {
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{path}{mark}{query}")
        .parse()
        .map_err(|error| ApiError::bad(format!("{path}: {error}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the cluster socket and serves until `shutdown`.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(
    config: ClusterConfig,
    node: Arc<dyn NodeControl>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DoorError> {
    let listening = Listening::open(&config.socket, config.group.as_deref()).await?;
    let (running, stop) = watch::channel(());
    let cluster = Arc::new_cyclic(|me| Cluster {
        me: me.clone(),
        node,
        here: Arc::new(Engine::at(config.door)),
        policy: config.policy,
        owners: Mutex::default(),
        facts: Mutex::default(),
        placing: tokio::sync::Mutex::default(),
        pending: Mutex::default(),
        memory: Mutex::default(),
        stop,
    });
    tracing::info!(socket = %config.socket.display(), "cluster socket open");
    tokio::select! {
        () = listening.accept(&cluster) => {}
        () = cluster.keep() => {}
        () = shutdown => {}
    }
    drop(running);
    Ok(())
}

impl Answers for Cluster {
    fn stop(&self) -> watch::Receiver<()> {
        self.stop.clone()
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        taken: &mpsc::Sender<Takeover>,
    ) -> Response<Body> {
        match self.reply(request, taken).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::debug!(status = %refusal.status, message = refusal.message, "refused for the cluster");
                refusal.response()
            }
        }
    }
}

impl Cluster {
    async fn reply(&self, request: Request<Incoming>, taken: &mpsc::Sender<Takeover>) -> Reply {
        let path = request.uri().path().to_owned();
        let (_, rest) = split_version(&path);
        let target = target(request.method(), rest);
        if target == Target::Here {
            return self.pass(&self.here, request, taken).await;
        }
        let prefix = path[..path.len() - rest.len()].to_owned();
        let (parts, body) = request.into_parts();
        let asked = Asked {
            prefix,
            query: Query::parse(parts.uri.query().unwrap_or("")),
            parts,
        };
        // Each on the heap: together they would be a very large future.
        let reply: BoxFuture<'_, Reply> = match target {
            Target::Here => return Err(ApiError::no_page()),
            Target::ListContainers => self.list_containers(&asked).boxed(),
            Target::CreateContainer => self.create_container(asked, body).boxed(),
            Target::Container { reference, verb } => {
                return self
                    .container(asked, body, &reference, &verb, taken)
                    .boxed()
                    .await;
            }
            Target::Exec { id, verb } => {
                return self.exec(asked, body, &id, &verb, taken).boxed().await;
            }
            Target::Commit => self.commit(asked, body).boxed(),
            Target::ListImages => self.list_images(&asked).boxed(),
            Target::Pull => self.pull(asked, body).boxed(),
            Target::Load => self.load(asked, body).boxed(),
            Target::Save => self.save(asked).boxed(),
            Target::Build => return self.build(asked, body, taken).boxed().await,
            Target::Image { name, verb } => {
                return self.image(asked, &name, &verb).boxed().await;
            }
            Target::ListNetworks => self.list_networks(&asked).boxed(),
            Target::CreateNetwork => self.create_network(asked, body).boxed(),
            Target::Network { name, verb } => {
                return self.network(asked, body, &name, &verb).boxed().await;
            }
            Target::ListVolumes => self.list_volumes(&asked).boxed(),
            Target::CreateVolume => self.create_volume(asked, body).boxed(),
            Target::Volume { name } => return self.volume(asked, &name).boxed().await,
            Target::Sums => self.sums(&asked).boxed(),
            Target::Events => self.events(asked).boxed(),
            Target::Info => self.info(&asked).boxed(),
        };
        reply.await
    }

    /// Hands a request over to `engine` as it stands, streams both ways included.
    async fn pass(
        &self,
        engine: &Engine,
        request: Request<Incoming>,
        taken: &mpsc::Sender<Takeover>,
    ) -> Reply {
        let (_, path) = split_version(request.uri().path());
        if is_raw(request.method(), path) && !request.headers().contains_key(header::UPGRADE) {
            return engine.take_over(request, taken).await;
        }
        engine.pass(request, self.stop.clone()).await
    }

    /// Hands over a request whose body was read already.
    async fn pass_to(&self, member: &Member, parts: Parts, body: impl Into<Bytes>) -> Reply {
        member.engine.pass_bytes(parts, body.into()).await
    }
}

/// An answer's body, whole. A future of its own, since the compiler cannot tell that [`collect`] of a
/// boxed body may be sent between threads when it is part of another.
fn read(body: Body) -> BoxFuture<'static, Result<Bytes, ApiError>> {
    collect(body).boxed()
}

/// What a host answered to a small request: its status and JSON.
struct Answer {
    member: Member,
    status: http::StatusCode,
    value: Value,
}

/// Which node, in maps.
type Nodes<T> = HashMap<NodeId, T>;
