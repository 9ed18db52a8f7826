//! Images through the cluster socket: saved, loaded, imported, built.

use std::fs;

use anyhow::{Context, Result, ensure};
use weft_tests::{Answer, Cli, Host, Shape, command, story};

use super::{docker, docker_by, say, socket};

/// The hosts that have an image of this name.
fn holders(hosts: &[Host], name: &str) -> Result<Vec<String>> {
    let mut holders = Vec::new();
    for host in hosts {
        if !host.say(&format!("images -q {name}"))?.is_empty() {
            holders.push(host.name());
        }
    }
    Ok(holders)
}

/// A request to the cluster socket without a body.
fn post(host: Host, path: &str) -> Result<Answer> {
    let socket = socket(host).replace("unix://", "");
    let words = ["-s", "-g", "--unix-socket", &socket, "-X", "POST", path];
    command("curl", words, &[], b"")
}

#[test]
fn images_are_saved_loaded_and_imported_on_all_hosts() {
    story(Shape::Swarm(3, 1), |bed| {
        let hosts = bed.hosts();
        let [n1, n2, n3] = bed.all()?;
        let archive = n1.dir().join("image.tar").display().to_string();
        for cli in Cli::here() {
            let docker = |line: &str| docker_by(n1, cli, line);
            let say = |line: &str| docker(line)?.ok();
            n2.say("tag busybox only-two:1")?;
            n3.say("tag busybox only-three:1")?;
            let images = say("images --format {{.Repository}}")?;
            for name in ["only-two", "only-three"] {
                ensure!(images.lines().any(|line| line == name), "{name}: {images}");
            }
            let of_two = say("images --filter node=n2 --format {{.Repository}}")?;
            ensure!(!of_two.contains("only-three"), "{of_two}");
            // From the host that has it.
            say(&format!("save -o {archive} only-two:1"))?;
            docker(&format!("save -o {archive} only-two:1 only-three:1"))?
                .refused("no node has all of only-two:1, only-three:1")?;
            docker(&format!("save -o {archive} no-such-image"))?
                .refused("No such image: no-such-image")?;
            let said = say(&format!("load -i {archive}"))?;
            for host in ["n1", "n2", "n3"] {
                ensure!(said.contains(&format!("{host}: Loaded image")), "{said}");
            }
            ensure!(holders(&hosts, "only-two:1")? == ["n1", "n2", "n3"]);
            say(&format!("import {archive} imported:1"))?;
            ensure!(holders(&hosts, "imported:1")? == ["n1", "n2", "n3"]);
            say("tag only-three:1 everywhere:1")?;
            ensure!(holders(&hosts, "everywhere:1")? == ["n3"]);
            say("rmi only-two:1 only-three:1 imported:1 everywhere:1")?;
            ensure!(holders(&hosts, "only-two:1")?.is_empty());
        }
        Ok(())
    });
}

#[test]
fn an_image_is_built_where_rules_say_and_runs_there() {
    story(Shape::Swarm(3, 1), |bed| {
        let hosts = bed.hosts();
        let [n1, _, _] = bed.all()?;
        let context = n1.dir().join("context");
        fs::create_dir_all(&context).context("cannot make a folder to build from")?;
        fs::write(
            context.join("Dockerfile"),
            "FROM busybox\nARG WORD\nRUN echo $WORD > /word\nCMD cat /word\n",
        )?;
        let context = context.display();
        for cli in Cli::here() {
            let docker = |line: &str| docker_by(n1, cli, line);
            let say = |line: &str| docker(line)?.ok();
            say(&format!(
                "build -q -t here --build-arg WORD=plain {context}"
            ))?;
            ensure!(holders(&hosts, "here")? == ["n1"]);
            say(&format!(
                "build -q -t there --build-arg WORD=ruled --build-arg constraint:node==n2 {context}"
            ))?;
            ensure!(holders(&hosts, "there")? == ["n2"]);
            // Wherever there is most room, the image is on one host.
            ensure!(say("run --rm there")? == "ruled");
            ensure!(say("run --rm here")? == "plain");
            docker(&format!(
                "build -q --build-arg constraint:node==n9 {context}"
            ))?
            .refused("unable to find a node that satisfies the constraint node==n9")?;
            docker(&format!(
                "build -q --build-arg reschedule:on-node-failure {context}"
            ))?
            .refused("a build is not rescheduled")?;
            say("rmi here there")?;
        }
        let refused = post(
            n1,
            "http://d/build?version=2&buildargs={\"constraint:node\":\"=n2\"}",
        )?;
        ensure!(
            refused.out.contains("need the classic builder"),
            "{refused}"
        );
        docker(n1, "images -q here")?.ok()?;
        say(n1, "info").map(drop)
    });
}
