//! Where containers go: each filter, each kind of rule, what is refused and why.

use anyhow::{Result, ensure};
use weft_tests::{Cli, Shape, story};

use super::{docker_by, names};

#[test]
fn each_filter_and_each_kind_of_rule_decides_or_refuses() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, _, _] = bed.all()?;
        for cli in Cli::here() {
            let docker = |line: &str| docker_by(n1, cli, line);
            let say = |line: &str| docker(line)?.ok();
            let made = |name: &str, rules: &str| -> Result<String> {
                say(&format!("run -d --name {name} {rules} busybox sleep 1000"))?;
                let all = names(n1, &format!("^/{name}$"))?;
                ensure!(all.len() == 1, "{name}: {all:?}");
                let (host, _) = all[0].split_once('/').unwrap_or_default();
                Ok(host.to_owned())
            };
            let refused = |rules: &str, why: &str| {
                docker(&format!("run -d {rules} busybox true"))?.refused(why)
            };
            // constraint: globs, regular expressions, both operators, wishes.
            ensure!(made("c1", "-e constraint:node==*3")? == "n3");
            ensure!(made("c2", "-e constraint:node!=/n[13]/")? == "n2");
            ensure!(
                made(
                    "c3",
                    "-e constraint:node==~n9 -e constraint:node!=n2 -e constraint:node!=n3"
                )? == "n1"
            );
            ensure!(
                made(
                    "c4",
                    "-e constraint:ostype==linux -e constraint:node==/(?i)N2/"
                )? == "n2"
            );
            refused(
                "-e constraint:node==n9",
                "unable to find a node that satisfies the constraint node==n9",
            )?;
            refused(
                "-e constraint:node=n1",
                "One of operator ==, != is expected",
            )?;
            refused("-e constraint:node==/(/", "Value '/(/' is invalid")?;
            // affinity: containers, images, labels; patterns and wishes.
            ensure!(made("a1", "--label tier=front -e affinity:container==c1")? == "n3");
            ensure!(
                made(
                    "a2",
                    "-e affinity:container==/^c[14]$/ -e affinity:container!=c1"
                )? == "n2"
            );
            ensure!(made("a3", "-e affinity:tier==fr*")? == "n3");
            refused(
                "-e affinity:container!=c* -e affinity:container==~c3",
                "unable to find a node that satisfies the affinity container!=c*",
            )?;
            say("tag busybox somewhere:1")?;
            ensure!(
                made(
                    "a5",
                    "-e affinity:image==somewhere -e affinity:container==~c2"
                )? == "n2"
            );
            let id = say("inspect --format {{.Id}} c1")?;
            ensure!(made("a6", &format!("-e affinity:container=={id}"))? == "n3");
            ensure!(made("a7", &format!("-e affinity:container=={}", &id[..12]))? == "n3");
            refused(
                "-e affinity:container==nobody",
                "unable to find a node that satisfies the affinity container==nobody",
            )?;
            refused(
                "-e affinity:image==nothing",
                "unable to find a node that satisfies the affinity image==nothing",
            )?;
            // whitelist: hosts alone.
            ensure!(made("w1", "-e 'whitelist:node==n2|n9'")? == "n2");
            refused("-e whitelist:image==a", "whitelist is only for nodes")?;
            refused("-e reschedule:always", "invalid reschedule policy: always")?;
            // dependency: what it needs beside it.
            ensure!(made("d1", "--volumes-from c1")? == "n3");
            ensure!(made("d2", "--link n2/c2:two")? == "n2");
            ensure!(made("d3", "--pid container:c1")? == "n3");
            refused(
                "--volumes-from c1 --link c2:two",
                "Unable to find a node fulfilling all dependencies: --volumes-from=c1 --link=c2:two",
            )?;
            // port: of the host, and among those on their hosts' own network.
            for name in ["q1", "q2", "q3"] {
                made(name, "-p 8097:80/udp")?;
            }
            refused(
                "-p 8097:80/udp",
                "unable to find a node with port 8097 available",
            )?;
            made("q4", "-p 8097:80/tcp")?;
            for name in ["h1", "h2", "h3"] {
                made(name, "--net host --expose 8096")?;
            }
            refused(
                "--net host --expose 8096",
                "unable to find a node with port 8096/tcp available in the Host mode",
            )?;
            // Reservations.
            refused("-m 4000g", "no resources available to schedule container")?;
            refused(
                "--cpus 1 --cpu-shares 0 -m 4000g",
                "no resources available to schedule container",
            )?;
            // By id: who is linked to has several names.
            let all = say("ps -aq")?;
            say(&format!("rm -f {}", all.replace('\n', " ")))?;
            say("rmi somewhere:1")?;
            // containerslots: as many as the label says.
            for host in ["n1", "n2", "n3"] {
                n1.say(&format!("node update --label-add containerslots=1 {host}"))?;
            }
            for name in ["s1", "s2", "s3"] {
                made(name, "")?;
            }
            let full = docker("run -d busybox true")?;
            for host in ["n1", "n2", "n3"] {
                n1.say(&format!("node update --label-rm containerslots {host}"))?;
            }
            full.refused("No node with enough open slots available in the cluster")?;
            // health: nodes that take nothing new.
            for host in ["n1", "n2", "n3"] {
                n1.say(&format!("node update --availability pause {host}"))?;
            }
            let paused = docker("run -d busybox true")?;
            for host in ["n1", "n2", "n3"] {
                n1.say(&format!("node update --availability active {host}"))?;
            }
            paused.refused("No healthy node available in the cluster")?;
            say("rm -f s1 s2 s3")?;
        }
        Ok(())
    });
}
