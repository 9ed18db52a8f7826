//! What weft does not do, field by field: refused when a spec asks for it, so that nothing which is
//! accepted goes without effect.
//!
//! The table of the tests walks all fields of a service spec: a new one must be told there.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Map, Value, json};

use super::Refusal;
use crate::{
    container::{ContainerSpec, Mount},
    service::{NetworkAttachmentConfig, Protocol, ServiceSpec},
    task::{GenericResource, LogDriver, PlacementPreference, Resources, TaskSpec},
};

/// Options of mounts that go to the engine as they are.
const MOUNT_OPTIONS: [&str; 5] = [
    "Consistency",
    "BindOptions",
    "VolumeOptions",
    "TmpfsOptions",
    "ImageOptions",
];

pub(super) fn service(spec: &ServiceSpec) -> Result<(), Refusal> {
    rest("", &spec.rest)?;
    for (list, networks) in [
        ("Networks", &spec.networks),
        ("TaskTemplate.Networks", &spec.task_template.networks),
    ] {
        attachments(list, networks.as_deref().unwrap_or_default())?;
    }
    for port in spec.ports() {
        if port.protocol == Protocol::Sctp {
            return Err(Refusal::unimplemented(
                "published ports of protocol sctp are not supported by weft: publish tcp or udp",
            ));
        }
    }
    task(&spec.task_template)
}

/// Options to which Docker gives a meaning begin so. Docker's overlays keep and show any others, and follow
/// none of them; so do clients' tests.
const MEANT: &str = "com.docker.network.";

/// Each network once, and no option that means something: what attaches tasks reads none.
fn attachments(list: &str, networks: &[NetworkAttachmentConfig]) -> Result<(), Refusal> {
    let mut named = BTreeSet::new();
    for network in networks {
        let mut options = network.driver_opts.iter().flatten();
        if let Some((option, value)) = options.find(|(option, _)| option.starts_with(MEANT)) {
            return Err(Refusal::unimplemented(format!(
                "{list}: option {option}={value} of network {} is not supported by weft",
                network.target
            )));
        }
        if !named.insert(&network.target) {
            return Err(Refusal::invalid(format!(
                "{list}: network {} is named twice",
                network.target
            )));
        }
    }
    Ok(())
}

/// Options are a driver's: without its name nobody would follow them.
pub(super) fn log_driver(of: &str, driver: Option<&LogDriver>) -> Result<(), Refusal> {
    let options = driver.filter(|driver| driver.name.is_empty());
    let mut options = options
        .into_iter()
        .flat_map(|driver| &driver.options)
        .flatten();
    options.next().map_or(Ok(()), |(option, value)| {
        Err(Refusal::invalid(format!(
            "{of}.LogDriver: option {option}={value} without the name of a driver"
        )))
    })
}

fn task(spec: &TaskSpec) -> Result<(), Refusal> {
    rest("TaskTemplate.", &spec.rest)?;
    log_driver("TaskTemplate", spec.log_driver.as_ref())?;
    if spec.network_attachment_spec.is_some() {
        return Err(Refusal::invalid("mismatched Runtime and *Spec fields"));
    }
    match spec.runtime.as_deref() {
        None | Some("" | "container") => {}
        Some("plugin") => {
            return Err(Refusal::unimplemented("plugin services are not supported"));
        }
        Some(_) => return Err(Refusal::invalid("unsupported runtime")),
    }
    if let Some(resources) = &spec.resources {
        rest("TaskTemplate.Resources.", &resources.rest)?;
        if let Some(limits) = &resources.limits {
            limited(limits)?;
        }
        if let Some(reserved) = &resources.reservations {
            reserved_amount(reserved)?;
        }
    }
    if let Some(placement) = &spec.placement {
        rest("TaskTemplate.Placement.", &placement.rest)?;
        for preference in placement.preferences.iter().flatten() {
            spread(preference)?;
        }
    }
    spec.container_spec.as_ref().map_or(Ok(()), container)
}

fn container(spec: &ContainerSpec) -> Result<(), Refusal> {
    rest("ContainerSpec.", &spec.rest)?;
    if let Some(isolation) = spec.isolation.as_deref()
        && !matches!(isolation, "" | "default")
    {
        return Err(unsupported("ContainerSpec.Isolation", &json!(isolation)));
    }
    let privileges = spec.privileges.as_ref().and_then(Value::as_object);
    for (name, wish) in privileges.into_iter().flatten() {
        privilege(name, wish)?;
    }
    names(spec)?;
    if let Some(probe) = &spec.healthcheck {
        rest("Healthcheck.", &probe.rest)?;
    }
    for mount in spec.mounts.iter().flatten() {
        mounted(mount)?;
    }
    for config in spec.configs.iter().flatten() {
        if let Some(runtime) = &config.runtime {
            return Err(unsupported(
                format!("Runtime of config {}", config.config_name),
                runtime,
            ));
        }
    }
    Ok(())
}

/// Modes and parts of a privilege that the agents know how to ask of their engines.
fn privilege(name: &str, wish: &Value) -> Result<(), Refusal> {
    let (modes, parts): (&[&str], &[&str]) = match name {
        "NoNewPrivileges" => return Ok(()),
        "SELinuxContext" => (&[], &["Disable", "User", "Role", "Type", "Level"]),
        "Seccomp" => (&["default", "unconfined", "custom"], &["Mode", "Profile"]),
        "AppArmor" => (&["default", "disabled"], &["Mode"]),
        _ if asks(wish) => return Err(unsupported(format!("Privileges.{name}"), wish)),
        _ => return Ok(()),
    };
    for (part, value) in wish.as_object().into_iter().flatten() {
        let mode = value.as_str().unwrap_or_default();
        let known = parts.contains(&part.as_str()) && (part != "Mode" || modes.contains(&mode));
        if !known && asks(value) {
            return Err(unsupported(format!("Privileges.{name}.{part}"), value));
        }
    }
    Ok(())
}

