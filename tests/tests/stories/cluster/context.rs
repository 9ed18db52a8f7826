//! The cluster socket as a context of the CLI, and what follows a program there.

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Shape, command, eventually, story};

use super::{PATIENCE, say, socket};

#[test]
fn a_context_of_the_cli_shows_all_hosts() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        n2.say("run -d --name far busybox sh -c 'while :; do echo tick; sleep 1; done'")?;
        let folder = n1.dir().join("contexts").display().to_string();
        for cli in Cli::here() {
            let program = cli.program().context("it is here")?;
            let home = format!("{folder}-{cli:?}");
            let docker = |words: &[&str]| -> Result<String> {
                let env = [("DOCKER_CONFIG", home.clone())];
                let words = [&["60", "env", "-u", "DOCKER_HOST", program], words].concat();
                command("timeout", words, &env, b"")?.ok()
            };
            docker(&[
                "context",
                "create",
                "all",
                "--docker",
                &format!("host={}", socket(n1)),
            ])?;
            let shown = docker(&["--context", "all", "ps", "--format", "{{.Names}}"])?;
            ensure!(shown.contains("n2/far"), "{cli:?}: {shown}");
            docker(&["context", "use", "all"])?;
            let shown = docker(&["inspect", "--format", "{{.Node.Name}}", "far"])?;
            ensure!(shown == "n2", "{cli:?}: {shown}");
            std::fs::remove_dir_all(&home)?;
        }
        // What a program says is followed on its host.
        let program = Cli::Default.program().context("there is a CLI")?;
        let env = [("DOCKER_HOST", socket(n1))];
        eventually(PATIENCE, "ticks of the attached program", || {
            let words = [
                "-k",
                "1",
                "5",
                program,
                "attach",
                "--no-stdin",
                "--sig-proxy=false",
                "far",
            ];
            let attached = command("timeout", words, &env, b"")?;
            ensure!(
                attached.out.lines().any(|line| line == "tick"),
                "attach: {attached}"
            );
            Ok(())
        })?;
        // An image is pulled by every host.
        n1.create(
            "registry",
            "--constraint node.hostname==n3 --publish 5000:5000 weft/registry",
        )?;
        for host in bed.hosts() {
            eventually(
                PATIENCE,
                "the registry to answer at a host's loopback",
                || {
                    let words = ["curl", "-sf", "-m", "3", "http://127.0.0.1:5000/v2/"];
                    host.run(&words)?.ok()
                },
            )?;
        }
        let image = "127.0.0.1:5000/pulled:latest";
        n1.say(&format!("tag weft/whoami {image}"))?;
        n1.say(&format!("push {image}"))?;
        n1.say(&format!("rmi {image}"))?;
        say(n1, &format!("pull {image}"))?;
        for host in [n1, n2, n3] {
            let held = host.say(&format!("images -q {image}"))?;
            ensure!(!held.is_empty(), "{} has not pulled it", host.name());
        }
        say(n1, "rm -f far")?;
        n1.say("service rm registry").map(drop)
    });
}
