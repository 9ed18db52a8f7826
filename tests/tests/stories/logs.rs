//! Logs of services and tasks: what the options choose, and what is said when a node cannot be asked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many lines are exactly this.
fn count(text: &str, line: &str) -> usize {
    text.lines().filter(|said| *said == line).count()
}

#[test]
fn a_log_is_cut_by_time_and_number_and_told_with_its_labels() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create(
            "say",
            "--mode global --stop-signal SIGKILL busybox sh -c 'echo one; sleep 1; echo two; sleep 100000'",
        )?;
        eventually(PATIENCE, "both lines of each task", || {
            let log = n1.say("service logs --raw say")?;
            ensure!(count(&log, "one") == 3 && count(&log, "two") == 3, "{log}");
            Ok(())
        })?;
        let last = n1.say("service logs --raw --tail 1 say")?;
        ensure!(
            count(&last, "two") == 3 && last.lines().count() == 3,
            "the last line of each task: {last}"
        );
        let task = n1.say("service ps -q --filter node=n3 say")?;
        let stamped = n1.say(&format!("service logs --raw --timestamps {task}"))?;
        let since = stamped
            .lines()
            .find_map(|line| line.strip_suffix(" two"))
            .with_context(|| format!("no time before `two`: {stamped}"))?;
        let later = n1.say(&format!("service logs --raw --since {since} {task}"))?;
        ensure!(later == "two", "since {since}: {later}");
        let node = n1.say("node inspect --format {{.ID}} n3")?;
        let service = n1.say("service inspect --format {{.ID}} say")?;
        let details = n1.say(&format!("service logs --raw --details --tail 1 {task}"))?;
        let labels = format!(
            "com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} two"
        );
        ensure!(details == labels, "{details}\nwhere due is\n{labels}");
        n1.docker("service logs nosuch")?
            .refused("no such task or service: nosuch")?;
        Ok(())
    });
}

#[test]
fn a_dead_nodes_log_is_missed_with_a_warning_and_not_waited_for() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, _, n3] = bed.all()?;
        n1.create(
            "say",
            "--mode global --stop-signal SIGKILL busybox sh -c 'echo first; while :; do sleep 1; echo tick; done'",
        )?;
        eventually(PATIENCE, "each task's first line", || {
            let log = n1.say("service logs --raw say")?;
            ensure!(count(&log, "first") == 3, "{log}");
            Ok(())
        })?;
        let task = n1.say("service ps -q --filter node=n3 say")?;
        let node = n1.say("node inspect --format {{.ID}} n3")?;
        n3.verb("kill")?;
        let warning = format!(
            "warning: incomplete log stream. some logs could not be retrieved for the following reasons: node {node} is not available"
        );
        // At once, when nobody has missed the node yet, and later, when it is known to be down.
        partial(n1, &warning)?;
        n1.sees(n3, "Down")?;
        partial(n1, &warning)?;
        let lost = n1.docker_for(60, &format!("service logs --raw {task}"))?;
        ensure!(lost.status == 1, "the dead node's own task: {lost}");
        lost.refused(&warning)?;
        // Whoever follows goes on hearing those that live.
        eventually(PATIENCE, "ticks in the followed log", || {
            let followed = n1.docker_for(5, "service logs --raw --follow --tail 0 say")?;
            ensure!(
                count(&followed.out, "tick") > 3,
                "the followed log: {followed}"
            );
            Ok(())
        })?;
        n3.verb("start")?;
        eventually(PATIENCE, "all of the log to be there again", || {
            let log = n1.docker("service logs --raw say")?;
            ensure!(log.status == 0 && count(&log.out, "first") == 3, "{log}");
            Ok(())
        })
    });
}

/// The log without n3's lines, and why.
fn partial(host: Host, warning: &str) -> Result<()> {
    let log = host.docker_for(60, "service logs --raw say")?;
    ensure!(
        log.status == 1 && count(&log.out, "first") == 2,
        "of two nodes: {log}"
    );
    log.refused(warning).map(drop)
}
