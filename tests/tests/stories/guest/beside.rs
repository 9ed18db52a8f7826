//! Users' own containers on networks of the engine's and of the swarm's together.

use anyhow::{Result, ensure};
use weft_tests::{Host, Shape, client, eventually, story};

use super::{PATIENCE, prints};

/// Waits until `name` means something in the container, and says what.
fn means(host: Host, container: &str, name: &str) -> Result<String> {
    let line = format!("exec {container} dig +short +time=2 +tries=1 {name}");
    eventually(PATIENCE, &line, || {
        let said = host.say(&line)?;
        ensure!(!said.is_empty(), "{container} does not know {name}");
        Ok(said)
    })
}

#[test]
fn containers_are_on_the_engine_s_networks_and_overlays_together() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.say("network create --driver overlay --attachable --subnet 10.79.0.0/24 shared")?;
        n1.say("network create mine")?;
        n1.create(
            "web",
            "--network shared --constraint node.hostname==n3 weft/whoami",
        )?;
        n1.create(
            "probe",
            "--network shared --constraint node.hostname==n2 --stop-signal SIGKILL weft/tools sleep 1000",
        )?;
        n1.say("run -d --name near --network mine weft/tools sleep 1000")?;
        let near = means(n1, "near", "near")?;

        // One that runs on the engine's network comes onto the swarm's.
        n1.say("run -d --name both --network mine weft/tools sleep 1000")?;
        n1.say("network connect --ip 10.79.0.79 --alias other shared both")?;
        prints(n1, "exec both curl -s -m 5 http://web/", &["hostname"])?;
        ensure!(means(n1, "both", "near")? == near);
        ensure!(means(n1, "both", "+tcp near")? == near);
        n1.say("exec both ping -c 1 -W 3 near")?;
        // The way out stays the engine's.
        prints(
            n1,
            "exec both ip route",
            &["default via 172.31.", "10.79.0.0/24 dev eth1"],
        )?;
        eventually(PATIENCE, "a task to reach it by its alias", || {
            n2.exec("probe", &["ping", "-c", "1", "-W", "3", "other"])?
                .ok()
        })?;
        let ends = "inspect --format {{json .NetworkSettings.Networks}} both";
        prints(n1, ends, &[r#""mine""#, r#""shared""#, "10.79.0.79"])?;

        // One that was made for the swarm's comes onto the engine's before it starts: its program finds both.
        n1.say("create --name late --network shared weft/tools sh -c 'dig +short web near > /found; exec sleep 1000'")?;
        n1.say("network connect mine late")?;
        n1.say("start late")?;
        prints(n1, "exec late cat /found", &["10.79.0.", &near])?;

        // One of the default bridge, which has no names of the engine's.
        n1.say("run -d --name plain weft/tools sleep 1000")?;
        n1.say("network connect shared plain")?;
        prints(n1, "exec plain curl -s -m 5 http://web/", &["hostname"])?;
        ensure!(means(n1, "plain", "both")? == "10.79.0.79");

        // Published ports beside the overlay.
        n1.say("run -d --name page --network shared -p 8089:80 weft/whoami")?;
        eventually(PATIENCE, "the published port", || {
            client::ask(&n1.v4(), 8089).map(drop)
        })?;
        eventually(PATIENCE, "it to be reached over the overlay", || {
            n2.exec("probe", &["curl", "-sS", "-m", "5", "http://page/"])?
                .ok()
        })?;
        let shown =
            "inspect --format {{json .NetworkSettings.Networks}}{{.HostConfig.NetworkMode}} page";
        let shown = n1.say(shown)?;
        ensure!(
            !shown.contains("bridge") && shown.ends_with("shared"),
            "{shown}"
        );

        // Both kinds of names outlive the agent and a start of the container.
        n1.verb("kill")?;
        n1.verb("start")?;
        let both_answer = || {
            prints(n1, "exec both curl -s -m 5 http://web/", &["hostname"])?;
            ensure!(means(n1, "both", "near")? == near);
            Ok(())
        };
        both_answer()?;
        n1.say("restart -t 0 both")?;
        both_answer()?;
        // Off the swarm's network: the engine's resolver is asked as if nothing had been. Off the engine's: the way
        // out is ours.
        n1.say("network disconnect shared both")?;
        ensure!(means(n1, "both", "near")? == near);
        // Who is asked outside need not answer at all.
        let gone = n1.docker("exec both dig +short +time=2 +tries=1 web")?;
        ensure!(!gone.out.contains("10.79."), "web is still {gone}");
        n1.say("network disconnect mine late")?;
        prints(n1, "exec late ip route", &["default via", "10.79.0.0/24"])?;
        prints(n1, "exec late curl -s -m 5 http://web/", &["hostname"])?;

        n1.say("rm -f near both late plain page")?;
        n1.say("network rm mine")?;
        n1.say("service rm web probe")?;
        eventually(PATIENCE, "the network to be free", || {
            n1.say("network rm shared").map(drop)
        })
    });
}
