//! Lists of all hosts put together.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use weft_cluster::merge::{self, Part};
use weft_types::NodeId;

use super::{Answer, Asked, Cluster, Member, lock};
use crate::{
    query::encode,
    reply::{ApiError, Body, Reply, empty, json as answer_json, ok},
};

/// The values of `key` in a `filters` parameter, in either of its forms.
fn filter_values(filters: &Value, key: &str) -> Vec<String> {
    match &filters[key] {
        Value::Object(values) => values.keys().cloned().collect(),
        Value::Array(values) => values
            .iter()
            .filter_map(|value| value.as_str().map(ToOwned::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// The same, and they are taken out.
fn take_filter(filters: &mut Value, key: &str) -> Vec<String> {
    let values = filter_values(filters, key);
    if let Some(filters) = filters.as_object_mut() {
        filters.remove(key);
    }
    values
}

/// The answers' bodies with whose they are; the first refusal if there is no other answer.
fn parts(answers: Vec<Answer>) -> Result<Vec<Part>, Box<http::Response<Body>>> {
    let (good, bad): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|answer| answer.status.is_success());
    if let (true, Some(first)) = (good.is_empty(), bad.into_iter().next()) {
        return Err(Box::new(answer_json(first.status, &first.value)));
    }
    let good = good.into_iter();
    Ok(good
        .map(|answer| (answer.member.origin, answer.value))
        .collect())
}

impl Cluster {
    /// What every host answers to a list's request; `node` filters name the hosts.
    async fn gather(
        &self,
        asked: &Asked,
        path: &str,
        change: impl FnOnce(&mut Vec<(String, String)>, &mut Value),
    ) -> Result<(Vec<Member>, Vec<Answer>), ApiError> {
        let mut pairs: Vec<(String, String)> = asked
            .query
            .pairs()
            .filter(|(key, _)| *key != "filters")
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let text = asked.query.get("filters");
        let mut filters: Value = if text.is_empty() {
            Value::Null
        } else {
            crate::body::parse(text.as_bytes())?
        };
        let names = take_filter(&mut filters, "node");
        change(&mut pairs, &mut filters);
        if !filters.is_null() {
            pairs.push(("filters".to_owned(), filters.to_string()));
        }
        let mut members = self.members().await?;
        members
            .retain(|member| names.is_empty() || names.iter().any(|name| member.is_called(name)));
        let parts = asked.like(path, &encode(&pairs))?;
        let answers = self.ask_all(&members, &parts, &Bytes::new()).await;
        Ok((members, answers))
    }

    /// `docker ps`.
    pub(super) async fn list_containers(&self, asked: &Asked) -> Reply {
        let mut limit = asked.query.get("limit").parse::<usize>().ok();
        limit = limit.filter(|limit| *limit > 0);
        let filters = asked.query.get("filters");
        // `--before` and `--since` name a container that one host alone knows.
        let mut bounds = (Vec::new(), Vec::new());
        // Hosts do not know by which name others call them.
        let mut names = Vec::new();
        let wants_all = asked.query.flag("all") && matches!(filters, "" | "{}");
        let gathered = self.gather(asked, "/containers/json", |pairs, filters| {
            bounds.0 = take_filter(filters, "before");
            bounds.1 = take_filter(filters, "since");
            let says_host = |name: &String| name.trim_start_matches(['^', '/']).contains('/');
            if filter_values(filters, "name").iter().any(says_host) {
                names = take_filter(filters, "name");
            }
            // Without a limit hosts leave stopped containers out, with one they do not.
            if limit.is_some() && !pairs.iter().any(|(key, _)| key == "all") {
                pairs.push(("all".to_owned(), "1".to_owned()));
            }
        });
        let (members, answers) = gathered.await?;
        let good = answers.iter().filter(|answer| answer.status.is_success());
        let heard: Vec<NodeId> = good.map(|answer| answer.member.node).collect();
        let mut parts = match parts(answers) {
            Ok(parts) => parts,
            Err(refusal) => return Ok(*refusal),
        };
        if wants_all {
            let memory = lock(&self.memory);
            // A host whose engine hangs is as good as down: what it had is shown as it was.
            for member in members.iter().filter(|one| !heard.contains(&one.node)) {
                if let Some(list) = memory.lists.get(&member.node) {
                    parts.push((member.origin.clone(), merge::lost(list)));
                }
            }
        }
        let mut list = merge::containers(parts, None);
        if let Some(list) = list.as_array_mut() {
            let created = |entry: &Value| entry["Created"].as_i64().unwrap_or(0);
            for reference in bounds.0 {
                let at = self.created(&reference).await?;
                list.retain(|entry| created(entry) < at);
            }
            for reference in bounds.1 {
                let at = self.created(&reference).await?;
                list.retain(|entry| created(entry) > at);
            }
            if !names.is_empty() {
                merge::keep_named(list, &names)
                    .map_err(|error| ApiError::bad(format!("filter name: {error}")))?;
            }
            list.truncate(limit.unwrap_or(usize::MAX));
        }
        Ok(ok(&list))
    }

    /// When a container was made, in seconds.
    async fn created(&self, reference: &str) -> Result<i64, ApiError> {
        let (member, container) = self.owner(reference).await?;
        let filters = json!({"id": [container.id]}).to_string();
        let query = encode(&[("all".into(), "1".into()), ("filters".into(), filters)]);
        let answer = member.get(&format!("/containers/json?{query}")).await?;
        Ok(answer.value[0]["Created"].as_i64().unwrap_or(0))
    }

    pub(super) async fn list_images(&self, asked: &Asked) -> Reply {
        let (_, answers) = self.gather(asked, "/images/json", |_, _| {}).await?;
        Ok(match parts(answers) {
            Ok(parts) => ok(&merge::images(parts)),
            Err(refusal) => *refusal,
        })
    }

    pub(super) async fn list_networks(&self, asked: &Asked) -> Reply {
        let (_, answers) = self.gather(asked, "/networks", |_, _| {}).await?;
        Ok(match parts(answers) {
            Ok(parts) => ok(&merge::networks(parts)),
            Err(refusal) => *refusal,
        })
    }

    pub(super) async fn list_volumes(&self, asked: &Asked) -> Reply {
        let (_, answers) = self.gather(asked, "/volumes", |_, _| {}).await?;
        Ok(match parts(answers) {
            Ok(parts) => ok(&merge::volumes(parts)),
            Err(refusal) => *refusal,
        })
    }

    /// Prunes and disk usage.
    pub(super) async fn sums(&self, asked: &Asked) -> Reply {
        let path = asked.parts.uri.path()[asked.prefix.len()..].to_owned();
        let (_, answers) = self.gather(asked, &path, |_, _| {}).await?;
        Ok(match parts(answers) {
            Ok(parts) => ok(&merge::sums(parts)),
            Err(refusal) => *refusal,
        })
    }

    /// The host called `name`, which must be up.
    pub(super) async fn member(&self, name: &str) -> Result<Member, ApiError> {
        let mut members = self.members().await?.into_iter();
        let member = members.find(|member| member.is_called(name));
        let member = member
            .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("No such node: {name}")))?;
        if member.is_up {
            return Ok(member);
        }
        Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("node {name} is down; see `docker node ls`"),
        ))
    }
}

