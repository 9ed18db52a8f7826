//! Placeholders in a task's host name, environment and mounts, and in secrets and configs that are
//! templates: the part of Go's templates that Docker documents for services.
//!
//! `{{.Service.Name}}` and its like, `{{index .Service.Labels "key"}}`, `{{join .X ","}}` of a
//! single text, with or without spaces and `-` trims; in secrets and configs also
//! `{{secret "target"}}`, `{{config "target"}}` and `{{env "NAME"}}`. Anything else is refused with
//! its text: a manager refuses what an agent could not expand.

use crate::{NodeId, node::NodeDescription, task::Platform, task::Task};

/// Where a task runs, as far as placeholders can name it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The node's id; absent only before its first session.
    pub node: Option<NodeId>,
    /// Its host name.
    pub hostname: String,
    /// Its kind of machine.
    pub platform: Platform,
}

impl Place {
    /// The node of this id, which tells this of itself.
    #[must_use]
    pub fn of(node: NodeId, description: &NodeDescription) -> Self {
        Self {
            node: Some(node),
            hostname: description.hostname.clone(),
            platform: description.platform.clone(),
        }
    }
}

/// What the braces may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// A field of the task's surroundings, one of [`FIELDS`].
    Field(&'static str),
    /// A label of the service, which must be there.
    Label(String),
    /// A label of the service, or nothing.
    Index(String),
    /// The content of the secret that the task has under this file name.
    Secret(String),
    /// The content of the config that the task has under this file name.
    Config(String),
    /// A variable of the task's environment.
    Env(String),
}

/// The fields that Docker documents.
pub const FIELDS: [&str; 9] = [
    ".Service.ID",
    ".Service.Name",
    ".Node.ID",
    ".Node.Hostname",
    ".Node.Platform.OS",
    ".Node.Platform.Architecture",
    ".Task.ID",
    ".Task.Name",
    ".Task.Slot",
];

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A field of a container spec.
    Container,
    /// A secret or config, where functions may be used.
    File,
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("template: expansion:1: unclosed action")]
    Unclosed,
    /// What Docker's documentation does not name.
    #[error(
        "template: expansion:1:{column}: executing \"expansion\" at <{expression}>: can't evaluate {}",
        unknown(expression)
    )]
    Unknown {
        /// Bytes before it.
        column: usize,
        /// What stands between the braces.
        expression: String,
    },
    /// It means something elsewhere, but nothing for this task.
    #[error("template: expansion: executing \"expansion\" at <{expression}>: {why}")]
    Missing {
        /// What stands between the braces.
        expression: String,
        /// What is not there.
        why: String,
    },
}

/// Go's words for a field, ours for anything more.
fn unknown(expression: &str) -> String {
    let field = expression.strip_prefix('.').unwrap_or(expression);
    if field.contains(|c: char| !c.is_alphanumeric()) {
        format!("{expression}: weft knows fields, index, join, secret, config and env")
    } else {
        format!("field {field} in type *template.Context")
    }
}

/// A run of a template: text as it is, or a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Run<'a> {
    Text(&'a str),
    Placeholder(Placeholder, &'a str),
}

/// Whether `text` is a template that agents can expand.
///
/// # Errors
/// The first thing in it that is not.
pub fn check(text: &str, purpose: Purpose) -> Result<(), TemplateError> {
    runs(text, purpose).map(drop)
}

/// `text` with its placeholders replaced for `task` at `place`.
///
/// # Errors
/// When a placeholder means nothing.
pub fn expand(text: &str, task: &Task, place: &Place) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len());
    for run in runs(text, Purpose::Container)? {
        match run {
            Run::Text(text) => out.push_str(text),
            Run::Placeholder(placeholder, written) => {
                out.push_str(&value(&placeholder, written, task, place)?);
            }
        }
    }
    Ok(out)
}

/// As [`expand`], of a secret's or config's content; `function` answers what the functions ask.
///
/// # Errors
/// When a placeholder means nothing, or `function` knows no answer to it.
pub fn expand_file(
    text: &str,
    task: &Task,
    place: &Place,
    function: impl Fn(&Placeholder) -> Option<String>,
) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len());
    for run in runs(text, Purpose::File)? {
        let Run::Placeholder(placeholder, written) = run else {
            if let Run::Text(text) = run {
                out.push_str(text);
            }
            continue;
        };
        use Placeholder::{Config, Env, Secret};
        let text = match &placeholder {
            Secret(_) | Config(_) | Env(_) => {
                function(&placeholder).ok_or_else(|| TemplateError::Missing {
                    expression: written.to_owned(),
                    why: "the task has none of this name".to_owned(),
                })?
            }
            _ => value(&placeholder, written, task, place)?,
        };
        out.push_str(&text);
    }
    Ok(out)
}

