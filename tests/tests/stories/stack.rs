//! Compose files as people write them: `docker stack`, and docker-compose on a network of the swarm.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Answer, Bed, Cli, Host, Shape, bed, client, command, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

fn folder(name: &str) -> PathBuf {
    bed::root().join("tests/stacks").join(name)
}

/// `docker stack …` by a CLI in the shop's folder, with the environment that the file asks for.
fn stack(host: Host, cli: Cli, mode: &str, words: &[&str]) -> Result<Answer> {
    let program = cli.program().context("this machine lacks the CLI")?;
    let folder = folder("shop").display().to_string();
    let door = format!("unix://{}", host.front_door().display());
    let words = [&["60", "env", "--chdir", &folder, program, "stack"], words].concat();
    let env = [("DOCKER_HOST", door), ("MODE", mode.to_owned())];
    command("timeout", words, &env, b"")
}

/// Deploys the shop by this CLI, uses it, changes it, and removes it.
fn shop(bed: &Bed, cli: Cli) -> Result<()> {
    if cli.program().is_none() {
        return Ok(());
    }
    let [n1, _, _] = bed.all()?;
    let said = |mode: &str, words: &[&str]| stack(n1, cli, mode, words)?.ok();
    let deploy = [
        "deploy",
        "--resolve-image",
        "never",
        "-c",
        "compose.yml",
        "shop",
    ];
    // A network of others that is not there is missed before anything is made.
    stack(n1, cli, "prod", &deploy)?
        .refused("network \"shared\" is declared as external, but could not be found")?;
    ensure!(
        n1.say("service ls -q")?.is_empty(),
        "half of a stack was made"
    );
    n1.say("network create --driver overlay --attachable shared")?;
    let made = said("prod", &deploy)?;
    for line in [
        "network shop_front",
        "network shop_back",
        "secret shop_key",
        "config shop_site",
        "service shop_web",
        "service shop_api",
        "service shop_watch",
    ] {
        ensure!(
            made.contains(&format!("Creating {line}")),
            "{line} is missing: {made}"
        );
    }
    ensure!(!made.contains("Ignoring"), "{made}");
    for service in ["shop_web", "shop_api", "shop_watch"] {
        n1.converged(service)?;
    }
    listed(n1, &said)?;
    used(bed, n1)?;
    // Deployed again with one thing changed: one service changes.
    let versions = || n1.say("service inspect --format {{.Version.Index}} shop_api shop_watch");
    let before = versions()?;
    let changed = said("test", &deploy)?;
    ensure!(
        changed.contains("Updating service shop_web (id: "),
        "{changed}"
    );
    n1.converged("shop_web")?;
    let tasks = || n1.say("service ps -q shop_api");
    let env =
        n1.say("service inspect --format {{.Spec.TaskTemplate.ContainerSpec.Env}} shop_web")?;
    ensure!(env.contains("MODE=test"), "{env}");
    ensure!(
        tasks()?.lines().count() == 1,
        "the api was restarted for nothing"
    );
    ensure!(before.lines().count() == 2, "{before}");
    let gone = said("prod", &["rm", "shop"])?;
    for line in [
        "service shop_api",
        "service shop_web",
        "secret shop_key",
        "config shop_site",
        "network shop_front",
        "network shop_back",
    ] {
        ensure!(
            gone.contains(&format!("Removing {line}")),
            "{line} stays: {gone}"
        );
    }
    eventually(PATIENCE, "nothing of the stack to be left", || {
        ensure!(!said("prod", &["ls"])?.contains("shop"), "it is listed");
        let left = n1.say("network ls --filter label=com.docker.stack.namespace=shop -q")?;
        ensure!(left.is_empty(), "networks {left}");
        Ok(())
    })?;
    eventually(PATIENCE, "the others' network to be free", || {
        n1.say("network rm shared").map(drop)
    })
}

/// What `stack` shows of it.
fn listed(n1: Host, said: &impl Fn(&str, &[&str]) -> Result<String>) -> Result<()> {
    let list = said("prod", &["ls", "--format", "{{.Name}} {{.Services}}"])?;
    ensure!(list == "shop 3", "{list}");
    let services = said(
        "prod",
        &[
            "services",
            "--format",
            "{{.Name}} {{.Mode}} {{.Replicas}} {{.Ports}}",
            "shop",
        ],
    )?;
    for line in [
        "shop_api replicated 1/1 ",
        "shop_watch global 3/3 ",
        "shop_web replicated 2/2 (max 1 per node) *:8090->80/tcp",
    ] {
        ensure!(
            services
                .lines()
                .any(|shown| shown.trim_end() == line.trim_end()),
            "{line} is not in {services}"
        );
    }
    let tasks = said(
        "prod",
        &["ps", "--format", "{{.Name}} {{.DesiredState}}", "shop"],
    )?;
    ensure!(tasks.lines().count() == 6, "{tasks}");
    let spec = n1.say("service inspect --format {{json .Spec}} shop_web")?;
    for part in [
        r#""FailureAction":"rollback""#,
        r#""MaxFailureRatio":0.2"#,
        r#""Spread":{"SpreadDescriptor":"node.labels.zone"}"#,
        r#""MaxReplicas":1"#,
        r#""StartPeriod":10000000000"#,
        r#""PublishMode":"host""#,
        r#""NanoCPUs":500000000"#,
        r#""tier":"front""#,
    ] {
        ensure!(spec.contains(part), "{part} was lost: {spec}");
    }
    Ok(())
}

