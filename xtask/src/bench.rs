//! Figures of the product, measured again by anybody and written down under `docs/bench`.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::run::run;
use crate::testbed::plan::Host;
use crate::testbed::swarm::{self, docker};
use crate::testbed::{self, up};
use crate::{build, place, rights};

/// What is measured.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Part {
    /// Managers: commits, fail-over, scaling, memory; real containers on three hosts
    Control,
    /// Packets: ours beside plain veth, forwarding, bridge + VXLAN, nftables, HAProxy, wireguard-go
    Dataplane,
}

/// Runs of each measurement on the testbed; the median is told.
const RUNS: usize = 5;

/// How long anything may take on the testbed.
const PATIENCE: Duration = Duration::from_secs(180);

/// Measures and writes the record.
///
/// # Errors
/// When something cannot be built or measured, or the record not be written.
pub(crate) fn bench(part: Part, scripted_only: bool) -> Result<()> {
    match part {
        Part::Control => control(scripted_only),
        Part::Dataplane => dataplane(),
    }
}

fn dataplane() -> Result<()> {
    rights::require_root("bench dataplane", rights::HOSTS)?;
    // Table and chart are written by the example itself.
    run("cargo run --quiet --release -p weft-dataplane --example bench_dataplane")
        .dir(place::root())
        .show()
}

fn control(scripted_only: bool) -> Result<()> {
    let mut record = String::from(
        "# The control plane in figures\n\nWritten by `cargo xtask bench control`. A figure is the \
         median of five runs, with the least and the most in brackets.\n\n",
    );
    record.push_str(&machine()?);
    let table = run("cargo run --quiet --release -p weft-control --example bench_control")
        .dir(place::root())
        .read()?;
    record.push_str("## Scripted nodes\n\nEverything in one process on loopback, built for release, on a real disk with real syncs.\n\n");
    record.push_str(table.trim());
    record.push('\n');
    if !scripted_only {
        rights::require_root("bench control", rights::HOSTS)?;
        build::all()?;
        up::up(3, up::Depth::Agents)?;
        let measured = real();
        testbed::act(testbed::Verb::Down)?;
        record.push_str("\n## Real containers\n\nThree hosts of the testbed, each a manager with its own container engine; the agents built for development.\n\n");
        record.push_str(&measured?);
    }
    let folder = place::root().join("docs/bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("control.md");
    fs::write(&path, &record).with_context(|| format!("cannot write {}", path.display()))?;
    print!("{record}");
    println!("written to {}", path.display());
    Ok(())
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

fn say(host: Host, line: &str) -> Result<String> {
    docker(host).args(line.split(' ')).read()
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<f64> {
    let begun = Instant::now();
    while !done().unwrap_or(false) {
        if begun.elapsed() > PATIENCE {
            bail!("waited {} s for {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// How many tasks of the service run by word of their nodes; all of them, and those that should.
fn running(host: Host) -> Result<(usize, usize)> {
    let list = say(
        host,
        "service ps bench --format {{.CurrentState}}/{{.DesiredState}}",
    )?;
    let alive = list.lines().filter(|line| line.starts_with("Running"));
    let wished = alive.clone().filter(|line| line.ends_with("/Running"));
    Ok((alive.count(), wished.count()))
}

fn row(table: &mut String, what: &str, mut runs: Vec<f64>, method: &str) -> Result<()> {
    runs.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (runs.first(), runs.last()) else {
        bail!("{what} was not measured");
    };
    let middle = runs[runs.len() / 2];
    writeln!(
        table,
        "| {what} | **{middle:.1} s** ({least:.1} to {most:.1}) | {method} |"
    )?;
    Ok(())
}

/// Starting, scaling, every kernel's knowledge of it, and the leader's death.
fn real() -> Result<String> {
    swarm::form(3)?;
    let first = up::hosts()?[0];
    let mut table = String::from("| What | Figure | Method |\n| --- | --- | --- |\n");
    let (mut start, mut held, mut up, mut down) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        let begun = Instant::now();
        say(
            first,
            "service create --detach --name bench --replicas 3 busybox:latest sleep 1000000",
        )?;
        until("3 running tasks", || Ok(running(first)? == (3, 3)))?;
        start.push(begun.elapsed().as_secs_f64());
        until("every kernel to hold it", || {
            let nodes = say(first, "node inspect n1 n2 n3 --format {{.Status.Message}}")?;
            let held = nodes.lines().filter(|line| {
                // "network revision 42 of 42"
                let mut numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
                let applied = numbers.next();
                applied.is_some() && applied == numbers.next()
            });
            Ok(held.count() == 3)
        })?;
        held.push(begun.elapsed().as_secs_f64());
        for (wanted, runs) in [(60, &mut up), (3, &mut down)] {
            let begun = Instant::now();
            say(first, &format!("service scale --detach bench={wanted}"))?;
            until("the wished tasks alone", || {
                Ok(running(first)? == (wanted, wanted))
            })?;
            runs.push(begun.elapsed().as_secs_f64());
        }
        say(first, "service rm bench")?;
        until("the service to be gone", || {
            Ok(say(first, "service ls --quiet")?.trim().is_empty())
        })?;
    }
    let method = "busybox, image present; by `docker service ps`, looked at every 50 ms";
    row(&mut table, "3 replicas running after create", start, method)?;
    row(
        &mut table,
        "… and every kernel holds them",
        held,
        "until each node's message names the newest revision",
    )?;
    row(&mut table, "3 → 60 replicas", up, method)?;
    row(&mut table, "60 → 3 replicas", down, method)?;
    row(
        &mut table,
        "leader's death → next acknowledged write",
        deaths()?,
        "the leader's agent killed (-9); `docker config create` on another manager until one is \
         acknowledged",
    )?;
    table.push_str(
        "\nDocker Swarm 20.10, three engines in namespaces of a machine like this: 3 replicas after \
         3.0 s, 3 → 60 in 14.6 s, 60 → 3 in 9.0 s, a dead leader replaced after 12.5 s.\n",
    );
    Ok(table)
}

/// From the end of the leader's process to the next write that is acknowledged elsewhere.
fn deaths() -> Result<Vec<f64>> {
    let hosts = up::hosts()?;
    let mut runs = Vec::new();
    for run in 0..RUNS {
        let list = say(
            hosts[0],
            "node ls --format {{.Hostname}}={{.ManagerStatus}}",
        )?;
        let leader = list.lines().find_map(|line| line.strip_suffix("=Leader"));
        let leader = leader.context("nobody leads")?.to_owned();
        let other = hosts.iter().find(|host| host.name() != leader);
        let other = *other.context("there is no other manager")?;
        let kill = testbed::Verb::Kill {
            host: leader.clone(),
        };
        testbed::act(kill)?;
        let mut number = 0;
        let took = until("a write to be acknowledged", || {
            number += 1;
            let create = format!("config create bench-{run}-{number} -");
            docker(other)
                .args(create.split(' '))
                .input("text")
                .read()
                .map(|_| true)
        })?;
        runs.push(took);
        testbed::act(testbed::Verb::Start { host: leader })?;
        until("the dead one to be back", || {
            let list = say(hosts[0], "node ls --format {{.ManagerStatus}}")?;
            Ok(list.lines().filter(|line| *line == "Reachable").count() == 2)
        })?;
    }
    Ok(runs)
}
