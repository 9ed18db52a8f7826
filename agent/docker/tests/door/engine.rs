//! A pretended container engine, of API 1.41 unless said otherwise.

use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::Notify,
    task::{JoinHandle, JoinSet},
};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// An engine; gone when dropped.
pub(crate) struct FakeEngine {
    /// Told when a client's request or stream was cancelled.
    pub(crate) cancelled: Arc<Notify>,
    /// Told when a request came that is never answered, and of each piece of an upload.
    pub(crate) hangs: Arc<Notify>,
    task: JoinHandle<()>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeEngine {
    pub(crate) fn at(socket: &Path) -> Self {
        Self::speaking(socket, 41)
    }

    /// One whose newest API is this minor version.
    pub(crate) fn speaking(socket: &Path, minor: u32) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let cancelled = Arc::new(Notify::new());
        let hangs = Arc::new(Notify::new());
        let told = (Arc::clone(&cancelled), Arc::clone(&hangs), minor);
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let open = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let told = told.clone();
                let mut open = open.lock().unwrap();
                // A set keeps what has ended until somebody asks: a kilobyte for each connection.
                while open.try_join_next().is_some() {}
                open.spawn(async move {
                    let service = service_fn(move |request| answer(request, told.clone()));
                    let connection = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    // Broken connections are what some tests are about.
                    let _ = connection.await;
                });
            }
        });
        Self {
            cancelled,
            hangs,
            task,
            connections,
        }
    }

    /// Ends as a killed process does: with all its connections.
    pub(crate) async fn die(self) {
        let mut connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections.shutdown().await;
    }
}

/// Tells when it is dropped.
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// So many bytes, then, if it must, nothing for ever.
struct Stream {
    first: Option<Bytes>,
    left: u64,
    hangs: Option<Told>,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.left > 0 {
            let size = self.left.min(64 << 10);
            self.left -= size;
            let bytes = Bytes::from(vec![b'x'; usize::try_from(size).unwrap()]);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.hangs {
            Some(_) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

fn whole(status: u16, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Of a task's container, of a user's own, and of one that was there before.
const EVENTS: &str = r#"{"Type":"container","Action":"start"}
{"Type":"container","Action":"create","Actor":{"ID":"t1","Attributes":{"com.docker.swarm.task.id":"x"}}}
{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"t1","name":"none","type":"null"}}}
{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"u1","name":"none","type":"null"}}}
{"Type":"network","Action":"disconnect","Actor":{"ID":"n","Attributes":{"container":"wishing","name":"none","type":"null"}}}
{"Type":"network","Action":"connect","Actor":{"ID":"b","Attributes":{"container":"t1","name":"bridge","type":"bridge"}}}
"#;

/// From before and after all that the swarm has to tell.
const DATED: &str = r#"{"Type":"container","Action":"die","timeNano":1}
{"Type":"container","Action":"start","timeNano":9000000000000000000}
"#;

fn networks() -> serde_json::Value {
    json!([
        {"Name": "bridge", "Id": "b".repeat(64), "Scope": "local", "Driver": "bridge"},
        {"Name": "host", "Id": "h".repeat(64), "Scope": "local", "Driver": "host"},
    ])
}

/// What was taken off `none` last, told by the next answer about `mine`.
static OFF: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

