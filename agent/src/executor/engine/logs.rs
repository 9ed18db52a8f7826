//! Lines of containers' logs.

use bollard::{
    Docker,
    container::LogOutput,
    query_parameters::{InspectContainerOptions, LogsOptions},
};
use futures::StreamExt;
use tokio::sync::mpsc;
use weft_proto::LogStream;
use weft_types::Timestamp;

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
) -> Result<mpsc::Receiver<LogEntry>, Failure> {
    let inspected = docker
        .inspect_container(container, None::<InspectContainerOptions>)
        .await;
    let inspected = inspected.map_err(|error| failure("inspect container", container, &error))?;
    let driver = inspected
        .host_config
        .and_then(|config| config.log_config?.typ)
        .unwrap_or_default();
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
                    tracing::debug!(container, %error, "the log broke off");
                    return;
                }
            };
            let Some(entry) = entry(chunk) else { continue };
            // Docker counts the tail before it chooses streams.
            let wished = match entry.stream {
                LogStream::Stdout => query.stdout,
                LogStream::Stderr => query.stderr,
            };
            if wished && entry.at >= query.since && lines.send(entry).await.is_err() {
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
    })
}
