//! A manager that does not lead shows and does the same.

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Host, Shape, eventually, story};

use super::{PATIENCE, docker, docker_by, names, say};

fn follower(hosts: &[Host]) -> Result<Host> {
    let shown = hosts[0].say("node ls --format {{.Hostname}}={{.ManagerStatus}}")?;
    let follower = shown
        .lines()
        .find_map(|line| line.strip_suffix("=Reachable"));
    let name = follower.with_context(|| format!("nobody follows: {shown}"))?;
    let host = hosts.iter().find(|host| host.name() == name);
    host.copied().with_context(|| format!("no host {name}"))
}

#[test]
fn a_followers_socket_is_as_good_as_the_leaders() {
    story(Shape::Swarm(3, 3), |bed| {
        let hosts = bed.hosts();
        let here = follower(&hosts)?;
        for cli in Cli::here() {
            let say = |line: &str| docker_by(here, cli, line)?.ok();
            for host in &hosts {
                let name = host.name();
                say(&format!(
                    "run -d --name on-{name} -e constraint:node=={name} busybox sh -c 'echo on {name}; exec sleep 1000'"
                ))?;
            }
            ensure!(
                names(here, "on-")? == ["n1/on-n1", "n2/on-n2", "n3/on-n3"],
                "{:?}",
                names(here, "on-")?
            );
            for host in &hosts {
                let name = host.name();
                eventually(PATIENCE, "what each says", || {
                    let said = say(&format!("logs on-{name}"))?;
                    ensure!(said == format!("on {name}"), "{said}");
                    Ok(())
                })?;
                let said = say(&format!("exec {name}/on-{name} echo inside"))?;
                ensure!(said == "inside", "{said}");
                let shown = say(&format!("inspect --format {{{{.Node.Name}}}} on-{name}"))?;
                ensure!(shown == name, "{shown}");
            }
            say("rm -f on-n1 on-n2 on-n3")?;
        }
        let info = say(here, "info")?;
        ensure!(info.contains("Role: replica"), "{info}");
        // What is created through it is made anew by the leader.
        let lost = hosts.iter().find(|host| {
            let leads = host.say("node inspect --format {{.ManagerStatus.Leader}} self");
            **host != here && leads.is_ok_and(|leads| leads != "true")
        });
        let lost = *lost.context("nobody else follows")?;
        let line = format!(
            "run -d --name phoenix -e reschedule:on-node-failure -e constraint:node==~{} busybox sleep 1000",
            lost.name()
        );
        say(here, &line)?;
        let was = names(here, "phoenix")?;
        ensure!(was == [format!("{}/phoenix", lost.name())], "{was:?}");
        let id = say(here, "inspect --format {{.Id}} phoenix")?;
        let leader = hosts.iter().find(|host| **host != here && **host != lost);
        let leader = leader.context("nobody leads")?;
        eventually(PATIENCE, "the leader to remember how it is made", || {
            let log = std::fs::read_to_string(leader.dir().join("weft.log"))?;
            let mut lines = log.lines().filter(|line| line.contains(&id));
            ensure!(lines.any(|line| line.contains("remembered")), "not yet");
            Ok(())
        })?;
        bed.spoil();
        lost.verb("cut")?;
        eventually(PATIENCE, "the container to run on another host", || {
            let shown = say(here, "ps --filter name=phoenix --format {{.Names}}")?;
            ensure!(
                !shown.is_empty() && !shown.starts_with(&lost.name()),
                "{shown}"
            );
            Ok(())
        })?;
        let refused = docker(here, &format!("logs {}/phoenix", lost.name()))?;
        refused.refused("which is down")?;
        lost.verb("heal")
    });
}
