//! What containers meet while the agent of their host is away.

use std::thread;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Host, Shape, command, eventually, story};

use super::PATIENCE;

/// Asks the engine itself: the front door is closed with the agent.
fn below(host: Host, words: &[&str]) -> Result<String> {
    let program = Cli::Default.program().context("there is a CLI")?;
    let engine = format!("unix://{}", host.engine_socket().display());
    let words = [&["60", program][..], words].concat();
    command("timeout", words, &[("DOCKER_HOST", engine)], b"")?.ok()
}

#[test]
fn a_name_asked_for_while_the_agent_is_away_is_answered_when_it_is_back() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.say("network create --driver overlay --attachable --subnet 10.81.0.0/24 shared")?;
        n1.create(
            "asks",
            "--network shared --constraint node.hostname==n2 --stop-signal SIGKILL weft/tools sleep 1000",
        )?;
        n2.say("run -d --name guest --network shared weft/tools sleep 1000")?;
        // A refusal ends a question at once, however patient the asker is.
        let patient = ["dig", "+short", "+time=1", "+tries=40", "guest"];
        eventually(PATIENCE, "the name to mean something", || {
            let said = n2.exec("asks", &patient)?.ok()?;
            ensure!(said.contains("10.81.0."), "{said}");
            Ok(())
        })?;
        let task = n2.containers("asks")?;
        let task = task.first().context("a task runs there")?.clone();
        n2.verb("kill")?;
        let asking = [task, "guest".to_owned()].map(|container| {
            let ask = [&["exec", container.as_str()][..], &patient]
                .concat()
                .join(" ");
            let asked = thread::spawn(move || below(n2, &ask.split(' ').collect::<Vec<_>>()));
            (container, asked)
        });
        // Both have asked, and nobody listens.
        for (container, _) in &asking {
            eventually(PATIENCE, "it to ask", || {
                let asking = below(n2, &["top", container])?;
                ensure!(asking.contains("dig"), "{asking}");
                Ok(())
            })?;
        }
        n2.verb("start")?;
        for (container, asked) in asking {
            let said = asked.join().expect("nobody panicked")?;
            ensure!(said.contains("10.81.0."), "{container} heard {said:?}");
        }
        n2.say("rm -f guest")?;
        n1.say("service rm asks")?;
        eventually(PATIENCE, "the network to be free", || {
            n1.say("network rm shared").map(drop)
        })
    });
}
