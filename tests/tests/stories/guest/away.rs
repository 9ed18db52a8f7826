//! What containers meet while the agent of their host is away.

use std::thread;

use anyhow::{Context, Result, ensure};
use weft_tests::{Answer, Cli, Host, Shape, command, eventually, story};

use super::PATIENCE;

/// Asks the engine itself: the front door is closed with the agent.
fn below(host: Host, words: &[&str]) -> Result<Answer> {
    let program = Cli::Default.program().context("there is a CLI")?;
    let engine = format!("unix://{}", host.engine_socket().display());
    let words = [&["60", program][..], words].concat();
    command("timeout", words, &[("DOCKER_HOST", engine)], b"")
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
        let patient = ["dig", "+short", "+time=1", "+tries=40", "guest"];
        eventually(PATIENCE, "the name to mean something", || {
            let said = n2.exec("asks", &patient)?.ok()?;
            ensure!(said.contains("10.81.0."), "{said}");
            Ok(())
        })?;
        let task = n2.containers("asks")?;
        let task = task.first().context("a task runs there")?.clone();
        // Its manager too: nobody counts the node as lost meanwhile, and nobody is needed to answer.
        n1.verb("kill")?;
        n2.verb("kill")?;
        let asking = [task, "guest".to_owned()].map(|container| {
            let ask = [&["exec", container.as_str()][..], &patient]
                .concat()
                .join(" ");
            let asked = thread::spawn(move || below(n2, &ask.split(' ').collect::<Vec<_>>()));
            (container, asked)
        });
        // Both have asked, and nobody listens. Who was refused has heard so already.
        for (container, asked) in &asking {
            eventually(PATIENCE, "it to ask", || {
                let asking = below(n2, &["top", container])?.ok()?;
                ensure!(asking.contains("dig") || asked.is_finished(), "{asking}");
                Ok(())
            })?;
            // A libc that hears a refusal gives up at once; one that hears nothing asks again.
            let once = ["exec", container, "dig", "+time=1", "+tries=1", "guest"];
            let heard = below(n2, &once)?;
            ensure!(heard.out.contains("timed out"), "not silence: {heard}");
        }
        n2.verb("start")?;
        for (container, asked) in asking {
            let said = asked.join().expect("nobody panicked")?.ok();
            let said =
                said.with_context(|| format!("{container} asked while the agent was away"))?;
            ensure!(said.contains("10.81.0."), "{container} heard {said:?}");
        }
        n1.verb("start")?;
        n1.converged("asks")?;
        n2.say("rm -f guest")?;
        n1.say("service rm asks")?;
        eventually(PATIENCE, "the network to be free", || {
            n1.say("network rm shared").map(drop)
        })
    });
}
