//! docker-compose (v1) through the cluster socket.

use std::fs;

use anyhow::{Context, Result, ensure};
use weft_tests::{Answer, Shape, command, eventually, story};

use super::{PATIENCE, names, say, socket};

const PROJECT: &str = "version: '2.4'
services:
  page:
    image: busybox
    command: sh -c 'echo made by hand > /index.html; exec httpd -f -h /'
    volumes: ['kept:/kept']
  asks:
    image: weft/tools
    command: sleep 1000
    depends_on: [page]
volumes:
  kept:
";

const SPREAD: &str = "version: '2.4'
services:
  page:
    image: busybox
    command: sh -c 'echo far away > /index.html; exec httpd -f -h /'
    environment: ['constraint:node==n2']
  asks:
    image: weft/tools
    command: sleep 1000
    environment: ['constraint:node==n3']
networks:
  default:
    external: true
    name: wide
";

#[test]
fn a_compose_project_runs_through_the_cluster_socket() {
    if !std::path::Path::new("/usr/bin/docker-compose").exists() {
        eprintln!("docker-compose is not on this machine: nothing was told");
        return;
    }
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, _, _] = bed.all()?;
        let folder = n1.dir().join("project");
        fs::create_dir_all(&folder).context("cannot make the project's folder")?;
        let compose = |name: &str, words: &[&str]| -> Result<Answer> {
            let file = folder.join(name).display().to_string();
            let words = [&["60", "docker-compose", "-f", &file, "-p", "hand"], words].concat();
            command("timeout", words, &[("DOCKER_HOST", socket(n1))], b"")
        };
        let page = |name: &str, expected: &str| {
            eventually(PATIENCE, "one container to find the other", || {
                let words = [
                    "exec",
                    "-T",
                    "asks",
                    "curl",
                    "-sS",
                    "-m",
                    "5",
                    "http://page/",
                ];
                let page = compose(name, &words)?.ok()?;
                ensure!(page == expected, "{page}");
                Ok(())
            })
        };
        // With a network of its own all of it is where that network is.
        fs::write(folder.join("near.yml"), PROJECT)?;
        compose("near.yml", &["up", "-d"])?.ok()?;
        ensure!(
            names(n1, "hand_")? == ["n1/hand_asks_1", "n1/hand_page_1"],
            "{:?}",
            names(n1, "hand_")?
        );
        page("near.yml", "made by hand")?;
        // Again, changed: the volume is one that is there, containers are made anew beside themselves.
        let changed = PROJECT.replace("made by hand", "made again");
        fs::write(folder.join("near.yml"), changed)?;
        compose("near.yml", &["up", "-d", "--scale", "asks=2"])?.ok()?;
        page("near.yml", "made again")?;
        let logs = compose("near.yml", &["logs", "page"])?.ok()?;
        ensure!(logs.contains("Attaching to"), "{logs}");
        compose("near.yml", &["down", "-v", "-t", "1"])?.ok()?;
        ensure!(names(n1, "hand_")?.is_empty(), "{:?}", names(n1, "hand_")?);
        let left = say(n1, "volume ls -q --filter name=hand_kept")?;
        ensure!(left.is_empty(), "volumes {left}");
        // With an overlay it is where its rules say.
        say(n1, "network create --driver overlay --attachable wide")?;
        fs::write(folder.join("far.yml"), SPREAD)?;
        compose("far.yml", &["up", "-d"])?.ok()?;
        ensure!(
            names(n1, "hand_")? == ["n2/hand_page_1", "n3/hand_asks_1"],
            "{:?}",
            names(n1, "hand_")?
        );
        page("far.yml", "far away")?;
        let listed = compose("far.yml", &["ps"])?.ok()?;
        let up = listed.split_whitespace().filter(|word| *word == "Up");
        ensure!(up.count() == 2, "{listed}");
        compose("far.yml", &["down", "-t", "1"])?.ok()?;
        eventually(PATIENCE, "the network to be free", || {
            say(n1, "network rm wide").map(drop)
        })
    });
}