fn runs(text: &str, purpose: Purpose) -> Result<Vec<Run<'_>>, TemplateError> {
    let mut runs = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while let Some(open) = text[at..].find("{{") {
        let start = at + open + 2;
        let length = text[start..].find("}}").ok_or(TemplateError::Unclosed)?;
        let written = &text[start..start + length];
        let mut before = &text[at..at + open];
        if trim_next {
            before = before.trim_start();
        }
        if written.starts_with("- ") {
            before = before.trim_end();
        }
        trim_next = written.ends_with(" -");
        let bare = written
            .trim_start_matches("- ")
            .trim_end_matches(" -")
            .trim();
        let placeholder = parse(bare).filter(|placeholder| fits(placeholder, purpose));
        let placeholder = placeholder.ok_or_else(|| TemplateError::Unknown {
            column: start + written.find(bare).unwrap_or(0),
            expression: bare.to_owned(),
        })?;
        runs.push(Run::Text(before));
        runs.push(Run::Placeholder(placeholder, bare));
        at = start + length + 2;
    }
    let rest = &text[at..];
    runs.push(Run::Text(if trim_next { rest.trim_start() } else { rest }));
    Ok(runs)
}

fn fits(placeholder: &Placeholder, purpose: Purpose) -> bool {
    use Placeholder::{Config, Env, Secret};
    purpose == Purpose::File || !matches!(placeholder, Secret(_) | Config(_) | Env(_))
}

fn parse(expression: &str) -> Option<Placeholder> {
    if let Some(field) = FIELDS.into_iter().find(|field| *field == expression) {
        return Some(Placeholder::Field(field));
    }
    if let Some(label) = expression.strip_prefix(".Service.Labels.") {
        let is_plain = !label.is_empty() && !label.contains(char::is_whitespace);
        return is_plain.then(|| Placeholder::Label(label.to_owned()));
    }
    let (function, rest) = expression.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    if matches!(function, "secret" | "config" | "env") {
        let name = literal(rest)?;
        return Some(match function {
            "secret" => Placeholder::Secret(name),
            "config" => Placeholder::Config(name),
            _ => Placeholder::Env(name),
        });
    }
    let (first, second) = rest.split_once(char::is_whitespace)?;
    let text = literal(second.trim())?;
    match (function, first) {
        ("index", ".Service.Labels") => Some(Placeholder::Index(text)),
        // A single text joined with anything is itself.
        ("join", field) => parse(field),
        _ => None,
    }
}

/// A text as Go writes it, between quotes or backquotes.
fn literal(written: &str) -> Option<String> {
    let raw = written
        .strip_prefix('`')
        .and_then(|raw| raw.strip_suffix('`'));
    if let Some(raw) = raw {
        return Some(raw.to_owned());
    }
    serde_json::from_str(written).ok()
}

