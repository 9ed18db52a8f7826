//! `/containers`: the engine's, with the facts of swarm networks put in.
//!
//! Containers of tasks have no network of the engine's, and a gate before their program that
//! waits for ours. Clients see neither: they see the networks and the program.

mod commit;
mod endpoint;
mod run;
mod wanted;

pub(crate) use endpoint::Endpoint;
pub(crate) use run::LABEL as WISHES;

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderValue, Request, StatusCode, header};
use serde_json::{Map, Value, json};
use weft_types::{BackendId, TaskId, netstate::NetEndpoint, netstate::NetState};

use self::{run::Wish, wanted::Wanted};
use crate::{
    body::collect,
    door::{Asked, Door},
    ordered::Ordered,
    reply::{Reply, whole},
};

/// Where the gate lies in containers of tasks.
const GATE: &str = "/.weft-gate";

/// What this node knows of its containers' networks.
struct Known {
    state: Arc<NetState>,
    /// Tasks by the engine's id: a user's own container has one for each of its networks.
    tasks: BTreeMap<String, Vec<TaskId>>,
}

impl Door {
    /// `docker ps`.
    pub(crate) async fn list_containers(&self, mut asked: Asked) -> Reply {
        let known = self.known().await;
        let wanted = Wanted::take(&mut asked)?;
        self.amend(asked, |list| {
            let mut changed = false;
            for container in list.list_mut().into_iter().flatten() {
                changed |= known.amend_listed(container);
            }
            if let (Some(wanted), Some(list)) = (&wanted, list.list_mut()) {
                wanted.keep(list);
                changed = true;
            }
            changed
        })
        .await
    }

    /// `docker diff`: what the gate's mount leaves behind is no change of the user's.
    pub(crate) async fn changes_of_container(&self, asked: Asked) -> Reply {
        self.amend(asked, |changes| {
            let Some(list) = changes.list_mut() else {
                return false;
            };
            let before = list.len();
            list.retain(|change| change.text_of("Path") != GATE);
            list.len() != before
        })
        .await
    }

    /// `docker system df`, whose containers are those of `docker ps`.
    pub(crate) async fn disk_usage(&self, asked: Asked) -> Reply {
        let known = self.known().await;
        self.amend(asked, |usage| {
            let mut changed = false;
            let containers = usage.get_mut("Containers").and_then(Ordered::list_mut);
            for container in containers.into_iter().flatten() {
                changed |= known.amend_listed(container);
            }
            changed
        })
        .await
    }

    /// `docker inspect` of one container.
    pub(crate) async fn inspect_container(&self, asked: Asked) -> Reply {
        let known = self.known().await;
        self.amend(asked, |container| known.amend_inspected(container))
            .await
    }

    async fn known(&self) -> Known {
        let containers = self.node.local_containers().await;
        let mut tasks: BTreeMap<String, Vec<TaskId>> = BTreeMap::new();
        for (task, id) in containers {
            tasks.entry(id).or_default().push(task);
        }
        Known {
            state: self.node.net_state().await,
            tasks,
        }
    }

    /// The engine's answer; its own bytes unless `change` says that it changed something.
    async fn amend(&self, asked: Asked, change: impl FnOnce(&mut Ordered) -> bool) -> Reply {
        let request = Request::from_parts(asked.parts, whole(asked.body));
        let (response, connection) = self.engine.send(request).await?;
        if response.status() != StatusCode::OK {
            return Ok(response.map(|body| connection.tie(body)));
        }
        let (mut parts, body) = response.into_parts();
        let mut text = collect(body).await?;
        if let Ok(mut value) = serde_json::from_slice::<Ordered>(&text)
            && change(&mut value)
            && let Ok(mut changed) = serde_json::to_vec(&value)
        {
            changed.push(b'\n');
            text = changed.into();
        }
        parts.headers.remove(header::TRANSFER_ENCODING);
        let length = HeaderValue::from(text.len());
        parts.headers.insert(header::CONTENT_LENGTH, length);
        Ok(http::Response::from_parts(parts, whole(text)))
    }
}

impl Known {
    fn amend_listed(&self, container: &mut Ordered) -> bool {
        let mut changed = false;
        if let Some(Ordered::Text(command)) = container.get_mut("Command")
            && let Some(rest) = command.strip_prefix(GATE)
        {
            *command = rest.trim_start().to_owned();
            changed = true;
        }
        hide_mounts(container);
        let own = Own::read(container.get("Labels"));
        changed | self.amend_networks(container, changed, &own)
    }

