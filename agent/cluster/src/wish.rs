//! What a request to make a container asks of its place, and the request without that.

use serde_json::{Map, Value, json};
use weft_types::Labels;

use crate::{
    expression::{Expression, ParseExpressionError},
    host::{Facts, labels, number, text, texts},
};

/// Label of every container made through the cluster socket: 64 digits, kept when it is rescheduled.
pub const ID: &str = "com.docker.swarm.id";
/// Label: a JSON list of constraints.
pub const CONSTRAINTS: &str = "com.docker.swarm.constraints";
/// Label: a JSON list of affinities.
pub const AFFINITIES: &str = "com.docker.swarm.affinities";
/// Label: a JSON list of lists of hosts.
pub const WHITELISTS: &str = "com.docker.swarm.whitelists";
/// Label: a JSON list of reasons to make the container anew elsewhere.
pub const RESCHEDULE: &str = "com.docker.swarm.reschedule-policies";
/// The reason that is known.
pub const ON_NODE_FAILURE: &str = "on-node-failure";

/// Prefixes of environment variables that are rules, and the labels that keep them.
const RULES: [(&str, &str); 4] = [
    ("constraint:", CONSTRAINTS),
    ("affinity:", AFFINITIES),
    ("whitelist:", WHITELISTS),
    ("reschedule:", RESCHEDULE),
];

/// Networks that every engine has.
const BUILT_IN: [&str; 5] = ["", "default", "bridge", "host", "none"];

