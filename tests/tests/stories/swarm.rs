//! Forming a swarm, and what nodes may do in it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cli, Host, Shape, eventually, story};

#[test]
fn nodes_join_by_token_and_are_listed_with_their_roles() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        let list = n1.say(
            "node ls --format {{.Hostname}}/{{.Status}}/{{.Availability}}/{{.ManagerStatus}}",
        )?;
        for line in [
            "n1/Ready/Active/Leader",
            "n2/Ready/Active/",
            "n3/Ready/Active/",
        ] {
            ensure!(
                list.lines().any(|one| one == line),
                "`{line}` is not among:\n{list}"
            );
        }
        let address = n1.say("node inspect --format {{.Status.Addr}} n2")?;
        ensure!(address == n2.v4(), "n2's address is {address}");
        ensure!(n1.say("info --format {{.Swarm.LocalNodeState}}/{{.Swarm.Nodes}}/{{.Swarm.ControlAvailable}}")? == "active/3/true", "info of n1");
        ensure!(
            n2.say("info --format {{.Swarm.LocalNodeState}}/{{.Swarm.ControlAvailable}}")?
                == "active/false",
            "info of n2"
        );
        n2.docker("node ls")?
            .refused("This node is not a swarm manager")?;
        Ok(())
    });
}

#[test]
fn a_wrong_token_is_refused_and_changes_nothing() {
    story(Shape::Hosts(2), |bed| {
        let [n1, n2] = bed.all()?;
        n1.say(&format!("swarm init --advertise-addr {}", n1.v4()))?;
        let token = n1.say("swarm join-token -q worker")?;
        ensure!(
            token.starts_with("SWMTKN-1-") && token.len() == 85,
            "the token is `{token}`"
        );
        let door = format!("{}:2377", n1.v4());
        let other_secret = format!(
            "{}{}",
            &token[..token.len() - 1],
            if token.ends_with('0') { '1' } else { '0' }
        );
        n2.docker(&format!("swarm join --token {other_secret} {door}"))?
            .refused("token")?;
        n2.docker(&format!("swarm join --token {} {door}", &token[..40]))?
            .refused("invalid join token")?;
        n2.docker(&format!("swarm join --token SWMTKN-1-nonsense {door}"))?
            .refused("invalid join token")?;
        ensure!(
            n2.say("info --format {{.Swarm.LocalNodeState}}")? == "inactive",
            "n2 is no longer inactive"
        );
        ensure!(
            n1.say("node ls -q")?.lines().count() == 1,
            "n1 lists a node that never joined"
        );
        n2.say(&format!("swarm join --token {token} {door}"))?;
        n1.sees(n2, "Ready")?;
        n2.docker("swarm join --token x 192.0.2.11:2377")?
            .refused("already part of a swarm")?;
        Ok(())
    });
}

/// What a host has of a swarm: tables, mounts, interfaces, what is pinned, and what lies in its state directory.
fn held(host: Host) -> Result<String> {
    let dir = host.dir().display().to_string();
    let looks = format!(
        "cd {dir}; nft list tables | grep weft; grep -o ' {dir}/state/[^ ]*' /proc/mounts; ip -br link | cut -d' ' -f1; find state bpf | sort"
    );
    host.run(&["sh", "-c", &looks])?.ok()
}

#[test]
fn a_node_that_leaves_takes_its_tasks_along() {
    story(Shape::Hosts(2), |bed| {
        let [n1, n2] = bed.all()?;
        n1.say(&format!("swarm init --advertise-addr {}", n1.v4()))?;
        let token = n1.say("swarm join-token -q worker")?;
        let before = held(n2)?;
        n2.say(&format!("swarm join --token {token} {}:2377", n1.v4()))?;
        n1.sees(n2, "Ready")?;
        n1.docker_words(Cli::Default, &["secret", "create", "word", "-"], b"weft")?
            .ok()?;
        n1.create(
            "web",
            "--replicas 2 --secret word --publish 8080:80 weft/whoami",
        )?;
        let during = held(n2)?;
        for part in ["/journal/tasks/", "/files/", "/containers/", "weft0"] {
            ensure!(
                during.contains(part),
                "n2 has a task and no {part}:\n{during}"
            );
        }
        n2.say("swarm leave")?;
        ensure!(
            n2.say("info --format {{.Swarm.LocalNodeState}}")? == "inactive",
            "n2 is still in the swarm"
        );
        // Its containers are gone, and all that it knew and made.
        let tasks = n2.say("ps -aq --filter label=com.docker.swarm.task")?;
        ensure!(tasks.is_empty(), "containers of tasks are left: {tasks}");
        // A link that was of a container goes with its namespace, which the kernel takes down in its own time.
        eventually(Duration::from_secs(10), "nothing to be left", || {
            let after = held(n2)?;
            ensure!(
                after == before,
                "n2 holds\n{after}\nwhere before it joined there was\n{before}"
            );
            Ok(())
        })?;
        eventually(Duration::from_secs(60), "both tasks to run on n1", || {
            let tasks = n1.tasks("web")?;
            ensure!(
                tasks.len() == 2 && tasks.iter().all(|(_, node)| node == "n1"),
                "{tasks:?}"
            );
            Ok(())
        })?;
        n1.converged("web")?;
        n1.say("node rm --force n2")?;
        n1.docker("swarm leave")?.refused("--force")?;
        n1.say("swarm leave --force")?;
        ensure!(
            n1.say("info --format {{.Swarm.LocalNodeState}}")? == "inactive",
            "n1 is still in the swarm"
        );
        Ok(())
    });
}

