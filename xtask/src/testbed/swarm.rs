//! Forming a swarm as a user would: by the docker CLI, at the front doors.

use std::time::Duration;

use anyhow::{Result, bail};

use super::plan::Host;
use super::up;
use crate::run::{Run, run};
use crate::wait;

/// Host 1 begins, the next ones join as managers, the rest as workers; done when every node is ready.
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
    println!("{}", docker(first).args(["node", "ls"]).read()?);
    Ok(())
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
