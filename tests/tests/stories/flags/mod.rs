//! Every flag of `docker service create` and `docker service update` that the CLIs on this machine have: what it does, or with which words it
//! is refused. A flag that no row names fails the story.

/// A table of [`Row`]s: the words, and what shows that they are honoured.
macro_rules! rows {
    ($($words:literal => $($proof:expr),+;)*) => {
        vec![$(Row { words: $words, proofs: &[$($proof),+] }),*]
    };
}

mod create;
mod update;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::command::words;
use weft_tests::{Answer, Cli, Host};

/// One or more flags, and what shows that they are honoured.
struct Row {
    /// As a user types them.
    words: &'static str,
    /// All of these hold afterwards.
    proofs: &'static [Proof],
}

/// What shows that a flag is honoured.
enum Proof {
    /// The service's spec has this JSON at this pointer; `null` also for what is empty.
    Spec(&'static str, &'static str),
    /// So has what `docker inspect` says of its container.
    Container(&'static str, &'static str),
    /// This line, run in its container, prints these words.
    Prints(&'static str, &'static str),
    /// The CLI, the front door or the task refuses it with these words.
    Refused(&'static str),
    /// A story of its own shows it.
    Told(#[expect(dead_code, reason = "says to the reader which")] &'static str),
}

use Proof::{Container, Prints, Refused, Spec, Told};

/// `docker …` by this CLI.
fn docker(host: Host, cli: Cli, line: &str) -> Result<Answer> {
    let line = words(line);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    host.docker_words(cli, &line, b"")
}

/// The long names of the flags in a line.
fn named(line: &str) -> BTreeSet<String> {
    let line = words(line);
    let long = line.iter().filter_map(|word| word.strip_prefix("--"));
    long.map(|word| word.split('=').next().unwrap_or(word).to_owned())
        .collect()
}

/// The flags that this CLI has for `docker service VERB`.
fn known(host: Host, cli: Cli, verb: &str) -> Result<BTreeSet<String>> {
    let help = docker(host, cli, &format!("service {verb} --help"))?.ok()?;
    let options = help.lines().filter_map(|line| {
        // Further in it is a description's next line.
        let inner = line.trim_start();
        let line = (line.len() - inner.len() <= 6).then_some(inner)?;
        let line = match line.strip_prefix('-') {
            // A short name comes first.
            Some(rest) if !rest.starts_with('-') => rest.split_once(", ")?.1,
            _ => line,
        };
        line.strip_prefix("--")?.split_whitespace().next()
    });
    Ok(options.map(ToOwned::to_owned).collect())
}

/// Every flag of the CLI is in a row.
fn none_forgotten<'a>(
    host: Host,
    cli: Cli,
    verb: &str,
    rows: impl IntoIterator<Item = &'a Row>,
) -> Result<()> {
    let rows: BTreeSet<String> = rows.into_iter().flat_map(|row| named(row.words)).collect();
    let known = known(host, cli, verb)?;
    ensure!(
        known.len() > 60,
        "`service {verb} --help` by {cli:?} names only {known:?}"
    );
    let forgotten: Vec<_> = known.difference(&rows).collect();
    ensure!(
        forgotten.is_empty(),
        "no row says what `service {verb}` does with {forgotten:?} ({cli:?})"
    );
    Ok(())
}

/// Whether this CLI has all the flags of a row.
fn is_known(row: &Row, known: &BTreeSet<String>) -> bool {
    named(row.words).is_subset(known)
}

/// What an inspection says of one object.
fn inspected(host: Host, line: &str) -> Result<Value> {
    let text = host.say(line)?;
    let list: Value = serde_json::from_str(&text).with_context(|| format!("{line}: {text}"))?;
    Ok(list[0].clone())
}

/// `object` has `expected`, as JSON, at `pointer`.
fn has(object: &Value, pointer: &str, expected: &str) -> Result<()> {
    let expected: Value =
        serde_json::from_str(expected).with_context(|| format!("not JSON: {expected}"))?;
    let seen = object.pointer(pointer).cloned().unwrap_or_default();
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    ensure!(
        seen == expected || (expected.is_null() && is_empty(&seen)),
        "{pointer} is {seen}, not {expected}"
    );
    Ok(())
}
