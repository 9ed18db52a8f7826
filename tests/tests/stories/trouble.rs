//! What goes wrong beside the swarm, and what users are told of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Held, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_join_that_nobody_answers_goes_on_in_the_background() {
    story(Shape::Hosts(2), |bed| {
        let [n1, n2] = bed.all()?;
        n1.say(&format!("swarm init --advertise-addr {}", n1.v4()))?;
        let token = n1.say("swarm join-token -q worker")?;
        // Cut off, its neighbour would say at once that there is no such host.
        let silence = |verb: &str| {
            let rule = format!("iptables {verb} INPUT -p tcp --dport 2377 -j DROP");
            n1.run(&rule.split(' ').collect::<Vec<_>>())?.ok()
        };
        silence("-I")?;
        let words = format!("swarm join --token {token} {}:2377", n1.v4());
        n2.docker(&words)?.refused(
            "Timeout was reached before node joined. The attempt to join the swarm will continue in the background.",
        )?;
        let state = || n2.say("info --format {{.Swarm.LocalNodeState}}");
        ensure!(state()? == "pending", "n2 is {}", state()?);
        n2.docker(&words)?.refused("already part of a swarm")?;
        silence("-D")?;
        eventually(PATIENCE, "n2 to have joined by itself", || {
            ensure!(state()? == "active", "n2 is {}", state()?);
            Ok(())
        })?;
        n1.sees(n2, "Ready")
    });
}

#[test]
fn an_engine_that_is_down_is_named_and_complained_of_once() {
    story(Shape::Swarm(2, 1), |bed| {
        let [n1, n2] = bed.all()?;
        let status = || n2.weft(&["status"])?.ok();
        ensure!(!status()?.contains("engine "), "{}", status()?);
        n2.verb("stop-engine")?;
        eventually(PATIENCE, "the engine to be called down", || {
            let named = status()?;
            let line = named.lines().find(|line| line.starts_with("engine"));
            let line = line.with_context(|| format!("the engine is not named in:\n{named}"))?;
            ensure!(line.contains("down"), "{line}");
            Ok(())
        })?;
        // The agent restarted without it: it looks every second, and says so once.
        n2.verb("kill")?;
        let log = || std::fs::read_to_string(n2.dir().join("weft.log"));
        let words = "the engine does not answer";
        let before = log()?.len();
        let complaints = || -> Result<usize> {
            let log = log()?;
            Ok(log.get(before..).unwrap_or_default().matches(words).count())
        };
        n2.verb("start")?;
        eventually(PATIENCE, "a complaint of the agent", || {
            ensure!(complaints()? > 0, "none yet");
            Ok(())
        })?;
        // It is a node without its engine, too, and its tasks say what they wait for.
        n1.sees(n2, "Ready")?;
        n1.say("service create --detach --name late --constraint node.hostname==n2 weft/whoami")?;
        eventually(PATIENCE, "the reason why the task waits", || {
            let shown = n1.say("service ps --no-trunc --format {{.Error}} late")?;
            // By its socket, or by what the connection to it met.
            ensure!(shown.contains(" running? ("), "{shown}");
            Ok(())
        })?;
        n2.verb("start-engine")?;
        eventually(PATIENCE, "the engine to be found again", || {
            ensure!(log()?.contains("the engine answers again"), "not yet");
            ensure!(!status()?.contains("engine "), "{}", status()?);
            Ok(())
        })?;
        n1.converged("late")?;
        let said = complaints()?;
        ensure!(said == 1, "the agent complained {said} times");
        Ok(())
    });
}

