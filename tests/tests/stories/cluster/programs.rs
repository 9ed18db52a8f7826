//! What is done with a container that runs: at a terminal, watched, copied from, changed.

use std::fs;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Shape, command, eventually, story};

use super::{PATIENCE, docker_by, names, socket};

#[test]
fn a_container_on_another_host_is_handled_like_one_here() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, _, _] = bed.all()?;
        for cli in Cli::here() {
            let docker = |line: &str| docker_by(n1, cli, line);
            let say = |line: &str| docker(line)?.ok();
            let program = cli.program().context("no CLI")?;
            let env = [("DOCKER_HOST", socket(n1))];
            // socat gives the CLI the terminal that a person would; rules have its separators in them.
            let script = n1.dir().join("at-terminal");
            let at_terminal = |words: &str| -> Result<String> {
                fs::write(&script, format!("exec {program} {words}\n"))?;
                let run = format!("EXEC:sh {},pty,setsid,ctty,stderr", script.display());
                let words = ["60", "socat", "-t30", "-", &run];
                Ok(command("timeout", words, &env, b"")?.out)
            };
            ensure!(say("run --rm -e constraint:node==n3 busybox hostname")?.len() == 12);
            let seen = at_terminal("run --rm -it -e constraint:node==n2 busybox tty")?;
            ensure!(seen.contains("/dev/pts/0"), "no terminal in run: {seen}");
            say(
                "run -d --name far -p 8098:80 -e constraint:node==n2 busybox sh -c 'while :; do echo tick; sleep 1; done'",
            )?;
            say("run -d --name farther -e constraint:node==n3 busybox sleep 1000")?;
            let seen = at_terminal("exec -it n2/far tty")?;
            ensure!(seen.contains("/dev/pts/"), "no terminal in exec: {seen}");
            eventually(PATIENCE, "ticks in the followed log", || {
                let words = ["5", program, "logs", "-f", "--tail", "0", "far"];
                let followed = command("timeout", words, &env, b"")?;
                let ticks = followed.out.lines().filter(|line| *line == "tick");
                ensure!(ticks.count() > 1, "logs -f: {followed}");
                Ok(())
            })?;
            let stats = say("stats --no-stream --format {{.Name}}/{{.MemUsage}}")?;
            for name in ["far/", "farther/"] {
                ensure!(stats.lines().any(|line| line.contains(name)), "{stats}");
            }
            ensure!(say("stats --no-stream far")?.contains("MEM USAGE"));
            ensure!(say("top n2/far")?.contains("while"));
            ensure!(
                say("port far")?.contains("192.0.2.12:8098"),
                "{}",
                say("port far")?
            );
            let file = n1.dir().join("copied").display().to_string();
            say(&format!("cp n2/far:/etc/passwd {file}"))?;
            ensure!(fs::read_to_string(&file)?.starts_with("root:"));
            say(&format!("cp {file} farther:/copied"))?;
            ensure!(say("diff farther")?.contains("A /copied"));
            say("pause far")?;
            let shown = say("ps --filter status=paused --format {{.Names}}")?;
            ensure!(shown == "n2/far", "{shown}");
            say("unpause far")?;
            say("update --memory 64m --memory-swap 64m far")?;
            say("rename far n2/near")?;
            ensure!(
                names(n1, "n2/near")? == ["n2/near"],
                "{:?}",
                names(n1, "near")?
            );
            ensure!(names(n1, "^n3/near$")?.is_empty());
            docker("rename farther near")?.refused("The name near is already assigned")?;
            say("stop -t 0 near farther")?;
            ensure!(say("wait near")? == "137", "{}", say("wait near")?);
            say("start near")?;
            say("restart -t 0 near")?;
            ensure!(say("commit near committed:1")?.starts_with("sha256:"));
            ensure!(say("run --rm --entrypoint echo committed:1 said")? == "said");
            ensure!(say("history -q committed:1")?.lines().count() > 1);
            say("rm -f near farther")?;
            say("rmi committed:1")?;
            let gone = say("container prune -f")?;
            ensure!(gone.contains("Total reclaimed space"), "{gone}");
            ensure!(say("system df")?.contains("Local Volumes"));
        }
        Ok(())
    });
}

#[test]
fn events_are_followed_on_all_hosts() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        for cli in Cli::here() {
            let program = cli.program().context("no CLI")?;
            let begun = n1.run(&["date", "+%s"])?.ok()?;
            eventually(PATIENCE, "both hosts' containers in the events", || {
                let env = [("DOCKER_HOST", socket(n1))];
                let begun = begun.clone();
                let watch = std::thread::spawn(move || {
                    let words = [
                        "12",
                        program,
                        "events",
                        "--since",
                        &begun,
                        "--filter",
                        "event=die",
                        "--format",
                        "{{.Actor.Attributes.name}}@{{index .Actor.Attributes \"node.name\"}}",
                    ];
                    command("timeout", words, &env, b"")
                });
                // Both after the watch has begun, and before: `--since` covers what was earlier.
                for host in [n2, n3] {
                    host.say("run --rm --name brief busybox true")?;
                }
                let told = watch
                    .join()
                    .map_err(|_| anyhow::anyhow!("the watch broke"))??;
                for word in ["brief@n2", "brief@n3"] {
                    ensure!(told.out.lines().any(|line| line == word), "{word}: {told}");
                }
                Ok(())
            })?;
        }
        eventually(PATIENCE, "an end of events that are over", || {
            let now = n1.run(&["date", "+%s"])?.ok()?;
            docker_by(
                n1,
                weft_tests::Cli::Default,
                &format!("events --since 0 --until {now} --filter type=image"),
            )?
            .ok()
            .map(drop)
        })
    });
}
