//! The way down: the container engine's socket, or another host's front door.
//!
//! One connection per request. It lives exactly as long as somebody wants its answer: a client
//! that goes away takes the engine's half with it, which is how `events`, `logs -f` and long
//! polls are cancelled.

use std::{
    fmt, io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use weft_proto::{ControlApi, Tunnel};
use weft_types::NodeId;

use crate::{
    body::collect,
    reply::{ApiError, Body, BodyError, Reply, whole},
    server::Takeover,
    version::{ApiVersion, OLDEST, Span, UNKNOWN_ENGINE},
};

/// How long the engine may take to answer a question of ours. Clients' own requests have no limit.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it may take to say which version it is: all else waits for that.
const VERSION_PATIENCE: Duration = Duration::from_secs(3);

/// An engine that did not say its version in time is left alone for so long.
const REST: Duration = Duration::from_secs(10);

/// The container engine below, or whatever else speaks its API.
#[derive(Debug)]
pub struct Engine {
    way: Way,
    facts: Mutex<Option<Facts>>,
    /// When it last did not say its version in time.
    silent: Mutex<Option<Instant>>,
}

/// How an engine is reached.
#[derive(Clone)]
enum Way {
    /// Over its socket on this host.
    Socket(PathBuf),
    /// Through another host's front door.
    Far {
        manager: Arc<dyn ControlApi>,
        node: NodeId,
        name: String,
    },
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Far { node, name, .. } => write!(f, "{name} ({node})"),
        }
    }
}

impl Way {
    async fn connect(&self) -> Result<Tunnel, String> {
        match self {
            Self::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(error.to_string()),
            },
            Self::Far { manager, node, .. } => {
                let tunnel = manager.tunnel(*node).await;
                tunnel.map_err(|error| error.message)
            }
        }
    }
}

/// What is remembered of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) span: Span,
    pub(crate) newest: ApiVersion,
    /// Its release, such as `20.10.24`.
    pub(crate) release: String,
}

