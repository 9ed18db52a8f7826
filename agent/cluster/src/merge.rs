//! Answers of many hosts as one: lists put together, names set apart by their host.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::host::{number, text, texts};

/// Whose answer it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Node id.
    pub id: String,
    /// Host name.
    pub name: String,
    /// Address without a port.
    pub addr: String,
}

impl Origin {
    /// `node/name`.
    #[must_use]
    pub fn prefixed(&self, name: &str) -> String {
        format!("{}/{}", self.name, name.trim_start_matches('/'))
    }

    /// Where a port that is open on all addresses of this host is reached.
    #[must_use]
    pub fn reach<'a>(&'a self, ip: &'a str) -> &'a str {
        match ip {
            "" | "0.0.0.0" if !self.addr.is_empty() => &self.addr,
            other => other,
        }
    }
}

/// One host's answer.
pub type Part = (Origin, Value);

fn entries(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// `GET /containers/json`: newest first, `limit` at most; names as `/node/name`, ports where they are
/// reached.
#[must_use]
pub fn containers(parts: Vec<Part>, limit: Option<usize>) -> Value {
    let mut all = Vec::new();
    for (origin, list) in parts {
        for mut entry in entries(list) {
            let names = texts(&entry["Names"]);
            let names = names
                .iter()
                .map(|name| format!("/{}", origin.prefixed(name)));
            entry["Names"] = names.collect();
            for port in entry["Ports"].as_array_mut().into_iter().flatten() {
                if let Some(ip) = port["IP"].as_str() {
                    port["IP"] = origin.reach(ip).to_owned().into();
                }
            }
            all.push(entry);
        }
    }
    all.sort_by_key(|entry| std::cmp::Reverse(number(&entry["Created"])));
    all.truncate(limit.unwrap_or(usize::MAX));
    Value::Array(all)
}

/// Leaves in a merged `GET /containers/json` what has a name that matches one of `patterns`, regular
/// expressions as engines understand them. Names are compared with their host and without.
///
/// # Errors
/// When a pattern is none; nothing is changed then.
pub fn keep_named(list: &mut Vec<Value>, patterns: &[String]) -> Result<(), regex::Error> {
    let patterns: Vec<regex::Regex> = patterns
        .iter()
        .map(|pattern| regex::Regex::new(pattern))
        .collect::<Result<_, _>>()?;
    list.retain(|entry| {
        texts(&entry["Names"]).iter().any(|name| {
            let whole = name.trim_start_matches('/');
            let bare = whole.split_once('/').map_or(whole, |(_, bare)| bare);
            let slashed = format!("/{bare}");
            let forms = [name, whole, bare, &slashed];
            let mut patterns = patterns.iter();
            patterns.any(|pattern| forms.iter().any(|form| pattern.is_match(form)))
        })
    });
    Ok(())
}

/// Shows entries of `GET /containers/json` as those of a host that does not answer.
#[must_use]
pub fn lost(list: &Value) -> Value {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let shown = list.iter().map(|entry| {
        let mut entry = entry.clone();
        entry["Status"] = "Host Down".into();
        entry
    });
    shown.collect()
}

/// `GET /images/json`: each image once, under all its names, with its containers counted.
#[must_use]
pub fn images(parts: Vec<Part>) -> Value {
    let mut order = Vec::new();
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for (_, list) in parts {
        for entry in entries(list) {
            let id = text(&entry["Id"]);
            let Some(known) = all.get_mut(&id) else {
                order.push(id.clone());
                all.insert(id, entry);
                continue;
            };
            for field in ["RepoTags", "RepoDigests"] {
                let mut names = texts(&known[field]);
                for name in texts(&entry[field]) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                // An engine's placeholder for an image that has no name there.
                if names.len() > 1 {
                    names.retain(|name| !name.starts_with("<none>"));
                }
                known[field] = json!(names);
            }
            let counts = [number(&known["Containers"]), number(&entry["Containers"])];
            known["Containers"] = match counts.into_iter().filter(|count| *count >= 0).collect() {
                counts if Vec::is_empty(&counts) => (-1).into(),
                counts => counts.into_iter().sum::<i64>().into(),
            };
        }
    }
    let mut list: Vec<Value> = order.into_iter().filter_map(|id| all.remove(&id)).collect();
    list.sort_by_key(|entry| std::cmp::Reverse(number(&entry["Created"])));
    Value::Array(list)
}

/// `GET /networks`: those of the cluster once, others as `node/name`.
#[must_use]
pub fn networks(parts: Vec<Part>) -> Value {
    own_or_shared(parts, "Id", |entry| {
        entry["Scope"] == "swarm" || entry["Scope"] == "global"
    })
}

/// The volumes of `GET /volumes`: those of the cluster once, others as `node/name`.
#[must_use]
pub fn volumes(parts: Vec<Part>) -> Value {
    let mut warnings = Vec::new();
    let mut lists = Vec::new();
    for (origin, mut answer) in parts {
        for warning in texts(&answer["Warnings"]) {
            warnings.push(format!("{}: {warning}", origin.name));
        }
        lists.push((origin, answer["Volumes"].take()));
    }
    json!({
        "Volumes": own_or_shared(lists, "Name", |entry| entry["Scope"] == "global"),
        "Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) },
    })
}

fn own_or_shared(parts: Vec<Part>, key: &str, is_shared: impl Fn(&Value) -> bool) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for (origin, list) in parts {
        for mut entry in entries(list) {
            if is_shared(&entry) {
                if all
                    .iter()
                    .any(|known| is_shared(known) && known[key] == entry[key])
                {
                    continue;
                }
            } else {
                entry["Name"] = origin.prefixed(&text(&entry["Name"])).into();
            }
            all.push(entry);
        }
    }
    Value::Array(all)
}

