//! The tutorial, run for real: hosts joined, a registry and DockerCoins as services, a port that answers everywhere.

mod coins;
mod table;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::clock::Clock;
use crate::testbed::plan::Host;
use crate::testbed::swarm::docker;
use crate::testbed::{self, image, up};
use crate::{build, evidence, rights, setup, wait};

/// The port on which the page answers, on every host.
const PAGE_PORT: u16 = 8000;

/// How the demo is run.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Run unattended: judge the outcome by the exit status, and take everything down at the end
    #[arg(long)]
    check: bool,
    /// How many hosts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    hosts: u8,
}

/// Runs the demo.
///
/// # Errors
/// When a step fails, or when a host's answer is not what the routing mesh promises.
pub(crate) fn demo(how: &Demo) -> Result<()> {
    rights::require_root("demo", rights::HOSTS)?;
    let clock = Clock::start();
    let outcome = run_through(how, &clock);
    if outcome.is_err() {
        evidence::keep("demo");
    }
    if how.check {
        clock.says("taking it down");
        testbed::act(testbed::Verb::Down)?;
        outcome?;
        clock.says("every host answered on both families with the client's own address");
    } else {
        outcome.context(
            "the testbed is left up to look at; take it down with `cargo xtask testbed down`",
        )?;
        print_next_lines();
    }
    Ok(())
}

/// The demo as `cargo xtask demo --check` runs it.
///
/// # Errors
/// As [`demo`].
pub(crate) fn unattended() -> Result<()> {
    demo(&Demo {
        check: true,
        hosts: 3,
    })
}

fn run_through(how: &Demo, clock: &Clock) -> Result<()> {
    clock.says("looking at what this machine has");
    setup::setup()?;
    clock.says("building (the first time takes minutes)");
    build::all()?;

    clock.says(&format!(
        "starting {} hosts, each with its own engine and agent",
        how.hosts
    ));
    up::up(how.hosts, up::Depth::Agents)?;
    clock.says("forming the swarm");
    testbed::swarm::form(1)?;
    let hosts = up::hosts()?;
    let first = hosts[0];

    clock.says("publishing a registry on port 5000");
    create(
        first,
        &[
            "--name",
            "registry",
            "--publish",
            "5000:5000",
            image::REGISTRY.name,
        ],
    )?;
    converge(first, &["registry"])?;
    for host in &hosts {
        wait::until(
            Duration::from_secs(90),
            &format!("{} to reach the registry at 127.0.0.1:5000", host.name()),
            || {
                testbed::host::on(*host).is_ok_and(|on| {
                    on.args([
                        "curl",
                        "-sf",
                        "--max-time",
                        "2",
                        "http://127.0.0.1:5000/v2/",
                    ])
                    .succeeds()
                })
            },
        )?;
    }

    for coin in coins::ALL {
        clock.says(&format!("building and pushing {}", coin.name));
        coins::build_and_push(first, &coin)?;
    }
    clock.says("starting the five services on an overlay network");
    docker(first)
        .args(["network", "create", "--driver", "overlay", "dockercoins"])
        .quiet()?;
    for coin in coins::ALL {
        create(
            first,
            &[
                "--name",
                coin.name,
                "--network",
                "dockercoins",
                &coin.reference(),
            ],
        )?;
    }
    let names = coins::ALL.map(|coin| coin.name);
    converge(first, &names)?;

    clock.says(&format!(
        "docker service update webui --publish-add {PAGE_PORT}:80"
    ));
    docker(first)
        .args([
            "service",
            "update",
            "--quiet",
            "--publish-add",
            &format!("{PAGE_PORT}:80"),
            "webui",
        ])
        .quiet()?;
    clock.says(&format!(
        "asking port {PAGE_PORT} on every host from the client"
    ));
    let rows = table::ask_every_host(first, &hosts, PAGE_PORT)?;
    table::print(&rows);
    table::judge(&rows)?;

    let before = hash_rate(first)?;
    clock.says(&format!(
        "one worker: {before:.1} hashes a second; scaling to 10"
    ));
    docker(first)
        .args(["service", "scale", "--detach", "worker=10"])
        .quiet()?;
    converge(first, &["worker"])?;
    let after = hash_rate(first)?;
    clock.says(&format!("ten workers: {after:.1} hashes a second"));
    println!("{}", docker(first).args(["service", "ls"]).read()?);
    if after <= before {
        bail!("ten workers hash no faster than one: {before:.1} a second before, {after:.1} after");
    }
    Ok(())
}

fn create(host: Host, words: &[&str]) -> Result<()> {
    docker(host)
        .args(["service", "create", "--detach"])
        .args(words)
        .quiet()
}

/// Waits until each service runs as many tasks as it should; the error shows what its tasks say.
fn converge(host: Host, services: &[&str]) -> Result<()> {
    let waited = wait::until(
        Duration::from_secs(90),
        &format!("{} to converge", services.join(", ")),
        || {
            let Ok(list) = docker(host)
                .args(["service", "ls", "--format", "{{.Name}} {{.Replicas}}"])
                .read()
            else {
                return false;
            };
            services.iter().all(|service| {
                list.lines().any(|line| {
                    let mut words = line.split_whitespace();
                    let counts = (words.next() == Some(service))
                        .then(|| words.next())
                        .flatten();
                    counts
                        .and_then(|counts| counts.split_once('/'))
                        .is_some_and(|(now, wished)| now == wished)
                })
            })
        },
    );
    waited.with_context(|| {
        let tasks = docker(host)
            .args(["service", "ps", "--no-trunc"])
            .args(services)
            .read();
        tasks.unwrap_or_else(|error| format!("and `service ps` failed: {error:#}"))
    })
}

/// Hashes a second, over a few seconds, as the page counts them.
fn hash_rate(first: Host) -> Result<f64> {
    let read = || -> Result<(f64, f64)> {
        let body = table::ask(&format!("http://{}:{PAGE_PORT}/json", first.station().v4()))?;
        let facts: Value =
            serde_json::from_str(&body).with_context(|| format!("webui answered `{body}`"))?;
        let number = |field: &str| {
            facts[field]
                .as_f64()
                .with_context(|| format!("webui's answer lacks {field}: {body}"))
        };
        Ok((number("hashes")?, number("now_millis")?))
    };
    let (hashes, begun) = read()?;
    // A rate needs a stretch of time; this is the measure itself, no waiting for luck.
    std::thread::sleep(Duration::from_secs(6));
    let (later, ended) = read()?;
    Ok((later - hashes) * 1000.0 / (ended - begun).max(1.0))
}

fn print_next_lines() {
    println!(
        "\nThe swarm is up. Lines to try next:\n\
         \x20 cargo xtask testbed shell n1                      a shell on host 1; docker talks to its front door\n\
         \x20   docker node ls; docker service ls; docker service ps webui\n\
         \x20   docker service scale worker=3\n\
         \x20   docker service logs --tail 5 webui              the addresses of the clients that asked\n\
         \x20 cargo xtask testbed shell client curl http://192.0.2.12:{PAGE_PORT}/json\n\
         \x20 cargo xtask testbed cut n2                        pull a cable, then: docker service ps worker\n\
         \x20 cargo xtask testbed down                          take everything away"
    );
}
