//! Bringing the bed up: switch and client first, then every host at once.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use super::plan::{CLIENT, Host, Station};
use super::{down, host, image, owner, plan, wire};
use crate::run::run;
use crate::{build, setup};

/// How much of a host is started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Wiring and engine.
    Engines,
    /// Wiring, engine and agent.
    Agents,
}

/// Has everything there that a bed of this depth stands on.
pub(crate) fn prepare(depth: Depth) -> Result<()> {
    setup::setup()?;
    match depth {
        Depth::Engines => build::static_programs(),
        Depth::Agents => build::all(),
    }
}

/// Brings a bed of `count` hosts up, taking an older one away first. What it runs must have been built.
pub(crate) fn up(count: u8, depth: Depth) -> Result<()> {
    let begun = Instant::now();
    let archives = image::BASE
        .iter()
        .map(image::archive)
        .collect::<Result<Vec<_>>>()?;
    down::down().context("cannot take the older testbed away")?;
    owner::claim()?;
    wire::make_switch()?;
    let client = Station::client();
    wire::make_namespace(CLIENT)?;
    wire::plug(&client)?;
    // The outside world, for whoever on a host looks for it.
    run(&format!("ip -n {CLIENT} addr add 198.51.100.1/32 dev lo")).quiet()?;
    run(&format!(
        "ip -n {CLIENT} addr add 2001:db8:ffff::1/128 dev lo"
    ))
    .quiet()?;
    let hosts: Vec<Host> = (1..=count).map(Host).collect();
    for host in &hosts {
        host::boot(*host)?;
    }
    println!(
        "{count} hosts, the client and the switch are wired ({:.1} s)",
        begun.elapsed().as_secs_f32()
    );
    on_all(&hosts, |host| {
        host::start_engine(host)?;
        for archive in &archives {
            load(host, archive)?;
        }
        if depth == Depth::Agents {
            host::start_agent(host)?;
        }
        println!(
            "{} is up ({:.1} s)",
            host.name(),
            begun.elapsed().as_secs_f32()
        );
        Ok(())
    })?;
    println!("the testbed is up; its hosts:");
    for host in hosts {
        let door = if depth == Depth::Agents {
            host.front_door()
        } else {
            host.engine_socket()
        };
        println!(
            "  {}  {:<12} {:<18} DOCKER_HOST=unix://{}",
            host.name(),
            host.station().v4(),
            host.station().v6(),
            door.display()
        );
    }
    Ok(())
}

/// Loads an archive into the host's engine.
fn load(host: Host, archive: &std::path::Path) -> Result<()> {
    run("docker load -q -i")
        .arg(archive)
        .env(
            "DOCKER_HOST",
            format!("unix://{}", host.engine_socket().display()),
        )
        .quiet()
}

/// Does the same on every host at once; the first failure is the answer, after all have ended.
pub(crate) fn on_all(hosts: &[Host], work: impl Fn(Host) -> Result<()> + Sync) -> Result<()> {
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = hosts
            .iter()
            .map(|host| scope.spawn(|| work(*host)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a thread of the testbed panicked")))
            })
            .collect()
    });
    results.into_iter().collect()
}

/// Hosts that are up; an error that says what to do when there are none.
pub(crate) fn hosts() -> Result<Vec<Host>> {
    let hosts = plan::hosts();
    if hosts.is_empty() {
        bail!("no testbed is up; start one with `cargo xtask testbed up 3`");
    }
    Ok(hosts)
}
