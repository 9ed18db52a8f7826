//! The body of `POST /containers/create` for a task.
//!
//! PURE. What the spec asks is honoured or refused, never left out: a field that this file does
//! not know is a refusal that names it.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Map, Value, json};
use weft_types::{
    container::{ContainerSpec, Mount},
    network::NodeNetwork,
    task::{GenericResource, Task, TaskSpec},
    template::{Place, TemplateError, expand},
    validate::asks,
};

use crate::deliver;

/// Where the gate is in every container.
pub(super) const GATE_TARGET: &str = "/.weft-gate";

/// What the image says, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ImageFacts {
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
}

/// Files of the host that the container gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostFiles {
    pub(super) gate: PathBuf,
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
    /// Source and target of secrets and configs.
    pub(super) delivered: Vec<(PathBuf, PathBuf)>,
}

/// Why no container can be made from a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the task has no container spec")]
    NoContainer,
    #[error("{field} {value} is not supported by weft")]
    Unsupported { field: String, value: String },
    #[error("no command specified")]
    NoCommand,
    #[error(transparent)]
    Expand(#[from] TemplateError),
}

fn unsupported(field: impl Into<String>, value: &Value) -> Refusal {
    Refusal::Unsupported {
        field: field.into(),
        value: value.to_string(),
    }
}

/// The body.
///
/// # Errors
/// When the spec asks for what cannot be honoured.
pub(super) fn body(
    task: &Task,
    place: &Place,
    image: &ImageFacts,
    files: &HostFiles,
) -> Result<Value, Refusal> {
    let spec = task
        .spec
        .container_spec
        .as_ref()
        .ok_or(Refusal::NoContainer)?;
    refuse_rest("ContainerSpec.", &spec.rest)?;
    if let Some(isolation) = spec.isolation.as_deref()
        && !matches!(isolation, "" | "default")
    {
        return Err(unsupported("ContainerSpec.Isolation", &json!(isolation)));
    }
    let text = |text: &str| expand(text, task, place);
    let is_gated = task.spec.node_network().is_none();
    let (entrypoint, command) = command_line(spec, image, is_gated)?;
    let mut body = json!({
        "Image": spec.image,
        "Entrypoint": entrypoint,
        "Cmd": command,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "Labels": labels(task, spec, place),
        "Env": environment(task, spec, place)?,
        "HostConfig": host_config(task, spec, place, files)?,
    });
    let mut set = |name: &str, value: Value| body[name] = value;
    if let Some(hostname) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        set("Hostname", json!(text(hostname)?));
    }
    if let Some(dir) = &spec.dir {
        set("WorkingDir", json!(dir));
    }
    if let Some(user) = &spec.user {
        set("User", json!(user));
    }
    if let Some(signal) = &spec.stop_signal {
        set("StopSignal", json!(signal));
    }
    if let Some(health) = &spec.healthcheck {
        refuse_rest("Healthcheck.", &health.rest)?;
        set("Healthcheck", health_config(health));
    }
    Ok(body)
}

fn refuse_rest(prefix: &str, rest: &Map<String, Value>) -> Result<(), Refusal> {
    let asked = rest.iter().find(|(_, value)| asks(value));
    asked.map_or(Ok(()), |(name, value)| {
        Err(unsupported(format!("{prefix}{name}"), value))
    })
}

/// Entry point, the gate before it, and command: apart as Docker has them, and spelt out, because the
/// engine forgets the image's own words when it is given an entry point.
fn command_line(
    spec: &ContainerSpec,
    image: &ImageFacts,
    is_gated: bool,
) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let command = spec.command.clone().unwrap_or_default();
    let args = spec.args.clone().unwrap_or_default();
    let (mut entrypoint, own) = if command.is_empty() {
        (image.entrypoint.clone(), image.cmd.clone())
    } else {
        (command, Vec::new())
    };
    let command = if args.is_empty() { own } else { args };
    if entrypoint.is_empty() && command.is_empty() {
        return Err(Refusal::NoCommand);
    }
    // The network of a node is there before its tasks: nothing is to be waited for.
    if is_gated {
        entrypoint.insert(0, GATE_TARGET.to_owned());
    }
    Ok((entrypoint, command))
}

fn labels(task: &Task, spec: &ContainerSpec, place: &Place) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone().unwrap_or_default();
    let text = |id: Option<String>| id.unwrap_or_default();
    labels.extend([
        ("com.docker.swarm.task".to_owned(), String::new()),
        ("com.docker.swarm.task.id".to_owned(), task.id.to_string()),
        ("com.docker.swarm.task.name".to_owned(), task.name.clone()),
        (
            "com.docker.swarm.node.id".to_owned(),
            text(place.node.map(|id| id.to_string())),
        ),
        (
            "com.docker.swarm.service.id".to_owned(),
            text(task.service_id.map(|id| id.to_string())),
        ),
        (
            "com.docker.swarm.service.name".to_owned(),
            task.service_name.clone(),
        ),
    ]);
    labels
}