async fn answer(
    mut request: Request<Incoming>,
    (cancelled, hangs, minor): (Arc<Notify>, Arc<Notify>, u32),
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let api = format!("1.{minor}");
    let path = path.strip_prefix(&format!("/v{api}")).unwrap_or(&path);
    let method = request.method().clone();
    let answer = match (&method, path) {
        (_, "/_ping") => {
            let mut answer = whole(200, if method == Method::HEAD { "" } else { "OK" }.into());
            let newer = [("Builder-Version", "2"), ("Swarm", "inactive")];
            let newer = newer.into_iter().filter(|_| minor >= 42);
            let fields = [
                ("Api-Version", api.as_str()),
                ("Cache-Control", "no-cache, no-store, must-revalidate"),
                ("Pragma", "no-cache"),
                ("Ostype", "linux"),
                ("Docker-Experimental", "false"),
                ("Server", "Docker/20.10.24 (linux)"),
                ("Content-Type", "text/plain; charset=utf-8"),
            ];
            for (name, value) in fields.into_iter().chain(newer) {
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
            answer
        }
        (_, "/version") => {
            let details = json!({"ApiVersion": api, "MinAPIVersion": "1.12"});
            let version = json!({
                "Platform": {"Name": ""}, "Version": "20.10.24", "ApiVersion": api,
                "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64", "GitCommit": "x",
                "GoVersion": "go", "KernelVersion": "6", "BuildTime": "then",
                "Components": [{"Name": "Engine", "Version": "20.10.24", "Details": details}],
            });
            whole(200, version.to_string())
        }
        (_, "/info") => {
            let info = json!({"ID": "E", "Name": "node1", "NCPU": 2, "Odd": [1.5, null],
                "Driver": "overlay2", "OSType": "linux", "Swarm": {"LocalNodeState": "inactive"}});
            whole(200, info.to_string())
        }
        (&Method::GET, "/networks") => whole(200, networks().to_string()),
        (&Method::GET, "/containers/gated/json") => {
            let config = json!({"Entrypoint": ["/.weft-gate", "tini"], "Cmd": ["serve"],
                "Labels": {"io.weft.networks": "[]"}});
            whole(200, json!({"Id": "g", "Config": config}).to_string())
        }
        (&Method::GET, "/containers/gone/json") => {
            let refusal = json!({"message": "No such container: gone"});
            whole(404, refusal.to_string())
        }
        (&Method::POST, "/commit") => {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            whole(
                201,
                json!({"Id": "i", "Query": query, "Body": body}).to_string(),
            )
        }
        (&Method::GET, "/system/df") => {
            let task = json!({"Id": "a", "Command": "/.weft-gate sleep 9", "Names": ["/web.1.x"]});
            let own = json!({"Id": "b", "Command": "sleep 8", "Names": ["/own"]});
            let usage = json!({"LayersSize": 1, "Images": null, "Containers": [task, own]});
            whole(200, usage.to_string())
        }
        (&Method::GET, "/containers/json" | "/images/json") => whole(200, "[]".into()),
        (&Method::GET, "/networks/bridge") => whole(200, networks()[0].to_string()),
        (&Method::POST, "/networks/create") => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            whole(
                201,
                json!({"Id": "l", "Warning": "", "Was": body.len()}).to_string(),
            )
        }
        (&Method::POST, "/networks/prune") => {
            whole(200, json!({"NetworksDeleted": ["old"]}).to_string())
        }
        (&Method::GET, "/images/busybox/json") => {
            let config = json!({"Entrypoint": null, "Cmd": ["sh"]});
            whole(200, json!({"Config": config}).to_string())
        }
        (&Method::POST, "/containers/create") => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            // Echoed for the test to see.
            whole(201, text)
        }
        (&Method::GET, "/containers/wishing/json") => {
            let wish =
                r#"[{"Network":"n","Name":"front","Aliases":["al"],"Addresses":["10.0.1.9"]}]"#;
            let labels = json!({"io.weft.networks": wish});
            let container =
                json!({"Id": "w".repeat(64), "Name": "/wishing", "Config": {"Labels": labels}});
            whole(200, container.to_string())
        }
        (&Method::GET, "/containers/alone/json") => {
            let labels = json!({"io.weft.networks": "[]"});
            let networks = json!({"none": {}});
            let container = json!({"Id": "a".repeat(64), "Name": "/alone", "State": {"Running": true},
                "Config": {"Labels": labels}, "NetworkSettings": {"Networks": networks}});
            whole(200, container.to_string())
        }
        (&Method::GET, "/containers/both/json") => {
            let container = json!({"Id": "b".repeat(64), "Name": "/both", "State": {"Running": true},
                "NetworkSettings": {"Networks": {"mine": {}}}});
            whole(200, container.to_string())
        }
        (&Method::POST, "/networks/none/disconnect") => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            *OFF.lock().unwrap() = String::from_utf8_lossy(&body).into_owned();
            whole(200, String::new())
        }
        (&Method::POST, "/networks/mine/connect" | "/networks/mine/disconnect") => {
            whole(200, std::mem::take(&mut *OFF.lock().unwrap()))
        }
        (&Method::POST, path) if path.ends_with("/start") && path.starts_with("/containers/") => {
            whole(204, String::new())
        }
        (&Method::POST, path) if path.ends_with("/kill") => {
            cancelled.notify_one();
            whole(204, String::new())
        }
        (&Method::GET, "/events") => {
            let first = EVENTS.split_inclusive('\n').next().unwrap_or_default();
            let events = match request.uri().query() {
                Some("all") => EVENTS,
                Some("since=2") => DATED,
                _ => first,
            };
            stream(events.as_bytes(), 0, Some(Told(cancelled)))
        }
        (&Method::GET, "/download") => {
            let size = request.uri().query().and_then(|query| query.parse().ok());
            stream(b"", size.unwrap_or(0), None)
        }
        (&Method::GET, "/endless") => stream(b"begin", u64::MAX, Some(Told(cancelled))),
        (&Method::GET, "/hang") => {
            let _told = Told(cancelled);
            hangs.notify_one();
            std::future::pending::<Answer>().await
        }
        (&Method::POST, "/upload") => {
            let mut size = 0;
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => {
                        size += frame.data_ref().map_or(0, Bytes::len);
                        hangs.notify_one();
                    }
                    Err(_) => cancelled.notify_one(),
                }
            }
            whole(200, size.to_string())
        }
        (&Method::POST, "/exec/1/start") => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                stream.write_all(b"hello\n").await.unwrap();
                let mut input = Vec::new();
                // All input until the client's half is closed, then the answer.
                stream.read_to_end(&mut input).await.unwrap();
                stream.write_all(&input).await.unwrap();
                stream.write_all(b"bye\n").await.unwrap();
                stream.shutdown().await.unwrap();
            });
            let mut answer = whole(101, String::new());
            for (name, value) in [("Connection", "Upgrade"), ("Upgrade", "tcp")] {
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
            answer
        }
        _ => whole(404, json!({"message": "page not found"}).to_string()),
    };
    Ok(answer)
}

fn stream(first: &'static [u8], left: u64, hangs: Option<Told>) -> Answer {
    let first = (!first.is_empty()).then(|| Bytes::from_static(first));
    let body = Stream { first, left, hangs };
    Response::new(UnsyncBoxBody::new(body))
}
