//! Changing what runs, while it is used.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Held, LISTENS, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn scaling_up_and_down_fails_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        let line = format!("--replicas 3 --publish 8080:80 {LISTENS} weft/whoami");
        n1.create("web", &line)?;
        client::no_request_fails(n1, 8080, 3, || {
            for replicas in [6, 2, 4] {
                n1.say(&format!("service scale --detach web={replicas}"))?;
                n1.converged("web")?;
            }
            Ok(())
        })
    });
}

#[test]
fn a_rolling_update_fails_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        let line = format!(
            "--replicas 3 --update-order start-first --update-delay 1s --publish 8080:80 {LISTENS} weft/whoami"
        );
        n1.create("web", &line)?;
        client::no_request_fails(n1, 8080, 3, || {
            n1.say("service update --detach --env-add VERSION=2 web")?;
            n1.converged("web")
        })
    });
}

#[test]
fn a_dead_agent_fails_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        client::no_request_fails(n2, 8080, 3, || {
            n2.verb("kill")?;
            n2.verb("start")?;
            n1.converged("web")
        })?;
        // As soon as it has a change it is killed, and comes back when there is no manager to ask.
        for port in [8001, 8002, 8003] {
            n1.say(&format!(
                "service update --detach --publish-add {port}:80 web"
            ))?;
            client::ask_host(n2, port, client::ask)?;
            n2.verb("kill")?;
            n1.verb("kill")?;
            client::no_request_fails(n2, port, 1, || {
                n2.verb("start")?;
                eventually(PATIENCE, "n2 to keep its data plane again", || {
                    let shown = n2.weft(&["status"])?.ok()?;
                    let line = shown.lines().find(|line| line.starts_with("revision"));
                    let line = line.with_context(|| format!("no revision in {shown}"))?;
                    ensure!(!line.contains(" 0 in the kernel"), "{line}");
                    Ok(())
                })
            })?;
            n1.verb("start")?;
            n1.converged("web")?;
        }
        Ok(())
    });
}

#[test]
fn every_connection_outlives_all_agents_killed_and_started_again() {
    story(Shape::Swarm(3, 1), |bed| {
        let hosts = bed.hosts();
        let n1 = hosts[0];
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        for host in &hosts {
            client::all_serve(*host, 8080, 3)?;
        }
        let mut held = Vec::new();
        for host in &hosts {
            for (address, _) in host.faces() {
                for _ in 0..10 {
                    held.push(Held::open(&address, 8080)?);
                }
            }
        }
        let mut each = |when: &str| -> Result<()> {
            for (number, held) in held.iter_mut().enumerate() {
                held.ask()
                    .with_context(|| format!("connection {number}, {when}"))?;
            }
            Ok(())
        };
        each("with every agent alive")?;
        for host in &hosts {
            host.verb("kill")?;
        }
        each("with every agent dead")?;
        for host in &hosts {
            // No agent is needed to take new ones either.
            Held::open(&host.v4(), 8080)?;
            host.verb("start")?;
            each(&format!("with {} back", host.name()))?;
        }
        n1.converged("web")?;
        each("with all of them at work again")
    });
}
