//! From a request to an answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Body as HttpBody;
use tokio::sync::{mpsc, watch};
use weft_proto::{ControlApi, ControlReply, ControlRequest};

use crate::{
    body::collect,
    engine::Engine,
    history::History,
    node::NodeControl,
    query::Query,
    reply::{ApiError, Body, BodyError, Reply, empty},
    route::{
        ContainerRoute, NetworkRoute, ObjectRoute, Route, SwarmRoute, is_raw, route, split_version,
        straightened,
    },
    server::Takeover,
    version::{ApiVersion, Span},
};

/// What every answer is made from.
pub(crate) struct Door {
    pub(crate) engine: Engine,
    pub(crate) node: Arc<dyn NodeControl>,
    pub(crate) history: Arc<History>,
    stop: watch::Receiver<()>,
}

/// A request that is answered here, its path taken apart.
pub(crate) struct Asked {
    /// As it came, except for its body; for what goes on to the engine after all.
    pub(crate) parts: Parts,
    /// Version of its path, or the newest spoken.
    pub(crate) version: ApiVersion,
    pub(crate) query: Query,
    pub(crate) body: Bytes,
}

impl Asked {
    /// Path and query as they came.
    pub(crate) fn target(&self) -> &str {
        let target = self.parts.uri.path_and_query();
        target.map_or("/", |target| target.as_str())
    }

    /// The text of a header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.parts.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl Door {
    /// A door; needs a runtime, for it follows the swarm's changes from now on.
    pub(crate) fn new(
        engine: Engine,
        node: Arc<dyn NodeControl>,
        stop: watch::Receiver<()>,
    ) -> Self {
        let history = History::start(Arc::clone(&node), stop.clone());
        Self {
            engine,
            node,
            history,
            stop,
        }
    }

    /// Closed when the door closes.
    pub(crate) fn stop(&self) -> watch::Receiver<()> {
        self.stop.clone()
    }

