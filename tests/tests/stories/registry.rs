//! A registry run as a service: every host's engine reaches it at its own loopback, wherever its task runs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Bed, Cli, Host, Shape, eventually, story};

/// Both CLIs, each with the host that it pushes from and the host that it pulls on.
fn pairs(bed: &Bed) -> Result<Vec<(Cli, Host, Host)>> {
    let [n1, n2, _] = bed.all()?;
    let pairs = Cli::here().map(|cli| match cli {
        Cli::Default | Cli::Old => (cli, n1, n2),
        Cli::New => (cli, n2, n1),
    });
    Ok(pairs.collect())
}

fn image_of(host: Host) -> String {
    format!("127.0.0.1:5000/who-{}:latest", host.name())
}

#[test]
fn an_image_pushed_on_one_host_is_pulled_and_run_on_another() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, _, n3] = bed.all()?;
        // On n3, so that neither pusher has it at hand.
        n1.create(
            "registry",
            "--constraint node.hostname==n3 --publish 5000:5000 weft/registry",
        )?;
        for host in bed.hosts() {
            let what = format!("the registry to answer at the loopback of {}", host.name());
            eventually(Duration::from_secs(60), &what, || {
                let words = ["curl", "-sf", "-m", "3", "http://127.0.0.1:5000/v2/"];
                host.run(&words)?.ok()
            })?;
        }
        let told: Result<()> = pairs(bed)?.into_iter().try_for_each(|(cli, from, to)| {
            let image = image_of(from);
            let say = |host: Host, words: &[&str]| host.docker_words(cli, words, b"")?.ok();
            say(from, &["tag", "weft/whoami", &image])?;
            let pushed =
                say(from, &["push", &image]).with_context(|| format!("from {}", from.name()))?;
            ensure!(pushed.contains("digest: sha256:"), "push said {pushed}");
            let pulled = say(to, &["pull", &image]).with_context(|| format!("on {}", to.name()))?;
            ensure!(
                pulled.contains("Status: Downloaded newer image"),
                "pull said {pulled}"
            );
            Ok(())
        });
        told?;
        // A task is enough to bring the image to a host that never asked for it.
        let image = image_of(n1);
        n1.create("web", &format!("--replicas 3 --publish 8080:80 {image}"))?;
        ensure!(
            n3.containers("web")?.len() == 1,
            "n3 runs {:?}",
            n3.containers("web")?
        );
        let pinned =
            n1.say("service inspect --format {{.Spec.TaskTemplate.ContainerSpec.Image}} web")?;
        ensure!(
            pinned.starts_with(&format!("{image}@sha256:")),
            "the service is not pinned to a digest: {pinned}"
        );
        weft_tests::client::ask_every_host(bed, 8080, weft_tests::client::ask).map(drop)
    });
}

#[test]
fn an_image_that_is_here_runs_though_its_registry_is_not() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        // Nobody listens there.
        let image = "127.0.0.1:9/here:1";
        n2.say(&format!("tag weft/whoami {image}"))?;
        let refused = n2.docker(&format!("pull {image}"))?;
        ensure!(refused.status != 0, "it was pulled: {refused}");
        n1.create(
            "here",
            &format!("--no-resolve-image --constraint node.hostname==n2 {image}"),
        )?;
        let running = n2.containers("here")?;
        ensure!(running.len() == 1, "n2 runs {running:?}");
        // At the first try: the registry's refusal is no failure of the task.
        let tasks = n1.say("service ps --no-trunc here")?;
        ensure!(tasks.lines().count() == 2, "one task is enough:\n{tasks}");
        Ok(())
    });
}
