//! Many clients at one front door: nothing lost, nothing refused that should not be, no memory that grows.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests::golden::names::ask;
use weft_tests::{Host, Shape, eventually, story};

/// Clients at once.
const CLIENTS: usize = 200;

/// Services that clients change, fewer than clients so that they meet.
const SHARED: usize = 40;

fn seconds() -> u64 {
    let wished = std::env::var("WEFT_CROWD_SECONDS").ok();
    wished.and_then(|text| text.parse().ok()).unwrap_or(8)
}

fn get(host: Host, path: &str) -> Result<Value> {
    let (status, body) = ask(host, "GET", path, "")?;
    ensure!(status == 200, "GET {path}: {status} {body}");
    serde_json::from_str(&body).with_context(|| format!("GET {path} answers no JSON"))
}

fn service(name: &str) -> Value {
    json!({"Name": name, "Labels": {"count": "0"},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}},
        "Mode": {"Replicated": {"Replicas": 0}}})
}

/// Resident memory of the agent behind the front door, in KiB.
fn memory(host: Host) -> Result<u64> {
    let wish = host.front_door().to_string_lossy().into_owned();
    for entry in fs::read_dir("/proc")?.flatten() {
        let home = entry.path();
        let Ok(line) = fs::read(home.join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let agent = line
            .split(' ')
            .next()
            .is_some_and(|program| program.ends_with("/weft"));
        if agent && line.contains(&wish) {
            let status = fs::read_to_string(home.join("status"))?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let resident = resident.and_then(|text| text.split_whitespace().next());
            return resident.context("no VmRSS")?.parse().context("VmRSS");
        }
    }
    anyhow::bail!("no agent serves {wish}")
}

/// One client's round: reads, and one change by the version it read. `Ok(true)`: applied.
fn round(host: Host, number: u64) -> Result<bool> {
    let name = format!("crowd-{}", number as usize % SHARED);
    for path in [
        format!("/v1.41/services/{name}"),
        "/v1.41/nodes".to_owned(),
        format!("/v1.41/services?filters=%7B%22name%22%3A%5B%22{name}%22%5D%7D"),
        "/v1.41/tasks?filters=%7B%22service%22%3A%5B%22crowd-0%22%5D%7D".to_owned(),
        "/v1.41/networks/ingress".to_owned(),
    ] {
        get(host, &path)?;
    }
    let read = get(host, &format!("/v1.41/services/{name}"))?;
    let mut spec = read["Spec"].clone();
    let count: u64 = spec["Labels"]["count"]
        .as_str()
        .context("no count")?
        .parse()?;
    spec["Labels"]["count"] = (count + 1).to_string().into();
    let path = format!(
        "/v1.41/services/{name}/update?version={}",
        read["Version"]["Index"]
    );
    let (status, body) = ask(host, "POST", &path, &spec.to_string())?;
    // The one refusal that is due, as Docker words it: somebody was faster.
    let stale = status == 500 && body.contains("update out of sequence");
    ensure!(status == 200 || stale, "{path}: {status} {body}");
    Ok(status == 200)
}

#[test]
fn two_hundred_clients_lose_no_update() {
    story(Shape::Swarm(3, 1), |bed| {
        let host = bed.hosts()[0];
        for number in 0..SHARED {
            let spec = service(&format!("crowd-{number}")).to_string();
            let (status, body) = ask(host, "POST", "/v1.41/services/create", &spec)?;
            ensure!(status == 201, "create: {status} {body}");
        }
        let end = Instant::now() + Duration::from_secs(seconds());
        let (applied, stale) = (AtomicU64::new(0), AtomicU64::new(0));
        let faults = Mutex::new(Vec::new());
        let half = Mutex::new(None);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (applied, stale, faults) = (&applied, &stale, &faults);
                scope.spawn(move || {
                    let mut number = client as u64;
                    while Instant::now() < end {
                        match round(host, number) {
                            Ok(true) => applied.fetch_add(1, Ordering::Relaxed),
                            Ok(false) => stale.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                if let Ok(mut faults) = faults.lock() {
                                    faults.push(format!("{error:#}"));
                                }
                                return;
                            }
                        };
                        number += 7;
                    }
                });
            }
            scope.spawn(|| {
                // Half of the way is enough for whatever is made once.
                while Instant::now() + Duration::from_secs(seconds() / 2) < end {
                    std::thread::sleep(Duration::from_millis(100));
                }
                if let Ok(mut half) = half.lock() {
                    *half = memory(host).ok();
                }
            });
        });
        let faults = faults.into_inner().unwrap_or_default();
        ensure!(
            faults.is_empty(),
            "{} clients gave up: {}",
            faults.len(),
            faults[0]
        );
        let (applied, stale) = (applied.into_inner(), stale.into_inner());
        let mut counted = 0;
        for number in 0..SHARED {
            let shown = get(host, &format!("/v1.41/services/crowd-{number}"))?;
            counted += shown["Spec"]["Labels"]["count"]
                .as_str()
                .context("no count")?
                .parse::<u64>()?;
        }
        ensure!(
            counted == applied,
            "{applied} updates were accepted, {counted} are there"
        );
        ensure!(
            applied > 0 && stale > 0,
            "{applied} applied, {stale} stale: no crowd"
        );
        let half = half
            .into_inner()
            .ok()
            .flatten()
            .context("no memory at half time")?;
        let now = memory(host)?;
        println!(
            "{CLIENTS} clients, {} s: {applied} updates, {stale} stale, memory {half} KiB at half time, {now} KiB at the end",
            seconds()
        );
        ensure!(
            now < half + (48 << 10),
            "memory grew from {half} to {now} KiB in the second half"
        );
        Ok(())
    });
}

/// States the 99th percentile of listing a thousand services; `WEFT_CROWD_SECONDS` given means that somebody wants to know.
#[test]
fn a_thousand_services_are_listed() {
    story(Shape::Swarm(3, 1), |bed| {
        let host = bed.hosts()[0];
        let count = if std::env::var_os("WEFT_CROWD_SECONDS").is_some() {
            1000
        } else {
            100
        };
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        loop {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            if number >= count {
                                return Ok(());
                            }
                            let spec = service(&format!("many-{number}")).to_string();
                            let (status, body) =
                                ask(host, "POST", "/v1.41/services/create", &spec)?;
                            ensure!(status == 201, "create: {status} {body}");
                        }
                    })
                })
                .collect();
            makers.into_iter().try_for_each(|maker| {
                maker
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("a client died"))
            })
        })?;
        let mut times = Vec::new();
        for _ in 0..200 {
            let begun = Instant::now();
            let list = get(host, "/v1.41/services")?;
            times.push(begun.elapsed());
            ensure!(
                list.as_array().map(Vec::len) == Some(count as usize),
                "not all are listed"
            );
        }
        times.sort_unstable();
        println!(
            "GET /services at {count} services: median {:?}, p99 {:?}",
            times[99], times[197]
        );
        let names: Vec<String> = (0..count).map(|number| format!("many-{number}")).collect();
        for names in names.chunks(100) {
            host.docker(&format!("service rm {}", names.join(" ")))?
                .ok()?;
        }
        eventually(Duration::from_secs(30), "all services to be gone", || {
            let left = get(host, "/v1.41/services")?;
            ensure!(left.as_array().is_some_and(Vec::is_empty), "some are left");
            Ok(())
        })
    });
}