/// Answers of `prune` and `df`: lists one after another (volumes and networks as `node/name`),
/// numbers added up.
#[must_use]
pub fn sums(parts: Vec<Part>) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for (origin, answer) in parts {
        let Value::Object(answer) = answer else {
            continue;
        };
        for (field, value) in answer {
            let value = match field.as_str() {
                "VolumesDeleted" | "NetworksDeleted" => {
                    let names = texts(&value);
                    names.iter().map(|name| origin.prefixed(name)).collect()
                }
                "Volumes" => own_or_shared(vec![(origin.clone(), value)], "Name", |_| false),
                "Containers" => containers(vec![(origin.clone(), value)], None),
                _ => value,
            };
            let sum = match (all.remove(&field), value) {
                (None | Some(Value::Null), value) => value,
                (Some(Value::Array(mut list)), Value::Array(more)) => {
                    list.extend(more);
                    Value::Array(list)
                }
                (Some(Value::Number(one)), Value::Number(other)) => {
                    let numbers = [one.as_i64().unwrap_or(0), other.as_i64().unwrap_or(0)];
                    numbers[0].saturating_add(numbers[1]).into()
                }
                (Some(known), _) => known,
            };
            all.insert(field, sum);
        }
    }
    Value::Object(all)
}

/// One event of a host, saying whose it is; `None` if it is the cluster's and told by the host that is
/// asked already.
#[must_use]
pub fn event(mut event: Value, origin: &Origin, is_here: bool) -> Option<Value> {
    if event["scope"] == "swarm" && !is_here {
        return None;
    }
    if event["scope"] != "swarm" {
        if let Some(from) = event["from"].as_str().filter(|from| !from.is_empty()) {
            event["from"] = format!("{from} node:{}", origin.name).into();
        }
        if event["Actor"]["Attributes"].is_null() {
            event["Actor"]["Attributes"] = json!({});
        }
        if let Some(attributes) = event["Actor"]["Attributes"].as_object_mut() {
            for (key, value) in [
                ("node.id", &origin.id),
                ("node.name", &origin.name),
                ("node.ip", &origin.addr),
                ("node.addr", &origin.addr),
            ] {
                attributes.insert(key.to_owned(), value.clone().into());
            }
        }
    }
    Some(event)
}

