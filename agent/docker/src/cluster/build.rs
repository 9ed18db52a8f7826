//! `docker build`: on this host, as classic Swarm built on one, or on the one that rules say.
//!
//! The image is then on that host alone; a container of it is placed there, as any of an image that only
//! one host has.

use http::Request;
use hyper::body::Incoming;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use weft_cluster::Wish;

use super::{Asked, Cluster};
use crate::{
    query::encode,
    reply::{ApiError, Reply},
    server::Takeover,
};

impl Cluster {
    /// Builds where `--build-arg constraint:…`, `affinity:…` and `whitelist:…` say; here without them.
    pub(super) async fn build(
        &self,
        asked: Asked,
        body: Incoming,
        taken: &mpsc::Sender<Takeover>,
    ) -> Reply {
        let text = asked.query.get("buildargs");
        let args: Value = if text.is_empty() {
            Value::Null
        } else {
            crate::body::parse(text.as_bytes())?
        };
        let mut args = match args {
            Value::Object(args) => args,
            _ => Map::new(),
        };
        let Some(wish) = Wish::of_build(&mut args)? else {
            let request = Request::from_parts(asked.parts, body);
            return self.pass(&self.here, request, taken).await;
        };
        if asked.query.get("version") == "2" || !asked.query.get("session").is_empty() {
            return Err(ApiError::bad(
                "BuildKit builds on this node: constraint:, affinity: and whitelist: need the classic builder (DOCKER_BUILDKIT=0)",
            ));
        }
        let member = self.choose_for_build(&wish).await?;
        let pairs: Vec<(String, String)> = asked
            .query
            .pairs()
            .map(|(key, value)| match key {
                "buildargs" => (key.to_owned(), Value::Object(args.clone()).to_string()),
                _ => (key.to_owned(), value.to_owned()),
            })
            .collect();
        let mut parts = asked.parts;
        parts.uri = super::uri(&format!("{}/build", asked.prefix), &encode(&pairs))?;
        let request = Request::from_parts(parts, body);
        self.pass(&member.engine, request, taken).await
    }
}
