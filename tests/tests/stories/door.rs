//! The front door: swarm's paths are ours, all others are the engine's, byte for byte.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// Each CLI that this machine has.
fn each_cli(tell: impl Fn(Cli) -> Result<()>) -> Result<()> {
    Cli::here().try_for_each(|cli| tell(cli).with_context(|| format!("with the CLI {cli:?}")))
}

fn say(host: Host, cli: Cli, words: &[&str]) -> Result<String> {
    host.docker_words(cli, words, b"")?.ok()
}

/// Starts a container of this name that runs `script`; its id.
fn companion(host: Host, cli: Cli, script: &str) -> Result<String> {
    let run = ["run", "-d", "--name", "companion", "busybox", "sh", "-c"];
    say(host, cli, &[&run[..], &[script]].concat())
}

#[test]
fn what_is_not_swarms_goes_through_to_the_engine() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        each_cli(|cli| {
            ensure!(
                say(n1, cli, &["run", "--rm", "busybox", "echo", "hello"])? == "hello",
                "run"
            );
            let through = n1
                .docker_words(
                    cli,
                    &["run", "--rm", "-i", "busybox", "wc", "-c"],
                    &[b'x'; 100_000],
                )?
                .ok()?;
            ensure!(
                through == "100000",
                "standard input of 100,000 bytes arrived as {through}"
            );
            let id = companion(n1, cli, "echo started; sleep 1000")?;
            let seven = n1.docker_words(
                cli,
                &["exec", &id, "sh", "-c", "echo out; echo err >&2; exit 7"],
                b"",
            )?;
            ensure!(
                (seven.status, seven.out.as_str(), seven.err.as_str()) == (7, "out", "err"),
                "exec: {seven}"
            );
            eventually(PATIENCE, "the container's word in its log", || {
                ensure!(say(n1, cli, &["logs", &id])? == "started", "logs");
                Ok(())
            })?;
            let folder = n1.dir().join("copy");
            fs::create_dir_all(&folder)?;
            let target = folder.join("passwd");
            say(
                n1,
                cli,
                &["cp", "companion:/etc/passwd", &target.to_string_lossy()],
            )?;
            ensure!(fs::read_to_string(&target)?.starts_with("root:"), "cp");
            say(n1, cli, &["rm", "-f", "companion"])?;
            ensure!(
                say(n1, cli, &["images", "-q", "busybox"])?.lines().count() == 1,
                "images"
            );
            Ok(())
        })
    });
}

#[test]
fn a_terminal_goes_through_to_the_engine() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        each_cli(|cli| {
            let program = cli.program().context("no CLI")?;
            // socat gives the CLI the terminal that a person would.
            let env = [(
                "DOCKER_HOST",
                format!("unix://{}", n1.front_door().display()),
            )];
            let at_terminal = |words: &str| {
                let run = format!("EXEC:{program} {words},pty,setsid,ctty,stderr");
                weft_tests::command("timeout", ["60", "socat", "-t30", "-", &run], &env, b"")
            };
            let seen = at_terminal("run --rm -it busybox sh -c 'tty; stty size'")?;
            ensure!(
                seen.out.contains("/dev/pts/0"),
                "no terminal in run: {seen}"
            );
            companion(n1, cli, "while :; do echo tick; sleep 1; done")?;
            let seen = at_terminal("exec -it companion tty")?;
            ensure!(
                seen.out.contains("/dev/pts/"),
                "no terminal in exec: {seen}"
            );
            // Followed until told to end: what is said meanwhile comes by itself.
            eventually(PATIENCE, "ticks in the followed log", || {
                let followed = weft_tests::command(
                    "timeout",
                    ["5", program, "logs", "-f", "--tail", "0", "companion"],
                    &env,
                    b"",
                )?;
                ensure!(
                    followed.status == 124
                        && followed.out.lines().filter(|line| *line == "tick").count() > 1,
                    "logs -f: {followed}"
                );
                Ok(())
            })?;
            say(n1, cli, &["rm", "-f", "companion"])?;
            Ok(())
        })
    });
}

#[test]
fn an_image_is_built_through_the_door() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        let context = n1.dir().join("context");
        fs::create_dir_all(&context)?;
        fs::write(
            context.join("Dockerfile"),
            "FROM busybox\nCOPY word /word\nRUN cat /word /word > /twice\nCMD cat /twice\n",
        )?;
        fs::write(context.join("word"), "weft\n")?;
        each_cli(|cli| {
            say(
                n1,
                cli,
                &["build", "-q", "-t", "word", &context.to_string_lossy()],
            )?;
            ensure!(
                say(n1, cli, &["run", "--rm", "word"])? == "weft\nweft",
                "the image does not run"
            );
            say(n1, cli, &["rmi", "word"])?;
            Ok(())
        })
    });
}

#[test]
fn both_clis_speak_to_the_door() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        let engine = weft_tests::command(
            "docker",
            ["version", "--format", "{{.Server.APIVersion}}"],
            &[(
                "DOCKER_HOST",
                format!("unix://{}", n1.engine_socket().display()),
            )],
            b"",
        )?
        .ok()?;
        each_cli(|cli| {
            let offered = say(n1, cli, &["version", "--format", "{{.Server.APIVersion}}"])?;
            ensure!(
                offered == engine,
                "the door offers {offered}, the engine below understands {engine}"
            );
            say(n1, cli, &["info"])?;
            let name = format!("by-{cli:?}").to_lowercase();
            // Not detached: the CLI itself watches until it calls the service converged.
            say(
                n1,
                cli,
                &[
                    "service",
                    "create",
                    "--quiet",
                    "--name",
                    &name,
                    "--replicas",
                    "2",
                    "weft/whoami",
                ],
            )?;
            say(
                n1,
                cli,
                &["service", "update", "--quiet", "--env-add", "A=1", &name],
            )?;
            let shown = say(n1, cli, &["service", "inspect", "--pretty", &name])?;
            ensure!(
                shown.contains("Replicas:\t2") || shown.contains("Replicas: 2"),
                "inspect --pretty shows {shown}"
            );
            say(n1, cli, &["service", "ps", &name])?;
            say(n1, cli, &["node", "ps", "n1"])?;
            say(n1, cli, &["service", "rm", &name])?;
            Ok(())
        })
    });
}
