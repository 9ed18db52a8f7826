//! Networks and volumes through the cluster socket: a host's own as `node/name`, and the swarm's.

use anyhow::ensure;
use weft_tests::{Cli, Shape, eventually, story};

use super::{PATIENCE, docker_by, names};

#[test]
fn networks_of_one_host_and_of_the_swarm_are_used_by_name() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        for cli in Cli::here() {
            let docker = |line: &str| docker_by(n1, cli, line);
            let say = |line: &str| docker(line)?.ok();
            say("network create n2/own")?;
            ensure!(!n2.say("network ls -q --filter name=own")?.is_empty());
            let shown = say("network ls --format {{.Name}}")?;
            for name in ["n1/bridge", "n2/own", "n3/bridge", "ingress"] {
                ensure!(shown.lines().any(|line| line == name), "{name}: {shown}");
            }
            say("run -d --name one --network n2/own weft/tools sleep 1000")?;
            // Named without its host it leads there too: no other has it.
            say("run -d --name two --network own weft/tools sleep 1000")?;
            for name in ["one", "two"] {
                ensure!(names(n1, &format!("^/{name}$"))? == [format!("n2/{name}")]);
            }
            say("exec one ping -c 1 -W 3 two")?;
            let inside = say("network inspect --format {{json .Containers}} n2/own")?;
            ensure!(inside.contains(r#""Name":"one""#), "{inside}");
            say("run -d --name far -e constraint:node==n3 weft/tools sleep 1000")?;
            docker("network connect n2/own far")?.refused("network n2/own is not on node n3")?;
            docker("run --rm --network own -e constraint:node==n3 busybox true")?
                .refused("unable to find a node that satisfies the constraint node==n3")?;
            // The swarm's: wherever the containers are.
            say("network create --driver overlay --attachable wide")?;
            // One that is on its engine's network comes onto the overlay beside it, and goes again.
            say("network connect wide one")?;
            let ends = say("inspect --format {{json .NetworkSettings.Networks}} one")?;
            ensure!(
                ends.contains(r#""own""#) && ends.contains(r#""wide""#),
                "{ends}"
            );
            say("network disconnect wide one")?;
            say("run -d --name near -e constraint:node==n2 weft/tools sleep 1000")?;
            say("network connect --alias other wide near")?;
            say("network connect wide n3/far")?;
            eventually(PATIENCE, "an answer over the overlay", || {
                say("exec far ping -c 1 -W 3 other").map(drop)
            })?;
            say("network disconnect wide far")?;
            let left = say("inspect --format {{json .NetworkSettings.Networks}} far")?;
            ensure!(!left.contains("wide"), "{left}");
            docker("network rm n2/own")?.refused("has active endpoints")?;
            say("rm -f one two far near")?;
            say("network rm n2/own")?;
            eventually(PATIENCE, "the overlay to be free", || {
                say("network rm wide").map(drop)
            })?;
        }
        Ok(())
    });
}

#[test]
fn volumes_of_hosts_are_used_by_name() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        for cli in Cli::here() {
            let docker = |line: &str| docker_by(n1, cli, line);
            let say = |line: &str| docker(line)?.ok();
            ensure!(say("volume create --label a=b data")? == "data");
            let shown = say("volume ls --filter name=data --format {{.Name}}")?;
            let mut shown: Vec<&str> = shown.lines().collect();
            shown.sort_unstable();
            ensure!(shown == ["n1/data", "n2/data", "n3/data"], "{shown:?}");
            // One name, one volume on each: as good as one.
            ensure!(say("volume inspect --format {{.Labels.a}} data")? == "b");
            ensure!(say("volume inspect --format {{.Name}} n2/data")? == "n2/data");
            // Told apart once they differ.
            say("volume create --label a=c n2/odd")?;
            say("volume create --label a=d n3/odd")?;
            docker("volume inspect odd")?.refused("n2/odd, n3/odd")?;
            say("run --rm -v n3/data:/d busybox sh -c 'echo kept > /d/f'")?;
            say("run --rm --mount type=volume,source=n3/data,target=/d busybox cat /d/f")?;
            let kept = n3.say("run --rm -v data:/d busybox cat /d/f")?;
            ensure!(kept == "kept", "{kept}");
            say("volume rm n3/data n2/odd n3/odd")?;
            ensure!(n3.say("volume ls -q --filter name=data")?.is_empty());
            say("volume rm data")?;
            ensure!(n2.say("volume ls -q --filter name=data")?.is_empty());
            docker("volume inspect data")?.refused("such volume")?;
        }
        Ok(())
    });
}
