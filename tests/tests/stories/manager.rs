//! The manager's memory: it survives its process, and with three of them it survives one of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Host, Shape, client, eventually, story};

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
        // Nobody tells the others of the port once the manager is dead.
        client::ask_every_host(bed, 8080, client::ask)?;
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

/// Who leads three managers, and who follows.
fn leader_of_three(hosts: &[Host]) -> Result<(Host, Vec<Host>)> {
    let list = eventually(PATIENCE, "two that follow", || {
        let list = hosts[0].say("node ls --format {{.Hostname}}={{.ManagerStatus}}")?;
        let follow = list.lines().filter(|line| line.ends_with("=Reachable"));
        ensure!(follow.count() == 2, "{list}");
        Ok(list)
    })?;
    let leads = |host: &Host| list.contains(&format!("{}=Leader", host.name()));
    let (leaders, others): (Vec<_>, Vec<_>) = hosts.iter().copied().partition(leads);
    let leader = leaders.first().context("no leader")?;
    Ok((*leader, others))
}

#[test]
fn a_leader_whose_host_vanishes_takes_nobody_else_along() {
    story(Shape::Swarm(3, 3), |bed| {
        bed.hosts()[0].create("web", "--mode global --publish 8080:80 weft/whoami")?;
        let (leader, others) = leader_of_three(&bed.hosts())?;
        let tasks = || -> Result<Vec<String>> {
            let list = others[0]
                .say("service ps --no-trunc --format {{.ID}}={{.Node}}={{.CurrentState}} web")?;
            let lost = format!("={}=", leader.name());
            let stay = list.lines().filter(|line| !line.contains(&lost));
            // Without how long ago that was.
            let mut stay: Vec<_> = stay
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect();
            stay.sort();
            Ok(stay)
        };
        let before = tasks()?;
        leader.verb("cut")?;
        eventually(PATIENCE, "the leader to be down, and it alone", || {
            let list =
                others[0].say("node ls --format {{.Hostname}}={{.Status}}={{.ManagerStatus}}")?;
            ensure!(list.contains(&format!("{}=Down=", leader.name())), "{list}");
            ensure!(list.contains("=Leader"), "{list}");
            Ok(())
        })?;
        leader.verb("heal")?;
        others[0].sees(leader, "Ready")?;
        others[0].converged("web")?;
        let after = tasks()?;
        ensure!(after == before, "before: {before:?}, now: {after:?}");
        Ok(())
    });
}

