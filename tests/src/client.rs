//! The client host: outside the swarm, known to nobody.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::command::{Answer, command};
use crate::{Bed, Host, eventually};

/// How long a port may take to open on a host once its tasks run.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let enter = ["-k", "5", "300", "nsenter", "--net=/run/netns/weft-client"];
    command("timeout", enter.iter().chain(words), &[], input)
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
/// When there is no answer within 10 s, or a strange one.
pub fn ask(address: &str, port: u16) -> Result<Whoami> {
    let url = format!("http://{address}:{port}/");
    let body = run(&[
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--globoff",
        "--max-time",
        "10",
        &url,
    ])?
    .ok()?;
    read(&body)
}

/// Whether nobody lets the client in at this address: it is refused, or met by silence.
///
/// # Errors
/// When the question cannot be put.
pub fn is_shut(address: &str, port: u16) -> Result<bool> {
    let url = format!("http://{address}:{port}/");
    let words = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-g",
        "--max-time",
        "2",
        &url,
    ];
    Ok(run(&words)?.status != 0)
}

/// Asks `weft/whoami` with one datagram.
///
/// # Errors
/// When there is no answer within 5 s, or a strange one.
pub fn ask_by_datagram(address: &str, port: u16) -> Result<Whoami> {
    let family = if address.starts_with('[') {
        "UDP6"
    } else {
        "UDP4"
    };
    let body = run_with(
        &[
            "socat",
            "-t5",
            "-T5",
            "-",
            &format!("{family}:{address}:{port}"),
        ],
        b"who\n",
    )?
    .ok()?;
    read(&body)
}

/// The host answers on both families within some seconds, and in every answer the client's own address stands; answers who served.
///
/// # Errors
/// When an address stays silent, or the task saw somebody else.
pub fn ask_host(
    host: Host,
    port: u16,
    ask: impl Fn(&str, u16) -> Result<Whoami>,
) -> Result<BTreeSet<String>> {
    let mut served = BTreeSet::new();
    for (address, expected) in host.faces() {
        let answer = eventually(PATIENCE, &format!("{address}:{port} to answer"), || {
            ask(&address, port)
        })?;
        ensure!(
            answer.client == expected,
            "{address}:{port}: the task saw {} where the client is {expected}",
            answer.client
        );
        served.insert(answer.hostname);
    }
    Ok(served)
}

/// As [`ask_host`], of every host of the bed.
///
/// # Errors
/// When an address stays silent, or the task saw somebody else.
pub fn ask_every_host(
    bed: &Bed,
    port: u16,
    ask: impl Fn(&str, u16) -> Result<Whoami>,
) -> Result<BTreeSet<String>> {
    let mut served = BTreeSet::new();
    for host in bed.hosts() {
        served.append(&mut ask_host(host, port, &ask)?);
    }
    Ok(served)
}

/// Waits until so many containers have answered at each address of the host: a task is in a ring as soon as it runs, which is before its
/// program listens, and hosts are told of it one after the other.
///
/// # Errors
/// When fewer do.
pub fn all_serve(host: Host, port: u16, tasks: usize) -> Result<()> {
    for (address, _) in host.faces() {
        let mut served = BTreeSet::new();
        let what = format!("{tasks} tasks to answer at {address}:{port}");
        eventually(PATIENCE, &what, || {
            // A choice is by chance: some questions for each look.
            for _ in 0..4 * tasks {
                served.insert(ask(&address, port)?.hostname);
                if served.len() >= tasks {
                    return Ok(());
                }
            }
            bail!("so far {served:?}")
        })?;
    }
    Ok(())
}

/// Asks a host through both its addresses again and again while `work` runs: not one question may fail. Before that so many tasks have
/// answered there.
///
/// # Errors
/// When the work fails, or a question did.
pub fn no_request_fails(
    host: Host,
    port: u16,
    tasks: usize,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    all_serve(host, port, tasks)?;
    let begun = Instant::now();
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    let heard = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (address, _) in host.faces() {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let from = begun.elapsed().as_secs_f64();
                    if let Err(error) = ask(&address, port) {
                        let to = begun.elapsed().as_secs_f64();
                        heard().push(format!("from {from:.3} s to {to:.3} s: {error:#}"));
                    }
                }
            }
        });
        // Asked to the end even when the work panics.
        let outcome = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        outcome
    });
    let outcome = outcome.unwrap_or_else(|panic| resume_unwind(panic));
    let (failed, asked) = (heard(), asked.load(Ordering::Relaxed));
    let took = begun.elapsed().as_secs_f64();
    ensure!(
        failed.is_empty(),
        "{} of {asked} requests failed within {took:.3} s: {failed:#?}; the work: {outcome:?}",
        failed.len(),
    );
    outcome
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
