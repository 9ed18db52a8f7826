//! Changing what runs, while it is used.

use weft_tests::{Shape, client, story};

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
        let [n1, n2, _] = bed.hosts()[..] else {
            anyhow::bail!("three hosts were asked for")
        };
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        client::no_request_fails(&n2.v4(), 8080, || {
            n2.verb("kill")?;
            n2.verb("start")?;
            n1.converged("web")
        })
    });
}