#[test]
fn three_managers_go_on_without_their_leader() {
    story(Shape::Swarm(3, 3), |bed| {
        bed.hosts()[0].create("web", "--replicas 2 --publish 8080:80 weft/whoami")?;
        let (leader, others) = leader_of_three(&bed.hosts())?;
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
        eventually(PATIENCE, "the other one to take orders", || {
            others[1].say("service scale --detach web=3")
        })?;
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

/// `n1=Leader n2=Reachable n3=`: each node with what `host` says about it as a manager.
fn standing(host: Host, wish: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{} to show {wish}", host.name()), || {
        let list = host.say("node ls --format {{.Hostname}}={{.ManagerStatus}}")?;
        let list = list.replace('\n', " ");
        ensure!(list == wish, "{list}");
        Ok(())
    })
}

#[test]
fn managers_are_promoted_demoted_and_removed() {
    story(Shape::Swarm(3, 1), |bed| {
        bed.spoil();
        let [n1, n2, n3] = bed.all()?;
        n1.say("node promote n2 n3")?;
        standing(n3, "n1=Leader n2=Reachable n3=Reachable")?;
        n1.docker("node rm --force n2")?
            .refused("must be demoted to worker before removal")?;
        // Any of them takes orders.
        n3.create(
            "web",
            "--replicas 2 --constraint node.hostname!=n1 --publish 8080:80 weft/whoami",
        )?;
        // The leader itself goes back to being a worker, by another's order.
        n2.say("node demote n1")?;
        eventually(PATIENCE, "n1 to be no manager any more", || {
            n1.docker("node ls")?
                .refused("This node is not a swarm manager")
        })?;
        eventually(PATIENCE, "n2 or n3 to lead", || {
            let list = n3.say("node ls --format {{.Hostname}}={{.ManagerStatus}}")?;
            ensure!(
                list.starts_with("n1=\n") && list.contains("=Leader"),
                "{list}"
            );
            Ok(())
        })?;
        eventually(PATIENCE, "n1 to be ready as a worker", || {
            let state = n3.say("node inspect --format {{.Status.State}} n1")?;
            ensure!(state == "ready", "{state}");
            Ok(())
        })?;
        n3.docker("node rm n1")?
            .refused("is not down and can't be removed")?;
        n1.verb("kill")?;
        eventually(PATIENCE, "n1 to be removed", || n3.say("node rm n1"))?;
        let list = n3.say("node ls --format {{.Hostname}}")?;
        ensure!(list == "n2\nn3", "{list}");
        // It comes back, and is refused.
        n1.verb("start")?;
        eventually(PATIENCE, "n1 to know that it was removed", || {
            let state = n1.say("info --format {{.Swarm.LocalNodeState}}/{{.Swarm.Error}}")?;
            ensure!(!state.starts_with("active"), "{state}");
            Ok(())
        })?;
        let list = n3.say("node ls --format {{.Hostname}}")?;
        ensure!(list == "n2\nn3", "{list}");
        n3.converged("web")?;
        client::ask_host(n2, 8080, client::ask).map(drop)
    });
}

#[test]
fn a_lost_majority_is_mended_by_force_new_cluster() {
    story(Shape::Swarm(3, 3), |bed| {
        bed.spoil();
        let [n1, n2, n3] = bed.all()?;
        n1.say("network create --driver overlay --subnet 10.99.0.0/24 --label keep=1 back")?;
        n1.create(
            "web",
            "--replicas 3 --network back --publish 8080:80 weft/whoami",
        )?;
        let facts = || -> Result<[String; 4]> {
            Ok([
                n1.say("network inspect --format {{.ID}}/{{.IPAM.Config}}/{{.Labels}} back")?,
                n1.say("service inspect --format {{.ID}}/{{.Endpoint}} web")?,
                n1.say("info --format {{.Swarm.NodeID}}/{{.Swarm.Cluster.ID}}")?,
                n1.say("swarm join-token -q manager")?,
            ])
        };
        let tasks = || {
            n1.say("service ps --no-trunc --filter node=n1 --format {{.ID}}={{.DesiredState}} web")
        };
        let (before, ran) = (facts()?, tasks()?);
        ensure!(ran.ends_with("=Running"), "{ran}");
        n2.verb("cut")?;
        n3.verb("cut")?;
        eventually(PATIENCE, "n1 to have no leader", || {
            n1.docker("service ls")?
                .refused("The swarm does not have a leader")
        })?;
        n1.say(&format!(
            "swarm init --force-new-cluster --advertise-addr {}",
            n1.v4()
        ))?;
        // The others are still nodes, and no managers any more.
        standing(n1, "n1=Leader n2= n3=")?;
        let after = facts()?;
        ensure!(after == before, "{after:?}\nwhere it was\n{before:?}");
        // The only manager left was dialled behind those who are gone, and its tasks are the same.
        for (host, state) in [(n1, "Ready"), (n2, "Down"), (n3, "Down")] {
            n1.sees(host, state)?;
        }
        n1.converged("web")?;
        let run = tasks()?;
        ensure!(run.contains(&ran), "{run}\nwhere there was\n{ran}");
        client::ask_host(n1, 8080, client::ask)?;
        // The others are to join anew.
        n2.verb("heal")?;
        n2.say("swarm leave --force")?;
        n2.say(&format!(
            "swarm join --token {} {}:2377",
            before[3],
            n1.v4()
        ))?;
        eventually(PATIENCE, "n2 to be a manager again", || {
            let list =
                n1.say("node ls --filter role=manager --format {{.Hostname}}={{.ManagerStatus}}")?;
            ensure!(list.contains("n2=Reachable"), "{list}");
            Ok(())
        })
    });
}
