//! Placeholders in host names, environment and mounts. What the agents could not expand is refused
//! here.

use serde_json::Value;

use super::Refusal;
use crate::{
    container::{ContainerSpec, Mount},
    secret::SecretSpec,
    template::{Purpose, check},
};

/// Refuses placeholders of `spec` that mean nothing.
pub(super) fn placeholders(spec: &ContainerSpec) -> Result<(), Refusal> {
    expands("hostname", spec.hostname.as_deref().unwrap_or_default())?;
    for variable in spec.env.iter().flatten() {
        let value = variable.split_once('=').map_or("", |(_, value)| value);
        expands("env", value)?;
    }
    for mount in spec.mounts.iter().flatten() {
        expands("mounts", &mount.source)?;
        expands("mounts", &mount.target)?;
        for text in volume_texts(mount) {
            expands("mounts", text)?;
        }
    }
    Ok(())
}

/// Labels of a mount's volume and its driver's options: they may hold placeholders too.
fn volume_texts(mount: &Mount) -> impl Iterator<Item = &str> {
    let options = mount.rest.get("VolumeOptions");
    let labels = options.map(|options| &options["Labels"]);
    let driver = options.map(|options| &options["DriverConfig"]["Options"]);
    let maps = [labels, driver].into_iter().flatten();
    maps.filter_map(Value::as_object)
        .flat_map(|map| map.values().filter_map(Value::as_str))
}

fn expands(field: &str, text: &str) -> Result<(), Refusal> {
    check(text, Purpose::Container)
        .map_err(|error| Refusal::invalid(format!("expanding {field} failed: {error}")))
}

/// Refuses a template that is none, and drivers of templates that nobody knows.
pub(super) fn file(kind: &str, spec: &SecretSpec) -> Result<(), Refusal> {
    let Some(driver) = &spec.templating else {
        return Ok(());
    };
    if let Some((option, value)) = driver.options.iter().flatten().next() {
        return Err(Refusal::unimplemented(format!(
            "option {option}={value} of the template driver of {kind} {} is not supported by weft",
            spec.name
        )));
    }
    if driver.name.is_empty() {
        return Ok(());
    }
    if driver.name != "golang" {
        return Err(Refusal::unimplemented(format!(
            "template driver {:?} of {kind} {} is not known: golang is",
            driver.name, spec.name
        )));
    }
    let text = std::str::from_utf8(&spec.data.0).map_err(|_| {
        Refusal::invalid(format!("{kind} {} is a template, but not UTF-8", spec.name))
    })?;
    check(text, Purpose::File).map_err(|error| {
        Refusal::invalid(format!("expanding {kind} {} failed: {error}", spec.name))
    })
}
