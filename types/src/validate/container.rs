//! Containers of services.

use std::collections::{BTreeMap, BTreeSet};

use super::{Refusal, image_reference, template};
use crate::container::{ContainerSpec, FileTarget, Healthcheck};

pub(super) fn container_spec(spec: &ContainerSpec) -> Result<(), Refusal> {
    template::placeholders(spec)?;
    if spec.image.is_empty() {
        return Err(Refusal::invalid(
            "ContainerSpec: image reference must be provided",
        ));
    }
    if !image_reference(&spec.image) {
        return Err(Refusal::invalid(format!(
            "ContainerSpec: {:?} is not a valid repository/tag",
            spec.image
        )));
    }
    let mut targets = BTreeSet::new();
    for mount in spec.mounts.iter().flatten() {
        if !targets.insert(&mount.target) {
            return Err(Refusal::invalid(format!(
                "ContainerSpec: duplicate mount point: {}",
                mount.target
            )));
        }
    }
    if let Some(probe) = &spec.healthcheck {
        healthcheck(probe)?;
    }
    if spec.stop_grace_period.is_some_and(|period| period < 0) {
        return Err(Refusal::invalid(
            "ContainerSpec: StopGracePeriod cannot be negative",
        ));
    }
    references(spec)
}

fn healthcheck(probe: &Healthcheck) -> Result<(), Refusal> {
    let periods = [
        ("Interval", probe.interval),
        ("Timeout", probe.timeout),
        ("StartPeriod", probe.start_period),
        ("StartInterval", probe.start_interval),
    ];
    for (field, period) in periods {
        if period.is_some_and(|period| period != 0 && period < 1_000_000) {
            return Err(Refusal::invalid(format!(
                "ContainerSpec: {field} in HealthConfig cannot be less than 1ms"
            )));
        }
    }
    if probe.retries.is_some_and(|retries| retries < 0) {
        return Err(Refusal::invalid(
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ));
    }
    Ok(())
}

/// Secrets and configs: each has a target, and no two the same.
fn references(spec: &ContainerSpec) -> Result<(), Refusal> {
    let secrets = spec.secrets.iter().flatten();
    let files = secrets.map(|secret| (secret.secret_name.as_str(), secret.file.as_ref(), false));
    distinct("secret", files)?;
    let configs = spec.configs.iter().flatten();
    let files = configs.map(|config| {
        let by_runtime = config.runtime.is_some();
        (
            config.config_name.as_str(),
            config.file.as_ref(),
            by_runtime,
        )
    });
    distinct("config", files)
}

fn distinct<'a>(
    kind: &str,
    references: impl Iterator<Item = (&'a str, Option<&'a FileTarget>, bool)>,
) -> Result<(), Refusal> {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, file, by_runtime) in references {
        if name.is_empty() {
            return Err(Refusal::invalid(format!("malformed {kind} reference")));
        }
        let Some(file) = file.filter(|file| !file.name.is_empty()) else {
            if by_runtime {
                continue;
            }
            return Err(Refusal::invalid(format!(
                "malformed file {kind} reference, no target provided"
            )));
        };
        if let Some(other) = targets.insert(&file.name, name) {
            return Err(Refusal::invalid(format!(
                "{kind} references '{other}' and '{name}' have a conflicting target: '{}'",
                file.name
            )));
        }
    }
    Ok(())
}