#[test]
fn an_engine_that_keeps_its_containers_is_restarted_and_nothing_ends() {
    story(Shape::Swarm(2, 1), |bed| {
        let [n1, n2] = bed.all()?;
        bed.spoil();
        // Swarm mode refuses an engine that does this; in the host's own mounts alone.
        let shell = |line: &str| n2.run(&["sh", "-c", line])?.ok();
        let pid = n2.dir().join("run/docker.pid").display().to_string();
        shell(&format!(
            "mount -t tmpfs tmpfs /etc/docker && echo '{{\"live-restore\":true}}' >/etc/docker/daemon.json && kill -HUP $(cat {pid})"
        ))?;
        let keeps = || n2.say("info --format {{.LiveRestoreEnabled}}");
        eventually(
            PATIENCE,
            "the engine to keep containers from now on",
            || {
                let answer = keeps()?;
                ensure!(answer == "true", "{answer}");
                Ok(())
            },
        )?;
        n1.create(
            "web",
            "--constraint node.hostname==n2 --publish 8080:80 weft/whoami",
        )?;
        let tasks = || n1.say("service ps --no-trunc --format {{.ID}}={{.DesiredState}} web");
        let begun = || {
            let container =
                n2.say("ps --quiet --no-trunc --filter label=com.docker.swarm.task.id")?;
            let facts = "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}";
            n2.docker_words(
                Cli::Default,
                &["inspect", "--format", facts, &container],
                b"",
            )?
            .ok()
        };
        let (told, ran) = (tasks()?, begun()?);
        let mut held = Vec::new();
        for (address, _) in n1.faces().into_iter().chain(n2.faces()) {
            held.push(Held::open(&address, 8080)?);
        }
        n2.verb("stop-engine")?;
        n2.docker("ps")?.refused("engine")?;
        held.iter_mut().try_for_each(Held::ask)?;
        client::ask_host(n1, 8080, client::ask)?;
        n2.verb("start-engine")?;
        eventually(PATIENCE, "the engine to be found again", || {
            let now = begun()?;
            ensure!(now == ran, "{now}\nwhere there was\n{ran}");
            let status = n2.weft(&["status"])?.ok()?;
            ensure!(!status.contains("engine "), "{status}");
            Ok(())
        })?;
        held.iter_mut().try_for_each(Held::ask)?;
        client::ask_host(n2, 8080, client::ask)?;
        let now = tasks()?;
        ensure!(now == told, "{now}\nwhere there was\n{told}");
        // Taken up again, its end is noticed.
        let container = ran.split(' ').next().context("no container")?;
        n2.say(&format!("kill {container}"))?;
        eventually(PATIENCE, "the task to be replaced", || {
            let now = tasks()?;
            ensure!(now.lines().count() == 2, "{now}");
            Ok(())
        })?;
        n1.converged("web")
    });
}

#[test]
fn a_worker_with_a_full_disk_says_so_and_goes_on() {
    story(Shape::Swarm(2, 1), |bed| {
        let [n1, n2] = bed.all()?;
        bed.spoil();
        let state = n2.dir().join("state").display().to_string();
        let shell = |line: &str| n2.run(&["sh", "-c", line])?.ok();
        // A disk of its own, with little room: seen in the host's own mounts alone.
        n2.verb("kill")?;
        shell(&format!(
            "cp -a {state} {state}.kept && mount -t tmpfs -o size=4m tmpfs {state} && cp -a {state}.kept/. {state} && rm -r {state}.kept"
        ))?;
        n2.verb("start")?;
        let status = || {
            let agent = weft_tests::bed::agent();
            n2.run(&[&agent, "status", "--state-dir", &state])?.ok()
        };
        n1.sees(n2, "Ready")?;
        ensure!(!status()?.contains("disk "), "{}", status()?);
        shell(&format!("cat /dev/zero > {state}/filler || true"))?;
        eventually(PATIENCE, "the disk to be called full", || {
            let named = status()?;
            ensure!(named.contains("disk       full: "), "{named}");
            Ok(())
        })?;
        n1.say("service create --detach --name late --constraint node.hostname==n2 weft/whoami")?;
        eventually(PATIENCE, "the reason why the task waits", || {
            let shown = n1.say("service ps --no-trunc --format {{.Error}} late")?;
            ensure!(shown.contains("No space left on device"), "{shown}");
            Ok(())
        })?;
        shell(&format!("rm {state}/filler"))?;
        n1.converged("late")?;
        eventually(PATIENCE, "the disk to be well again", || {
            let named = status()?;
            ensure!(!named.contains("disk "), "{named}");
            Ok(())
        })
    });
}