fn value(
    placeholder: &Placeholder,
    written: &str,
    task: &Task,
    place: &Place,
) -> Result<String, TemplateError> {
    let missing = |why: String| TemplateError::Missing {
        expression: written.to_owned(),
        why,
    };
    let node = || place.node.map(|node| node.to_string()).unwrap_or_default();
    let field = match placeholder {
        Placeholder::Field(field) => *field,
        Placeholder::Index(key) => {
            return Ok(task.service_labels.get(key).cloned().unwrap_or_default());
        }
        Placeholder::Label(key) => {
            let label = task.service_labels.get(key).cloned();
            return label.ok_or_else(|| missing(format!("the service has no label {key:?}")));
        }
        Placeholder::Secret(_) | Placeholder::Config(_) | Placeholder::Env(_) => {
            return Err(missing("only secrets and configs may use it".to_owned()));
        }
    };
    Ok(match field {
        ".Service.ID" => task.service_id.map(|id| id.to_string()).unwrap_or_default(),
        ".Service.Name" => task.service_name.clone(),
        ".Node.ID" => node(),
        ".Node.Hostname" => place.hostname.clone(),
        ".Node.Platform.OS" => place.platform.os.clone(),
        ".Node.Platform.Architecture" => place.platform.architecture.clone(),
        ".Task.ID" => task.id.to_string(),
        ".Task.Name" => task.name.clone(),
        // A global task's slot is its node.
        _ if task.slot == 0 && task.job_iteration.is_none() => node(),
        _ => task.slot.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        let json = r#"{"ID":"0000000000000000000000001","Name":"web.2.x","Slot":2,"ServiceName":"web",
            "ServiceID":"0000000000000000000000002","ServiceLabels":{"tier":"front"}}"#;
        serde_json::from_str(json).unwrap()
    }

    fn place() -> Place {
        Place {
            node: Some(NodeId::numbered(3)),
            hostname: "n1".into(),
            platform: Platform {
                architecture: "x86_64".into(),
                os: "linux".into(),
            },
        }
    }

    #[test]
    fn each_placeholder_means_what_docker_documents() {
        let rows = [
            ("plain", "plain"),
            ("h-{{.Task.Slot}}-{{ .Node.Hostname }}", "h-2-n1"),
            (
                "{{.Service.Name}}/{{.Service.ID}}",
                "web/0000000000000000000000002",
            ),
            ("{{.Node.ID}}", "0000000000000000000000003"),
            (
                "{{.Node.Platform.OS}}-{{.Node.Platform.Architecture}}",
                "linux-x86_64",
            ),
            (
                "{{.Task.ID}} {{.Task.Name}}",
                "0000000000000000000000001 web.2.x",
            ),
            ("{{.Service.Labels.tier}}", "front"),
            (r#"{{index .Service.Labels "tier"}}"#, "front"),
            (r#"{{index .Service.Labels `none`}}"#, ""),
            (r#"{{join .Service.Name ","}}"#, "web"),
            ("a {{- .Task.Slot -}} b", "a2b"),
        ];
        for (text, expanded) in rows {
            assert_eq!(
                expand(text, &task(), &place()).as_deref(),
                Ok(expanded),
                "{text}"
            );
        }
        for field in FIELDS {
            assert!(
                check(&format!("{{{{{field}}}}}"), Purpose::Container).is_ok(),
                "{field}"
            );
        }
    }

    #[test]
    fn a_global_tasks_slot_is_its_node() {
        let task = Task { slot: 0, ..task() };
        let slot = expand("{{.Task.Slot}}", &task, &place());
        assert_eq!(slot.as_deref(), Ok("0000000000000000000000003"));
    }

    #[test]
    fn functions_are_for_files_alone() {
        let answers = |asked: &Placeholder| match asked {
            Placeholder::Secret(name) if name == "key" => Some("s3cret".to_owned()),
            Placeholder::Config(name) if name == "site" => Some("conf".to_owned()),
            Placeholder::Env(name) if name == "MODE" => Some("fast".to_owned()),
            _ => None,
        };
        let text = r#"{{secret "key"}} {{config "site"}} {{env "MODE"}} {{.Task.Slot}}"#;
        assert_eq!(
            expand_file(text, &task(), &place(), answers).as_deref(),
            Ok("s3cret conf fast 2")
        );
        assert!(check(text, Purpose::File).is_ok());
        assert!(matches!(
            check(r#"{{secret "key"}}"#, Purpose::Container),
            Err(TemplateError::Unknown { .. })
        ));
        let missing = expand_file(r#"{{secret "none"}}"#, &task(), &place(), answers);
        assert!(
            matches!(missing, Err(TemplateError::Missing { .. })),
            "{missing:?}"
        );
    }

    #[test]
    fn what_is_not_documented_is_refused_with_its_text() {
        let said = |text: &str| check(text, Purpose::File).unwrap_err().to_string();
        assert_eq!(said("A={{.Bad"), "template: expansion:1: unclosed action");
        assert_eq!(
            said("{{.Nope}}"),
            "template: expansion:1:2: executing \"expansion\" at <.Nope>: can't evaluate field Nope in type *template.Context"
        );
        for text in [
            "{{range .Task}}",
            "{{if .Task.Slot}}",
            "{{}}",
            "{{secret key}}",
        ] {
            assert!(check(text, Purpose::File).is_err(), "{text}");
        }
        let label = expand("{{.Service.Labels.none}}", &task(), &place());
        assert!(
            matches!(label, Err(TemplateError::Missing { .. })),
            "{label:?}"
        );
    }
}
