//! Secrets and configs: the same in all but that a config's data is shown.

use std::sync::Arc;

use weft_proto::{ControlError, ControlReply};
use weft_types::{
    ConfigId, Meta, SecretId, Timestamp,
    container::ContainerSpec,
    secret::{Base64, Config, Secret, SecretSpec},
    validate::{self, Refusal},
};

use super::{Answer, find, in_sequence, refused};
use crate::store::{Draft, IdSource, Key, Object, View};

/// A secret or a config.
pub(super) trait Kept: Clone + Into<Object> {
    const KIND: &'static str;
    /// A new one, which has no version yet.
    fn new(ids: &mut IdSource, spec: SecretSpec) -> Self;
    fn key(&self) -> Key;
    fn meta(&self) -> Meta;
    fn spec(&self) -> &SecretSpec;
    fn spec_mut(&mut self) -> &mut SecretSpec;
    fn check(spec: &SecretSpec) -> Result<(), Refusal>;
    fn find<'a>(view: &'a View, reference: &str) -> Result<&'a Arc<Self>, ControlError>;
    fn has_name(view: &View, name: &str) -> bool;
    fn all(view: &View) -> Vec<Self>;
    /// Whether a container gets it.
    fn is_used(&self, container: &ContainerSpec) -> bool;
    /// The answer that shows these, without what must not be shown.
    fn reply(kept: Vec<Self>) -> ControlReply;
}

impl Kept for Secret {
    const KIND: &'static str = "secret";

    fn new(ids: &mut IdSource, spec: SecretSpec) -> Self {
        let (id, meta): (SecretId, _) = (ids.id(), Meta::default());
        Self { id, meta, spec }
    }

    fn key(&self) -> Key {
        Key::Secret(self.id)
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn spec(&self) -> &SecretSpec {
        &self.spec
    }

    fn spec_mut(&mut self) -> &mut SecretSpec {
        &mut self.spec
    }

    fn check(spec: &SecretSpec) -> Result<(), Refusal> {
        validate::secret_spec(spec)
    }

    fn find<'a>(view: &'a View, reference: &str) -> Result<&'a Arc<Self>, ControlError> {
        find::secret(view, reference)
    }

    fn has_name(view: &View, name: &str) -> bool {
        view.secret_named(name).is_some()
    }

    fn all(view: &View) -> Vec<Self> {
        view.secrets().map(|secret| Self::clone(secret)).collect()
    }

    fn is_used(&self, container: &ContainerSpec) -> bool {
        let mut references = container.secrets.iter().flatten();
        references.any(|reference| reference.secret_id == self.id)
    }

    fn reply(mut kept: Vec<Self>) -> ControlReply {
        for secret in &mut kept {
            secret.spec.data = Base64::default();
        }
        ControlReply::Secrets(kept)
    }
}

impl Kept for Config {
    const KIND: &'static str = "config";

    fn new(ids: &mut IdSource, spec: SecretSpec) -> Self {
        let (id, meta): (ConfigId, _) = (ids.id(), Meta::default());
        Self { id, meta, spec }
    }

    fn key(&self) -> Key {
        Key::Config(self.id)
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn spec(&self) -> &SecretSpec {
        &self.spec
    }

    fn spec_mut(&mut self) -> &mut SecretSpec {
        &mut self.spec
    }

    fn check(spec: &SecretSpec) -> Result<(), Refusal> {
        validate::config_spec(spec)
    }

    fn find<'a>(view: &'a View, reference: &str) -> Result<&'a Arc<Self>, ControlError> {
        find::config(view, reference)
    }

    fn has_name(view: &View, name: &str) -> bool {
        view.config_named(name).is_some()
    }

    fn all(view: &View) -> Vec<Self> {
        view.configs().map(|config| Self::clone(config)).collect()
    }

    fn is_used(&self, container: &ContainerSpec) -> bool {
        let mut references = container.configs.iter().flatten();
        references.any(|reference| reference.config_id == self.id)
    }

    fn reply(kept: Vec<Self>) -> ControlReply {
        ControlReply::Configs(kept)
    }
}

pub(super) fn list<K: Kept>(view: &View) -> Answer {
    Ok((Vec::new(), K::reply(K::all(view))))
}

pub(super) fn get<K: Kept>(view: &View, reference: &str) -> Answer {
    let kept = K::clone(K::find(view, reference)?);
    Ok((Vec::new(), K::reply(vec![kept])))
}

pub(super) fn create<K: Kept>(
    view: &View,
    now: Timestamp,
    ids: &mut IdSource,
    spec: &SecretSpec,
) -> Answer {
    K::check(spec).map_err(refused)?;
    if K::has_name(view, &spec.name) {
        return Err(ControlError::exists(format!(
            "{} {} already exists",
            K::KIND,
            spec.name
        )));
    }
    let kept = K::new(ids, spec.clone());
    let id = match kept.key() {
        Key::Secret(id) => id.to_string(),
        Key::Config(id) => id.to_string(),
        other => other.to_string(),
    };
    let mut draft = Draft::new(view, now);
    draft.put(kept);
    Ok((draft.changes(), ControlReply::Created(id)))
}

/// Takes the new labels; anything else may only be what it was.
pub(super) fn update<K: Kept>(
    view: &View,
    now: Timestamp,
    reference: &str,
    version: u64,
    spec: &SecretSpec,
) -> Answer {
    validate::unknown(&spec.rest).map_err(refused)?;
    let mut changed = K::clone(K::find(view, reference)?);
    in_sequence(version, changed.meta().version)?;
    let stored = changed.spec_mut();
    let same_name = spec.name.is_empty() || spec.name == stored.name;
    let same_data = spec.data.is_empty() || spec.data == stored.data;
    let same_driver = spec.driver.is_none() || spec.driver == stored.driver;
    let same_templating = spec.templating.is_none() || spec.templating == stored.templating;
    if !(same_name && same_data && same_driver && same_templating) {
        return Err(ControlError::invalid("only updates to Labels are allowed"));
    }
    stored.labels.clone_from(&spec.labels);
    let mut draft = Draft::new(view, now);
    draft.put(changed);
    Ok((draft.changes(), ControlReply::Done))
}

pub(super) fn remove<K: Kept>(view: &View, now: Timestamp, reference: &str) -> Answer {
    let kept = K::find(view, reference)?;
    let services = view.services().filter(|service| {
        let container = service.spec.task_template.container_spec.as_ref();
        container.is_some_and(|container| kept.is_used(container))
    });
    let users: Vec<&str> = services.map(|service| service.spec.name.as_str()).collect();
    if !users.is_empty() {
        let services = if users.len() == 1 {
            "service"
        } else {
            "services"
        };
        return Err(ControlError::invalid(format!(
            "{} '{}' is in use by the following {services}: {}",
            K::KIND,
            kept.spec().name,
            users.join(", ")
        )));
    }
    let mut draft = Draft::new(view, now);
    draft.delete(kept.key());
    Ok((draft.changes(), ControlReply::Done))
}
