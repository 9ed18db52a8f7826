//! Tasks: replaced when they end, moved when their node is drained, lost with their host.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Host, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

fn nodes_of(n1: Host, service: &str) -> Result<BTreeSet<String>> {
    Ok(n1
        .tasks(service)?
        .into_iter()
        .map(|(_, node)| node)
        .collect())
}

#[test]
fn a_task_that_ends_is_replaced() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create(
            "web",
            "--constraint node.hostname==n2 --restart-delay 1s weft/whoami",
        )?;
        let n2 = bed.hosts()[1];
        let first = n2
            .containers("web")?
            .into_iter()
            .next()
            .context("no container of web on n2")?;
        n2.say(&format!("kill {first}"))?;
        eventually(PATIENCE, "another container in its place", || {
            let now = n2.containers("web")?;
            ensure!(now.len() == 1 && now[0] != first, "containers are {now:?}");
            Ok(())
        })?;
        eventually(PATIENCE, "the killed task in the history", || {
            let states = n1.say("service ps --format {{.CurrentState}} web")?;
            ensure!(
                states.lines().any(|state| state.starts_with("Failed")),
                "{states}"
            );
            Ok(())
        })
    });
}

#[test]
fn a_task_that_ends_well_shows_its_exit_and_is_left_alone() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.say("service create --detach --name once --restart-condition none busybox true")?;
        eventually(PATIENCE, "the task to be complete", || {
            let states = n1.say("service ps --format {{.CurrentState}} once")?;
            ensure!(
                states.starts_with("Complete") && states.lines().count() == 1,
                "states are {states}"
            );
            Ok(())
        })
    });
}

#[test]
fn a_drained_nodes_tasks_move_and_do_not_come_back_by_themselves() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 6 --publish 8080:80 weft/whoami")?;
        ensure!(
            nodes_of(n1, "web")?.len() == 3,
            "six tasks are not spread over three nodes"
        );
        n1.say("node update --availability drain n2")?;
        eventually(PATIENCE, "n2 to be empty", || {
            ensure!(!nodes_of(n1, "web")?.contains("n2"), "n2 still has tasks");
            ensure!(
                bed.hosts()[1].containers("web")?.is_empty(),
                "n2 still has containers"
            );
            Ok(())
        })?;
        n1.converged("web")?;
        // A drained host still answers for the others.
        eventually(PATIENCE, "n2 to answer", || {
            client::ask(&bed.hosts()[1].v4(), 8080)
        })?;
        n1.say("node update --availability active n2")?;
        ensure!(
            !nodes_of(n1, "web")?.contains("n2"),
            "running tasks were moved for nothing"
        );
        Ok(())
    });
}

#[test]
fn a_host_that_vanishes_loses_its_tasks_to_the_others() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, _, n3] = bed.all()?;
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        ensure!(nodes_of(n1, "web")?.contains("n3"), "n3 runs no task");
        n3.verb("cut")?;
        n1.sees(n3, "Down")?;
        eventually(PATIENCE, "its task to be elsewhere", || {
            let nodes = nodes_of(n1, "web")?;
            ensure!(!nodes.contains("n3"), "tasks are on {nodes:?}");
            Ok(())
        })?;
        n1.converged("web")?;
        // No choice falls on the lost task any more: a fresh connection each, all of them answered.
        eventually(PATIENCE, "twenty answers in a row at n1", || {
            for number in 1..=20 {
                let answer = client::ask(&n1.v4(), 8080);
                answer.with_context(|| format!("question {number}"))?;
            }
            Ok(())
        })?;
        n3.verb("heal")?;
        n1.sees(n3, "Ready")?;
        eventually(PATIENCE, "n3 to be without a stale task", || {
            let meant = n1
                .tasks("web")?
                .into_iter()
                .filter(|(_, node)| node == "n3")
                .count();
            ensure!(
                n3.containers("web")?.len() == meant,
                "n3 runs containers that nobody wants"
            );
            Ok(())
        })
    });
}

#[test]
fn a_global_service_has_one_task_on_each_node() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("each", "--mode global weft/whoami")?;
        ensure!(
            nodes_of(n1, "each")?.len() == 3 && n1.tasks("each")?.len() == 3,
            "tasks are {:?}",
            n1.tasks("each")?
        );
        n1.docker("service scale each=2")?
            .refused("scale can only be used with replicated")?;
        Ok(())
    });
}

#[test]
fn a_task_has_the_hostname_environment_and_labels_it_was_given() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("told", "--constraint node.hostname==n1 --env GREETING=hello --hostname greeter --container-label team=blue --stop-signal SIGKILL weft/tools sleep 100000")?;
        ensure!(
            n1.exec("told", &["hostname"])?.ok()? == "greeter",
            "hostname"
        );
        ensure!(
            n1.exec("told", &["sh", "-c", "echo $GREETING"])?.ok()? == "hello",
            "environment"
        );
        let labels = n1.say("ps --filter label=team=blue --format {{.Names}}")?;
        ensure!(
            labels.starts_with("told.1."),
            "the container is called `{labels}`"
        );
        ensure!(
            n1.exec("told", &["cat", "/etc/resolv.conf"])?
                .ok()?
                .contains("nameserver 127.0.0.11"),
            "resolv.conf"
        );
        Ok(())
    });
}
