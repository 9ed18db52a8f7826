//! Changing what runs, while it is used.

use anyhow::{Context, Result};
use weft_tests::{Held, Shape, client, story};

#[test]
fn scaling_up_and_down_fails_no_request() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        client::no_request_fails(&n1.v4(), 8080, || {
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
        n1.create("web", "--replicas 3 --update-order start-first --update-delay 1s --publish 8080:80 weft/whoami")?;
        client::no_request_fails(&n1.v4(), 8080, || {
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
        client::no_request_fails(&n2.v4(), 8080, || {
            n2.verb("kill")?;
            n2.verb("start")?;
            n1.converged("web")
        })
    });
}

#[test]
fn every_connection_outlives_all_agents_killed_and_started_again() {
    story(Shape::Swarm(3, 1), |bed| {
        let hosts = bed.hosts();
        let n1 = hosts[0];
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        client::ask_every_host(bed, 8080, client::ask)?;
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
