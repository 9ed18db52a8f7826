//! Figures of the product, measured again by anybody and written down under `docs/bench`.

mod hosts;

use std::fs;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::run::run;
use crate::testbed::{self, up};
use crate::{build, place, rights, setup};

/// What is measured.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Part {
    /// Managers: commits, fail-over, scaling, memory; real containers on three hosts
    Control,
    /// Packets and names: ours beside plain veth, forwarding, bridge + VXLAN, nftables, HAProxy, Docker, wireguard-go
    Dataplane,
    /// The front door: lists at 1,000 services, 200 clients at once, memory
    Door,
}

/// A half of what is measured of managers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Half {
    /// Managers in one process, nodes scripted (needs no root)
    Scripted,
    /// Real containers on three hosts of the testbed
    Hosts,
}

/// Measures and writes the record; one half alone is only shown.
///
/// # Errors
/// When something cannot be built or measured, or the record not be written.
pub(crate) fn bench(part: Part, only: Option<Half>) -> Result<()> {
    match part {
        Part::Control => control(only),
        Part::Dataplane => dataplane(),
        Part::Door => door(),
    }
}

fn dataplane() -> Result<()> {
    rights::require_root("bench dataplane", rights::HOSTS)?;
    setup::setup_with_peers()?;
    // Table and chart are written by the example itself.
    run("cargo run --quiet --release -p weft-dataplane --example bench_dataplane")
        .dir(place::root())
        .show()
}

fn door() -> Result<()> {
    let mut record = String::from(
        "# The front door in figures\n\nWritten by `cargo xtask bench door`; odd requests and big bodies are in \
         [a page of their own](odd-requests.md), why memory is bounded in \
         [decision 0018](../decisions/0018-allocator.md).\n\n",
    );
    record.push_str(&machine()?);
    let table = run("cargo run --quiet --release -p weft-docker --example bench_door")
        .dir(place::root())
        .read()?;
    record.push_str("Manager and door in one process, built for release, on a real disk with real syncs and before a pretended container engine; the clients in another process on the same machine, over the unix socket.\n\n");
    record.push_str(table.trim());
    record.push('\n');
    write("door.md", &record)?;
    ensure!(
        !table.contains("**grows**"),
        "memory of manager and door grows under load: see the last row of docs/bench/door.md"
    );
    Ok(())
}

/// Writes a record under `docs/bench`, and shows it.
fn write(name: &str, record: &str) -> Result<()> {
    let folder = place::root().join("docs/bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, record).with_context(|| format!("cannot write {}", path.display()))?;
    print!("{record}");
    println!("written to {}", path.display());
    Ok(())
}

fn control(only: Option<Half>) -> Result<()> {
    let mut record = String::from(
        "# The control plane in figures\n\nWritten by `cargo xtask bench control`. A figure is the \
         median of five runs, with the least and the most in brackets.\n\n",
    );
    record.push_str(&machine()?);
    if only != Some(Half::Hosts) {
        let table = run("cargo run --quiet --release -p weft-control --example bench_control")
            .dir(place::root())
            .read()?;
        record.push_str("## Scripted nodes\n\nEverything in one process on loopback, built for release, on a real disk with real syncs; memory in a process of its own.\n\n");
        record.push_str(table.trim());
        record.push('\n');
    }
    if only != Some(Half::Scripted) {
        rights::require_root("bench control", rights::HOSTS)?;
        setup::setup()?;
        build::static_programs()?;
        if std::env::var_os("WEFT_AGENT").is_none() {
            build::deployable()?;
            place::run_agent(place::target().join("release/weft"));
        }
        let agent = place::agent();
        let agent = agent
            .strip_prefix(place::root())
            .unwrap_or(&agent)
            .display()
            .to_string();
        up::up(3, up::Depth::Agents)?;
        let measured = hosts::measure();
        testbed::act(testbed::Verb::Down)?;
        record.push_str(&format!("\n## Real containers\n\nThree hosts of the testbed, each a manager with its own container engine; the agents are `{agent}`. A figure is the median of three runs here.\n\n"));
        record.push_str(&measured?);
    }
    if only.is_some() {
        print!("{record}");
        return Ok(());
    }
    write("control.md", &record)
}

/// What was measured on, and what else it had to do.
fn machine() -> Result<String> {
    let line = |path: &str, name: &str| -> Result<String> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let found = text.lines().find(|line| line.starts_with(name));
        let value = found.and_then(|line| line.split_once(':'));
        Ok(value.map_or_else(String::new, |(_, value)| value.trim().to_owned()))
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let busy = load.parse::<f64>().is_ok_and(|load| load > 0.5);
    let shared = if busy {
        "other work ran beside it, so the figures are worse than the machine's own"
    } else {
        "nothing else ran"
    };
    Ok(format!(
        "Machine: {cores} cores of {}, {} of memory, Linux {}; {}. Load when it began: {load}; {shared}.\n\n",
        line("/proc/cpuinfo", "model name")?,
        line("/proc/meminfo", "MemTotal")?,
        run("uname -r").read()?.trim(),
        run("date -u +%Y-%m-%d").read()?.trim(),
    ))
}