/// What a container asks of its place.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Of the host.
    pub constraints: Vec<Expression>,
    /// Of what else is there.
    pub affinities: Vec<Expression>,
    /// Only these hosts.
    pub whitelists: Vec<Expression>,
    /// Containers that it needs on its host, each with the option that says so.
    pub dependencies: Vec<(String, String)>,
    /// Its network, where it is no built-in one.
    pub network: String,
    /// What it takes; CPUs as asked for.
    pub facts: Facts,
    /// Cores, if they were asked for as CPU shares, as classic Swarm had it.
    pub shares: i64,
    /// What it is made of.
    pub image: String,
    /// All its labels.
    pub labels: Labels,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// A rule that is none.
    #[error(transparent)]
    Expression(#[from] ParseExpressionError),
    /// A label that must be a JSON list of texts.
    #[error("label {0} must be a JSON list of texts")]
    Label(&'static str),
    /// A reason to reschedule that is not known.
    #[error("invalid reschedule policy: {0}")]
    Reschedule(String),
    /// Whitelists name hosts only.
    #[error("whitelist is only for nodes, not for '{0}'")]
    Whitelist(String),
    /// No JSON object.
    #[error("the body of the request must be a JSON object")]
    Body,
    /// A build is over before its host can fail.
    #[error("a build is not rescheduled: --build-arg reschedule: is for containers")]
    Build,
}

impl Wish {
    /// Takes the wish out of the body of a create request: rules leave the environment and become
    /// labels, `node/name`s lose their node, and `id` names the container in the whole cluster
    /// unless it has such a name already.
    ///
    /// # Errors
    /// When a rule cannot be understood; the body is of no use then.
    pub fn take(body: &mut Value, id: &str) -> Result<Self, WishError> {
        let Some(config) = body.as_object_mut() else {
            return Err(WishError::Body);
        };
        let mut kept = labels(config.get("Labels").unwrap_or(&Value::Null));
        let mut rules: [Vec<String>; 4] = Default::default();
        for ((_, label), rules) in RULES.iter().zip(&mut rules) {
            if let Some(list) = kept.get(*label) {
                *rules = serde_json::from_str(list).map_err(|_| WishError::Label(label))?;
            }
        }
        if let Some(Value::Array(env)) = config.get_mut("Env") {
            env.retain(|variable| {
                let Some(variable) = variable.as_str() else {
                    return true;
                };
                for ((prefix, _), rules) in RULES.iter().zip(&mut rules) {
                    if let Some(rule) = variable.strip_prefix(prefix) {
                        rules.push(rule.to_owned());
                        return false;
                    }
                }
                true
            });
        }
        let mut wish = Self::ruled(&rules)?;
        for policy in &rules[3] {
            if policy != ON_NODE_FAILURE && policy != "off" {
                return Err(WishError::Reschedule(policy.clone()));
            }
        }
        for ((_, label), rules) in RULES.iter().zip(&rules) {
            if !rules.is_empty() {
                kept.insert((*label).to_owned(), json!(rules).to_string());
            }
        }
        kept.entry(ID.to_owned()).or_insert_with(|| id.to_owned());
        config.insert("Labels".to_owned(), json!(kept));
        wish.labels = kept;
        wish.image = text(config.get("Image").unwrap_or(&Value::Null));
        let exposed = config.get("ExposedPorts").cloned().unwrap_or(Value::Null);
        if let Some(Value::Object(host)) = config.get_mut("HostConfig") {
            wish.read_host_config(host, &exposed);
        }
        Ok(wish)
    }

    /// Takes the wish out of the build arguments of a build: rules leave them. `None` if there are none.
    ///
    /// `--build-arg constraint:node==n2` arrives as `"constraint:node": "=n2"`.
    ///
    /// # Errors
    /// When a rule cannot be understood; the arguments are of no use then.
    pub fn of_build(args: &mut Map<String, Value>) -> Result<Option<Self>, WishError> {
        let mut rules: [Vec<String>; 4] = Default::default();
        args.retain(|key, value| {
            for ((prefix, _), rules) in RULES.iter().zip(&mut rules) {
                if let Some(rule) = key.strip_prefix(prefix) {
                    let rest = value.as_str().map(|value| format!("={value}"));
                    rules.push(format!("{rule}{}", rest.unwrap_or_default()));
                    return false;
                }
            }
            true
        });
        if !rules[3].is_empty() {
            return Err(WishError::Build);
        }
        let is_plain = rules.iter().all(Vec::is_empty);
        Ok((!is_plain).then_some(Self::ruled(&rules)?))
    }

    /// A wish of these rules: constraints, affinities, whitelists.
    fn ruled(rules: &[Vec<String>; 4]) -> Result<Self, WishError> {
        let parse = |list: &[String]| -> Result<Vec<Expression>, WishError> {
            let parsed = list.iter().map(|rule| Expression::parse(rule));
            Ok(parsed.collect::<Result<_, _>>()?)
        };
        let whitelists = rules[2].iter().map(|rule| whitelist(rule));
        Ok(Self {
            constraints: parse(&rules[0])?,
            affinities: parse(&rules[1])?,
            whitelists: whitelists.collect::<Result<_, _>>()?,
            ..Self::default()
        })
    }

    fn read_host_config(&mut self, host: &mut Map<String, Value>, exposed: &Value) {
        self.depend_on(host);
        let shares = host.get("CpuShares").map_or(0, number);
        let value = Value::Object(std::mem::take(host));
        self.facts = Facts::wished(&value, exposed);
        if let Value::Object(fields) = value {
            *host = fields;
        }
        if self.facts.nano_cpus == 0 && shares > 0 {
            self.shares = shares;
            self.facts.nano_cpus = shares.saturating_mul(1_000_000_000);
        }
    }

    /// Notes the containers that it needs beside it; their engine knows them without their node.
    fn depend_on(&mut self, host: &mut Map<String, Value>) {
        self.stay_with_volumes(host);
        for (field, option) in [("VolumesFrom", "volumes-from"), ("Links", "link")] {
            let Some(Value::Array(list)) = host.get_mut(field) else {
                continue;
            };
            for entry in list {
                let entry_text = text(entry);
                let (container, rest) = match entry_text.split_once(':') {
                    Some((container, rest)) => (container, format!(":{rest}")),
                    None => (entry_text.as_str(), String::new()),
                };
                let option = format!("--{option}={entry_text}");
                self.dependencies.push((container.to_owned(), option));
                *entry = format!("{}{rest}", bare(container)).into();
            }
        }
        for (field, option) in [
            ("NetworkMode", "net"),
            ("IpcMode", "ipc"),
            ("PidMode", "pid"),
        ] {
            let mode = host.get(field).map(text).unwrap_or_default();
            if let Some(container) = mode.strip_prefix("container:") {
                let option = format!("--{option}={mode}");
                self.dependencies.push((container.to_owned(), option));
                let mode = format!("container:{}", bare(container));
                host.insert(field.to_owned(), mode.into());
            } else if field == "NetworkMode"
                && let Some((node, network)) = mode.split_once('/')
                // A network of one host's own, named as lists show it.
                && let Ok(rule) = Expression::parse(&format!("node=={node}"))
            {
                self.constraints.push(rule);
                host.insert(field.to_owned(), network.into());
            } else if field == "NetworkMode" && !BUILT_IN.contains(&mode.as_str()) {
                self.network = mode;
            }
        }
    }

    /// A volume that is named as lists show it, `node/name`, is on that host alone.
    fn stay_with_volumes(&mut self, host: &mut Map<String, Value>) {
        let mut stay = |source: &str| -> Option<String> {
            let (node, volume) = source.split_once('/')?;
            // Anything else is a path.
            if node.is_empty() || node.starts_with(['.', '~']) {
                return None;
            }
            let rule = Expression::parse(&format!("node=={node}")).ok()?;
            self.constraints.push(rule);
            Some(volume.to_owned())
        };
        for bind in array(host, "Binds") {
            let bound = text(bind);
            if let Some((source, rest)) = bound.split_once(':')
                && let Some(volume) = stay(source)
            {
                *bind = format!("{volume}:{rest}").into();
            }
        }
        for mount in array(host, "Mounts") {
            if mount["Type"] == "volume"
                && let Some(volume) = stay(&text(&mount["Source"]))
            {
                mount["Source"] = volume.into();
            }
        }
    }

    /// Whether it names its host: then no other is tried.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        let mut rules = self.constraints.iter();
        rules.any(|rule| rule.key() == "node" && rule.is_equal() && !rule.is_soft())
    }

    /// Turns cores asked for as CPU shares into the engine's own shares on a host with `nano_cpus`.
    pub fn scale_shares(&self, body: &mut Value, nano_cpus: i64) {
        let cores = (nano_cpus / 1_000_000_000).max(1);
        if self.shares > 0 && body["HostConfig"].is_object() {
            body["HostConfig"]["CpuShares"] = (self.shares.saturating_mul(1024) / cores).into();
        }
    }
}

