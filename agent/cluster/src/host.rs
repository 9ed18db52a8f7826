//! What is known of hosts, their containers and images, from what their engines answer.

use serde_json::Value;
use weft_types::Labels;

/// A host and what is on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Host {
    /// Node id.
    pub id: String,
    /// Host name; unique as a rule.
    pub name: String,
    /// Address without a port.
    pub addr: String,
    /// It answers, and takes new containers.
    pub is_ready: bool,
    /// Labels of its engine and node, with classic Swarm's own: `storagedriver`, `kernelversion` …
    pub labels: Labels,
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// What is on it, running or not.
    pub containers: Vec<Container>,
    /// What needs no pulling.
    pub images: Vec<Image>,
    /// Names of the networks that are this host's alone.
    pub networks: Vec<String>,
}

/// A container on a host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Names without slashes.
    pub names: Vec<String>,
    /// The user's labels, and Swarm's.
    pub labels: Labels,
    /// It runs, or did when its host was last seen.
    pub is_running: bool,
    /// What it takes of its host.
    pub facts: Facts,
}

/// What a container takes of its host: fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Ports that it takes on its host.
    pub ports: Vec<Port>,
    /// It uses its host's network: what it exposes it takes.
    pub is_on_host_network: bool,
    /// Ports that its image or command exposes, such as `80/tcp`.
    pub exposed: Vec<String>,
    /// Billionths of a CPU that it reserves.
    pub nano_cpus: i64,
    /// Bytes that it reserves.
    pub memory_bytes: i64,
}

/// A port of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// On which of its addresses; empty or `0.0.0.0` is all.
    pub ip: String,
    /// Which; 0 is any free one.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// An image on a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// The engine's id, with `sha256:`.
    pub id: String,
    /// `name:tag`s.
    pub tags: Vec<String>,
}

impl Container {
    /// One entry of `GET /containers/json`; its facts are not in there.
    #[must_use]
    pub fn listed(entry: &Value) -> Self {
        let names = texts(&entry["Names"]);
        Self {
            id: text(&entry["Id"]),
            names: names
                .iter()
                .map(|name| name.trim_start_matches('/').to_owned())
                // The others are links of other containers to it.
                .filter(|name| !name.contains('/'))
                .collect(),
            labels: labels(&entry["Labels"]),
            is_running: entry["State"] == "running",
            facts: Facts::default(),
        }
    }
}

impl Facts {
    /// What the body of a create request, or an inspection, says that a container takes.
    /// `host_nano_cpus` is what its host has: engines know CPU shares as parts of 1024 of that.
    #[must_use]
    pub fn inspected(container: &Value, host_nano_cpus: i64) -> Self {
        let host = &container["HostConfig"];
        let config = &container["Config"];
        let nano = number(&host["NanoCpus"]);
        let shares = number(&host["CpuShares"]).saturating_mul(host_nano_cpus) / 1024;
        Self {
            nano_cpus: if nano > 0 { nano } else { shares },
            ..Self::wished(host, &config["ExposedPorts"])
        }
    }

    /// Everything but CPUs, which are counted differently in requests.
    pub(crate) fn wished(host: &Value, exposed: &Value) -> Self {
        let bindings = host["PortBindings"].as_object();
        let ports = bindings.into_iter().flatten().flat_map(|(key, bound)| {
            let protocol = key.split_once('/').map_or("tcp", |(_, protocol)| protocol);
            let bound = bound.as_array().map_or(&[][..], Vec::as_slice);
            bound.iter().map(move |binding| Port {
                ip: text(&binding["HostIp"]),
                port: text(&binding["HostPort"]).parse().unwrap_or(0),
                protocol: protocol.to_owned(),
            })
        });
        let exposed = exposed.as_object();
        Self {
            ports: ports.collect(),
            is_on_host_network: host["NetworkMode"] == "host",
            exposed: exposed
                .into_iter()
                .flat_map(|map| map.keys().cloned())
                .collect(),
            nano_cpus: number(&host["NanoCpus"]),
            memory_bytes: number(&host["Memory"]),
        }
    }
}

impl Port {
    /// Whether both cannot be on one host.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        let everywhere = |port: &Self| matches!(port.ip.as_str(), "" | "0.0.0.0" | "::");
        self.port != 0
            && self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || everywhere(self) || everywhere(other))
    }
}

impl Image {
    /// One entry of `GET /images/json`.
    #[must_use]
    pub fn listed(entry: &Value) -> Self {
        Self {
            id: text(&entry["Id"]),
            tags: texts(&entry["RepoTags"]),
        }
    }

    /// Its id, with `sha256:` and without.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        [self.id.as_str(), self.id.trim_start_matches("sha256:")].into_iter()
    }

    /// What people call it: `name:tag`, `name`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let tags = self.tags.iter().map(String::as_str);
        tags.flat_map(|tag| [tag, repository(tag)])
    }
}

/// `name` of `name:tag`.
pub(crate) fn repository(tag: &str) -> &str {
    match tag.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => tag,
    }
}

impl Host {
    /// What its containers reserve: billionths of a CPU, bytes.
    #[must_use]
    pub fn reserved(&self) -> (i64, i64) {
        let facts = self.containers.iter().map(|container| &container.facts);
        facts.fold((0, 0), |(cpus, bytes), facts| {
            (cpus + facts.nano_cpus, bytes + facts.memory_bytes)
        })
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(text).collect()
}

pub(crate) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

pub(crate) fn labels(value: &Value) -> Labels {
    let map = value.as_object();
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_number_of_two_protocols_is_two_ports() {
        let port = |ip: &str, protocol: &str| Port {
            ip: ip.to_owned(),
            port: 53,
            protocol: protocol.to_owned(),
        };
        assert!(port("", "udp").collides(&port("192.0.2.1", "udp")));
        assert!(!port("", "udp").collides(&port("", "tcp")));
        assert!(!port("192.0.2.1", "udp").collides(&port("192.0.2.2", "udp")));
    }

    #[test]
    fn links_of_others_are_no_names() {
        let entry = json!({"Id": "1", "Names": ["/web", "/other/alias"], "State": "exited"});
        let listed = Container::listed(&entry);
        assert_eq!(
            (listed.names, listed.is_running),
            (vec!["web".to_owned()], false)
        );
    }

    #[test]
    fn cpus_are_told_by_number_or_as_a_share_of_the_host() {
        let cpus =
            |host: Value| Facts::inspected(&json!({ "HostConfig": host }), 4_000_000_000).nano_cpus;
        assert_eq!(cpus(json!({"NanoCpus": 5, "CpuShares": 1024})), 5);
        assert_eq!(cpus(json!({"CpuShares": 1024})), 4_000_000_000);
        assert_eq!(cpus(json!({"CpuShares": 256})), 1_000_000_000);
        assert_eq!(cpus(json!({})), 0);
    }

    #[test]
    fn an_image_s_id_is_known_without_its_algorithm() {
        let image = Image {
            id: "sha256:abc".into(),
            tags: vec![],
        };
        assert_eq!(image.ids().collect::<Vec<_>>(), ["sha256:abc", "abc"]);
    }
}
