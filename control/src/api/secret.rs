//! Secrets and configs: the same in all but that a config's data is shown.

use weft_proto::{ControlError, ControlReply};
use weft_types::{
    Meta, Timestamp,
    container::ContainerSpec,
    secret::{Base64, Config, Secret, SecretSpec},
    validate,
};

use super::{Answer, find, in_sequence, refused};
use crate::store::{Draft, IdSource, Key, View};

fn shown(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    secret.spec.data = Base64::default();
    secret
}

pub(super) fn list_secrets(view: &View) -> Answer {
    let secrets = view.secrets().map(|secret| shown(secret)).collect();
    Ok((Vec::new(), ControlReply::Secrets(secrets)))
}

pub(super) fn get_secret(view: &View, reference: &str) -> Answer {
    let secret = shown(find::secret(view, reference)?);
    Ok((Vec::new(), ControlReply::Secrets(vec![secret])))
}

pub(super) fn create_secret(
    view: &View,
    now: Timestamp,
    ids: &mut IdSource,
    spec: &SecretSpec,
) -> Answer {
    validate::secret_spec(spec).map_err(refused)?;
    if view.secret_named(&spec.name).is_some() {
        return Err(ControlError::exists(format!(
            "secret {} already exists",
            spec.name
        )));
    }
    let id = ids.id();
    let mut draft = Draft::new(view, now);
    draft.put(Secret {
        id,
        meta: Meta::default(),
        spec: spec.clone(),
    });
    Ok((draft.changes(), ControlReply::Created(id.to_string())))
}

pub(super) fn update_secret(
    view: &View,
    now: Timestamp,
    reference: &str,
    version: u64,
    spec: &SecretSpec,
) -> Answer {
    let stored = find::secret(view, reference)?;
    in_sequence(version, stored.meta.version)?;
    let mut changed = Secret::clone(stored);
    relabel(&mut changed.spec, spec)?;
    let mut draft = Draft::new(view, now);
    draft.put(changed);
    Ok((draft.changes(), ControlReply::Done))
}

pub(super) fn remove_secret(view: &View, now: Timestamp, reference: &str) -> Answer {
    let secret = find::secret(view, reference)?;
    unused(view, "secret", &secret.spec.name, |container| {
        let mut references = container.secrets.iter().flatten();
        references.any(|reference| reference.secret_id == secret.id)
    })?;
    let mut draft = Draft::new(view, now);
    draft.delete(Key::Secret(secret.id));
    Ok((draft.changes(), ControlReply::Done))
}

pub(super) fn list_configs(view: &View) -> Answer {
    let configs = view.configs().map(|config| config.as_ref().clone());
    Ok((Vec::new(), ControlReply::Configs(configs.collect())))
}

pub(super) fn get_config(view: &View, reference: &str) -> Answer {
    let config = find::config(view, reference)?.as_ref().clone();
    Ok((Vec::new(), ControlReply::Configs(vec![config])))
}

pub(super) fn create_config(
    view: &View,
    now: Timestamp,
    ids: &mut IdSource,
    spec: &SecretSpec,
) -> Answer {
    validate::config_spec(spec).map_err(refused)?;
    if view.config_named(&spec.name).is_some() {
        return Err(ControlError::exists(format!(
            "config {} already exists",
            spec.name
        )));
    }
    let id = ids.id();
    let mut draft = Draft::new(view, now);
    draft.put(Config {
        id,
        meta: Meta::default(),
        spec: spec.clone(),
    });
    Ok((draft.changes(), ControlReply::Created(id.to_string())))
}

pub(super) fn update_config(
    view: &View,
    now: Timestamp,
    reference: &str,
    version: u64,
    spec: &SecretSpec,
) -> Answer {
    let stored = find::config(view, reference)?;
    in_sequence(version, stored.meta.version)?;
    let mut changed = Config::clone(stored);
    relabel(&mut changed.spec, spec)?;
    let mut draft = Draft::new(view, now);
    draft.put(changed);
    Ok((draft.changes(), ControlReply::Done))
}

pub(super) fn remove_config(view: &View, now: Timestamp, reference: &str) -> Answer {
    let config = find::config(view, reference)?;
    unused(view, "config", &config.spec.name, |container| {
        let mut references = container.configs.iter().flatten();
        references.any(|reference| reference.config_id == config.id)
    })?;
    let mut draft = Draft::new(view, now);
    draft.delete(Key::Config(config.id));
    Ok((draft.changes(), ControlReply::Done))
}

/// Takes the new labels; anything else may only be what it was.
fn relabel(stored: &mut SecretSpec, spec: &SecretSpec) -> Result<(), ControlError> {
    let same_name = spec.name.is_empty() || spec.name == stored.name;
    let same_data = spec.data.is_empty() || spec.data == stored.data;
    let same_driver = spec.driver.is_none() || spec.driver == stored.driver;
    let same_templating = spec.templating.is_none() || spec.templating == stored.templating;
    if !(same_name && same_data && same_driver && same_templating) {
        return Err(ControlError::invalid("only updates to Labels are allowed"));
    }
    stored.labels.clone_from(&spec.labels);
    Ok(())
}

/// Refuses to remove what services use.
fn unused(
    view: &View,
    kind: &str,
    name: &str,
    uses: impl Fn(&ContainerSpec) -> bool,
) -> Result<(), ControlError> {
    let users: Vec<&str> = view
        .services()
        .filter(|service| {
            let container = service.spec.task_template.container_spec.as_ref();
            container.is_some_and(&uses)
        })
        .map(|service| service.spec.name.as_str())
        .collect();
    if users.is_empty() {
        return Ok(());
    }
    let services = if users.len() == 1 {
        "service"
    } else {
        "services"
    };
    Err(ControlError::invalid(format!(
        "{kind} '{name}' is in use by the following {services}: {}",
        users.join(", ")
    )))
}
