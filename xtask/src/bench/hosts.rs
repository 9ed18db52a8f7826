//! The control plane with real containers, on three hosts of the testbed: starting, scaling, and
//! what a death costs.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::testbed::plan::{CLIENT, Host, namespace_file};
use crate::testbed::swarm::{self, docker};
use crate::testbed::{self, up};

/// Runs of each measurement; the median is told.
const RUNS: usize = 3;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Port of the service that the client asks while a host is cut off.
const PORT: u16 = 8000;

/// Clients that ask at the same time, how long each waits for an answer, and how long between two
/// questions.
const ASKERS: usize = 8;
const ANSWER: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(20);

/// How long after a cut the client goes on asking.
const ASKED: Duration = Duration::from_secs(6);

/// A task of the measured service: a program that ends when it is told to.
const PROGRAM: [&str; 4] = [
    "busybox:latest",
    "sh",
    "-c",
    "trap 'exit 0' TERM; sleep 1000000 & wait",
];

/// Measures everything; answers a table.
///
/// # Errors
/// When something does not come about in time.
pub(super) fn measure() -> Result<String> {
    swarm::form(3)?;
    let mut table = String::from("| What | Figure | Method |\n| --- | --- | --- |\n");
    scaling(&mut table)?;
    leader(&mut table)?;
    host(&mut table)?;
    leaders_host(&mut table)?;
    table.push_str(
        "\nDocker Swarm 20.10, three engines in namespaces of a machine like this: 3 replicas after \
         3.0 s, 3 → 60 in 14.6 s, 60 → 3 in 9.0 s, a dead leader replaced after 12.5 s, a cut-off \
         host seen after 15.4 s and its replicas restored after 20.8 s.\n",
    );
    Ok(table)
}