/// What runs is what was asked for.
fn used(bed: &Bed, n1: Host) -> Result<()> {
    let hosts = bed.hosts();
    let at = |service: &str| -> Result<Host> {
        let tasks = n1.tasks(service)?;
        let node = tasks.first().map(|(_, node)| node.clone());
        let host = hosts.iter().find(|host| Some(host.name()) == node);
        host.copied()
            .with_context(|| format!("{service} runs nowhere"))
    };
    let (web, api) = (at("shop_web")?, at("shop_api")?);
    let within =
        |host: Host, service: &str, line: &str| host.exec(service, &["sh", "-c", line])?.ok();
    ensure!(
        within(web, "shop_web", "cat /run/secrets/app.key")? == "shop-key",
        "the secret"
    );
    ensure!(
        within(web, "shop_web", "cat /etc/site.conf")? == "serve shop_web",
        "the config"
    );
    let shown = within(
        api,
        "shop_api",
        "echo $GREETING; ulimit -l; cat /proc/sys/net/core/somaxconn; grep -c db.internal /etc/hosts; mount | grep -c ' /scratch type tmpfs'; grep -o 'search internal' /etc/resolv.conf; ls -d /data",
    )?;
    ensure!(
        shown == "hello\n64\n512\n1\n1\nsearch internal\n/data",
        "the api: {shown}"
    );
    let shown = within(
        web,
        "shop_watch",
        "id -u; touch /x 2>&1 | grep -c Read-only",
    )?;
    ensure!(shown == "65534\n1", "the watcher: {shown}");
    // By name, by alias, and from outside: at every host, and where a task runs.
    for name in ["web", "site", "tasks.web"] {
        let line = format!("curl -sS -m 5 http://{name}/");
        let page = eventually(PATIENCE, &line, || within(api, "shop_api", &line))?;
        ensure!(page.starts_with("shop_web-"), "{name} says {page}");
    }
    for (host, port) in hosts.iter().map(|host| (*host, 8090)).chain([(web, 8091)]) {
        let url = format!("http://{}:{port}/", host.v4());
        eventually(PATIENCE, &url, || {
            let page = client::run(&["curl", "-sf", "-m", "3", &url])?.ok()?;
            ensure!(page.starts_with("shop_web-"), "{page}");
            Ok(())
        })?;
    }
    let health =
        web.say("ps --filter label=com.docker.swarm.service.name=shop_web --format {{.Status}}")?;
    ensure!(health.contains("(healthy)"), "{health}");
    Ok(())
}

#[test]
fn a_stack_of_a_real_compose_file_runs_by_the_new_cli() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        shop(bed, Cli::New)?;
        if Cli::New.program().is_some() {
            // As the file is understood, no manager asked.
            let shown = stack(n1, Cli::New, "test", &["config", "-c", "compose.yml"])?.ok()?;
            ensure!(
                shown.contains("MODE: test") && !shown.contains("${MODE"),
                "{shown}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_stack_of_a_real_compose_file_runs_by_the_old_cli() {
    story(Shape::Swarm(3, 1), |bed| shop(bed, Cli::Old));
}

#[test]
fn a_compose_project_stands_on_an_overlay() {
    if !std::path::Path::new("/usr/bin/docker-compose").exists() {
        eprintln!("docker-compose is not on this machine: nothing was told");
        return;
    }
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        let project = folder("project").display().to_string();
        let file = format!("{project}/docker-compose.yml");
        let compose = |words: &[&str]| {
            let door = format!("unix://{}", n1.front_door().display());
            let words = [
                &[
                    "60",
                    "docker-compose",
                    "--project-directory",
                    &project,
                    "-f",
                    &file,
                    "-p",
                    "hand",
                ],
                words,
            ]
            .concat();
            command("timeout", words, &[("DOCKER_HOST", door)], b"")
        };
        n1.say("network create --driver overlay --attachable shared")?;
        n1.create(
            "web",
            "--network shared --constraint node.hostname==n2 weft/whoami",
        )?;
        n1.create("probe", "--network shared --constraint node.hostname==n2 --stop-signal SIGKILL weft/tools sleep 100000")?;
        compose(&["up", "-d"])?.ok()?;
        let listed = compose(&["ps"])?.ok()?;
        ensure!(
            listed
                .split_whitespace()
                .filter(|word| *word == "Up")
                .count()
                == 2,
            "{listed}"
        );
        // The project's containers find each other by service and alias, and the swarm's service on another host.
        for (url, word) in [
            ("http://page/", "made by hand"),
            ("http://handmade/", "made by hand"),
            ("http://web/", "hostname"),
        ] {
            eventually(PATIENCE, url, || {
                let page = compose(&["exec", "-T", "asks", "curl", "-sS", "-m", "5", url])?.ok()?;
                ensure!(page.contains(word), "{page}");
                Ok(())
            })?;
        }
        // And a task of the swarm finds them.
        eventually(PATIENCE, "the task to find the project", || {
            let page = n2
                .exec("probe", &["curl", "-sS", "-m", "5", "http://handmade/"])?
                .ok()?;
            ensure!(page == "made by hand", "{page}");
            Ok(())
        })?;
        compose(&["up", "-d", "--scale", "page=2"])?.ok()?;
        compose(&["restart", "-t", "1", "page"])?.ok()?;
        compose(&["down", "-t", "1"])?.ok()?;
        let left = n1.say("ps -aq --filter label=com.docker.compose.project=hand")?;
        ensure!(left.is_empty(), "containers {left}");
        n1.say("service rm web probe")?;
        eventually(PATIENCE, "the network to be free", || {
            n1.say("network rm shared").map(drop)
        })
    });
}
