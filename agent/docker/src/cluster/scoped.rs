//! Networks and volumes: a host's own, as `node/name`, or the cluster's.

use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use super::{Answer, Asked, Cluster, Member, hosts::request, lists::first};
use crate::{
    body::collect,
    reply::{ApiError, Reply, ok},
};

impl Cluster {
    /// A network: of the cluster, or of one host, as `node/name`.
    pub(super) async fn create_network(&self, asked: Asked, body: Incoming) -> Reply {
        let body = collect(body).await?;
        let mut wish: Value = crate::body::parse(&body)?;
        let name = wish["Name"].as_str().unwrap_or_default().to_owned();
        let parts = asked.like("/networks/create", asked.raw_query())?;
        match name.split_once('/') {
            Some((node, network)) => {
                wish["Name"] = network.into();
                let member = self.member(node).await?;
                self.pass_to(&member, parts, wish.to_string()).await
            }
            None => self.here.pass_bytes(parts, body).await,
        }
    }

    pub(super) async fn network(
        &self,
        asked: Asked,
        body: Incoming,
        name: &str,
        verb: &str,
    ) -> Reply {
        let mut body = collect(body).await?;
        let (mut member, mut network) = self.network_owner(name).await?;
        if !verb.is_empty() {
            let mut wish: Value = crate::body::parse(&body)?;
            let container = wish["Container"].as_str().unwrap_or_default();
            let (owner, container) = self.owner(container).await?;
            if member.node != owner.node && name.contains('/') {
                return Err(ApiError::bad(format!(
                    "network {name} is not on node {}, where the container is",
                    owner.origin.name
                )));
            }
            wish["Container"] = container.id.into();
            body = wish.to_string().into();
            member = owner;
            if !name.contains('/') {
                name.clone_into(&mut network);
            }
        }
        let slash = if verb.is_empty() { "" } else { "/" };
        let path = format!("/networks/{network}{slash}{verb}");
        let parts = asked.like(&path, asked.raw_query())?;
        self.pass_to(&member, parts, body).await
    }

    /// The host to ask about a network, and the network's name there. A network of the cluster is
    /// asked about here.
    async fn network_owner(&self, name: &str) -> Result<(Member, String), ApiError> {
        if let Some((node, network)) = name.split_once('/') {
            return Ok((self.member(node).await?, network.to_owned()));
        }
        let members = self.members().await?;
        let question = request(Method::GET, "/networks")?;
        let answers = self.ask_all(&members, &question, &Bytes::new()).await;
        let mut found: Vec<Member> = Vec::new();
        for answer in answers {
            let list = answer.value.as_array().map_or(&[][..], Vec::as_slice);
            let named = |network: &&Value| {
                let id = network["Id"].as_str().unwrap_or_default();
                network["Name"] == name || (name.len() >= 4 && id.starts_with(name))
            };
            if let Some(network) = list.iter().find(named) {
                let is_shared = network["Scope"] == "swarm";
                if is_shared {
                    found.clear();
                }
                found.push(answer.member);
                if is_shared {
                    break;
                }
            }
        }
        let here = || members.iter().find(|member| member.is_here);
        match found.as_slice() {
            [] => {}
            [one] if !one.is_here => return Ok((one.clone(), name.to_owned())),
            [_] => {}
            several => {
                // Built-in networks are everywhere: clients look at this host's.
                if !["bridge", "host", "none"].contains(&name) {
                    return Err(several_nodes("network", name, several));
                }
            }
        }
        let here = here().ok_or_else(|| ApiError::internal("this node is not in its own list"))?;
        Ok((here.clone(), name.to_owned()))
    }

    /// A volume on one host (`node/name`), or one of this name on each.
    pub(super) async fn create_volume(&self, asked: Asked, body: Incoming) -> Reply {
        let body = collect(body).await?;
        let mut wish: Value = crate::body::parse(&body)?;
        let name = wish["Name"].as_str().unwrap_or_default().to_owned();
        let parts = asked.like("/volumes/create", asked.raw_query())?;
        if let Some((node, volume)) = name.split_once('/') {
            wish["Name"] = volume.into();
            let member = self.member(node).await?;
            return self.pass_to(&member, parts, wish.to_string()).await;
        }
        if name.is_empty() {
            // Named by an engine, it would have another name on each host.
            return self.here.pass_bytes(parts, body).await;
        }
        let members = self.members().await?;
        let answers = self.ask_all(&members, &parts, &body).await;
        first(answers, || volume_missing(&name))
    }

    pub(super) async fn volume(&self, asked: Asked, name: &str) -> Reply {
        let members = match name.split_once('/') {
            Some((node, _)) => vec![self.member(node).await?],
            None => self.members().await?,
        };
        let volume = name.rsplit_once('/').map_or(name, |(_, volume)| volume);
        let parts = asked.like(&format!("/volumes/{volume}"), asked.raw_query())?;
        let answers = self.ask_all(&members, &parts, &Bytes::new()).await;
        if asked.parts.method != Method::GET {
            return first(answers, || volume_missing(name));
        }
        let mut found: Vec<Answer> = answers
            .into_iter()
            .filter(|answer| answer.status == StatusCode::OK)
            .collect();
        if found.len() > 1 {
            // Made here for all hosts, it is one as far as clients can tell: which one is told apart
            // by `node/name`.
            let same = ["Driver", "Labels", "Options", "Scope"];
            let is_one = found
                .windows(2)
                .all(|two| same.iter().all(|f| two[0].value[f] == two[1].value[f]));
            found.sort_by_key(|answer| !answer.member.is_here);
            if is_one {
                return Ok(ok(&found[0].value));
            }
            let members: Vec<Member> = found.into_iter().map(|answer| answer.member).collect();
            return Err(several_nodes("volume", name, &members));
        }
        let mut answer = found.pop().ok_or_else(|| volume_missing(name))?;
        if answer.value["Scope"] != "global" {
            answer.value["Name"] = answer.member.origin.prefixed(volume).into();
        }
        Ok(ok(&answer.value))
    }
}

fn volume_missing(name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("get {name}: no such volume"))
}

fn several_nodes(kind: &str, name: &str, members: &[Member]) -> ApiError {
    let choices = members.iter().map(|member| member.origin.prefixed(name));
    ApiError::bad(format!(
        "{kind} {name} is on several nodes; say which: {}",
        choices.collect::<Vec<_>>().join(", ")
    ))
}