    fn amend_inspected(&self, container: &mut Ordered) -> bool {
        let gated = hide_gate(container);
        hide_mounts(container);
        let own = Own::read(container.get("Config").and_then(|c| c.get("Labels")));
        if gated && let Some(host) = container.get_mut("HostConfig") {
            hide_binds(host, own.wishes.is_empty());
            if let Some(wish) = own.wishes.first()
                && let Some(mode) = host.get_mut("NetworkMode")
                && mode.text().is_some_and(|mode| own.hides(mode))
            {
                *mode = Ordered::Text(wish.name.clone());
            }
        }
        gated | self.amend_networks(container, gated, &own)
    }

    /// Shows the swarm networks of a container instead of the engine's `none`.
    fn amend_networks(&self, container: &mut Ordered, gated: bool, made: &Own) -> bool {
        let tasks = self.tasks.get(container.text_of("Id"));
        let endpoints = self.state.endpoints.iter();
        let own: Vec<_> = endpoints
            .filter(|(_, end)| tasks.is_some_and(|tasks| tasks.contains(&end.task)))
            .collect();
        if own.is_empty() && !gated {
            return false;
        }
        let id = container.text_of("Id").to_owned();
        let mut networks: Map<String, Value> = own
            .into_iter()
            .filter_map(|(backend, endpoint)| {
                let network = self.state.networks.get(&endpoint.network)?;
                Some((network.name.clone(), network_view(*backend, endpoint, &id)))
            })
            .collect();
        if networks.is_empty() {
            // It does not run: there it will be when it does.
            networks.extend(made.wishes.iter().map(Wish::view));
        }
        if let Some(settings) = container.get_mut("NetworkSettings")
            && let Some(shown) = settings.get_mut("Networks")
        {
            // Networks of the engine's beside ours stay.
            let mut fields = match std::mem::replace(shown, Ordered::Null) {
                Ordered::Object(fields) => fields,
                _ => Vec::new(),
            };
            fields.retain(|(name, _)| !made.hides(name));
            if let Ordered::Object(ours) = Value::Object(networks).into() {
                fields.extend(ours);
            }
            *shown = Ordered::Object(fields);
        }
        if let Some(host) = container.get_mut("HostConfig")
            && host.text_of("NetworkMode") == "none"
            && let Some(mode) = host.get_mut("NetworkMode")
        {
            *mode = Ordered::Text("default".to_owned());
        }
        true
    }
}

/// What a container was made with, as its labels say.
struct Own {
    wishes: Vec<Wish>,
    /// A network of the engine's that it has for its published ports alone.
    gateway: String,
}

impl Own {
    fn read(labels: Option<&Ordered>) -> Self {
        let label = |name: &str| labels.map_or("", |labels| labels.text_of(name));
        Self {
            wishes: run::read(label(run::LABEL)),
            gateway: label(run::GATEWAY_LABEL).to_owned(),
        }
    }

    /// Whether clients do not see this network of the engine's.
    fn hides(&self, network: &str) -> bool {
        network == "none" || network == self.gateway
    }
}

fn network_view(backend: BackendId, endpoint: &NetEndpoint, container: &str) -> Value {
    let of = |v6: bool| {
        let mut addresses = endpoint.addresses.iter();
        addresses.find(|address| address.is_ipv6() == v6)
    };
    let text = |v6: bool| of(v6).map_or_else(String::new, |address| address.ip().to_string());
    let prefix = |v6: bool| of(v6).map_or(0, |address| address.prefix());
    let short: String = container.chars().take(12).collect();
    let mut aliases = vec![short];
    for name in &endpoint.names {
        if !aliases.contains(name) {
            aliases.push(name.clone());
        }
    }
    let mut ipam = Map::new();
    if of(false).is_some() {
        ipam.insert("IPv4Address".to_owned(), text(false).into());
    }
    if of(true).is_some() {
        ipam.insert("IPv6Address".to_owned(), text(true).into());
    }
    json!({
        "IPAMConfig": ipam, "Links": null, "Aliases": aliases,
        "NetworkID": endpoint.network, "EndpointID": crate::networks::endpoint_id(backend.0),
        "Gateway": "", "IPAddress": text(false), "IPPrefixLen": prefix(false),
        "IPv6Gateway": "", "GlobalIPv6Address": text(true), "GlobalIPv6PrefixLen": prefix(true),
        "MacAddress": crate::networks::mac(backend.mac()), "DriverOpts": null,
    })
}

