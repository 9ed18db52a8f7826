//! Secrets and configs as the files that a task sees.
//!
//! PURE.

use std::{collections::BTreeMap, path::PathBuf};

use weft_types::{
    ConfigId, SecretId,
    container::{ContainerSpec, FileTarget},
    secret::{Config, Secret, SecretSpec},
    task::Task,
    template::{Place, Placeholder, TemplateError, expand, expand_file},
};

use crate::{executor::DeliveredFile, task::Failure};

/// What was delivered to this node.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Secrets with data.
    pub secrets: BTreeMap<SecretId, Secret>,
    /// Configs with data.
    pub configs: BTreeMap<ConfigId, Config>,
}

impl Shelf {
    /// The files that `task` needs.
    ///
    /// # Errors
    /// Passing while something has not been delivered yet, lasting when an owner is no number or
    /// a template means nothing.
    pub fn files(&self, task: &Task, place: &Place) -> Result<Vec<DeliveredFile>, Failure> {
        let Some(spec) = &task.spec.container_spec else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for wish in spec.secrets.iter().flatten() {
            let Some(target) = &wish.file else { continue };
            let secret = self.secrets.get(&wish.secret_id).ok_or_else(|| {
                Failure::passing(format!(
                    "secret {} has not been delivered yet",
                    wish.secret_name
                ))
            })?;
            files.push(self.file("/run/secrets", target, &secret.spec, task, place)?);
        }
        for wish in spec.configs.iter().flatten() {
            let Some(target) = &wish.file else {
                return Err(Failure::lasting(format!(
                    "config {} has no file target: credential specs are not supported by weft",
                    wish.config_name
                )));
            };
            let config = self.configs.get(&wish.config_id).ok_or_else(|| {
                Failure::passing(format!(
                    "config {} has not been delivered yet",
                    wish.config_name
                ))
            })?;
            files.push(self.file("/", target, &config.spec, task, place)?);
        }
        Ok(files)
    }

    fn file(
        &self,
        home: &str,
        target: &FileTarget,
        spec: &SecretSpec,
        task: &Task,
        place: &Place,
    ) -> Result<DeliveredFile, Failure> {
        let owner = |id: &str| match id {
            "" => Ok(0),
            id => id.parse::<u32>().map_err(|_| {
                Failure::lasting(format!("{}: owner {id:?} is not a number", target.name))
            }),
        };
        let content = match &spec.templating {
            Some(driver) if driver.name == "golang" => {
                let text = std::str::from_utf8(&spec.data.0).map_err(|_| {
                    Failure::lasting(format!("template {} is not UTF-8", spec.name))
                })?;
                let text = expand_file(text, task, place, |asked| self.answer(asked, task, place));
                text.map_err(|error| Failure::lasting(format!("{}: {error}", spec.name)))?
                    .into_bytes()
            }
            Some(driver) => {
                return Err(Failure::lasting(format!(
                    "{}: template driver {:?} is not known, only golang is",
                    spec.name, driver.name
                )));
            }
            None => spec.data.0.clone(),
        };
        Ok(DeliveredFile {
            target: PathBuf::from(home).join(&target.name),
            uid: owner(&target.uid)?,
            gid: owner(&target.gid)?,
            mode: target.mode,
            content,
        })
    }

    /// What a template's function answers: contents of the task's own secrets and configs, by the
    /// name of the file, as they were made; and its environment.
    fn answer(&self, asked: &Placeholder, task: &Task, place: &Place) -> Option<String> {
        let spec = task.spec.container_spec.as_ref()?;
        let is_named = |file: &Option<FileTarget>, name: &str| {
            file.as_ref().is_some_and(|file| file.name == name)
        };
        let content = |spec: &SecretSpec| String::from_utf8(spec.data.0.clone()).ok();
        match asked {
            Placeholder::Secret(name) => {
                let mut mine = spec.secrets.iter().flatten();
                let wish = mine.find(|wish| is_named(&wish.file, name))?;
                content(&self.secrets.get(&wish.secret_id)?.spec)
            }
            Placeholder::Config(name) => {
                let mut mine = spec.configs.iter().flatten();
                let wish = mine.find(|wish| is_named(&wish.file, name))?;
                content(&self.configs.get(&wish.config_id)?.spec)
            }
            Placeholder::Env(name) => {
                let env = environment(spec, task, place).ok()?;
                let mut values = env.iter().filter_map(|line| line.split_once('='));
                let value = values.find(|(key, _)| key == name);
                value.map(|(_, value)| value.to_owned())
            }
            _ => None,
        }
    }
}

/// The environment that a spec asks for, placeholders in its values filled in.
///
/// # Errors
/// When a placeholder means nothing.
pub fn environment(
    spec: &ContainerSpec,
    task: &Task,
    place: &Place,
) -> Result<Vec<String>, TemplateError> {
    let lines = spec
        .env
        .iter()
        .flatten()
        .map(|line| match line.split_once('=') {
            Some((name, value)) => Ok(format!("{name}={}", expand(value, task, place)?)),
            None => Ok(line.clone()),
        });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_templated_config_sees_the_tasks_own_secrets_and_environment_alone() {
        let task: Task = serde_json::from_value(serde_json::json!({
            "ID": "0000000000000000000000001", "Slot": 2, "ServiceName": "web",
            "Spec": {"ContainerSpec": {
                "Image": "web",
                "Env": ["SLOT=s{{.Task.Slot}}"],
                "Secrets": [{"File": {"Name": "key"}, "SecretID": "0000000000000000000000005",
                    "SecretName": "k1"}],
                "Configs": [{"File": {"Name": "/site"}, "ConfigID": "0000000000000000000000006",
                    "ConfigName": "c1"}],
            }},
        }))
        .expect("the fixture is a task");
        let mut shelf = Shelf::default();
        let spec = |name: &str, data: &str, templating: bool| SecretSpec {
            name: name.to_owned(),
            data: weft_types::secret::Base64(data.as_bytes().to_vec()),
            templating: templating.then(|| weft_types::network::Driver {
                name: "golang".to_owned(),
                options: None,
            }),
            ..SecretSpec::default()
        };
        for (number, name) in [(5, "k1"), (7, "others")] {
            let secret = Secret {
                id: SecretId::numbered(number),
                meta: weft_types::Meta::default(),
                spec: spec(name, "s3cret", false),
            };
            shelf.secrets.insert(secret.id, secret);
        }
        let mut put = |text: &str| {
            let config = Config {
                id: ConfigId::numbered(6),
                meta: weft_types::Meta::default(),
                spec: spec("c1", text, true),
            };
            shelf.configs.insert(config.id, config);
            shelf.files(&task, &Place::default())
        };
        let files = put(r#"{{secret "key"}} {{env "SLOT"}} {{.Service.Name}}"#).expect("files");
        assert_eq!(files[1].content, b"s3cret s2 web");
        let refused = put(r#"{{secret "others"}}"#).expect_err("a refusal");
        assert!(refused.reason.contains("others"), "{}", refused.reason);
    }
}