impl Engine {
    /// The engine whose socket is at `socket`. Nothing is asked of it yet.
    #[must_use]
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self::over(Way::Socket(socket.into()))
    }

    /// The front door of another host, reached through the `manager` here.
    pub(crate) fn beyond(manager: Arc<dyn ControlApi>, node: NodeId, name: String) -> Self {
        Self::over(Way::Far {
            manager,
            node,
            name,
        })
    }

    /// The same engine, of which nothing is remembered yet.
    #[must_use]
    pub(crate) fn anew(&self) -> Self {
        Self::over(self.way.clone())
    }

    fn over(way: Way) -> Self {
        Self {
            way,
            facts: Mutex::new(None),
            silent: Mutex::new(None),
        }
    }

    fn away(&self, what: &dyn fmt::Display) -> ApiError {
        let message = match &self.way {
            Way::Socket(path) => format!(
                "The container engine below does not answer at unix://{}: {what}. Requests about the swarm are still served; start the engine (for example \"systemctl start docker\") and try again.",
                path.display()
            ),
            Way::Far { name, .. } => {
                format!("The front door of node {name} does not answer: {what}")
            }
        };
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Sends `request` down as it stands and answers with what comes back; the connection ends
    /// with the answer's body.
    ///
    /// # Errors
    /// When the engine cannot be reached or breaks off before it answers.
    pub(crate) async fn send<B>(
        &self,
        mut request: Request<B>,
    ) -> Result<(Response<Incoming>, Connection), ApiError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let stream = self.way.connect().await;
        let stream = stream.map_err(|error| self.away(&error))?;
        let (mut sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.away(&error))?;
        let connection = Connection(Some(tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to the engine ended");
            }
        })));
        *request.version_mut() = Version::HTTP_11;
        let host = HeaderValue::from_static("docker");
        request.headers_mut().entry(header::HOST).or_insert(host);
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.away(&describe(&error)))?;
        Ok((response, connection))
    }

    /// Passes a client's request down and the answer up: bodies streamed both ways, upgrades
    /// spliced until both sides have ended, or `stop` is closed.
    pub(crate) async fn pass<B>(
        &self,
        mut request: Request<B>,
        mut stop: watch::Receiver<()>,
    ) -> Reply
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        let (mut response, mut connection) = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response.map(|body| connection.tie(body)));
        }
        connection.release();
        let engine = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let splice = async {
                let (client, engine) =
                    tokio::try_join!(upgrade, engine).map_err(io::Error::other)?;
                let (mut client, mut engine) = (TokioIo::new(client), TokioIo::new(engine));
                tokio::io::copy_bidirectional(&mut client, &mut engine).await
            };
            tokio::select! {
                end = splice => if let Err(error) = end {
                    tracing::debug!(%error, "upgraded connection broke");
                },
                _ = stop.changed() => {}
            }
        });
        Ok(response.map(|_| whole(Bytes::new())))
    }

    /// Passes down a request that the engine will answer with a stream both ways, of a client that
    /// did not ask for an upgrade: then its connection is `taken` over. Such a client is told 200,
    /// as engines do.
    pub(crate) async fn take_over<B>(
        &self,
        mut request: Request<B>,
        taken: &mpsc::Sender<Takeover>,
    ) -> Reply
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let (mut response, mut connection) = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response.map(|body| connection.tie(body)));
        }
        connection.release();
        let upgraded = hyper::upgrade::on(&mut response).await;
        let engine = upgraded.map_err(|error| self.away(&describe(&error)))?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or("application/vnd.docker.raw-stream");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n").into();
        if taken.send(Takeover { head, engine }).await.is_ok() {
            // The connection is not HTTP's any more: nothing is to be answered on it.
            std::future::pending::<()>().await;
        }
        Err(ApiError::internal("the connection ended"))
    }

    /// Sends a request whose body was read already, and streams the answer.
    pub(crate) async fn pass_bytes(&self, parts: Parts, body: Bytes) -> Reply {
        let mut request = Request::from_parts(parts, whole(body.clone()));
        request.headers_mut().remove(header::TRANSFER_ENCODING);
        request
            .headers_mut()
            .insert(header::CONTENT_LENGTH, body.len().into());
        let (response, connection) = self.send(request).await?;
        Ok(response.map(|body| connection.tie(body)))
    }

    /// The JSON object that the engine answers to `GET path`, with its status.
    ///
    /// # Errors
    /// As [`Engine::get`], and when the answer is no object.
    pub(crate) async fn get_object(&self, path: &str) -> Result<(StatusCode, Value), ApiError> {
        match self.get(path).await? {
            (status, value) if value.is_object() => Ok((status, value)),
            _ => Err(self.away(&format!("its answer to {path} is no JSON object"))),
        }
    }

    /// The JSON that the engine answers to `GET path`, with its status.
    ///
    /// # Errors
    /// When the engine cannot be reached, takes longer than [`PATIENCE`], or its answer is no JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<(StatusCode, Value), ApiError> {
        let late = || {
            let seconds = PATIENCE.as_secs();
            self.away(&format!("{path} is not answered within {seconds} s"))
        };
        let answer = tokio::time::timeout(PATIENCE, self.ask(path)).await;
        answer.unwrap_or_else(|_| Err(late()))
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Value), ApiError> {
        let request = Request::get(path)
            .body(whole(Bytes::new()))
            .map_err(|error| ApiError::bad(error.to_string()))?;
        let (response, _connection) = self.send(request).await?;
        let status = response.status();
        let text = collect(response.into_body())
            .await
            .map_err(|error| self.away(&error.message))?;
        let value = serde_json::from_slice(&text)
            .map_err(|error| self.away(&format!("its answer is no JSON: {error}")))?;
        Ok((status, value))
    }

    /// What is known of the engine; asked anew when nothing is, or with `fresh`.
    pub(crate) async fn facts(&self, fresh: bool) -> Option<Facts> {
        let known = lock(&self.facts).clone();
        if known.is_some() && !fresh {
            return known;
        }
        let silent = *lock(&self.silent);
        if silent.is_some_and(|since| since.elapsed() < REST) {
            return known;
        }
        let version = match tokio::time::timeout(VERSION_PATIENCE, self.ask("/version")).await {
            Ok(Ok((_, version))) => version,
            Ok(Err(_)) => return known,
            Err(_) => {
                *lock(&self.silent) = Some(Instant::now());
                return known;
            }
        };
        let number = |key: &str| version[key].as_str().and_then(|text| text.parse().ok());
        let newest = number("ApiVersion").unwrap_or(UNKNOWN_ENGINE);
        let facts = Facts {
            span: Span::with_engine(number("MinAPIVersion").unwrap_or(OLDEST), newest),
            newest,
            release: version["Version"].as_str().unwrap_or_default().to_owned(),
        };
        *lock(&self.facts) = Some(facts.clone());
        Some(facts)
    }

    /// The API versions spoken now.
    pub(crate) async fn span(&self) -> Span {
        let facts = self.facts(false).await;
        facts.map_or(Span::with_engine(OLDEST, UNKNOWN_ENGINE), |facts| {
            facts.span
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// hyper's reason with the system's beneath it.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A connection to the engine; closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection(Option<JoinHandle<()>>);

impl Connection {
    /// Lets the connection go on by itself: it was upgraded.
    fn release(&mut self) {
        self.0 = None;
    }

    /// The body that ends the connection when it ends or is dropped.
    pub(crate) fn tie(self, body: Incoming) -> Body {
        UnsyncBoxBody::new(Tied {
            body,
            _connection: self,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

struct Tied {
    body: Incoming,
    _connection: Connection,
}

impl hyper::body::Body for Tied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body)
            .poll_frame(context)
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The frames of a body as they come.
pub(crate) async fn next_bytes(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        match body.frame().await? {
            Ok(frame) => match frame.into_data() {
                Ok(bytes) => return Some(Ok(bytes)),
                Err(_trailers) => {}
            },
            Err(error) => return Some(Err(error)),
        }
    }
}