/// Whether a container with these labels is to be made anew when its host fails.
#[must_use]
pub fn is_rescheduled(labels: &Labels) -> bool {
    let list = labels.get(RESCHEDULE).map_or("", String::as_str);
    let list: Vec<String> = serde_json::from_str(list).unwrap_or_default();
    list.iter().any(|policy| policy == ON_NODE_FAILURE)
}

/// The entries of a list.
fn array<'a>(object: &'a mut Map<String, Value>, field: &str) -> &'a mut [Value] {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.map_or(&mut [], Vec::as_mut_slice)
}

/// A container's name without its node.
fn bare(container: &str) -> &str {
    container
        .rsplit_once('/')
        .map_or(container, |(_, name)| name)
}

/// `node==a|b` as a rule; names are taken literally.
fn whitelist(rule: &str) -> Result<Expression, WishError> {
    let parsed = Expression::parse(rule)?;
    if parsed.key() != "node" {
        return Err(WishError::Whitelist(parsed.key().to_owned()));
    }
    let operator = if parsed.is_equal() { "==" } else { "!=" };
    let (_, names) = rule
        .split_once(operator)
        .ok_or(ParseExpressionError::Operator)?;
    let (soft, names) = match names.strip_prefix('~') {
        Some(names) => ("~", names),
        None => ("", names),
    };
    let names: Vec<String> = names.split('|').map(regex::escape).collect();
    let text = format!("node{operator}{soft}/^({})$/", names.join("|"));
    Ok(Expression::parse(&text)?)
}

