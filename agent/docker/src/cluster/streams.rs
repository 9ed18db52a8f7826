//! Streams of all hosts as one: events, and the progress of pulls.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use weft_cluster::merge;
use weft_types::NodeId;

use super::{Asked, Cluster, Member};
use crate::{
    body::collect,
    engine::next_bytes,
    query::encode,
    reply::{ApiError, Body, Reply, whole},
};

/// Lines of all hosts that wait for a slow client; then the hosts wait.
const LINES: usize = 64;

/// Longest line; a host that says a longer one is heard no more.
const LINE_BYTES: usize = 4 << 20;

/// Between two looks for hosts that came (back) while events are followed.
const LOOK: Duration = Duration::from_secs(5);

/// How a stream of one host ended.
pub(super) enum End {
    /// All was said.
    Whole,
    /// It refused, or broke off.
    Broken(ApiError),
}

/// Sends `request` to `member` and each line of JSON that comes back to `lines`, changed by `change`.
/// Ends when the client has gone, too.
pub(super) async fn relay(
    member: &Member,
    request: Request<Body>,
    lines: &mpsc::Sender<Bytes>,
    change: impl Fn(Value) -> Option<Value>,
) -> End {
    let talk = async {
        let (response, _connection) = member.engine.send(request).await?;
        let status = response.status();
        if !status.is_success() {
            let text = collect(response.into_body()).await?;
            let value: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
            let message = value["message"].as_str().unwrap_or_default();
            return Err(ApiError::new(status, message));
        }
        let mut body = response.into_body();
        let mut rest = BytesMut::new();
        while let Some(bytes) = next_bytes(&mut body).await {
            let bytes = bytes.map_err(|error| ApiError::internal(error.to_string()))?;
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(end + 1);
                if let Ok(value) = serde_json::from_slice(&line)
                    && let Some(value) = change(value)
                {
                    let sent = lines.send(format!("{value}\n").into()).await;
                    if sent.is_err() {
                        return Ok(());
                    }
                }
            }
            if rest.len() > LINE_BYTES {
                return Err(ApiError::internal("a line without an end"));
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = talk => match ended {
            Ok(()) => End::Whole,
            Err(refusal) => End::Broken(refusal),
        },
        () = lines.closed() => End::Whole,
    }
}

/// An answer of JSON objects after each other, as they come out of `lines`; `work` ends with it.
pub(super) fn answer(
    lines: mpsc::Receiver<Bytes>,
    work: impl Future<Output = ()> + Send + 'static,
) -> Response<Body> {
    tokio::spawn(work);
    let frames = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), lines))
    });
    let body = StreamBody::new(frames)
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// A line that was made here.
pub(super) fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

/// Which events are followed.
struct Watch {
    parts: Parts,
    /// The same without a beginning, for hosts that come later.
    later: Parts,
    has_end: bool,
}

impl Cluster {
    /// `docker events` of all hosts, saying whose they are. Hosts that come back are heard again.
    pub(super) async fn events(&self, asked: Asked) -> Reply {
        let pairs: Vec<_> = asked
            .query
            .pairs()
            .filter(|(key, _)| *key != "since")
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let watch = Watch {
            parts: asked.like("/events", asked.raw_query())?,
            later: asked.like("/events", &encode(&pairs))?,
            has_end: !asked.query.get("until").is_empty(),
        };
        let members = self.members().await?;
        let (sender, lines) = mpsc::channel(LINES);
        let me = self.me.upgrade();
        let me = me.ok_or_else(|| ApiError::internal("the cluster socket closes"))?;
        let mut stop = self.stop.clone();
        Ok(answer(lines, async move {
            let closed = sender.clone();
            tokio::select! {
                () = me.follow(watch, members, sender) => {}
                () = closed.closed() => {}
                _ = stop.changed() => {}
            }
        }))
    }

    async fn follow(self: Arc<Self>, watch: Watch, first: Vec<Member>, lines: mpsc::Sender<Bytes>) {
        let mut heard: BTreeSet<NodeId> = BTreeSet::new();
        let mut streams: JoinSet<NodeId> = JoinSet::new();
        let mut members = first;
        let mut parts = watch.parts;
        loop {
            for member in members.drain(..).filter(|member| member.is_up) {
                if !heard.insert(member.node) {
                    continue;
                }
                let (parts, lines) = (parts.clone(), lines.clone());
                streams.spawn(async move {
                    let request = Request::from_parts(parts, whole(Bytes::new()));
                    let origin = member.origin.clone();
                    let is_here = member.is_here;
                    let change = |event| merge::event(event, &origin, is_here);
                    if let End::Broken(refusal) = relay(&member, request, &lines, change).await {
                        tracing::warn!(
                            node = origin.name,
                            why = refusal.message,
                            "events of a host are missing"
                        );
                    }
                    member.node
                });
            }
            parts = watch.later.clone();
            tokio::select! {
                ended = streams.join_next(), if !streams.is_empty() => {
                    if watch.has_end && streams.is_empty() {
                        return;
                    }
                    // Asked again at the next look, not at once: it may be broken.
                    if let (false, Some(Ok(node))) = (watch.has_end, ended) {
                        sleep(Duration::from_millis(500)).await;
                        heard.remove(&node);
                    }
                }
                () = sleep(LOOK), if !watch.has_end => {}
            }
            if !watch.has_end {
                members = self.members().await.unwrap_or_default();
            }
            if streams.is_empty() && watch.has_end {
                return;
            }
        }
    }
}
