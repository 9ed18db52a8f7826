//! Forming a swarm as a user would: by the docker CLI, at the front doors.

use std::time::Duration;

use anyhow::{Result, bail};

use super::plan::Host;
use super::up;
use crate::run::{Run, run};
use crate::{place, wait};

/// How long the data planes of all hosts may take to start: the kernel verifies their programs, on as many processors as are left.
const START: Duration = Duration::from_secs(600);

/// Host 1 begins, the next ones join as managers, the rest as workers; done when every node is ready and its kernel has the network.
pub(crate) fn form(managers: u8) -> Result<()> {
    let hosts = up::hosts()?;
    if managers == 0 || usize::from(managers) > hosts.len() {
        bail!(
            "{managers} managers asked for, but the testbed has {} hosts (at least one must be a manager)",
            hosts.len()
        );
    }
    let (first, rest) = (hosts[0], &hosts[1..]);
    docker(first)
        .args(["swarm", "init", "--advertise-addr", &first.station().v4()])
        .quiet()?;
    let token = |role: &str| {
        docker(first)
            .args(["swarm", "join-token", "-q", role])
            .read()
    };
    let (manager, worker) = (token("manager")?, token("worker")?);
    for host in rest {
        let token = if host.0 <= managers {
            &manager
        } else {
            &worker
        };
        docker(*host)
            .args([
                "swarm",
                "join",
                "--token",
                token,
                "--advertise-addr",
                &host.station().v4(),
            ])
            .arg(format!("{}:2377", first.station().v4()))
            .quiet()?;
    }
    wait::until(Duration::from_secs(60), "every node to be ready", || {
        docker(first)
            .args(["node", "ls", "--format", "{{.Status}}"])
            .read()
            .is_ok_and(|states| {
                states.lines().filter(|state| *state == "Ready").count() == hosts.len()
            })
    })?;
    if !place::against_docker() {
        wait::until(START, "every node's kernel to have the network", || {
            hosts.iter().all(|host| {
                let inspect = ["node", "inspect", "--format", "{{.Status.Message}}"];
                let message = docker(first).args(inspect).arg(host.name()).read();
                message.is_ok_and(|message| has_network(&message))
            })
        })?;
    }
    println!("{}", docker(first).args(["node", "ls"]).read()?);
    Ok(())
}

/// Whether a node's message, `network revision 7 of 9`, says that its kernel has one.
fn has_network(message: &str) -> bool {
    let revisions = message.strip_prefix("network revision ");
    let held = revisions.and_then(|revisions| revisions.split_once(" of "));
    held.is_some_and(|(held, _)| held != "0")
}

/// The docker CLI at a host's front door.
pub(crate) fn docker(host: Host) -> Run {
    run("docker")
        .env(
            "DOCKER_HOST",
            format!("unix://{}", host.front_door().display()),
        )
        .env("DOCKER_BUILDKIT", "0")
}

#[cfg(test)]
mod tests {
    use super::has_network;

    #[test]
    fn a_node_tells_whether_its_kernel_has_the_network() {
        assert!(has_network("network revision 7 of 9"));
        assert!(!has_network("network revision 0 of 9"));
        assert!(!has_network("heartbeat failure"));
        assert!(!has_network(""));
    }
}
