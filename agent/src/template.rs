//! Placeholders in a task's host name, environment and mounts: the part of Go's templates that
//! Docker documents for services.
//!
//! PURE. `{{.Service.Name}}`, `{{index .Service.Labels "key"}}`, `{{join .X ","}}` of a single
//! text, with or without spaces and `-` trims. Anything else is refused with its text.

use weft_types::task::Task;

use crate::executor::Place;

/// A placeholder that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// `{{` without `}}`.
    #[error("template {0:?}: unclosed action")]
    Unclosed(String),
    /// An expression outside the part that Docker documents, or a label that is not there.
    #[error("template {template:?}: cannot expand {expression:?}")]
    Unknown {
        /// The whole text.
        template: String,
        /// What stands between the braces.
        expression: String,
    },
}

/// `text` with its placeholders replaced for `task` at `place`.
///
/// # Errors
/// When a placeholder means nothing here.
pub fn expand(text: &str, task: &Task, place: &Place) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((expression, next)) = after.split_once("}}") else {
            return Err(ExpandError::Unclosed(text.to_owned()));
        };
        let trims_left = expression.starts_with("- ");
        let trims_right = expression.ends_with(" -");
        out.push_str(if trims_left {
            before.trim_end()
        } else {
            before
        });
        let bare = expression.trim_start_matches("- ").trim_end_matches(" -");
        out.push_str(
            &value(bare.trim(), task, place).ok_or_else(|| ExpandError::Unknown {
                template: text.to_owned(),
                expression: bare.trim().to_owned(),
            })?,
        );
        rest = if trims_right { next.trim_start() } else { next };
    }
    out.push_str(rest);
    Ok(out)
}

fn value(expression: &str, task: &Task, place: &Place) -> Option<String> {
    if let Some(rest) = expression.strip_prefix("index ") {
        let (path, key) = rest.trim().split_once(char::is_whitespace)?;
        let key: String = serde_json::from_str(key.trim()).ok()?;
        return match path {
            ".Service.Labels" => Some(task.service_labels.get(&key).cloned().unwrap_or_default()),
            _ => None,
        };
    }
    if let Some(rest) = expression.strip_prefix("join ") {
        let (path, _separator) = rest.trim().split_once(char::is_whitespace)?;
        return value(path, task, place);
    }
    let node = || place.node.map(|node| node.to_string()).unwrap_or_default();
    let value = match expression {
        ".Service.ID" => task.service_id.map(|id| id.to_string()).unwrap_or_default(),
        ".Service.Name" => task.service_name.clone(),
        ".Node.ID" => node(),
        ".Node.Hostname" => place.hostname.clone(),
        ".Node.Platform.OS" => place.platform.os.clone(),
        ".Node.Platform.Architecture" => place.platform.architecture.clone(),
        ".Task.ID" => task.id.to_string(),
        ".Task.Name" => task.name.clone(),
        // A global task's slot is its node.
        ".Task.Slot" if task.slot == 0 && task.job_iteration.is_none() => node(),
        ".Task.Slot" => task.slot.to_string(),
        _ => {
            let key = expression.strip_prefix(".Service.Labels.")?;
            return task.service_labels.get(key).cloned();
        }
    };
    Some(value)
}
