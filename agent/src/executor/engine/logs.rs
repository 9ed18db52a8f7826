//! Lines of containers' logs.

use std::collections::HashMap;

use bollard::{
    Docker,
    container::LogOutput,
    query_parameters::{InspectContainerOptions, LogsOptions},
};
use futures::StreamExt;
use regex::Regex;
use tokio::sync::mpsc;
use weft_proto::LogStream;
use weft_types::{Labels, Timestamp};

use super::connection::failure;
use crate::{
    executor::{LogEntry, LogQuery},
    task::Failure,
};

/// Lines waiting to be taken.
const WAITING: usize = 256;

/// Opens the log of `container`.
pub(super) async fn open(
    docker: &Docker,
    container: &str,
    query: LogQuery,
) -> Result<mpsc::Receiver<Result<LogEntry, Failure>>, Failure> {
    let inspected = docker
        .inspect_container(container, None::<InspectContainerOptions>)
        .await;
    let inspected = inspected.map_err(|error| failure("inspect container", container, &error))?;
    let config = inspected.host_config.and_then(|config| config.log_config);
    let config = config.unwrap_or_default();
    let driver = config.typ.unwrap_or_default();
    let about = inspected.config.unwrap_or_default();
    let attributes = attributes(
        &config.config.unwrap_or_default(),
        &about.labels.unwrap_or_default(),
        &about.env.unwrap_or_default(),
    );
    let (lines, receiver) = mpsc::channel(WAITING);
    if driver == "none" {
        return Ok(receiver);
    }
    let since_secs = if query.since.is_zero() {
        0
    } else {
        query.since.0.div_euclid(1_000_000_000)
    };
    let options = LogsOptions {
        follow: query.follow,
        stdout: true,
        stderr: true,
        timestamps: true,
        since: i32::try_from(since_secs).unwrap_or(0),
        tail: query
            .tail
            .map_or_else(|| "all".to_owned(), |tail| tail.to_string()),
        ..LogsOptions::default()
    };
    let mut output = Box::pin(docker.logs(container, Some(options)));
    let container = container.to_owned();
    tokio::spawn(async move {
        loop {
            let chunk = tokio::select! {
                chunk = output.next() => chunk,
                () = lines.closed() => return,
            };
            let chunk = match chunk {
                None => return,
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => {
                    let broken = failure("read the log of container", &container, &error);
                    // Nobody listens any more, then.
                    let _sent = lines.send(Err(broken)).await;
                    return;
                }
            };
            let Some(mut entry) = entry(chunk) else {
                continue;
            };
            entry.attributes.clone_from(&attributes);
            // Docker counts the tail before it chooses streams.
            let wished = match entry.stream {
                LogStream::Stdout => query.stdout,
                LogStream::Stderr => query.stderr,
            };
            if wished && entry.at >= query.since && lines.send(Ok(entry)).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// A chunk with its time stamp in front.
fn entry(chunk: LogOutput) -> Option<LogEntry> {
    let stream = match &chunk {
        LogOutput::StdErr { .. } => LogStream::Stderr,
        LogOutput::StdOut { .. } | LogOutput::Console { .. } => LogStream::Stdout,
        LogOutput::StdIn { .. } => return None,
    };
    let bytes = chunk.into_bytes();
    let space = bytes.iter().position(|byte| *byte == b' ');
    let stamp = space.and_then(|space| std::str::from_utf8(&bytes[..space]).ok());
    let (at, line) = match (stamp.and_then(Timestamp::parse), space) {
        (Some(at), Some(space)) => (at, &bytes[space + 1..]),
        _ => (Timestamp::ZERO, &bytes[..]),
    };
    Some(LogEntry {
        stream,
        at,
        line: line.to_vec(),
        attributes: Labels::new(),
    })
}

/// What the log's options `labels`, `env`, their regular expressions and `tag` ask to be told with each
/// line, as the engine's own drivers find it. A tag that is a template is told by no driver that can be
/// read, so it is left out.
fn attributes(
    options: &HashMap<String, String>,
    labels: &HashMap<String, String>,
    env: &[String],
) -> Labels {
    let mut told = Labels::new();
    let env: HashMap<String, String> = env
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (option, facts) in [("labels", labels), ("env", &env)] {
        let wished = options.get(option).map_or("", String::as_str);
        let wished: Vec<&str> = wished.split(',').collect();
        let pattern = options.get(&format!("{option}-regex"));
        // The engine has refused one that is none when it made the container.
        let pattern = pattern.and_then(|pattern| Regex::new(pattern).ok());
        for (name, value) in facts {
            let is_wished = wished.contains(&name.as_str())
                || pattern
                    .as_ref()
                    .is_some_and(|pattern| pattern.is_match(name));
            if is_wished {
                told.insert(name.clone(), value.clone());
            }
        }
    }
    if let Some(tag) = options.get("tag")
        && !tag.is_empty()
        && !tag.contains("{{")
    {
        told.insert("tag".to_owned(), tag.clone());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn only_what_the_options_name_is_told_with_a_line() {
        let labels = map(&[("tier", "front"), ("owner", "me"), ("app.id", "7")]);
        let env = ["STAGE=test=1".to_owned(), "SECRET=x".to_owned()];
        assert!(attributes(&map(&[]), &labels, &env).is_empty());
        let options = map(&[
            ("labels", "tier,absent"),
            ("labels-regex", "^app\\."),
            ("env", "STAGE"),
            ("tag", "here"),
        ]);
        let told = attributes(&options, &labels, &env);
        let told: Vec<(&str, &str)> = told.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            told,
            [
                ("STAGE", "test=1"),
                ("app.id", "7"),
                ("tag", "here"),
                ("tier", "front")
            ]
        );
    }
}
