//! A front door in a folder of its own, and a client.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle};
use weft_docker::{DoorConfig, DoorError, serve};

use crate::{cluster::FakeNode, engine::FakeEngine};

/// The group that may use the door, by number: nobody's.
pub(crate) const GROUP: u32 = 54_321;

pub(crate) struct Bed {
    pub(crate) node: Arc<FakeNode>,
    pub(crate) engine: Option<FakeEngine>,
    pub(crate) socket: PathBuf,
    pub(crate) engine_socket: PathBuf,
    pub(crate) folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    door: Option<JoinHandle<Result<(), DoorError>>>,
}

/// Waits for `what`, at most a minute.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited a minute for {what}"),
    }
}

impl Bed {
    pub(crate) async fn new(node: Arc<FakeNode>) -> Self {
        Self::speaking(node, 41).await
    }

    /// Before an engine whose newest API is this minor version.
    pub(crate) async fn speaking(node: Arc<FakeNode>, minor: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine_socket = folder.path().join("engine.sock");
        let engine = FakeEngine::speaking(&engine_socket, minor);
        let mut bed = Self::bare(node, folder).await;
        bed.engine = Some(engine);
        bed
    }

    /// Without an engine.
    pub(crate) async fn alone(node: Arc<FakeNode>) -> Self {
        Self::bare(node, tempfile::tempdir().unwrap()).await
    }

    async fn bare(node: Arc<FakeNode>, folder: tempfile::TempDir) -> Self {
        let socket = folder.path().join("docker.sock");
        let engine_socket = folder.path().join("engine.sock");
        let config = DoorConfig {
            socket: socket.clone(),
            group: Some(GROUP.to_string()),
            engine_socket: engine_socket.clone(),
            tcp: vec![],
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::clone(&node);
        let door = tokio::spawn(serve(config, shared, async {
            // Also when the bed is dropped.
            let _ = stopped.await;
        }));
        let open = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        soon("the door to open", open).await;
        Self {
            node,
            engine: None,
            socket,
            engine_socket,
            folder,
            stop: Some(stop),
            door: Some(door),
        }
    }

    /// Closes the door and waits until it is.
    pub(crate) async fn close(&mut self) {
        drop(self.stop.take());
        if let Some(door) = self.door.take() {
            soon("the door to close", door).await.unwrap().unwrap();
        }
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    pub(crate) async fn send<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.connect().await))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        soon("an answer", sender.send_request(request))
            .await
            .unwrap()
    }

    /// Status and text of the answer.
    pub(crate) async fn text(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("Host", "docker")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let body = soon("a body", response.into_body().collect())
            .await
            .unwrap();
        (
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        )
    }

    /// Status and JSON of the answer; null for an empty one.
    pub(crate) async fn json(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, text) = self.text(method, path, &body.to_string()).await;
        let value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
        };
        (status, value)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.json("GET", path, Value::Null).await
    }

    /// Status and message of a refusal.
    pub(crate) async fn refusal(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, text) = self.text(method, path, body).await;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let message = value["message"].as_str().unwrap_or(&text);
        (status, message.to_owned())
    }
}

/// `{"key":{"value":true}}`, escaped for a query string.
pub(crate) fn filters(pairs: &[(&str, &str)]) -> String {
    let mut map = serde_json::Map::new();
    for (key, value) in pairs {
        let values = map.entry(*key).or_insert_with(|| serde_json::json!({}));
        values[*value] = true.into();
    }
    let text = Value::Object(map).to_string();
    let escaped = text.bytes().map(|byte| format!("%{byte:02X}"));
    format!("filters={}", escaped.collect::<String>())
}
