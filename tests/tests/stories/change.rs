//! Everything that an operator changes on a working day, in one run and under load: nobody who asks may notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Host, LISTENS, Shape, client, eventually, load::Load, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// Requests a second.
const RATE: u32 = 200;

#[test]
fn updates_a_scale_down_a_drain_and_a_leave_fail_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        let line = format!(
            "--replicas 6 --update-parallelism 2 --update-monitor 1s --publish 8080:80 {LISTENS} weft/whoami"
        );
        n1.create("web", &line)?;
        for host in bed.hosts() {
            client::all_serve(host, 8080, 6)?;
        }
        // One host fewer than the next story expects.
        bed.spoil();
        let load = Load::start(RATE, 8080, &bed.hosts())?;
        let changed = change(&load, n1, n2, n3);
        let told = load.end()?;
        told.none_failed()
            .with_context(|| format!("the changes: {changed:?}"))?;
        changed?;
        ensure!(
            told.served.len() >= 18,
            "six tasks and twice their successors were due, these answered: {:?}",
            told.served
        );
        println!(
            "{} requests, {} tasks answered, the slowest answer after {:?}",
            told.asked,
            told.served.len(),
            told.slowest
        );
        Ok(())
    });
}

fn change(load: &Load, n1: Host, n2: Host, n3: Host) -> Result<()> {
    load.step("start-first update");
    n1.say("service update --detach --update-order start-first --env-add VERSION=2 web")?;
    n1.converged("web")?;
    load.step("stop-first update");
    n1.say("service update --detach --update-order stop-first --env-add VERSION=3 web")?;
    n1.converged("web")?;
    load.step("scale-down");
    n1.say("service scale --detach web=3")?;
    n1.converged("web")?;
    only_what_is_meant(n1, &[n1, n2, n3])?;
    load.step("drain");
    n1.say("node update --availability drain n2")?;
    eventually(PATIENCE, "n2 to be empty", || {
        let left = n2.containers("web")?;
        ensure!(left.is_empty(), "{} containers run there", left.len());
        Ok(())
    })?;
    n1.converged("web")?;
    n1.say("node update --availability active n2")?;
    load.step("leave");
    load.spare(n3)?;
    let there = n1
        .tasks("web")?
        .iter()
        .filter(|(_, node)| node == "n3")
        .count();
    ensure!(
        there > 0,
        "nothing runs on n3, its leave would show nothing"
    );
    n3.say("swarm leave")?;
    n1.sees(n3, "Down")?;
    n1.converged("web")?;
    load.step("end");
    every_kernel_agrees(n1, &["n1", "n2"])
}

/// Waits until no host runs a container that nobody wants.
fn only_what_is_meant(n1: Host, hosts: &[Host]) -> Result<()> {
    eventually(PATIENCE, "containers that are not meant to end", || {
        let meant = n1.tasks("web")?.len();
        let mut runs = 0;
        for host in hosts {
            runs += host.containers("web")?.len();
        }
        ensure!(runs == meant, "{runs} containers for {meant} tasks");
        Ok(())
    })
}

/// Waits until each of these nodes shows that its kernel holds the latest revision of the network.
fn every_kernel_agrees(n1: Host, nodes: &[&str]) -> Result<()> {
    for node in nodes {
        eventually(
            PATIENCE,
            &format!("{node} to hold the latest revision"),
            || {
                let shown = n1.say(&format!(
                    "node inspect --format {{{{.Status.Message}}}} {node}"
                ))?;
                let words = shown
                    .strip_prefix("network revision ")
                    .and_then(|rest| rest.split_once(" of "))
                    .with_context(|| format!("its message is `{shown}`"))?;
                ensure!(words.0 == words.1, "it holds {} of {}", words.0, words.1);
                Ok(())
            },
        )?;
    }
    Ok(())
}