/// One answer for all: a refusal other than "there is none here" if there is one, else a success,
/// else `none`.
pub(super) fn first(answers: Vec<Answer>, none: impl FnOnce() -> ApiError) -> Reply {
    let is_refusal =
        |answer: &&Answer| !answer.status.is_success() && answer.status != StatusCode::NOT_FOUND;
    if let Some(refusal) = answers.iter().find(is_refusal) {
        let message = refusal.value["message"].as_str().unwrap_or_default();
        return Err(ApiError::new(
            refusal.status,
            format!("node {}: {message}", refusal.member.origin.name),
        ));
    }
    let good = answers
        .into_iter()
        .find(|answer| answer.status.is_success());
    let good = good.ok_or_else(none)?;
    if good.value.is_null() {
        return Ok(empty(good.status));
    }
    Ok(answer_json(good.status, &good.value))
}

/// A request with a body at hand.
pub(super) fn with_body(parts: http::request::Parts, body: Bytes) -> Request<Body> {
    Request::from_parts(parts, crate::reply::whole(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_taken_out_in_both_forms() {
        for text in [
            r#"{"node":["n1"],"a":["b"]}"#,
            r#"{"node":{"n1":true},"a":["b"]}"#,
        ] {
            let mut filters: Value = serde_json::from_str(text).unwrap();
            assert_eq!(take_filter(&mut filters, "node"), ["n1"]);
            assert_eq!(filters, json!({"a": ["b"]}));
        }
        assert_eq!(take_filter(&mut Value::Null, "node"), Vec::<String>::new());
    }
}
