//! `/services/{id}/logs` and `/tasks/{id}/logs`.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc::Receiver;
use weft_proto::{ControlApi, ControlRequest, LogItem, LogLine, LogSelector, LogStream};
use weft_types::{Timestamp, task::TaskSpec};

use crate::{
    door::{Asked, Door, expect_one},
    query::Query,
    reply::{ApiError, Reply},
    version::ApiVersion,
};

/// How lines are written.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// Raw bytes, no frames.
    tty: bool,
    timestamps: bool,
    details: bool,
}

impl Door {
    pub(crate) async fn service_logs(&self, id: String, asked: &Asked) -> Reply {
        let mut selector = selector(&asked.query)?;
        let request = ControlRequest::GetService(id);
        let service = expect_one!(self.ask(request).await?, Services)?;
        selector.services.push(service.id);
        self.logs(selector, &service.spec.task_template, asked)
            .await
    }

    pub(crate) async fn task_logs(&self, id: String, asked: &Asked) -> Reply {
        let mut selector = selector(&asked.query)?;
        let task = expect_one!(self.ask(ControlRequest::GetTask(id)).await?, Tasks)?;
        selector.tasks.push(task.id);
        self.logs(selector, &task.spec, asked).await
    }

    async fn logs(&self, selector: LogSelector, spec: &TaskSpec, asked: &Asked) -> Reply {
        let form = Form {
            tty: spec.container_spec.as_ref().is_some_and(|spec| spec.tty),
            timestamps: asked.query.flag("timestamps"),
            details: asked.query.flag("details"),
        };
        let manager: Arc<dyn ControlApi> = self.manager().await?;
        let lines = manager.logs(selector).await;
        let lines = lines.map_err(ApiError::from_manager)?;
        let mut response = Response::new(body(lines, form));
        // Engines below 1.42 name no type here.
        if asked.version >= ApiVersion::new(1, 42) {
            let kind = HeaderValue::from_static(if form.tty {
                "application/vnd.docker.raw-stream"
            } else {
                "application/vnd.docker.multiplexed-stream"
            });
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Ok(response)
    }
}

fn selector(query: &Query) -> Result<LogSelector, ApiError> {
    let selector = LogSelector {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        tail: tail(query.get("tail"))?,
        since: moment("since", query.get("since"))?,
        ..LogSelector::default()
    };
    if !selector.stdout && !selector.stderr {
        return Err(ApiError::internal(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let until = query.get("until");
    if !["", "0"].contains(&until) {
        return Err(ApiError::bad(
            "Bad parameters: until is not supported for logs of services and tasks",
        ));
    }
    Ok(selector)
}

/// How many of the last lines; all of them if none are named.
fn tail(text: &str) -> Result<Option<u64>, ApiError> {
    if ["", "all"].contains(&text) {
        return Ok(None);
    }
    let lines = text
        .parse::<i64>()
        .map_err(|_| ApiError::internal("tail value must be a positive integer or \"all\""))?;
    let lines = u64::try_from(lines);
    Ok(Some(lines.map_err(|_| {
        ApiError::internal("negative tail values not supported")
    })?))
}

/// Seconds since 1970, perhaps with a fraction, or RFC 3339; empty and 0 are "never".
pub(crate) fn moment(parameter: &str, text: &str) -> Result<Timestamp, ApiError> {
    if ["", "0"].contains(&text) {
        return Ok(Timestamp::ZERO);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let nanos = || {
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let mut fraction: String = fraction.chars().take(9).collect();
        while fraction.len() < 9 {
            fraction.push('0');
        }
        seconds
            .checked_mul(1_000_000_000)?
            .checked_add(fraction.parse().ok()?)
    };
    nanos()
        .map(Timestamp)
        .or_else(|| Timestamp::parse(text))
        .ok_or_else(|| {
            ApiError::bad(format!(
                "invalid value for {parameter:?}: failed to parse {text:?} as a point in time"
            ))
        })
}

/// The lines as they come; reasons for missing ones are told together at the end, as Docker does.
fn body(lines: Receiver<LogItem>, form: Form) -> crate::reply::Body {
    struct State {
        lines: Receiver<LogItem>,
        reasons: VecDeque<String>,
        ended: bool,
    }
    let state = State {
        lines,
        reasons: VecDeque::new(),
        ended: false,
    };
    let frames = stream::unfold(state, move |mut state| async move {
        loop {
            if state.ended {
                return None;
            }
            match state.lines.recv().await {
                Some(LogItem::Line(line)) => return Some((frame(&line, form), state)),
                Some(LogItem::Warning(reason)) => {
                    if !state.reasons.contains(&reason) {
                        state.reasons.push_back(reason);
                    }
                }
                None => {
                    state.ended = true;
                    if state.reasons.is_empty() {
                        return None;
                    }
                    return Some((lament(state.reasons.make_contiguous()), state));
                }
            }
        }
    });
    let frames = futures::StreamExt::map(frames, |bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    StreamBody::new(frames)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn frame(line: &LogLine, form: Form) -> Bytes {
    let mut text = BytesMut::new();
    if form.timestamps {
        text.put_slice(line.at.to_string().as_bytes());
        text.put_u8(b' ');
    }
    if form.details {
        text.put_slice(details(line).as_bytes());
        text.put_u8(b' ');
    }
    text.put_slice(&line.line);
    if form.tty {
        return text.freeze();
    }
    let stream = match line.stream {
        LogStream::Stdout => 1,
        LogStream::Stderr => 2,
    };
    framed(stream, &text)
}

/// A frame of stream 3: the client prints it as an error of the daemon.
fn lament(reasons: &[String]) -> Bytes {
    let begin =
        "incomplete log stream. some logs could not be retrieved for the following reasons: ";
    // Managers word some of their reasons so themselves.
    let reasons = reasons
        .iter()
        .map(|reason| reason.strip_prefix(begin).unwrap_or(reason));
    let text = format!(
        "Error grabbing logs: rpc error: code = Unknown desc = warning: {begin}{}",
        reasons.collect::<Vec<_>>().join(", ")
    );
    framed(3, text.as_bytes())
}

/// `[stream, 0, 0, 0, length (32 bit, big-endian)]` and the text.
fn framed(stream: u8, text: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + text.len());
    frame.put_slice(&[stream, 0, 0, 0]);
    frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    frame.put_slice(text);
    frame.freeze()
}

/// Attributes, sorted, `k=v` joined by commas, each escaped as in a query string.
fn details(line: &LogLine) -> String {
    let mut attributes = line.attributes.clone();
    attributes.insert("com.docker.swarm.node.id".into(), line.node.to_string());
    if let Some(service) = line.service {
        attributes.insert("com.docker.swarm.service.id".into(), service.to_string());
    }
    attributes.insert("com.docker.swarm.task.id".into(), line.task.to_string());
    let pairs = attributes
        .iter()
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(byte as char);
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use weft_types::{Id, Labels};

    use super::*;

    fn line() -> LogLine {
        LogLine {
            node: Id::numbered(1),
            service: Some(Id::numbered(2)),
            task: Id::numbered(3),
            stream: LogStream::Stderr,
            at: Timestamp(1_795_215_826_384_161_800),
            attributes: Labels::new(),
            line: b"err two\n".to_vec(),
        }
    }

    #[test]
    fn frames_are_docker_s() {
        let mut form = Form {
            tty: false,
            timestamps: false,
            details: false,
        };
        assert_eq!(&frame(&line(), form)[..], b"\x02\0\0\0\0\0\0\x08err two\n");
        form.details = true;
        assert_eq!(frame(&line(), form).len(), 8 + 164);
        form.timestamps = true;
        let both = frame(&line(), form);
        assert_eq!(both.len(), 8 + 195);
        assert!(both[8..].starts_with(b"2026-11-20T23:03:46.384161800Z com.docker.swarm.node.id="));
        form.tty = true;
        form.timestamps = false;
        form.details = false;
        assert_eq!(&frame(&line(), form)[..], b"err two\n");
    }

    #[test]
    fn moments_are_read() {
        let at = |text: &str| moment("since", text).ok();
        assert_eq!(at(""), Some(Timestamp::ZERO));
        assert_eq!(at("1.5"), Some(Timestamp(1_500_000_000)));
        assert_eq!(at("7"), Some(Timestamp(7_000_000_000)));
        assert_eq!(at("1970-01-01T00:00:07Z"), Some(Timestamp(7_000_000_000)));
        for bad in ["x", "1.x", "-1", "99999999999999999999", "1.2.3"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