/// Takes the gate out of the command; says whether it was there.
fn hide_gate(container: &mut Ordered) -> bool {
    let mut gated = false;
    if let Some(config) = container.get_mut("Config")
        && let Some(entrypoint) = config.get_mut("Entrypoint")
        && let Some(words) = entrypoint.list_mut()
        && words.first().and_then(Ordered::text) == Some(GATE)
    {
        words.remove(0);
        gated = true;
        if words.is_empty() {
            *entrypoint = Ordered::Null;
        }
        // No words are nothing in Docker, unless somebody sent an empty list.
        if let Some(command) = config.get_mut("Cmd")
            && command.list_mut().is_some_and(|words| words.is_empty())
        {
            *command = Ordered::Null;
        }
    }
    if container.text_of("Path") == GATE
        && let Some(args) = container.get_mut("Args").and_then(Ordered::list_mut)
        && !args.is_empty()
    {
        let first = args.remove(0);
        if let Some(path) = container.get_mut("Path") {
            *path = first;
        }
    }
    gated
}

/// Takes away mounts of the node's own files (gate, resolver settings, secrets): those that lie
/// where the gate lies.
fn hide_mounts(container: &mut Ordered) {
    let Some(mounts) = container.get_mut("Mounts").and_then(Ordered::list_mut) else {
        return;
    };
    let gate = mounts.iter().find(|m| m.text_of("Destination") == GATE);
    let Some(folder) = gate.and_then(|gate| gate.text_of("Source").rsplit_once('/')) else {
        return;
    };
    let folder = format!("{}/", folder.0);
    mounts.retain(|mount| !mount.text_of("Source").starts_with(&folder));
}