fn environment(task: &Task, spec: &ContainerSpec, place: &Place) -> Result<Vec<String>, Refusal> {
    let mut env = deliver::environment(spec, task, place)?;
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in &task.generic_resources {
        let GenericResource {
            named_resource_spec,
            discrete_resource_spec,
        } = resource;
        if let Some(named) = named_resource_spec {
            given
                .entry(named.kind.clone())
                .or_default()
                .push(named.value.clone());
        }
        if let Some(discrete) = discrete_resource_spec {
            let values = given.entry(discrete.kind.clone()).or_default();
            values.push(discrete.value.to_string());
        }
    }
    for (kind, values) in given {
        let kind = kind.to_uppercase();
        env.push(format!("DOCKER_RESOURCE_{kind}={}", values.join(",")));
    }
    Ok(env)
}

fn host_config(
    task: &Task,
    spec: &ContainerSpec,
    place: &Place,
    files: &HostFiles,
) -> Result<Value, Refusal> {
    let mounts = spec.mounts.iter().flatten();
    let mounts = mounts
        .map(|wish| mount(wish, task, place))
        .collect::<Result<Vec<_>, _>>()?;
    let taken = |target: &str| mounts.iter().any(|mount| mount["Target"] == target);
    let node_network = task.spec.node_network();
    let mut binds = Vec::new();
    if node_network.is_none() {
        binds.push(format!("{}:{GATE_TARGET}:ro", files.gate.display()));
        if !taken("/etc/resolv.conf") {
            binds.push(format!("{}:/etc/resolv.conf", files.resolv_conf.display()));
        }
        if !taken("/etc/hosts") {
            binds.push(format!("{}:/etc/hosts", files.hosts.display()));
        }
    }
    for (source, target) in &files.delivered {
        binds.push(format!("{}:{}:ro", source.display(), target.display()));
    }
    let mut config = json!({
        "RestartPolicy": { "Name": "" },
        "Binds": binds,
        "Mounts": mounts,
        "ReadonlyRootfs": spec.read_only,
    });
    let mut set = |name: &str, value: Value| config[name] = value;
    for (name, value) in network(node_network, spec) {
        set(name, value);
    }
    if let Some(init) = spec.init {
        set("Init", json!(init));
    }
    if let Some(groups) = &spec.groups {
        set("GroupAdd", json!(groups));
    }
    if let Some(sysctls) = &spec.sysctls {
        set("Sysctls", json!(sysctls));
    }
    if let Some(capabilities) = &spec.capability_add {
        set("CapAdd", json!(capabilities));
    }
    if let Some(capabilities) = &spec.capability_drop {
        set("CapDrop", json!(capabilities));
    }
    if let Some(ulimits) = &spec.ulimits {
        set("Ulimits", json!(ulimits));
    }
    if let Some(score) = spec.oom_score_adj {
        set("OomScoreAdj", json!(score));
    }
    let security = security(spec)?;
    if !security.is_empty() {
        set("SecurityOpt", json!(security));
    }
    for (name, value) in resources(&task.spec)? {
        set(name, value);
    }
    if let Some(driver) = task.log_driver() {
        let options = driver.options.clone().unwrap_or_default();
        set(
            "LogConfig",
            json!({ "Type": driver.name, "Config": options }),
        );
    }
    Ok(config)
}

/// No network of the engine's, whose place is taken by ours and our resolver; or the node's own,
/// with names as the engine gives them there.
fn network(own: Option<NodeNetwork>, spec: &ContainerSpec) -> Vec<(&'static str, Value)> {
    let Some(own) = own else {
        return vec![
            ("NetworkMode", json!("none")),
            ("Dns", json!(["127.0.0.11"])),
            ("DnsOptions", json!(["ndots:0"])),
        ];
    };
    let mut config = vec![("NetworkMode", json!(own.name()))];
    let wishes = spec.dns_config.clone().unwrap_or_default();
    for (name, wish) in [
        ("Dns", wishes.nameservers),
        ("DnsSearch", wishes.search),
        ("DnsOptions", wishes.options),
    ] {
        config.extend(wish.map(|wish| (name, json!(wish))));
    }
    let lines = spec.hosts.iter().flatten();
    let names = lines.flat_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or_default();
        words.map(move |name| format!("{name}:{address}"))
    });
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        config.push(("ExtraHosts", json!(names)));
    }
    config
}