    /// Answers a request; refusals are answers. `taken` is told when the connection that it came on
    /// is to be a raw one.
    pub(crate) async fn answer<B>(
        &self,
        request: Request<B>,
        taken: Option<&mpsc::Sender<Takeover>>,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let target = (request.method().clone(), request.uri().path().to_owned());
        match self.reply(request, taken).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::debug!(method = %target.0, path = target.1, status = %refusal.status, message = refusal.message, "refused");
                self.with_headers(refusal.response()).await
            }
        }
    }

    async fn reply<B>(&self, request: Request<B>, taken: Option<&mpsc::Sender<Takeover>>) -> Reply
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if let Some(straight) = straightened(request.uri().path()) {
            return Ok(moved(&straight, request.uri().query()));
        }
        let (version, path) = split_version(request.uri().path());
        if let Some(version) = version {
            // An engine that has never answered may be as new as we are: nobody is refused for it.
            let facts = self.engine.facts(false).await;
            let span = facts.map_or(Span::OURS, |facts| facts.span);
            span.check(version)?;
        }
        let route = route(request.method(), path);
        match route {
            Route::Engine
                if let Some(taken) = taken
                    && is_raw(request.method(), path)
                    && !request.headers().contains_key(header::UPGRADE) =>
            {
                return self.engine.take_over(request, taken).await;
            }
            Route::Engine => return self.engine.pass(request, self.stop()).await,
            Route::Nowhere => return Err(ApiError::no_page()),
            Route::Options => return Ok(self.with_headers(empty(StatusCode::OK)).await),
            Route::Ping => return self.ping(request).await,
            _ => {}
        }
        if let Some(fault) = request.uri().query().and_then(Query::fault)
            && is_form(&route)
        {
            return Err(ApiError::bad(fault));
        }
        let version = match version {
            Some(version) => version,
            None => self.engine.span().await.newest,
        };
        let (parts, body) = request.into_parts();
        let asked = Asked {
            query: Query::parse(parts.uri.query().unwrap_or("")),
            body: collect(body).await?,
            version,
            parts,
        };
        let answer = self.own(route, asked).await?;
        Ok(self.with_headers(answer).await)
    }

    async fn own(&self, route: Route, asked: Asked) -> Reply {
        match route {
            Route::Info => self.info(&asked).await,
            Route::Version => self.version(&asked).await,
            Route::Events => self.events(asked).await,
            Route::Swarm(route) => match route {
                SwarmRoute::Inspect => self.inspect_swarm().await,
                SwarmRoute::Init => self.init(&asked).await,
                SwarmRoute::Join => self.join(&asked).await,
                SwarmRoute::Leave => self.leave(&asked).await,
                SwarmRoute::Update => self.update_swarm(&asked).await,
                SwarmRoute::UnlockKey => self.unlock_key().await,
                SwarmRoute::Unlock => self.unlock(&asked).await,
            },
            Route::Nodes(route) => match route {
                ObjectRoute::List => self.list_nodes(&asked).await,
                ObjectRoute::Inspect(id) => self.inspect_node(id).await,
                ObjectRoute::Update(id) => self.update_node(id, &asked).await,
                ObjectRoute::Remove(id) => self.remove_node(id, &asked).await,
                ObjectRoute::Create | ObjectRoute::Logs(_) => Err(ApiError::no_page()),
            },
            Route::Services(route) => match route {
                ObjectRoute::List => self.list_services(&asked).await,
                ObjectRoute::Create => self.create_service(&asked).await,
                ObjectRoute::Inspect(id) => self.inspect_service(id, &asked).await,
                ObjectRoute::Update(id) => self.update_service(id, &asked).await,
                ObjectRoute::Remove(id) => self.remove_service(id).await,
                ObjectRoute::Logs(id) => self.service_logs(id, &asked).await,
            },
            Route::Tasks(route) => match route {
                ObjectRoute::List => self.list_tasks(&asked).await,
                ObjectRoute::Inspect(id) => self.inspect_task(id).await,
                ObjectRoute::Logs(id) => self.task_logs(id, &asked).await,
                ObjectRoute::Create | ObjectRoute::Update(_) | ObjectRoute::Remove(_) => {
                    Err(ApiError::no_page())
                }
            },
            Route::Secrets(route) => self.secrets(route, &asked).await,
            Route::Configs(route) => self.configs(route, &asked).await,
            Route::Networks(route) => match route {
                NetworkRoute::List => self.list_networks(&asked).await,
                NetworkRoute::Create => self.create_network(asked).await,
                NetworkRoute::Prune => self.prune_networks(asked).await,
                NetworkRoute::Inspect(id) => self.inspect_network(id, asked).await,
                NetworkRoute::Remove(id) => self.remove_network(id, asked).await,
                NetworkRoute::Connect(id) => self.connect_network(id, asked).await,
                NetworkRoute::Disconnect(id) => self.disconnect_network(id, asked).await,
            },
            Route::Containers(ContainerRoute::Create) => self.create_container(asked).await,
            Route::Containers(ContainerRoute::Start(id)) => self.start_container(id, asked).await,
            Route::Containers(ContainerRoute::DiskUsage) => self.disk_usage(asked).await,
            Route::Containers(ContainerRoute::Commit) => self.commit_container(asked).await,
            Route::Containers(ContainerRoute::List) => self.list_containers(asked).await,
            Route::Containers(ContainerRoute::Inspect) => self.inspect_container(asked).await,
            Route::Containers(ContainerRoute::Changes) => self.changes_of_container(asked).await,
            Route::Ping | Route::Options | Route::Nowhere | Route::Engine => {
                Err(ApiError::no_page())
            }
        }
    }

    /// The manager here, or Docker's refusal.
    pub(crate) async fn manager(&self) -> Result<Arc<dyn ControlApi>, ApiError> {
        Ok(self.node.control().await?)
    }

    /// Asks the manager here.
    pub(crate) async fn ask(&self, request: ControlRequest) -> Result<ControlReply, ApiError> {
        let manager = self.manager().await?;
        manager.call(request).await.map_err(ApiError::from_manager)
    }

    /// Adds what Docker says with each of its answers.
    async fn with_headers(&self, mut response: Response<Body>) -> Response<Body> {
        let facts = self.engine.facts(false).await;
        let span = self.engine.span().await;
        let release = facts.map_or_else(String::new, |facts| facts.release);
        let headers = response.headers_mut();
        let fields = [
            ("Api-Version", span.newest.to_string()),
            (header::SERVER.as_str(), format!("Docker/{release} (linux)")),
            ("Ostype", "linux".to_owned()),
            ("Docker-Experimental", "false".to_owned()),
        ];
        for (name, value) in fields {
            if let (Ok(name), Ok(value)) = (
                header::HeaderName::try_from(name),
                HeaderValue::try_from(value),
            ) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Sends a client to `path`.
fn moved(path: &str, query: Option<&str>) -> Response<Body> {
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    let place = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// Whether Docker refuses a query string that it cannot read whole; elsewhere it takes what it can.
fn is_form(route: &Route) -> bool {
    match route {
        Route::Events | Route::Secrets(_) | Route::Configs(_) | Route::Networks(_) => true,
        Route::Swarm(route) => *route == SwarmRoute::Leave,
        Route::Nodes(route) => matches!(route, ObjectRoute::List | ObjectRoute::Remove(_)),
        Route::Services(route) | Route::Tasks(route) => {
            matches!(route, ObjectRoute::List | ObjectRoute::Logs(_))
        }
        _ => false,
    }
}

/// Takes the one kind of reply that a request can have out of [`ControlReply`].
macro_rules! expect_reply {
    ($reply:expr, $kind:ident) => {
        match $reply {
            weft_proto::ControlReply::$kind(value) => Ok(value),
            other => Err($crate::reply::ApiError::internal(format!(
                concat!(
                    "the manager answered {:?} where ",
                    stringify!($kind),
                    " was due"
                ),
                std::mem::discriminant(&other)
            ))),
        }
    };
}

/// Takes the only object of a list reply.
macro_rules! expect_one {
    ($reply:expr, $kind:ident) => {
        $crate::door::expect_reply!($reply, $kind).and_then(|mut list| {
            list.pop().ok_or_else(|| {
                $crate::reply::ApiError::internal("the manager answered with no object")
            })
        })
    };
}
pub(crate) use {expect_one, expect_reply};
