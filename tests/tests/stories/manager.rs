//! The manager's memory: it survives its process, and with three of them it survives one of them.

use std::time::Duration;

use anyhow::{Context, ensure};
use weft_tests::{Cli, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn one_manager_killed_and_started_again_remembers_everything() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.say("network create --driver overlay front")?;
        for kind in ["secret", "config"] {
            n1.docker_words(Cli::Default, &[kind, "create", "word", "-"], b"weft")?
                .ok()?;
        }
        n1.create(
            "web",
            "--network front --replicas 3 --secret word --config word --publish 8080:80 weft/whoami",
        )?;
        let facts = || -> anyhow::Result<String> {
            let mut text = String::new();
            for line in [
                "node ls --format {{.ID}}",
                "network ls --filter driver=overlay --format {{.ID}}",
                "service inspect web",
                "secret inspect word",
                "config inspect word",
                "network inspect front",
                "swarm join-token -q worker",
            ] {
                text.push_str(&n1.say(line)?);
            }
            Ok(text)
        };
        let tasks = || n1.say("service ps -q --no-trunc web");
        let (before, tasks_before) = (facts()?, tasks()?);
        n1.verb("kill")?;
        // Nobody manages, the network goes on.
        client::ask_every_host(bed, 8080, client::ask).context("while the manager is dead")?;
        n1.verb("start")?;
        eventually(PATIENCE, "everything as it was", || {
            let now = facts()?;
            ensure!(
                now == before,
                "before: {before}
now: {now}"
            );
            Ok(())
        })?;
        n1.converged("web")?;
        ensure!(
            tasks()? == tasks_before,
            "tasks were replaced by a restart: before {tasks_before}, now {}",
            tasks()?
        );
        n1.say("service scale --detach web=4")?;
        n1.converged("web")
    });
}

#[test]
fn three_managers_go_on_without_their_leader() {
    story(Shape::Swarm(3, 3), |bed| {
        let hosts = bed.hosts();
        let n1 = hosts[0];
        n1.create("web", "--replicas 2 --publish 8080:80 weft/whoami")?;
        let list = n1.say("node ls --format {{.Hostname}}={{.ManagerStatus}}")?;
        ensure!(
            list.lines()
                .filter(|line| line.ends_with("=Reachable"))
                .count()
                == 2,
            "{list}"
        );
        let leader = list
            .lines()
            .find_map(|line| line.strip_suffix("=Leader"))
            .context("no leader")?
            .to_owned();
        let leader = *hosts
            .iter()
            .find(|host| host.name() == leader)
            .context("a leader that is no host")?;
        let others: Vec<_> = hosts
            .iter()
            .copied()
            .filter(|host| *host != leader)
            .collect();
        leader.verb("kill")?;
        eventually(PATIENCE, "another leader", || {
            let list = others[0].say("node ls --format {{.Hostname}}={{.ManagerStatus}}")?;
            ensure!(
                list.lines()
                    .any(|line| line.ends_with("=Leader") && !line.starts_with(&leader.name())),
                "{list}"
            );
            Ok(())
        })?;
        others[1].say("service scale --detach web=3")?;
        others[0].converged("web")?;
        leader.verb("start")?;
        eventually(PATIENCE, "the old leader to follow", || {
            let replicas =
                leader.say("service inspect --format {{.Spec.Mode.Replicated.Replicas}} web")?;
            ensure!(replicas == "3", "it believes in {replicas} replicas");
            Ok(())
        })
    });
}
