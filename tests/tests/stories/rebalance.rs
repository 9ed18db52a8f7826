//! Spreading services out again: only when told to, no more than told, and without a request lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Host, LISTENS, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many tasks of `web` each of three hosts is meant to run.
fn spread(n1: Host) -> Result<[usize; 3]> {
    let tasks = n1.tasks("web")?;
    let on = |node: &str| tasks.iter().filter(|(_, place)| place == node).count();
    Ok([on("n1"), on("n2"), on("n3")])
}

#[test]
fn services_are_spread_out_again_only_when_told_to() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.say("node update --availability drain n3")?;
        let line = format!("--replicas 6 --publish 8080:80 {LISTENS} weft/whoami");
        n1.create("web", &line)?;
        n1.say("node update --availability active n3")?;
        let plan = n1.weft(&["rebalance", "--plan"])?.ok()?;
        ensure!(
            plan.lines()
                .filter(|line| line.trim_end().ends_with(" n3"))
                .count()
                == 2
                && plan.ends_with("nothing was moved: --apply does it"),
            "the plan: {plan}"
        );
        let less = n1.weft(&["rebalance", "--budget", "1"])?.ok()?;
        ensure!(
            less.contains(" n3") && less.lines().count() == 3,
            "of one move: {less}"
        );
        ensure!(
            spread(n1)? == [3, 3, 0],
            "moved by a plan: {:?}",
            spread(n1)?
        );
        client::no_request_fails(n1, 8080, 6, || {
            let said = n1.weft(&["rebalance", "--apply"])?.ok()?;
            ensure!(
                said.contains("each task stops when its replacement runs"),
                "{said}"
            );
            eventually(PATIENCE, "two tasks on each host", || {
                ensure!(spread(n1)? == [2, 2, 2], "{:?}", spread(n1)?);
                Ok(())
            })?;
            n1.converged("web")
        })?;
        let plan = n1.weft(&["rebalance"])?.ok()?;
        ensure!(
            plan.starts_with("nothing would move"),
            "a second plan: {plan}"
        );
        let worker = n2.weft(&["rebalance"])?;
        ensure!(
            worker
                .to_string()
                .contains("only a manager can say what would move"),
            "on a worker: {worker}"
        );
        Ok(())
    });
}