fn say(host: Host, words: &[&str]) -> Result<String> {
    docker(host).args(words).read()
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let answer = done();
        if let Ok(true) = answer {
            return Ok(begun.elapsed().as_secs_f64());
        }
        if begun.elapsed() > PATIENCE {
            let why = answer
                .err()
                .map_or_else(String::new, |why| format!(": {why:#}"));
            bail!("waited {} s in vain for {what}{why}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn row(table: &mut String, what: &str, mut runs: Vec<f64>, method: &str) -> Result<()> {
    runs.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (runs.first(), runs.last()) else {
        bail!("{what} was not measured");
    };
    let middle = runs[runs.len() / 2];
    println!("{what}: {middle:.1} s ({least:.1} to {most:.1})");
    writeln!(
        table,
        "| {what} | **{middle:.1} s** ({least:.1} to {most:.1}) | {method} |"
    )?;
    Ok(())
}

/// Tasks of a service that run by word of their nodes: on which node, and whether they should.
fn running(host: Host, service: &str) -> Result<Vec<(String, bool)>> {
    let format = "{{.Node}}={{.DesiredState}}={{.CurrentState}}";
    let list = say(host, &["service", "ps", service, "--format", format])?;
    let alive = list.lines().filter_map(|line| {
        let mut words = line.splitn(3, '=');
        let (node, wished, seen) = (words.next()?, words.next()?, words.next()?);
        seen.starts_with("Running")
            .then(|| (node.to_owned(), wished == "Running"))
    });
    Ok(alive.collect())
}

/// Whether so many tasks run, and none that should not.
fn just(host: Host, wanted: usize) -> Result<bool> {
    let running = running(host, "bench")?;
    Ok(running.len() == wanted && running.iter().all(|(_, wished)| *wished))
}

fn create(host: Host) -> Result<()> {
    let words = "service create --detach --no-resolve-image --name bench --replicas 3";
    docker(host).args(words.split(' ')).args(PROGRAM).quiet()
}

fn remove(host: Host) -> Result<()> {
    say(host, &["service", "rm", "bench"])?;
    until("the service to be gone", || {
        Ok(say(
            host,
            &["service", "ls", "--quiet", "--filter", "name=bench"],
        )?
        .trim()
        .is_empty())
    })?;
    Ok(())
}

/// Whether every node's kernel holds the newest revision.
fn all_hold(host: Host) -> Result<bool> {
    let format = "{{.Status.Message}}";
    let nodes = say(
        host,
        &["node", "inspect", "n1", "n2", "n3", "--format", format],
    )?;
    let held = nodes.lines().filter(|line| {
        // "network revision 42 of 42"
        let mut numbers = line.split(' ').filter_map(|word| word.parse::<u64>().ok());
        let applied = numbers.next();
        applied.is_some() && applied == numbers.next()
    });
    Ok(held.count() == 3)
}

fn scaling(table: &mut String) -> Result<()> {
    let first = up::hosts()?[0];
    let (mut start, mut held, mut up, mut down) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        let begun = Instant::now();
        create(first)?;
        until("3 running tasks", || just(first, 3))?;
        start.push(begun.elapsed().as_secs_f64());
        until("every kernel to hold it", || all_hold(first))?;
        held.push(begun.elapsed().as_secs_f64());
        for (wanted, runs) in [(60, &mut up), (3, &mut down)] {
            let begun = Instant::now();
            say(
                first,
                &["service", "scale", "--detach", &format!("bench={wanted}")],
            )?;
            until("the wished tasks alone", || just(first, wanted))?;
            runs.push(begun.elapsed().as_secs_f64());
        }
        remove(first)?;
    }
    let method = "a shell of busybox that ends at its stop signal, image present; by `docker \
                  service ps`, looked at again and again";
    row(table, "3 replicas running after create", start, method)?;
    row(
        table,
        "… and every kernel holds them",
        held,
        "until each node's message names the newest revision",
    )?;
    row(table, "3 → 60 replicas", up, method)?;
    row(table, "60 → 3 replicas", down, method)
}

/// The host that leads and another one.
fn leader_and_other() -> Result<(Host, Host)> {
    let hosts = up::hosts()?;
    let format = "{{.Hostname}}={{.ManagerStatus}}";
    let list = say(hosts[0], &["node", "ls", "--format", format])?;
    let leader = list.lines().find_map(|line| line.strip_suffix("=Leader"));
    let leader = Host::parse(leader.context("nobody leads")?)?;
    let other = hosts.into_iter().find(|host| *host != leader);
    Ok((leader, other.context("there is no other manager")?))
}

fn all_are_back(host: Host) -> Result<()> {
    until("every node to be ready and every manager reachable", || {
        let format = "{{.Status}} {{.ManagerStatus}}";
        let list = say(host, &["node", "ls", "--format", format])?;
        let well = |line: &&str| *line == "Ready Reachable" || *line == "Ready Leader";
        Ok(list.lines().filter(well).count() == 3)
    })?;
    Ok(())
}

/// From the end of the leader's process to the next write that is acknowledged elsewhere.
fn leader(table: &mut String) -> Result<()> {
    let mut runs = Vec::new();
    for run in 0..RUNS {
        let (leader, other) = leader_and_other()?;
        let host = leader.name();
        let begun = Instant::now();
        testbed::act(testbed::Verb::Kill { host: host.clone() })?;
        let mut number = 0;
        until("a write to be acknowledged", || {
            number += 1;
            let create = format!("config create bench-{run}-{number} -");
            let made = docker(other).args(create.split(' ')).input("text").read();
            made.map(|_| true)
        })?;
        runs.push(begun.elapsed().as_secs_f64());
        testbed::act(testbed::Verb::Start { host })?;
        all_are_back(other)?;
    }
    row(
        table,
        "leader's death → next acknowledged write",
        runs,
        "the leader's agent killed (-9); `docker config create` on another manager until one is \
         acknowledged",
    )
}

/// A host that is taken off the switch: out of every ring, seen down, its tasks replaced.
fn host(table: &mut String) -> Result<()> {
    let (leader, _) = leader_and_other()?;
    let hosts = up::hosts()?;
    let lost = hosts.iter().copied().rfind(|host| *host != leader);
    let lost = lost.context("there is no follower")?;
    let rest: Vec<Host> = hosts.into_iter().filter(|host| *host != lost).collect();
    let create_asked = format!(
        "service create --detach --no-resolve-image --name asked --mode global --publish {PORT}:80 weft/whoami"
    );
    docker(leader).args(create_asked.split(' ')).quiet()?;
    let (mut out, mut seen, mut replaced) = (vec![], vec![], vec![]);
    for _ in 0..RUNS {
        create(leader)?;
        until("3 running tasks", || just(leader, 3))?;
        until("the asked service everywhere", || {
            Ok(running(leader, "asked")?.len() == 3 && all_hold(leader)?)
        })?;
        let name = lost.name();
        let addresses: Vec<IpAddr> = rest
            .iter()
            .map(|host| host.station().v4().parse())
            .collect::<Result<_, _>>()?;
        let cut = Instant::now();
        testbed::act(testbed::Verb::Cut { host: name.clone() })?;
        let (asked, looked) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| last_failure(&addresses, cut));
            let looked = scope.spawn(|| look(leader, &name, cut));
            (asked.join(), looked.join())
        });
        out.push(asked.map_err(|_| anyhow!("the client panicked"))??);
        let (down, whole) = looked.map_err(|_| anyhow!("the looker panicked"))??;
        seen.push(down);
        replaced.push(whole);
        testbed::act(testbed::Verb::Heal { host: name })?;
        all_are_back(leader)?;
        remove(leader)?;
    }
    row(
        table,
        "host cut off → out of every ring",
        out,
        "a service with a task on each host; a client outside opens 300 connections a second to its \
         port on the two other hosts; the last one that was not answered in 0.25 s",
    )?;
    row(
        table,
        "host cut off → seen down",
        seen,
        "`docker node ls` on the leader, default settings",
    )?;
    row(
        table,
        "host cut off → its tasks replaced",
        replaced,
        "until 3 of 3 replicas run on the other hosts, by `docker service ps`, default settings",
    )
}

