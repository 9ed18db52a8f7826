//! The client host: outside the swarm, known to nobody.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{Answer, command};

/// How it is seen over IPv4.
pub const V4: &str = "192.0.2.100";
/// How it is seen over IPv6.
pub const V6: &str = "2001:db8::100";

/// Runs a command on the client.
///
/// # Errors
/// When it cannot be started.
pub fn run(words: &[&str]) -> Result<Answer> {
    run_with(words, b"")
}

/// Runs a command on the client, with something to read.
///
/// # Errors
/// When it cannot be started.
pub fn run_with(words: &[&str], input: &[u8]) -> Result<Answer> {
    command(
        "nsenter",
        ["--net=/run/netns/weft-client"].iter().chain(words),
        &[],
        input,
    )
}

/// What `weft/whoami` says about one request.
#[derive(Debug, Clone)]
pub struct Whoami {
    /// The container that answered.
    pub hostname: String,
    /// The address that it was reached on, with its port.
    pub local: String,
    /// The client's address as the task saw it, without the port.
    pub client: String,
}

/// Asks `weft/whoami` over HTTP; `address` as it stands in a URL.
///
/// # Errors
/// When there is no answer within 3 s, or a strange one.
pub fn ask(address: &str, port: u16) -> Result<Whoami> {
    let url = format!("http://{address}:{port}/");
    let body = run(&[
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--globoff",
        "--max-time",
        "3",
        &url,
    ])?
    .ok()?;
    read(&body)
}

/// Asks `weft/whoami` with one datagram.
///
/// # Errors
/// When there is no answer within 2 s, or a strange one.
pub fn ask_by_datagram(address: &str, port: u16) -> Result<Whoami> {
    let family = if address.starts_with('[') {
        "UDP6"
    } else {
        "UDP4"
    };
    let body = run_with(
        &[
            "socat",
            "-t2",
            "-T2",
            "-",
            &format!("{family}:{address}:{port}"),
        ],
        b"who\n",
    )?
    .ok()?;
    read(&body)
}

/// Reads an answer of `weft/whoami`.
///
/// # Errors
/// When it is not one.
pub fn read(body: &str) -> Result<Whoami> {
    let facts: Value = serde_json::from_str(body).with_context(|| format!("answered `{body}`"))?;
    let text = |field: &str| {
        facts[field]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("the answer lacks {field}: {body}"))
    };
    let client = text("client")?;
    let (client, _) = client.rsplit_once(':').context("a client without a port")?;
    Ok(Whoami {
        hostname: text("hostname")?,
        local: text("local")?,
        client: client.trim_matches(['[', ']']).to_owned(),
    })
}
