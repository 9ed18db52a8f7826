//! The cluster socket: all hosts behind one engine's API.

mod compose;
mod context;
mod follower;
mod images;
mod objects;
mod programs;
mod rules;

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Answer, Cli, Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// `DOCKER_HOST` of a host's cluster socket.
fn socket(host: Host) -> String {
    format!("unix://{}", host.dir().join("cluster.sock").display())
}

/// The docker CLI at a host's cluster socket.
fn docker(host: Host, line: &str) -> Result<Answer> {
    docker_by(host, Cli::Default, line)
}

/// The docker CLI of choice at a host's cluster socket.
fn docker_by(host: Host, cli: Cli, line: &str) -> Result<Answer> {
    let socket = socket(host);
    let words = weft_tests::command::words(line);
    let words = words.iter().map(String::as_str);
    let words: Vec<&str> = ["-H", socket.as_str()].into_iter().chain(words).collect();
    host.docker_words(cli, &words, b"")
}

fn say(host: Host, line: &str) -> Result<String> {
    docker(host, line)?.ok()
}

/// Names as `docker ps` at the cluster socket shows them, in order.
fn names(host: Host, filter: &str) -> Result<Vec<String>> {
    let said = say(
        host,
        &format!("ps -a --filter name={filter} --format {{{{.Names}}}}"),
    )?;
    let mut names: Vec<String> = said.lines().map(ToOwned::to_owned).collect();
    names.sort();
    Ok(names)
}

#[test]
fn one_socket_shows_the_containers_of_all_hosts() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        n2.say(
            "run -d --name far --label who=two busybox sh -c 'echo said on two; exec sleep 1000'",
        )?;
        n3.say("run -d --name web busybox sleep 1000")?;
        n1.say("run -d --name web busybox sleep 1000")?;
        let shown = names(n1, "web")?;
        ensure!(shown == ["n1/web", "n3/web"], "{shown:?}");
        ensure!(names(n1, "far")? == ["n2/far"]);
        // One container, by its name alone, with its host, and by the beginning of its id.
        let id = n2.say("inspect --format {{.Id}} far")?;
        for name in ["far", "n2/far", &id, &id[..12]] {
            eventually(PATIENCE, "what it says", || {
                let said = say(n1, &format!("logs {name}"))?;
                ensure!(said == "said on two", "{name}: {said}");
                Ok(())
            })?;
        }
        let host = say(n1, "exec -e A=b far sh -c 'hostname; echo $A; exit 3'");
        let refusal = host.err().map(|error| error.to_string());
        ensure!(
            refusal.is_some_and(|said| said.contains(&id[..12]) && said.contains("ended with 3"))
        );
        ensure!(say(n1, "inspect --format {{.Node.Name}} far")? == "n2");
        docker(n1, "logs web")?.refused("n1/web, n3/web")?;
        docker(n1, "logs nobody")?.refused("No such container: nobody")?;
        // What is typed reaches a program on another host, and its end is told.
        let socket = socket(n1);
        let typed = ["-H", &socket, "exec", "-i", "n3/web", "cat"];
        let said = n1
            .docker_words(Cli::Default, &typed, b"through the tunnel")?
            .ok()?;
        ensure!(said == "through the tunnel", "{said}");
        say(n1, "kill n3/web")?;
        say(n1, "rm -f n3/web n1/web far")?;
        ensure!(n2.say("ps -aq --filter name=far")?.is_empty());
        let images = say(n1, "images --format {{.Repository}} busybox")?;
        ensure!(
            images == "busybox",
            "an image on three hosts is one image: {images}"
        );
        let info = say(n1, "info")?;
        for word in [
            "Strategy: spread",
            "n3: 192.0.2.13",
            "Status: Healthy",
            "Reserved CPUs",
        ] {
            ensure!(info.contains(word), "{word:?} is not in: {info}");
        }
        // A worker has the socket, and says what it is.
        docker(n2, "ps")?.refused("not a swarm manager")?;
        Ok(())
    });
}