/// The leader's host is taken off the switch: another manager must lead before its tasks are replaced.
fn leaders_host(table: &mut String) -> Result<()> {
    let mut replaced = Vec::new();
    for _ in 0..RUNS {
        let (leader, other) = leader_and_other()?;
        create(other)?;
        until("3 running tasks, held by every kernel", || {
            Ok(just(other, 3)? && all_hold(other)?)
        })?;
        let host = leader.name();
        let cut = Instant::now();
        testbed::act(testbed::Verb::Cut { host: host.clone() })?;
        let (_down, whole) = look(other, &host, cut)?;
        replaced.push(whole);
        testbed::act(testbed::Verb::Heal { host })?;
        all_are_back(other)?;
        remove(other)?;
    }
    row(
        table,
        "leader's host cut off → its tasks replaced",
        replaced,
        "as above, looked at from another manager, which answers again when there is a next leader",
    )
}

/// When the managers saw the host down, and when its tasks ran elsewhere; seconds since the cut.
fn look(leader: Host, lost: &str, cut: Instant) -> Result<(f64, f64)> {
    let format = "{{.Hostname}}={{.Status}}";
    until("the host to be seen down", || {
        let list = say(leader, &["node", "ls", "--format", format])?;
        Ok(list.lines().any(|line| line == format!("{lost}=Down")))
    })?;
    let down = cut.elapsed().as_secs_f64();
    until("its tasks to be replaced", || {
        let running = running(leader, "bench")?;
        let elsewhere = running
            .iter()
            .filter(|(node, wished)| *wished && node != lost);
        Ok(elsewhere.count() == 3)
    })?;
    Ok((down, cut.elapsed().as_secs_f64()))
}

/// When the last connection was begun that was not answered; seconds since the cut.
fn last_failure(addresses: &[IpAddr], cut: Instant) -> Result<f64> {
    let last = Mutex::new(0.0_f64);
    let ask = |number: usize| -> Result<usize> {
        let client = namespace_file(CLIENT);
        let client =
            File::open(&client).with_context(|| format!("cannot open {}", client.display()))?;
        setns(client, CloneFlags::CLONE_NEWNET).context("cannot enter the client's namespace")?;
        let mut answered = 0;
        for turn in number.. {
            if cut.elapsed() > ASKED {
                break;
            }
            let begun = cut.elapsed().as_secs_f64();
            let address = SocketAddr::new(addresses[turn % addresses.len()], PORT);
            match TcpStream::connect_timeout(&address, ANSWER) {
                Ok(_) => answered += 1,
                Err(_) => {
                    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                    *last = last.max(begun);
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(answered)
    };
    let answered = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|number| {
                let ask = &ask;
                scope.spawn(move || ask(number))
            })
            .collect();
        let ended = askers.into_iter().map(|asker| {
            let ended = asker.join();
            ended.map_err(|_| anyhow!("an asker panicked"))?
        });
        ended.sum::<Result<usize>>()
    })?;
    if answered == 0 {
        bail!("port {PORT} was never answered: this measures nothing");
    }
    Ok(last.into_inner().unwrap_or_else(PoisonError::into_inner))
}