/// Takes away binds of the node's own files. A task's own mounts are in `Mounts`: its binds are
/// all the node's.
fn hide_binds(host: &mut Ordered, all: bool) {
    let Some(binds) = host.get_mut("Binds") else {
        return;
    };
    let gate = format!(":{GATE}:ro");
    if let Some(list) = binds.list_mut() {
        list.retain(|bind| !all && !bind.text().is_some_and(|bind| bind.ends_with(&gate)));
        if list.is_empty() {
            *binds = Ordered::Null;
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_types::{
        Id,
        netstate::{EndpointPhase, NetNetwork},
    };

    use super::*;

    fn known() -> Known {
        let mut state = NetState::default();
        let network = Id::numbered(1);
        state.networks.insert(
            network,
            NetNetwork {
                name: "front".into(),
                vni: 4097,
                subnets: vec![],
                gateways: vec![],
                mtu_bytes: None,
                ingress: false,
                internal: false,
                encrypted: false,
                about: weft_types::netstate::NetworkAbout::default(),
            },
        );
        state.endpoints.insert(
            BackendId(5),
            NetEndpoint {
                task: Id::numbered(2),
                network,
                node: Id::numbered(3),
                addresses: vec!["10.0.1.4/24".parse().unwrap()],
                service: None,
                name: "web.1".into(),
                names: vec!["abcdefabcdef".into(), "h-1".into()],
                phase: EndpointPhase::Serving,
                host_ports: vec![],
            },
        );
        let id = "abcdefabcdef0123".to_owned();
        Known {
            state: Arc::new(state),
            tasks: BTreeMap::from([(id, vec![Id::numbered(2)])]),
        }
    }

    #[test]
    fn a_task_s_container_shows_its_program_and_networks() {
        let text = r#"{"Id":"abcdefabcdef0123","Path":"/.weft-gate","Args":["whoami","-v"],
            "HostConfig":{"Binds":["/s/gate:/.weft-gate:ro"],"NetworkMode":"none"},
            "Mounts":[{"Source":"/s/gate","Destination":"/.weft-gate"},
                {"Source":"/s/t/hosts","Destination":"/etc/hosts"},
                {"Source":"/tmp","Destination":"/host"}],
            "Config":{"Entrypoint":["/.weft-gate"],"Cmd":["whoami","-v"]},
            "NetworkSettings":{"Networks":{"none":{}}}}"#;
        let mut container: Ordered = serde_json::from_str(text).unwrap();
        assert!(known().amend_inspected(&mut container));
        let shown: Value = serde_json::to_value(&container).unwrap();
        assert_eq!(shown["Path"], "whoami");
        assert_eq!(shown["Args"], json!(["-v"]));
        assert_eq!(
            shown["HostConfig"],
            json!({"Binds": null, "NetworkMode": "default"})
        );
        assert_eq!(
            shown["Mounts"],
            json!([{"Source": "/tmp", "Destination": "/host"}])
        );
        assert_eq!(
            shown["Config"],
            json!({"Entrypoint": null, "Cmd": ["whoami", "-v"]})
        );
        let front = &shown["NetworkSettings"]["Networks"]["front"];
        assert_eq!(front["IPAddress"], "10.0.1.4");
        assert_eq!(front["IPPrefixLen"], 24);
        assert_eq!(front["MacAddress"], "02:00:00:00:00:05");
        assert_eq!(front["Aliases"], json!(["abcdefabcdef", "h-1"]));
        let order = serde_json::to_string(&container).unwrap();
        assert!(order.starts_with(r#"{"Id":"abcdefabcdef0123","Path":"whoami","Args""#));
    }

    #[test]
    fn a_user_s_container_shows_its_networks_of_both_kinds() {
        let shown = |labels: &str, id: &str, mode: &str, networks: &str| {
            let text = format!(
                r#"{{"Id":"{id}","Path":"/.weft-gate","Args":["sh"],"HostConfig":{{"NetworkMode":"{mode}"}},
                "Config":{{"Entrypoint":["/.weft-gate"],"Labels":{labels}}},"NetworkSettings":{{"Networks":{networks}}}}}"#
            );
            let mut container: Ordered = serde_json::from_str(&text).unwrap();
            assert!(known().amend_inspected(&mut container));
            let shown: Value = serde_json::to_value(&container).unwrap();
            let ends = shown["NetworkSettings"]["Networks"].as_object().unwrap();
            let ends: Vec<_> = ends
                .iter()
                .map(|(name, end)| (name.clone(), end["IPAddress"].clone()))
                .collect();
            (shown["HostConfig"]["NetworkMode"].clone(), ends)
        };
        let wish = r#""io.weft.networks":"[{\"Network\":\"n\",\"Name\":\"front\"}]""#;
        let with = |more: &str| format!("{{{wish}{more}}}");
        let gateway = with(r#","io.weft.gateway":"bridge""#);
        let end = |name: &str, address: &str| (name.to_owned(), Value::from(address));
        let bridge = r#"{"bridge":{"IPAddress":"172.17.0.2"}}"#;
        let (runs, waits) = ("abcdefabcdef0123", "0");
        // For its published ports alone it is on the engine's bridge: nobody asked for that.
        let front = ("front".into(), vec![end("front", "10.0.1.4")]);
        assert_eq!(shown(&gateway, runs, "bridge", bridge), front);
        let both = (
            "bridge".into(),
            vec![end("bridge", "172.17.0.2"), end("front", "10.0.1.4")],
        );
        assert_eq!(shown(&with(""), runs, "bridge", bridge), both);
        // One that does not run is shown where it will be.
        let none = r#"{"none":{"IPAddress":""}}"#;
        let front = ("front".into(), vec![end("front", "")]);
        assert_eq!(shown(&with(""), waits, "none", none), front);
    }

    #[test]
    fn the_program_is_shown_as_docker_shows_it() {
        for (given, due) in [
            // The image's own words, or the service's arguments.
            (
                r#"["/.weft-gate"],"Cmd":["nginx","-g"]"#,
                json!([null, ["nginx", "-g"]]),
            ),
            (
                r#"["/.weft-gate","/entry"],"Cmd":["serve"]"#,
                json!([["/entry"], ["serve"]]),
            ),
            // The service's command.
            (r#"["/.weft-gate","sh"],"Cmd":[]"#, json!([["sh"], null])),
        ] {
            let text = format!(r#"{{"Id":"1","Config":{{"Entrypoint":{given}}}}}"#);
            let mut container: Ordered = serde_json::from_str(&text).unwrap();
            assert!(known().amend_inspected(&mut container));
            let shown = &serde_json::to_value(&container).unwrap()["Config"];
            assert_eq!(json!([shown["Entrypoint"], shown["Cmd"]]), due);
        }
    }

    #[test]
    fn other_containers_are_left_alone() {
        let text = r#"{"Id":"0","Path":"sh","Config":{"Entrypoint":null},"HostConfig":{"NetworkMode":"none"}}"#;
        let mut container: Ordered = serde_json::from_str(text).unwrap();
        assert!(!known().amend_inspected(&mut container));
        assert_eq!(serde_json::to_string(&container).unwrap(), text);
    }

    #[test]
    fn lists_show_programs_too() {
        let text = r#"[{"Id":"1","Command":"sh"},{"Id":"abcdefabcdef0123","Command":"/.weft-gate whoami",
            "HostConfig":{"NetworkMode":"none"},"NetworkSettings":{"Networks":{"none":{}}},"Mounts":[]}]"#;
        let mut list: Ordered = serde_json::from_str(text).unwrap();
        let known = known();
        let containers = list.list_mut().unwrap();
        assert!(!known.amend_listed(&mut containers[0]));
        assert!(known.amend_listed(&mut containers[1]));
        assert_eq!(containers[1].text_of("Command"), "whoami");
    }
}
