//! What a request to the cluster socket is about.
//!
//! Names may be `node/name`, and clients write that slash into the path as it is: what stands between
//! the kind of object and the verb is the name.

use http::Method;

use crate::query::decode;

/// What a request is about. Names are decoded but not looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// This node's own front door: swarm mode, BuildKit's sessions, and all that has nothing to do with
    /// one host.
    Here,
    ListContainers,
    CreateContainer,
    /// One container; the verb is the path after its name, empty for removal.
    Container {
        reference: String,
        verb: String,
    },
    Exec {
        id: String,
        verb: String,
    },
    Commit,
    ListImages,
    /// Pull or import.
    Pull,
    Load,
    /// Several images as one archive.
    Save,
    Build,
    Image {
        name: String,
        verb: String,
    },
    ListNetworks,
    CreateNetwork,
    Network {
        name: String,
        verb: String,
    },
    ListVolumes,
    CreateVolume,
    Volume {
        name: String,
    },
    /// Done by every host, answers added up: prunes, disk usage.
    Sums,
    Events,
    Info,
}

/// Where a request goes; `path` has no version prefix.
pub(super) fn target(method: &Method, path: &str) -> Target {
    let decoded: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let Some((&first, rest)) = segments.split_first() else {
        return Target::Here;
    };
    let get = method == Method::GET || method == Method::HEAD;
    let post = method == Method::POST;
    match (first, rest) {
        ("info", []) if get => Target::Info,
        ("events", []) if get => Target::Events,
        ("system", ["df"]) if get => Target::Sums,
        ("containers" | "images" | "networks" | "volumes", ["prune"]) if post => Target::Sums,
        ("containers", ["json"]) if get => Target::ListContainers,
        ("containers", ["create"]) if post => Target::CreateContainer,
        ("containers", name) => match named(method, name) {
            Some((reference, verb)) => Target::Container { reference, verb },
            None => Target::Here,
        },
        ("exec", [id, verb]) => Target::Exec {
            id: (*id).to_owned(),
            verb: (*verb).to_owned(),
        },
        ("commit", []) if post => Target::Commit,
        ("images", ["json"]) if get => Target::ListImages,
        ("images", ["create"]) if post => Target::Pull,
        ("images", ["load"]) if post => Target::Load,
        ("images", ["get"]) if get => Target::Save,
        ("images", ["search"]) => Target::Here,
        ("build", []) if post => Target::Build,
        ("images", name) => match named(method, name) {
            Some((name, verb)) => Target::Image { name, verb },
            None => Target::Here,
        },
        ("networks", []) if get => Target::ListNetworks,
        ("networks", ["create"]) if post => Target::CreateNetwork,
        ("networks", name) => {
            let (name, verb) = match name.split_last() {
                Some((verb @ (&"connect" | &"disconnect"), name)) if post => (name, *verb),
                _ => (name, ""),
            };
            Target::Network {
                name: name.join("/"),
                verb: verb.to_owned(),
            }
        }
        ("volumes", []) if get => Target::ListVolumes,
        ("volumes", ["create"]) if post => Target::CreateVolume,
        ("volumes", name) if get || method == Method::DELETE => Target::Volume {
            name: name.join("/"),
        },
        _ => Target::Here,
    }
}

/// Name and verb; a removal has no verb.
fn named(method: &Method, segments: &[&str]) -> Option<(String, String)> {
    if method == Method::DELETE {
        return Some((segments.join("/"), String::new()));
    }
    let (name, verb) = match segments {
        [name @ .., "attach", "ws"] => (name, "attach/ws".to_owned()),
        [name @ .., verb] => (name, (*verb).to_owned()),
        [] => return None,
    };
    (!name.is_empty()).then(|| (name.join("/"), verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_node() {
        let container = |reference: &str, verb: &str| Target::Container {
            reference: reference.into(),
            verb: verb.into(),
        };
        for (method, path, expected) in [
            (
                Method::GET,
                "/containers/web/json",
                container("web", "json"),
            ),
            (
                Method::GET,
                "/containers/n2/web/json",
                container("n2/web", "json"),
            ),
            (
                Method::GET,
                "/containers/n2%2Fweb/logs",
                container("n2/web", "logs"),
            ),
            (
                Method::DELETE,
                "/containers/n2/web",
                container("n2/web", ""),
            ),
            (
                Method::GET,
                "/containers/n2/web/attach/ws",
                container("n2/web", "attach/ws"),
            ),
            (Method::GET, "/containers/json", Target::ListContainers),
            (Method::POST, "/containers/prune", Target::Sums),
            (
                Method::GET,
                "/images/a/b:1/json",
                Target::Image {
                    name: "a/b:1".into(),
                    verb: "json".into(),
                },
            ),
            (
                Method::POST,
                "/networks/n1/back/connect",
                Target::Network {
                    name: "n1/back".into(),
                    verb: "connect".into(),
                },
            ),
            (
                Method::DELETE,
                "/volumes/n1/data",
                Target::Volume {
                    name: "n1/data".into(),
                },
            ),
            (Method::GET, "/services", Target::Here),
            (Method::GET, "/_ping", Target::Here),
            (Method::POST, "/build", Target::Build),
            (Method::POST, "/session", Target::Here),
            (Method::GET, "/images/get", Target::Save),
        ] {
            assert_eq!(target(&method, path), expected, "{method} {path}");
        }
    }
}
