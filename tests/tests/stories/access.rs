//! Who is answered, where.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use weft_tests::{Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// What of the API answers to is told by, in its head.
const SIGN: &str = "Api-Version:";

#[test]
fn no_listener_but_the_sockets_answers_the_api() {
    story(Shape::Swarm(3, 1), |bed| {
        for host in bed.hosts() {
            let ask = |words: &[&str]| {
                let words = [&["curl", "-s", "-k", "-i", "-m", "3"], words].concat();
                host.run(&words)
            };
            // What answers is known by its head.
            for socket in ["docker.sock", "engine.sock"] {
                let path = host.dir().join(socket).display().to_string();
                let said = ask(&["--unix-socket", &path, "http://docker/_ping"])?.ok()?;
                ensure!(said.contains(SIGN), "{socket}: {said}");
            }
            let listed = host.run(&["ss", "-Htln"])?.ok()?;
            let addresses = listed
                .lines()
                .filter_map(|line| line.split_whitespace().nth(3));
            let addresses: Vec<&str> = addresses.collect();
            let manages = addresses.iter().any(|address| address.ends_with(":2377"));
            ensure!(
                manages == (host.name() == "n1"),
                "{}: {listed}",
                host.name()
            );
            for address in addresses {
                let (face, port) = address.rsplit_once(':').context("an address and a port")?;
                let face = match face {
                    "0.0.0.0" | "*" => "127.0.0.1",
                    "[::]" => "[::1]",
                    // Of one interface.
                    face => face.split('%').next().unwrap_or(face),
                };
                for scheme in ["http", "https"] {
                    for path in ["_ping", "v1.41/info", "v1.41/services"] {
                        let url = format!("{scheme}://{face}:{port}/{path}");
                        let said = ask(&[&url])?.out;
                        ensure!(
                            !said.contains(SIGN),
                            "{} answers at {url}: {said}",
                            host.name()
                        );
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn events_of_the_swarm_are_told_by_managers_alone() {
    story(Shape::Swarm(3, 2), |bed| {
        let [n1, n2, n3] = bed.all()?;
        let begun = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        n1.create("web", "--constraint node.hostname==n3 weft/whoami")?;
        let told = |host: Host| -> Result<String> {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 1;
            let format = "--format {{.Type}}/{{.Action}}/{{.Scope}}";
            host.say(&format!("events --since {begun} --until {now} {format}"))
        };
        for manager in [n1, n2] {
            eventually(PATIENCE, "the service to be told of", || {
                let said = told(manager)?;
                ensure!(
                    said.contains("service/create/swarm"),
                    "{}: {said}",
                    manager.name()
                );
                Ok(())
            })?;
        }
        // The worker that runs it tells of its container, and of nothing of the swarm's.
        eventually(PATIENCE, "the container to be told of", || {
            let said = told(n3)?;
            ensure!(said.contains("container/start/local"), "{said}");
            Ok(())
        })?;
        let said = told(n3)?;
        ensure!(
            !said.contains("/swarm") && !said.contains("service/"),
            "a worker tells of what is the swarm's:\n{said}"
        );
        Ok(())
    });
}