/// One line of progress of a host (pull, load, import), saying whose it is. An error of one host is
/// progress like any other; who put the answers together says at the end what failed.
#[must_use]
pub fn progress(mut line: Value, origin: &Origin) -> Value {
    let error = text(&line["error"]);
    if !error.is_empty() {
        return json!({"id": origin.name, "status": error});
    }
    for field in ["status", "stream"] {
        let id = text(&line["id"]);
        let said = text(&line[field]);
        if id.is_empty() && !said.is_empty() {
            line[field] = format!("{}: {said}", origin.name).into();
        }
    }
    let id = text(&line["id"]);
    if !id.is_empty() {
        line["id"] = format!("{}/{id}", origin.name).into();
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(number: usize) -> Origin {
        Origin {
            id: format!("id{number}"),
            name: format!("n{number}"),
            addr: format!("192.0.2.1{number}"),
        }
    }

    #[test]
    fn containers_are_named_and_reached() {
        let one = json!([{"Id": "a", "Names": ["/web", "/x/link"], "Created": 1,
            "Ports": [{"IP": "0.0.0.0", "PublicPort": 80}, {"IP": "127.0.0.1"}, {"PrivatePort": 1}]}]);
        let two = json!([{"Id": "b", "Names": ["/web"], "Created": 2, "Ports": []}]);
        let all = containers(vec![(origin(1), one.clone()), (origin(2), two)], None);
        assert_eq!(all[0]["Names"], json!(["/n2/web"]));
        assert_eq!(all[1]["Names"], json!(["/n1/web", "/n1/x/link"]));
        assert_eq!(
            all[1]["Ports"],
            json!([{"IP": "192.0.2.11", "PublicPort": 80}, {"IP": "127.0.0.1"}, {"PrivatePort": 1}])
        );
        assert_eq!(lost(&one)[0]["Status"], "Host Down");
        let newest = containers(
            vec![(origin(1), one), (origin(2), json!([{"Created": 2}]))],
            Some(1),
        );
        assert_eq!(newest.as_array().map(Vec::len), Some(1));
        assert_eq!(newest[0]["Created"], 2);
    }

    #[test]
    fn names_match_with_their_host_and_without() {
        let list =
            json!([{"Names": ["/n1/web"]}, {"Names": ["/n2/web"]}, {"Names": ["/n2/website"]}]);
        let kept = |pattern: &str| {
            let mut list = list.as_array().cloned().unwrap_or_default();
            keep_named(&mut list, &[pattern.to_owned()]).map(|()| list.len())
        };
        for (pattern, count) in [
            ("n2/web", 2),
            ("^/?n2/web$", 1),
            ("^web$", 2),
            ("/web", 3),
            ("^/web$", 2),
            ("n3/", 0),
        ] {
            assert_eq!(kept(pattern), Ok(count), "{pattern}");
        }
        assert!(kept("(").is_err());
    }

    #[test]
    fn images_are_shown_once() {
        let one = json!([{"Id": "a", "RepoTags": ["x:1"], "Containers": 1, "Created": 1}]);
        let two = json!([{"Id": "a", "RepoTags": ["x:1", "y:1"], "Containers": 2, "Created": 1},
            {"Id": "b", "RepoTags": null, "Containers": -1, "Created": 2}]);
        let all = images(vec![(origin(1), one), (origin(2), two)]);
        assert_eq!(all[0]["Id"], "b");
        assert_eq!(all[1]["RepoTags"], json!(["x:1", "y:1"]));
        assert_eq!(all[1]["Containers"], 3);
        assert_eq!(all.as_array().map(Vec::len), Some(2));
        let nameless = json!([{"Id": "a", "RepoTags": ["<none>:<none>"]}]);
        let named = json!([{"Id": "a", "RepoTags": ["x:1"]}]);
        let all = images(vec![(origin(1), nameless), (origin(2), named)]);
        assert_eq!(all[0]["RepoTags"], json!(["x:1"]));
    }

    #[test]
    fn what_is_shared_is_shown_once() {
        let list = json!([{"Name": "bridge", "Id": "1", "Scope": "local"}, {"Name": "front", "Id": "2", "Scope": "swarm"}]);
        let all = networks(vec![(origin(1), list.clone()), (origin(2), list)]);
        let names: Vec<_> = all
            .as_array()
            .into_iter()
            .flatten()
            .map(|n| n["Name"].clone())
            .collect();
        assert_eq!(names, ["n1/bridge", "front", "n2/bridge"]);
        let volumes = volumes(vec![(
            origin(1),
            json!({"Volumes": [{"Name": "data", "Scope": "local"}], "Warnings": ["w"]}),
        )]);
        assert_eq!(volumes["Volumes"][0]["Name"], "n1/data");
        assert_eq!(volumes["Warnings"], json!(["n1: w"]));
    }

    #[test]
    fn prunes_are_added_up() {
        let one = json!({"VolumesDeleted": ["v"], "SpaceReclaimed": 2});
        let two = json!({"VolumesDeleted": null, "SpaceReclaimed": 3});
        assert_eq!(
            sums(vec![(origin(2), two), (origin(1), one)]),
            json!({"VolumesDeleted": ["n1/v"], "SpaceReclaimed": 5})
        );
        let usage = |host: usize| {
            let list = json!([{"Names": ["/web"], "Created": host}]);
            (origin(host), json!({"Containers": list, "LayersSize": 1}))
        };
        let all = sums(vec![usage(1), usage(2)]);
        let names = [0, 1].map(|at| all["Containers"][at]["Names"][0].clone());
        assert_eq!(names, ["/n1/web", "/n2/web"]);
    }

    #[test]
    fn events_say_whose_they_are() {
        let local =
            json!({"from": "img", "scope": "local", "Actor": {"Attributes": {"name": "web"}}});
        let told = event(local, &origin(1), false).expect("told");
        assert_eq!(told["from"], "img node:n1");
        assert_eq!(told["Actor"]["Attributes"]["node.name"], "n1");
        assert_eq!(told["Actor"]["Attributes"]["node.ip"], "192.0.2.11");
        assert_eq!(told["Actor"]["Attributes"]["name"], "web");
        let swarm = json!({"scope": "swarm"});
        assert_eq!(event(swarm.clone(), &origin(1), false), None);
        assert_eq!(event(swarm.clone(), &origin(1), true), Some(swarm));
    }

    #[test]
    fn progress_says_whose_it_is() {
        let line = |line| progress(line, &origin(1));
        assert_eq!(
            line(json!({"id": "abc", "status": "Pulling"})),
            json!({"id": "n1/abc", "status": "Pulling"})
        );
        assert_eq!(line(json!({"status": "Done"}))["status"], "n1: Done");
        assert_eq!(
            line(json!({"error": "no"})),
            json!({"id": "n1", "status": "no"})
        );
    }

    proptest! {
        #[test]
        fn no_container_is_lost_or_doubled(counts in prop::collection::vec(0..5usize, 0..5), created in any::<u8>()) {
            let parts = counts.iter().enumerate().map(|(host, count)| {
                let list = (0..*count).map(|c| json!({"Id": format!("{host}-{c}"), "Names": ["/x"],
                    "Created": (host * c) % (1 + usize::from(created))}));
                (origin(host), list.collect())
            });
            let all = containers(parts.collect(), None);
            let all = all.as_array().expect("a list");
            let ids: std::collections::BTreeSet<_> = all.iter().map(|entry| text(&entry["Id"])).collect();
            prop_assert_eq!(ids.len(), all.len());
            prop_assert_eq!(all.len(), counts.iter().sum::<usize>());
            prop_assert!(all.is_sorted_by_key(|entry| std::cmp::Reverse(number(&entry["Created"]))));
        }
    }
}