/// The body of a create request that makes a container as `inspected` anew, with its name and the
/// names of its networks.
#[must_use]
pub fn again(inspected: &Value) -> Value {
    let mut body = match &inspected["Config"] {
        Value::Object(config) => config.clone(),
        _ => Map::new(),
    };
    let id = text(&inspected["Id"]);
    let short = id.get(..12).unwrap_or(&id).to_owned();
    // The engine names a host after its container when nobody does.
    if body.get("Hostname").is_some_and(|name| *name == short) {
        body.remove("Hostname");
    }
    if let Some(Value::Object(labels)) = body.get_mut("Labels") {
        labels.remove("io.weft.networks");
    }
    let mut host = inspected["HostConfig"].clone();
    if let Some(host) = host.as_object_mut() {
        host.remove("ContainerIDFile");
    }
    let networks = inspected["NetworkSettings"]["Networks"].as_object();
    let endpoints = networks.into_iter().flatten().map(|(name, endpoint)| {
        let aliases = texts(&endpoint["Aliases"]);
        let aliases: Vec<String> = aliases
            .into_iter()
            .filter(|alias| *alias != short)
            .collect();
        // Addresses are another host's; only names go along.
        (name.clone(), json!({ "Aliases": aliases }))
    });
    let endpoints: Map<String, Value> = endpoints
        .filter(|(name, _)| !BUILT_IN.contains(&name.as_str()))
        .collect();
    body.insert("HostConfig".to_owned(), host);
    body.insert(
        "NetworkingConfig".to_owned(),
        json!({ "EndpointsConfig": endpoints }),
    );
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(env: &[&str]) -> Value {
        json!({"Image": "a", "Env": env, "HostConfig": {}})
    }

    #[test]
    fn rules_leave_the_environment_and_stay_as_labels() {
        let mut request = body(&[
            "A=constraint:b",
            "constraint:storage==ssd",
            "affinity:container!=~web*",
            "reschedule:on-node-failure",
            "whitelist:node==n1|n.2",
        ]);
        request["Labels"] = json!({CONSTRAINTS: "[\"region==us*\"]"});
        let wish = Wish::take(&mut request, "0123").expect("a wish");
        assert_eq!(request["Env"], json!(["A=constraint:b"]));
        assert_eq!(
            request["Labels"],
            json!({
                ID: "0123",
                CONSTRAINTS: "[\"region==us*\",\"storage==ssd\"]",
                AFFINITIES: "[\"container!=~web*\"]",
                WHITELISTS: "[\"node==n1|n.2\"]",
                RESCHEDULE: "[\"on-node-failure\"]",
            })
        );
        assert_eq!(wish.constraints.len(), 2);
        assert!(wish.affinities[0].is_soft());
        assert!(wish.whitelists[0].holds(["n1"]) && !wish.whitelists[0].holds(["nx2"]));
        assert!(is_rescheduled(&wish.labels));
        // Made anew from its labels, it asks the same.
        let again = Wish::take(&mut request, "4567").expect("a wish");
        assert_eq!(again.labels, wish.labels);
    }

    #[test]
    fn needs_and_resources_are_read() {
        let mut request = body(&[]);
        request["ExposedPorts"] = json!({"81/tcp": {}});
        request["HostConfig"] = json!({
            "VolumesFrom": ["n1/data:ro"], "Links": ["db:d"], "NetworkMode": "container:n2/web",
            "CpuShares": 2, "Memory": 1024,
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}], "53/udp": [{"HostIp": "192.0.2.1", "HostPort": "53"}]},
        });
        let wish = Wish::take(&mut request, "1").expect("a wish");
        let host = &request["HostConfig"];
        assert_eq!(host["VolumesFrom"], json!(["data:ro"]));
        assert_eq!(host["NetworkMode"], "container:web");
        let needs: Vec<&str> = wish
            .dependencies
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(needs, ["n1/data", "db", "n2/web"]);
        assert_eq!(wish.dependencies[0].1, "--volumes-from=n1/data:ro");
        assert_eq!(
            (wish.facts.nano_cpus, wish.facts.memory_bytes),
            (2_000_000_000, 1024)
        );
        assert_eq!(wish.facts.ports.len(), 2);
        wish.scale_shares(&mut request, 4_000_000_000);
        assert_eq!(request["HostConfig"]["CpuShares"], 512);
    }

    #[test]
    fn a_host_s_own_network_pins() {
        let mut request = body(&[]);
        request["HostConfig"] = json!({"NetworkMode": "n2/back"});
        let wish = Wish::take(&mut request, "1").expect("a wish");
        assert!(wish.is_pinned() && wish.constraints[0].holds(["n2"]));
        assert_eq!(request["HostConfig"]["NetworkMode"], "back");
    }

    #[test]
    fn volumes_of_one_host_pin_and_networks_are_needed() {
        let mut request = body(&[]);
        request["HostConfig"] = json!({
            "Binds": ["n2/data:/a:ro", "/etc:/b", "./c:/c", "data:/d"], "NetworkMode": "back",
            "Mounts": [{"Type": "volume", "Source": "n2/more"}, {"Type": "bind", "Source": "x/y"}, {"Type": "tmpfs"}],
        });
        let wish = Wish::take(&mut request, "1").expect("a wish");
        let host = &request["HostConfig"];
        assert_eq!(
            host["Binds"],
            json!(["data:/a:ro", "/etc:/b", "./c:/c", "data:/d"])
        );
        assert_eq!(host["Mounts"][0]["Source"], "more");
        assert_eq!(host["Mounts"][1]["Source"], "x/y");
        let rules: Vec<String> = wish.constraints.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["node==n2", "node==n2"]);
        assert_eq!(wish.network, "back");
    }

    #[test]
    fn builds_are_placed_by_their_arguments() {
        let mut args = json!({"constraint:node": "=n2", "affinity:image!": "~x*", "VERSION": "=1", "HTTP_PROXY": null});
        let args = args.as_object_mut().expect("arguments");
        let wish = Wish::of_build(args).expect("rules").expect("a wish");
        assert_eq!(wish.constraints[0].to_string(), "node==n2");
        assert_eq!(wish.affinities[0].to_string(), "image!=~x*");
        assert_eq!(
            Value::Object(args.clone()),
            json!({"VERSION": "=1", "HTTP_PROXY": null})
        );
        assert!(Wish::of_build(args).expect("no rules").is_none());
        for (key, value) in [
            ("constraint:node", Value::Null),
            ("whitelist:image", "=a".into()),
            ("reschedule:on-node-failure", Value::Null),
        ] {
            let mut args = Map::from_iter([(key.to_owned(), value)]);
            assert!(Wish::of_build(&mut args).is_err(), "{key}");
        }
    }

    #[test]
    fn a_whitelist_may_be_a_wish() {
        let wish = Wish::take(&mut body(&["whitelist:node==~n1|n2"]), "1").expect("a wish");
        let rule = &wish.whitelists[0];
        assert!(rule.is_soft() && rule.holds(["n2"]) && !rule.holds(["~n1"]));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for env in [
            "constraint:x",
            "affinity:image=a",
            "reschedule:always",
            "whitelist:image==a",
        ] {
            assert!(Wish::take(&mut body(&[env]), "1").is_err(), "{env}");
        }
        let mut request = body(&[]);
        request["Labels"] = json!({AFFINITIES: "image==a"});
        assert_eq!(
            Wish::take(&mut request, "1").expect_err("no list"),
            WishError::Label(AFFINITIES)
        );
        assert!(Wish::take(&mut json!([]), "1").is_err());
    }

    #[test]
    fn a_container_is_made_again_as_it_was() {
        let inspected = json!({
            "Id": "abcdefabcdef0123", "Name": "/web",
            "Config": {"Hostname": "abcdefabcdef", "Image": "a", "Labels": {"io.weft.networks": "[]", "k": "v"}},
            "HostConfig": {"NetworkMode": "front", "Memory": 5},
            "NetworkSettings": {"Networks": {
                "front": {"Aliases": ["abcdefabcdef", "w"], "IPAddress": "10.0.1.5"}, "bridge": {}}},
        });
        assert_eq!(
            again(&inspected),
            json!({
                "Image": "a", "Labels": {"k": "v"},
                "HostConfig": {"NetworkMode": "front", "Memory": 5},
                "NetworkingConfig": {"EndpointsConfig": {"front": {"Aliases": ["w"]}}},
            })
        );
    }

    proptest! {
        #[test]
        fn no_environment_breaks_it(env in prop::collection::vec("(constraint:|affinity:|whitelist:|reschedule:|)[ -~]{0,20}", 0..5)) {
            let env: Vec<&str> = env.iter().map(String::as_str).collect();
            let mut request = body(&env);
            if Wish::take(&mut request, "1").is_ok() {
                let left = texts(&request["Env"]);
                prop_assert!(left.iter().all(|kept| RULES.iter().all(|(prefix, _)| !kept.starts_with(prefix))));
            }
        }
    }
}