#[test]
fn containers_are_placed_as_their_rules_say() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        n1.say("node update --label-add storage=ssd n2")?;
        let made = |name: &str, rules: &str| -> Result<Vec<String>> {
            say(
                n1,
                &format!("run -d --name {name} {rules} busybox sleep 1000"),
            )?;
            names(n1, name)
        };
        ensure!(made("p1", "-e constraint:storage==ssd")? == ["n2/p1"]);
        ensure!(made("p2", "-e constraint:node==/n[3-9]/")? == ["n3/p2"]);
        ensure!(made("p3", "-e affinity:container==p1")? == ["n2/p3"]);
        ensure!(
            made(
                "p4",
                "-e affinity:container!=p* -e constraint:storage==~disk"
            )? == ["n1/p4"]
        );
        ensure!(made("p5", "--net container:n3/p2")? == ["n3/p5"]);
        // Rules are kept as labels, and are no environment of the program.
        let kept = say(n1, "inspect --format {{json .Config}} p1")?;
        ensure!(
            kept.contains(r#"com.docker.swarm.constraints":"[\"storage==ssd\"]"#),
            "{kept}"
        );
        ensure!(!kept.contains("constraint:"), "{kept}");
        docker(n1, "run -d -e constraint:storage==tape busybox true")?
            .refused("unable to find a node that satisfies the constraint storage==tape")?;
        docker(n1, "run -d --name p1 busybox true")?.refused("The name p1 is already assigned")?;
        // One port, three hosts; the fourth finds none.
        for name in ["q1", "q2", "q3"] {
            made(name, "-p 8099:80")?;
        }
        let shown = names(n1, "q")?;
        let hosts: Vec<&str> = shown
            .iter()
            .filter_map(|name| name.split('/').next())
            .collect();
        ensure!(hosts == ["n1", "n2", "n3"], "{shown:?}");
        docker(n1, "run -d --name q4 -p 8099:80 busybox true")?
            .refused("unable to find a node with port 8099 available")?;
        let ports = say(n1, "ps --filter name=q1 --format {{.Ports}}")?;
        ensure!(ports.contains("192.0.2.1"), "{ports}");
        for host in [n1, n2, n3] {
            let ours = host.say("ps -aq")?;
            host.say(&format!("rm -f {}", ours.replace('\n', " ")))?;
        }
        // Spread: one each.
        for name in ["s1", "s2", "s3"] {
            made(name, "")?;
        }
        let shown = names(n1, "s")?;
        let mut hosts: Vec<&str> = shown
            .iter()
            .filter_map(|name| name.split('/').next())
            .collect();
        hosts.sort_unstable();
        ensure!(
            hosts == ["n1", "n2", "n3"],
            "three containers are not spread, one on each host: {shown:?}"
        );
        say(n1, "rm -f s1 s2 s3")?;
        n1.say("node update --label-rm storage n2")?;
        Ok(())
    });
}

#[test]
fn events_of_all_hosts_say_whose_they_are() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        let begun = n1.run(&["date", "+%s"])?.ok()?;
        for host in [n2, n3] {
            host.say("run --rm --name brief busybox true")?;
        }
        eventually(PATIENCE, "both hosts' containers in the events", || {
            let now = n1.run(&["date", "+%s"])?.ok()?;
            let line = format!("events --since {begun} --until {now} --filter event=die");
            let told = say(n1, &line)?;
            for word in ["node.name=n2", "node.name=n3", "name=brief"] {
                ensure!(told.contains(word), "{word} is not in: {told}");
            }
            Ok(())
        })
    });
}

#[test]
fn a_container_of_a_lost_host_is_made_anew_elsewhere() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, _, n3] = bed.all()?;
        say(
            n1,
            "run -d --name phoenix -e reschedule:on-node-failure -e constraint:node==~n3 busybox sleep 1000",
        )?;
        say(
            n1,
            "run -d --name stays -e constraint:node==~n3 busybox sleep 1000",
        )?;
        ensure!(names(n1, "phoenix")? == ["n3/phoenix"]);
        // The label asks for the same.
        say(
            n1,
            "run -d --name ember --label 'com.docker.swarm.reschedule-policies=[\"on-node-failure\"]' -e constraint:node==~n3 busybox sleep 1000",
        )?;
        ensure!(names(n1, "ember")? == ["n3/ember"]);
        n3.verb("cut")?;
        let moved = eventually(PATIENCE, "the container to run on another host", || {
            let shown = say(n1, "ps --filter name=phoenix --format {{.Names}}")?;
            ensure!(shown == "n1/phoenix" || shown == "n2/phoenix", "{shown}");
            Ok(shown)
        })?;
        eventually(PATIENCE, "the labelled one to run on another host", || {
            let shown = say(n1, "ps --filter name=ember --format {{.Names}}")?;
            ensure!(shown == "n1/ember" || shown == "n2/ember", "{shown}");
            Ok(())
        })?;
        // Others stay where they were, and are shown so.
        let lost = say(n1, "ps -a --format {{.Names}}={{.Status}}")?;
        ensure!(lost.contains("n3/stays=Host Down"), "{lost}");
        n3.verb("heal")?;
        eventually(PATIENCE, "those that came back to go", || {
            let shown = names(n1, "phoenix")?;
            ensure!(shown == [moved.clone()], "{shown:?}");
            let left = n3.say("ps -aq --filter name=phoenix --filter name=ember")?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        say(n1, "rm -f phoenix ember stays")?;
        Ok(())
    });
}
