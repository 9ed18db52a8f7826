//! Images: pulled and loaded on all hosts, tagged and removed where they are.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use weft_cluster::merge;

use super::{
    Asked, Cluster, Member,
    lists::{first, with_body},
    streams::{End, answer, line, relay},
};
use crate::{
    body::collect,
    engine::next_bytes,
    reply::{ApiError, Body, BodyError, Reply, json as answer_json},
};

/// Pieces of a body on their way to one host.
const PIECES: usize = 4;

/// Lines of progress that wait for a slow client.
const LINES: usize = 64;

impl Cluster {
    /// `docker pull` and `docker import`, on all hosts.
    pub(super) async fn pull(&self, asked: Asked, body: Incoming) -> Reply {
        self.spread(asked, "/images/create", body).await
    }

    /// `docker load`, on all hosts.
    pub(super) async fn load(&self, asked: Asked, body: Incoming) -> Reply {
        self.spread(asked, "/images/load", body).await
    }

    /// Does the same on every host that is up, the body copied to each, and tells the progress of all.
    /// It has failed if it failed everywhere.
    async fn spread(&self, asked: Asked, path: &str, body: Incoming) -> Reply {
        let mut members = self.members().await?;
        members.retain(|member| member.is_up);
        let mut requests = Vec::new();
        let mut copies = Vec::new();
        for _ in &members {
            let parts = asked.like(path, asked.raw_query())?;
            if hyper::body::Body::is_end_stream(&body) {
                requests.push(with_body(parts, Bytes::new()));
            } else {
                let (sender, pieces) = mpsc::channel(PIECES);
                copies.push(sender);
                requests.push(Request::from_parts(parts, streamed(pieces)));
            }
        }
        let (lines, told) = mpsc::channel::<Bytes>(LINES);
        let mut stop = self.stop.clone();
        Ok(answer(told, async move {
            let all: Vec<BoxFuture<'_, bool>> = members
                .iter()
                .zip(requests)
                .map(|(member, request)| progress(member, request, &lines).boxed())
                .collect();
            let work = async {
                let (done, ()) = tokio::join!(join_all(all), copy(body, copies));
                if !done.contains(&true) {
                    let message = "no node could do it; the lines above say why";
                    let error = json!({"errorDetail": {"message": message}, "error": message});
                    let _ = lines.send(line(&error)).await;
                }
            };
            tokio::select! {
                () = work => {}
                _ = stop.changed() => {}
            }
        }))
    }

    /// A request about one image.
    pub(super) async fn image(&self, asked: Asked, name: &str, verb: &str) -> Reply {
        let members = self.members().await?;
        let path = asked.parts.uri.path()[asked.prefix.len()..].to_owned();
        let parts = asked.like(&path, asked.raw_query())?;
        let missing = || missing(name);
        match (&asked.parts.method, verb) {
            (&Method::DELETE, _) => {
                let answers = self.ask_all(&members, &parts, &Bytes::new()).await;
                let (good, bad): (Vec<_>, Vec<_>) = answers
                    .into_iter()
                    .partition(|answer| answer.status.is_success());
                if good.is_empty() {
                    return first(bad, missing);
                }
                let mut removed: Vec<Value> = Vec::new();
                for answer in good {
                    for entry in answer.value.as_array().into_iter().flatten() {
                        if !removed.contains(entry) {
                            removed.push(entry.clone());
                        }
                    }
                }
                Ok(answer_json(StatusCode::OK, &removed))
            }
            (&Method::POST, "tag") => {
                let answers = self.ask_all(&members, &parts, &Bytes::new()).await;
                first(answers, missing)
            }
            _ => {
                let holder = self.holder(&members, name).await.ok_or_else(missing)?;
                self.pass_to(&holder, parts, Bytes::new()).await
            }
        }
    }

    /// `docker save`: from a host that has all that is asked for.
    pub(super) async fn save(&self, asked: Asked) -> Reply {
        let pairs = asked.query.pairs();
        let names: Vec<&str> = pairs
            .filter_map(|(key, name)| (key == "names").then_some(name))
            .collect();
        let mut left = self.members().await?;
        for name in &names {
            let holders = self.holders(&left, name).await;
            if holders.is_empty() {
                // Not on those that have the others; perhaps nowhere.
                let all = self.members().await?;
                return Err(match self.holders(&all, name).await.first() {
                    None => missing(name),
                    Some(holder) => ApiError::bad(format!(
                        "image {name} is on node {} and no node has all of {}; save them one by one",
                        holder.origin.name,
                        names.join(", ")
                    )),
                });
            }
            left = holders;
        }
        let holder = left
            .into_iter()
            .next()
            .ok_or_else(|| missing(&names.join(", ")))?;
        let parts = asked.like("/images/get", asked.raw_query())?;
        self.pass_to(&holder, parts, Bytes::new()).await
    }

    /// A host that has the image; this one if it has.
    async fn holder(&self, members: &[Member], name: &str) -> Option<Member> {
        self.holders(members, name).await.into_iter().next()
    }

    /// The hosts that have the image, this one first.
    async fn holders(&self, members: &[Member], name: &str) -> Vec<Member> {
        let path = format!("/images/{name}/json");
        let Ok(question) = super::hosts::request(Method::GET, &path) else {
            return Vec::new();
        };
        let mut answers = self.ask_all(members, &question, &Bytes::new()).await;
        answers.retain(|answer| answer.status == StatusCode::OK);
        answers.sort_by_key(|answer| !answer.member.is_here);
        answers.into_iter().map(|answer| answer.member).collect()
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("No such image: {name}"))
}

/// Tells `lines` how `request` goes on `member`; whether it went well.
async fn progress(member: &Member, request: Request<Body>, lines: &mpsc::Sender<Bytes>) -> bool {
    let failed = AtomicBool::new(false);
    let change = |value: Value| {
        if value.get("error").is_some() {
            failed.store(true, Ordering::Relaxed);
        }
        Some(merge::progress(value, &member.origin))
    };
    match relay(member, request, lines, change).await {
        End::Whole => !failed.load(Ordering::Relaxed),
        End::Broken(refusal) => {
            let told = json!({"id": member.origin.name, "status": refusal.message});
            // The client has gone when this fails.
            let _ = lines.send(line(&told)).await;
            false
        }
    }
}

/// A body of what comes out of `pieces`.
fn streamed(pieces: mpsc::Receiver<Result<Bytes, BodyError>>) -> Body {
    let frames = futures::stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece.map(Frame::data), pieces))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Copies `body` to everybody, at the pace of the slowest; who goes away is left out.
async fn copy(mut body: Incoming, mut copies: Vec<mpsc::Sender<Result<Bytes, BodyError>>>) {
    if copies.is_empty() {
        // Nothing to copy; what little came is read so that the connection can go on.
        let _ = collect(body).await;
        return;
    }
    while let Some(piece) = next_bytes(&mut body).await {
        let mut left = Vec::new();
        for copy in copies {
            let piece = match &piece {
                Ok(bytes) => Ok(bytes.clone()),
                Err(error) => Err(error.to_string().into()),
            };
            if copy.send(piece).await.is_ok() {
                left.push(copy);
            }
        }
        copies = left;
        if copies.is_empty() || piece.is_err() {
            return;
        }
    }
}