/// Resolvers are addresses, and lines for the hosts file have one and a name: the agents could do
/// nothing with others.
fn names(spec: &ContainerSpec) -> Result<(), Refusal> {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let dns = spec.dns_config.iter();
    let mut servers = dns.flat_map(|dns| dns.nameservers.iter().flatten());
    if let Some(server) = servers.find(|server| !is_address(server)) {
        return Err(Refusal::invalid(format!(
            "DNSConfig: nameserver {server:?} is no IP address"
        )));
    }
    let is_entry = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(is_address) && words.next().is_some() && !line.contains('\n')
    };
    let mut lines = spec.hosts.iter().flatten();
    lines.find(|line| !is_entry(line)).map_or(Ok(()), |line| {
        Err(Refusal::invalid(format!(
            "ContainerSpec: {line:?} in Hosts is not an IP address and names"
        )))
    })
}

fn mounted(mount: &Mount) -> Result<(), Refusal> {
    match mount.kind.as_str() {
        "" | "bind" | "volume" | "tmpfs" | "image" => {}
        "cluster" => {
            return Err(Refusal::unimplemented(format!(
                "mount {}: cluster volumes (CSI) are not supported by weft: use a volume driver of the nodes' engines",
                mount.target
            )));
        }
        "npipe" => {
            return Err(Refusal::unimplemented(format!(
                "mount {}: named pipes are Windows's, and weft runs on Linux",
                mount.target
            )));
        }
        other => {
            return Err(Refusal::invalid(format!(
                "mount {}: invalid mount type {other:?}",
                mount.target
            )));
        }
    }
    let unknown = mount
        .rest
        .iter()
        .find(|(name, value)| !MOUNT_OPTIONS.contains(&name.as_str()) && asks(value));
    unknown.map_or(Ok(()), |(name, value)| {
        Err(unsupported(
            format!("mount {}: {name}", mount.target),
            value,
        ))
    })
}

fn limited(limits: &Resources) -> Result<(), Refusal> {
    if limits.generic_resources.iter().flatten().next().is_some() {
        return Err(Refusal::invalid(
            "generic resources can be reserved, not limited",
        ));
    }
    Ok(())
}

fn reserved_amount(reserved: &Resources) -> Result<(), Refusal> {
    if reserved.pids != 0 {
        return Err(Refusal::invalid("Pids can be limited, not reserved"));
    }
    for resource in reserved.generic_resources.iter().flatten() {
        let GenericResource {
            named_resource_spec,
            discrete_resource_spec,
        } = resource;
        let (kind, value) = match (discrete_resource_spec, named_resource_spec) {
            (Some(discrete), _) => (discrete.kind.as_str(), discrete.value),
            (None, Some(_)) => continue,
            (None, None) => ("", 0),
        };
        if value < 1 {
            return Err(Refusal::invalid(format!(
                "invalid argument for resource {kind}: {value} of it cannot be reserved"
            )));
        }
    }
    Ok(())
}

/// A descriptor other than a label's makes all nodes equal, as in Swarm, so it needs no refusal.
fn spread(preference: &PlacementPreference) -> Result<(), Refusal> {
    if preference.spread.is_none() {
        return Err(Refusal::invalid(
            "a placement preference needs a Spread: weft knows no other strategy",
        ));
    }
    Ok(())
}

/// Refuses fields that no part of weft knows, when they say anything.
pub(super) fn rest(prefix: &str, rest: &Map<String, Value>) -> Result<(), Refusal> {
    let asked = rest.iter().find(|(_, value)| asks(value));
    asked.map_or(Ok(()), |(name, value)| {
        Err(unsupported(format!("{prefix}{name}"), value))
    })
}

fn unsupported(field: impl Into<String>, value: &Value) -> Refusal {
    let field = field.into();
    Refusal::unimplemented(format!("{field} {value} is not supported by weft"))
}

/// Whether a value says more than its absence would.
#[must_use]
pub fn asks(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(asks),
    }
}

/// The first field of `sent` that says something and that `read`, what was understood of it, has
/// not: its path, and what it says.
#[must_use]
pub fn unread(sent: &Value, read: &Value) -> Option<(String, Value)> {
    match (sent, read) {
        (Value::Object(sent), Value::Object(read)) => sent.iter().find_map(|(name, value)| {
            let below = match read.get(name) {
                Some(known) => unread(value, known),
                None => asks(value).then(|| (String::new(), value.clone())),
            };
            below.map(|(path, value)| (joined(name, &path), value))
        }),
        (Value::Array(sent), Value::Array(read)) => {
            sent.iter()
                .zip(read)
                .enumerate()
                .find_map(|(at, (sent, read))| {
                    let (path, value) = unread(sent, read)?;
                    Some((joined(&at.to_string(), &path), value))
                })
        }
        _ => None,
    }
}

fn joined(name: &str, path: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{path}")
    }
}

#[cfg(test)]
mod everything;
#[cfg(test)]
mod others;
#[cfg(test)]
mod tests;
