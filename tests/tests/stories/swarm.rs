//! Forming a swarm, and what nodes may do in it.

use std::time::Duration;

use anyhow::ensure;
use weft_tests::{Shape, eventually, story};

#[test]
fn nodes_join_by_token_and_are_listed_with_their_roles() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.hosts()[..] else {
            anyhow::bail!("three hosts were asked for")
        };
        let list = n1
            .docker(
                "node ls --format {{.Hostname}}/{{.Status}}/{{.Availability}}/{{.ManagerStatus}}",
            )?
            .ok()?;
        for line in [
            "n1/Ready/Active/Leader",
            "n2/Ready/Active/",
            "n3/Ready/Active/",
        ] {
            ensure!(
                list.lines().any(|one| one == line),
                "`{line}` is not among:\n{list}"
            );
        }
        let address = n1
            .docker("node inspect --format {{.Status.Addr}} n2")?
            .ok()?;
        ensure!(address == n2.v4(), "n2's address is {address}");
        ensure!(n1.docker("info --format {{.Swarm.LocalNodeState}}/{{.Swarm.Nodes}}/{{.Swarm.ControlAvailable}}")?.ok()? == "active/3/true", "info of n1");
        ensure!(
            n2.docker("info --format {{.Swarm.LocalNodeState}}/{{.Swarm.ControlAvailable}}")?
                .ok()?
                == "active/false",
            "info of n2"
        );
        n2.docker("node ls")?
            .refused("This node is not a swarm manager")?;
        Ok(())
    });
}

#[test]
fn a_wrong_token_is_refused_and_changes_nothing() {
    story(Shape::Hosts(2), |bed| {
        let [n1, n2] = bed.hosts()[..] else {
            anyhow::bail!("two hosts were asked for")
        };
        n1.docker(&format!("swarm init --advertise-addr {}", n1.v4()))?
            .ok()?;
        let token = n1.docker("swarm join-token -q worker")?.ok()?;
        ensure!(
            token.starts_with("SWMTKN-1-") && token.len() == 85,
            "the token is `{token}`"
        );
        let door = format!("{}:2377", n1.v4());
        let other_secret = format!(
            "{}{}",
            &token[..token.len() - 1],
            if token.ends_with('0') { '1' } else { '0' }
        );
        n2.docker(&format!("swarm join --token {other_secret} {door}"))?
            .refused("token")?;
        n2.docker(&format!("swarm join --token {} {door}", &token[..40]))?
            .refused("invalid join token")?;
        n2.docker(&format!("swarm join --token SWMTKN-1-nonsense {door}"))?
            .refused("invalid join token")?;
        ensure!(
            n2.docker("info --format {{.Swarm.LocalNodeState}}")?.ok()? == "inactive",
            "n2 is no longer inactive"
        );
        ensure!(
            n1.docker("node ls -q")?.ok()?.lines().count() == 1,
            "n1 lists a node that never joined"
        );
        n2.docker(&format!("swarm join --token {token} {door}"))?
            .ok()?;
        eventually(Duration::from_secs(20), "n2 to be ready", || {
            let list = n1
                .docker("node ls --format {{.Hostname}}/{{.Status}}")?
                .ok()?;
            ensure!(list.contains("n2/Ready"), "{list}");
            Ok(())
        })?;
        n2.docker("swarm join --token x 192.0.2.11:2377")?
            .refused("already part of a swarm")?;
        Ok(())
    });
}

#[test]
fn a_node_that_leaves_takes_its_tasks_along() {
    story(Shape::Hosts(2), |bed| {
        let [n1, n2] = bed.hosts()[..] else {
            anyhow::bail!("two hosts were asked for")
        };
        n1.docker(&format!("swarm init --advertise-addr {}", n1.v4()))?
            .ok()?;
        let token = n1.docker("swarm join-token -q worker")?.ok()?;
        n2.docker(&format!("swarm join --token {token} {}:2377", n1.v4()))?
            .ok()?;
        n1.create("web", "--replicas 2 --publish 8080:80 weft/whoami")?;
        n2.docker("swarm leave")?.ok()?;
        ensure!(
            n2.docker("info --format {{.Swarm.LocalNodeState}}")?.ok()? == "inactive",
            "n2 is still in the swarm"
        );
        eventually(Duration::from_secs(60), "both tasks to run on n1", || {
            let tasks = n1.tasks("web")?;
            ensure!(
                tasks.len() == 2 && tasks.iter().all(|(_, node)| node == "n1"),
                "{tasks:?}"
            );
            Ok(())
        })?;
        n1.converged("web")?;
        n1.docker("node rm --force n2")?.ok()?;
        n1.docker("swarm leave")?.refused("--force")?;
        n1.docker("swarm leave --force")?.ok()?;
        ensure!(
            n1.docker("info --format {{.Swarm.LocalNodeState}}")?.ok()? == "inactive",
            "n1 is still in the swarm"
        );
        Ok(())
    });
}
