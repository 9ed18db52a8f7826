//! Placeholders in host names, environment and mounts: the part of Go's templates that Docker
//! documents for services. What the agents could not expand is refused here.

use super::Refusal;
use crate::container::ContainerSpec;

/// Refuses placeholders of `spec` that mean nothing.
pub(super) fn placeholders(spec: &ContainerSpec) -> Result<(), Refusal> {
    check("hostname", spec.hostname.as_deref().unwrap_or_default())?;
    for variable in spec.env.iter().flatten() {
        let value = variable.split_once('=').map_or("", |(_, value)| value);
        check("env", value)?;
    }
    for mount in spec.mounts.iter().flatten() {
        check("mounts", &mount.source)?;
        check("mounts", &mount.target)?;
    }
    Ok(())
}

fn check(field: &str, text: &str) -> Result<(), Refusal> {
    let refused = |why: String| Refusal::invalid(format!("expanding {field} failed: {why}"));
    let mut at = 0;
    while let Some(open) = text[at..].find("{{") {
        let start = at + open + 2;
        let Some(length) = text[start..].find("}}") else {
            let why = "template: expansion:1: unclosed action".to_owned();
            return Err(refused(why));
        };
        let written = &text[start..start + length];
        let bare = written
            .trim_start_matches("- ")
            .trim_end_matches(" -")
            .trim();
        if !is_known(bare) {
            let column = start + written.find(bare).unwrap_or(0);
            let place =
                format!("template: expansion:1:{column}: executing \"expansion\" at <{bare}>");
            let field = bare.strip_prefix('.').unwrap_or(bare);
            return Err(refused(if field.contains(|c: char| !c.is_alphanumeric()) {
                format!("{place}: can't evaluate {bare}")
            } else {
                format!("{place}: can't evaluate field {field} in type *template.Context")
            }));
        }
        at = start + length + 2;
    }
    Ok(())
}

fn is_known(expression: &str) -> bool {
    const KNOWN: [&str; 9] = [
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
    let label = expression.strip_prefix(".Service.Labels.");
    if KNOWN.contains(&expression) || label.is_some_and(|label| !label.is_empty()) {
        return true;
    }
    let two = |function: &str| {
        let rest = expression.strip_prefix(function)?.trim_start();
        let (first, second) = rest.split_once(char::is_whitespace)?;
        let text: Result<String, _> = serde_json::from_str(second.trim());
        text.ok().map(|_| first)
    };
    two("index ").is_some_and(|map| map == ".Service.Labels") || two("join ").is_some_and(is_known)
}