fn resources(spec: &TaskSpec) -> Result<Vec<(&'static str, Value)>, Refusal> {
    let Some(asked) = &spec.resources else {
        return Ok(Vec::new());
    };
    refuse_rest("Resources.", &asked.rest)?;
    let mut config = Vec::new();
    let mut put = |name, amount: i64| {
        if amount != 0 {
            config.push((name, json!(amount)));
        }
    };
    if let Some(limits) = &asked.limits {
        put("NanoCpus", limits.nano_cpus);
        put("Memory", limits.memory_bytes);
        put("PidsLimit", limits.pids);
    }
    if let Some(reserved) = &asked.reservations {
        put("MemoryReservation", reserved.memory_bytes);
    }
    Ok(config)
}

fn mount(wish: &Mount, task: &Task, place: &Place) -> Result<Value, Refusal> {
    if matches!(wish.kind.as_str(), "npipe" | "cluster") {
        return Err(unsupported("mount type", &json!(wish.kind)));
    }
    let mut mount = serde_json::to_value(wish).map_err(|_| Refusal::Unsupported {
        field: "mount".to_owned(),
        value: wish.target.clone(),
    })?;
    mount["Type"] = json!(if wish.kind.is_empty() {
        "volume"
    } else {
        &wish.kind
    });
    mount["Source"] = json!(expand(&wish.source, task, place)?);
    mount["Target"] = json!(expand(&wish.target, task, place)?);
    let volume = mount.get_mut("VolumeOptions");
    if let Some(volume) = volume {
        expand_values(volume.get_mut("Labels"), task, place)?;
        let driver = volume.get_mut("DriverConfig");
        expand_values(
            driver.and_then(|driver| driver.get_mut("Options")),
            task,
            place,
        )?;
    }
    Ok(mount)
}

fn expand_values(map: Option<&mut Value>, task: &Task, place: &Place) -> Result<(), Refusal> {
    let Some(map) = map.and_then(Value::as_object_mut) else {
        return Ok(());
    };
    for value in map.values_mut() {
        if let Some(text) = value.as_str() {
            *value = json!(expand(text, task, place)?);
        }
    }
    Ok(())
}

fn health_config(health: &weft_types::container::Healthcheck) -> Value {
    let mut config = json!({});
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config[name] = value;
        }
    };
    put("Test", health.test.as_ref().map(|test| json!(test)));
    put("Interval", health.interval.map(Value::from));
    put("Timeout", health.timeout.map(Value::from));
    put("StartPeriod", health.start_period.map(Value::from));
    put("StartInterval", health.start_interval.map(Value::from));
    put("Retries", health.retries.map(Value::from));
    config
}

/// `ContainerSpec.Privileges` as the engine's security options.
fn security(spec: &ContainerSpec) -> Result<Vec<String>, Refusal> {
    let mut options = Vec::new();
    let wishes = spec.privileges.as_ref().and_then(Value::as_object);
    for (name, wish) in wishes.into_iter().flatten() {
        if !asks(wish) {
            continue;
        }
        let mode = wish.get("Mode").and_then(Value::as_str).unwrap_or_default();
        match (name.as_str(), mode) {
            ("NoNewPrivileges", _) => options.push("no-new-privileges".to_owned()),
            ("Seccomp" | "AppArmor", "" | "default") => {}
            ("Seccomp", "unconfined") => options.push("seccomp=unconfined".to_owned()),
            ("Seccomp", "custom") => {
                let profile = wish
                    .get("Profile")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                options.push(format!("seccomp={}", decode(profile)));
            }
            ("AppArmor", "disabled") => options.push("apparmor=unconfined".to_owned()),
            ("SELinuxContext", _) => {
                if wish.get("Disable").and_then(Value::as_bool) == Some(true) {
                    options.push("label=disable".to_owned());
                }
                for (field, word) in [
                    ("User", "user"),
                    ("Role", "role"),
                    ("Type", "type"),
                    ("Level", "level"),
                ] {
                    let value = wish.get(field).and_then(Value::as_str).unwrap_or_default();
                    if !value.is_empty() {
                        options.push(format!("label={word}:{value}"));
                    }
                }
            }
            _ => return Err(unsupported(format!("Privileges.{name}"), wish)),
        }
    }
    Ok(options)
}

/// A seccomp profile arrives as base64, as every byte field of Go's JSON; one that is none is
/// taken as it is.
fn decode(profile: &str) -> String {
    let bytes = serde_json::from_value::<weft_types::secret::Base64>(json!(profile));
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes.0).ok());
    text.unwrap_or_else(|| profile.to_owned())
}

#[cfg(test)]
mod tests;