#[test]
fn join_tokens_are_shown_and_rotated() {
    story(Shape::Hosts(2), |bed| {
        let [n1, n2] = bed.all()?;
        let hello = n1.say(&format!("swarm init --advertise-addr {}", n1.v4()))?;
        ensure!(
            hello.starts_with("Swarm initialized: current node ("),
            "{hello}"
        );
        let token = |words: &str| n1.say(&format!("swarm join-token -q {words}"));
        let (worker, manager) = (token("worker")?, token("manager")?);
        ensure!(worker != manager, "both roles join by {worker}");
        let shown = n1.say("swarm join-token worker")?;
        let line = format!("docker swarm join --token {worker} {}:2377", n1.v4());
        ensure!(
            shown.starts_with("To add a worker to this swarm, run the following command:")
                && shown.contains(&line)
                && hello.contains(&line),
            "the line to type is not shown: {shown}"
        );
        let rotated = token("--rotate worker")?;
        ensure!(
            rotated != worker && rotated == token("worker")? && manager == token("manager")?,
            "worker: {worker}, then {rotated}; manager: {manager}"
        );
        n2.docker(&format!("swarm join --token {worker} {}:2377", n1.v4()))?
            .refused("token")?;
        // The very line that is shown, typed on the other host.
        let shown = n1.say("swarm join-token worker")?;
        let line = shown
            .lines()
            .find_map(|line| line.trim().strip_prefix("docker "))
            .context("no line to type")?;
        let joined = n2.say(line)?;
        ensure!(
            joined == "This node joined a swarm as a worker.",
            "{joined}"
        );
        Ok(())
    });
}

#[test]
fn what_a_node_runs_is_listed_by_its_name() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 3 weft/whoami")?;
        n1.create("one", "--constraint node.hostname==n2 weft/whoami")?;
        let ps = |node: &str| {
            n1.say(&format!("node ps --filter desired-state=running --format {{{{.Name}}}}/{{{{.Node}}}}/{{{{.DesiredState}}}} {node}"))
        };
        let second = ps("n2")?;
        ensure!(
            second.lines().count() == 2
                && second.contains("one.1/n2/Running")
                && second.lines().all(|line| line.contains("/n2/")),
            "node ps n2: {second}"
        );
        let own = ps("self")?;
        ensure!(
            own.lines().count() == 1 && own.contains("/n1/"),
            "node ps self: {own}"
        );
        let default = n1.say("node ps")?;
        ensure!(
            default.contains("weft/whoami") && default.contains("Running"),
            "node ps: {default}"
        );
        n1.docker("node ps n9")?.refused("n9")?;

        // A label on the node is a place for tasks.
        ensure!(
            n1.say("node update --label-add disk=fast n3")? == "n3",
            "node update"
        );
        n1.watch("service update --constraint-rm node.hostname==n2 --constraint-add node.labels.disk==fast one")?;
        ensure!(
            ps("n3")?.contains("one.1/n3/Running"),
            "node ps n3: {}",
            ps("n3")?
        );
        n1.say("node update --label-rm disk n3")?;
        let shown = n1.say("node inspect --pretty n3")?;
        for fact in [
            "Hostname:",
            "n3",
            "Availability:",
            "Active",
            "Engine Version:",
            "192.0.2.13",
        ] {
            ensure!(
                shown.contains(fact),
                "`{fact}` is not in node inspect --pretty: {shown}"
            );
        }
        Ok(())
    });
}
