//! Which requests are ours.

use http::Method;

use crate::{
    query::{decode, encode_path},
    version::ApiVersion,
};

/// What a request is about. Names and ids are decoded but not looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    /// `OPTIONS` of any path of swarm mode.
    Options,
    Info,
    Version,
    Events,
    Swarm(SwarmRoute),
    Nodes(ObjectRoute),
    Services(ObjectRoute),
    Tasks(ObjectRoute),
    Secrets(ObjectRoute),
    Configs(ObjectRoute),
    Networks(NetworkRoute),
    Containers(ContainerRoute),
    /// A path of swarm mode that Docker does not have: never passed down, so that no spelling
    /// of it reaches the engine's own swarm mode.
    Nowhere,
    /// The engine's.
    Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwarmRoute {
    Inspect,
    Init,
    Join,
    Leave,
    Update,
    UnlockKey,
    Unlock,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectRoute {
    List,
    Create,
    Inspect(String),
    Update(String),
    Remove(String),
    Logs(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkRoute {
    List,
    Create,
    Prune,
    Inspect(String),
    Remove(String),
    Connect(String),
    Disconnect(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContainerRoute {
    List,
    DiskUsage,
    Commit,
    Inspect,
    /// What it changed in its files.
    Changes,
    Create,
    Start(String),
}

/// Splits `/v1.41/rest` into version and `/rest`. Other paths have no version.
pub(crate) fn split_version(path: &str) -> (Option<ApiVersion>, &str) {
    let Some(rest) = path.strip_prefix("/v") else {
        return (None, path);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].parse() {
        Ok(version) => (Some(version), &rest[end..]),
        Err(()) => (None, path),
    }
}

/// The path that Docker sends a client to who asks for one with empty, `.` or `..` segments: a path
/// that names the same without them.
pub(crate) fn straightened(path: &str) -> Option<String> {
    let path = decode(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut straight = format!("/{}", segments.join("/"));
    if path.ends_with('/') && straight != "/" {
        straight.push('/');
    }
    (straight != path).then(|| encode_path(&straight))
}

/// Where a request goes. `path` has no version prefix.
pub(crate) fn route(method: &Method, path: &str) -> Route {
    let path = decode(path);
    // A slash at the end makes it another path, as for Docker: one that nothing answers.
    let is_open = path.ends_with('/');
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some((&first, rest)) = segments.split_first() else {
        return Route::Engine;
    };
    let ours = ["configs", "nodes", "secrets", "services", "swarm", "tasks"];
    if ours.contains(&first) && *method == Method::OPTIONS {
        return Route::Options;
    }
    if is_open {
        return if ours.contains(&first) {
            Route::Nowhere
        } else {
            Route::Engine
        };
    }
    let get = method == Method::GET;
    let object = |wrap: fn(ObjectRoute) -> Route| object(method, rest).map_or(Route::Nowhere, wrap);
    match (first, rest) {
        ("_ping", []) if get || *method == Method::HEAD => Route::Ping,
        ("info", []) if get => Route::Info,
        ("version", []) if get => Route::Version,
        ("events", []) if get => Route::Events,
        ("swarm", _) => swarm(method, rest).map_or(Route::Nowhere, Route::Swarm),
        ("nodes", _) => object(Route::Nodes),
        ("services", _) => object(Route::Services),
        ("tasks", _) => object(Route::Tasks),
        ("secrets", _) => object(Route::Secrets),
        ("configs", _) => object(Route::Configs),
        ("containers", ["json"]) if method == Method::GET => {
            Route::Containers(ContainerRoute::List)
        }
        ("system", ["df"]) if method == Method::GET => Route::Containers(ContainerRoute::DiskUsage),
        ("commit", []) if method == Method::POST => Route::Containers(ContainerRoute::Commit),
        ("containers", [_, "json"]) if method == Method::GET => {
            Route::Containers(ContainerRoute::Inspect)
        }
        ("containers", [_, "changes"]) if method == Method::GET => {
            Route::Containers(ContainerRoute::Changes)
        }
        ("containers", ["create"]) if method == Method::POST => {
            Route::Containers(ContainerRoute::Create)
        }
        ("containers", [id, "start" | "restart"]) if method == Method::POST => {
            Route::Containers(ContainerRoute::Start((*id).to_owned()))
        }
        ("networks", _) => network(method, rest).map_or(Route::Engine, Route::Networks),
        _ => Route::Engine,
    }
}

/// Whether the engine's answer is a stream both ways.
pub(crate) fn is_raw(method: &Method, path: &str) -> bool {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let segments = [segments.next(), segments.next(), segments.next()];
    method == Method::POST
        && matches!(
            segments,
            [Some("containers"), Some(_), Some("attach")] | [Some("exec"), Some(_), Some("start")]
        )
}

fn swarm(method: &Method, rest: &[&str]) -> Option<SwarmRoute> {
    let get = method == Method::GET;
    let post = method == Method::POST;
    match rest {
        [] if get => Some(SwarmRoute::Inspect),
        ["unlockkey"] if get => Some(SwarmRoute::UnlockKey),
        ["init"] if post => Some(SwarmRoute::Init),
        ["join"] if post => Some(SwarmRoute::Join),
        ["leave"] if post => Some(SwarmRoute::Leave),
        ["update"] if post => Some(SwarmRoute::Update),
        ["unlock"] if post => Some(SwarmRoute::Unlock),
        _ => None,
    }
}

fn object(method: &Method, rest: &[&str]) -> Option<ObjectRoute> {
    let get = method == Method::GET;
    let post = method == Method::POST;
    match rest {
        [] if get => Some(ObjectRoute::List),
        ["create"] if post => Some(ObjectRoute::Create),
        [id] if get => Some(ObjectRoute::Inspect((*id).to_owned())),
        [id] if method == Method::DELETE => Some(ObjectRoute::Remove((*id).to_owned())),
        [id, "update"] if post => Some(ObjectRoute::Update((*id).to_owned())),
        [id, "logs"] if get => Some(ObjectRoute::Logs((*id).to_owned())),
        _ => None,
    }
}

fn network(method: &Method, rest: &[&str]) -> Option<NetworkRoute> {
    let get = method == Method::GET;
    let post = method == Method::POST;
    match rest {
        [] if get => Some(NetworkRoute::List),
        ["create"] if post => Some(NetworkRoute::Create),
        ["prune"] if post => Some(NetworkRoute::Prune),
        [id] if get => Some(NetworkRoute::Inspect((*id).to_owned())),
        [id] if method == Method::DELETE => Some(NetworkRoute::Remove((*id).to_owned())),
        [id, "connect"] if post => Some(NetworkRoute::Connect((*id).to_owned())),
        [id, "disconnect"] if post => Some(NetworkRoute::Disconnect((*id).to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_prefixes_are_split() {
        let version = ApiVersion::new(1, 41);
        assert_eq!(split_version("/v1.41/nodes"), (Some(version), "/nodes"));
        assert_eq!(split_version("/v1.41"), (Some(version), ""));
        assert_eq!(split_version("/volumes"), (None, "/volumes"));
        assert_eq!(split_version("/nodes"), (None, "/nodes"));
    }

    #[test]
    fn no_spelling_of_swarm_paths_reaches_the_engine() {
        for path in [
            "/swarm/init",
            "//swarm//init",
            "/%73warm/init",
            "/swarm%2finit",
        ] {
            assert_eq!(
                route(&Method::POST, path),
                Route::Swarm(SwarmRoute::Init),
                "{path}"
            );
        }
        assert_eq!(route(&Method::POST, "/swarm/init/"), Route::Nowhere);
        assert_eq!(route(&Method::PUT, "/swarm/init"), Route::Nowhere);
        assert_eq!(route(&Method::POST, "/services"), Route::Nowhere);
        assert_eq!(route(&Method::POST, "/nodes/a/b/c"), Route::Nowhere);
    }

    #[test]
    fn the_rest_is_the_engine_s() {
        for path in [
            "/containers/a/top",
            "/build",
            "/networkx",
            "/",
            "/system/dfx",
            "/session",
        ] {
            assert_eq!(route(&Method::GET, path), Route::Engine, "{path}");
        }
        assert_eq!(route(&Method::POST, "/_ping"), Route::Engine);
        assert_eq!(
            route(&Method::GET, "/services/a%2Db/logs"),
            Route::Services(ObjectRoute::Logs("a-b".into()))
        );
    }

    #[test]
    fn crooked_paths_are_sent_to_straight_ones() {
        for (crooked, straight) in [
            ("//services", "/services"),
            ("/services//a", "/services/a"),
            ("/v1.41//services/", "/v1.41/services/"),
            ("/services/../nodes", "/nodes"),
            ("/services/.", "/services"),
            ("/services/%2e%2e/a%20b", "/a%20b"),
            ("/../..", "/"),
        ] {
            assert_eq!(
                straightened(crooked).as_deref(),
                Some(straight),
                "{crooked}"
            );
        }
        for straight in [
            "/",
            "/services",
            "/services/",
            "/services/a%20b",
            "/v1.41/a..b",
        ] {
            assert_eq!(straightened(straight), None, "{straight}");
        }
    }
}
