//! Secrets and configs as the files that a task sees.
//!
//! PURE.

use std::{collections::BTreeMap, path::PathBuf};

use weft_types::{
    ConfigId, SecretId,
    container::FileTarget,
    secret::{Config, Secret, SecretSpec},
    task::Task,
};

use crate::{
    executor::{DeliveredFile, Place},
    task::Failure,
    template::expand,
};

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
            files.push(file("/run/secrets", target, &secret.spec, task, place)?);
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
            files.push(file("/", target, &config.spec, task, place)?);
        }
        Ok(files)
    }
}

fn file(
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
            let text = std::str::from_utf8(&spec.data.0)
                .map_err(|_| Failure::lasting(format!("template {} is not UTF-8", spec.name)))?;
            let text = expand(text, task, place);
            text.map_err(|error| Failure::lasting(error.to_string()))?
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
