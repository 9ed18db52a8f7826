//! Services, line by line as users type them, watched until the CLI calls them converged.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Host, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

fn nodes_of(n1: Host, service: &str) -> Result<BTreeSet<String>> {
    let tasks = n1.tasks(service)?;
    Ok(tasks.into_iter().map(|(_, node)| node).collect())
}

#[test]
fn each_line_of_an_update_converges_and_changes_what_runs() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        let shown = n1.watch("service create --name web --replicas 2 --env COLOUR=red --stop-signal SIGKILL --constraint node.hostname!=n1 weft/tools sleep 100000")?;
        ensure!(
            shown.contains("overall progress: 2 out of 2 tasks"),
            "no progress was shown: {shown}"
        );
        // The CLI watches for five seconds more than anything takes, so not every line is watched by it.
        let change = |line: &str| {
            n1.say(&line.replacen("update", "update --detach", 1))?;
            n1.converged("web")
        };
        let environment = |host: Host| host.exec("web", &["sh", "-c", "echo $COLOUR $SHAPE"])?.ok();
        ensure!(environment(n2)? == "red", "{}", environment(n2)?);

        n1.watch("service update --env-add COLOUR=blue --env-add SHAPE=round web")?;
        for host in [n2, n3] {
            ensure!(environment(host)? == "blue round", "{}", environment(host)?);
        }
        change("service update --env-rm SHAPE web")?;
        ensure!(environment(n2)? == "blue", "{}", environment(n2)?);

        n1.watch("service update --constraint-add node.hostname==n3 web")?;
        ensure!(
            nodes_of(n1, "web")? == ["n3".to_owned()].into(),
            "{:?}",
            nodes_of(n1, "web")?
        );
        change(
            "service update --constraint-rm node.hostname==n3 --constraint-rm node.hostname!=n1 --replicas 3 web",
        )?;
        ensure!(n1.tasks("web")?.len() == 3, "{:?}", n1.tasks("web")?);

        n1.watch("service scale web=4")?;
        ensure!(n1.tasks("web")?.len() == 4, "{:?}", n1.tasks("web")?);

        n1.say("network create --driver overlay front")?;
        change(
            "service update --network-add front --replicas 1 --constraint-add node.hostname==n2 web",
        )?;
        let links = n2.exec("web", &["ip", "-o", "link"])?.ok()?;
        ensure!(links.contains("eth0"), "no link of `front`: {links}");
        eventually(PATIENCE, "the service's name on `front`", || {
            let found = n2.exec("web", &["dig", "+short", "web"])?.ok()?;
            ensure!(found.starts_with("10."), "web is `{found}`");
            Ok(())
        })?;
        change("service update --network-rm front web")?;
        eventually(PATIENCE, "`front` to be removable", || {
            n1.say("network rm front")
        })?;

        change("service update --image weft/whoami --args whoami web")?;
        change("service update --publish-add 8080:80 web")?;
        client::ask_host(n1, 8080, client::ask)?;
        n1.watch("service update --rollback web")?;
        let ports = n1.say("service inspect --format {{json .Endpoint.Ports}} web")?;
        ensure!(
            ports == "null" || ports == "[]",
            "ports after the rollback: {ports}"
        );
        ensure!(
            n1.say("service rm web")? == "web",
            "rm does not say the name"
        );
        ensure!(
            n1.say("service ls -q")?.is_empty(),
            "the service is still listed"
        );
        Ok(())
    });
}

#[test]
fn a_global_service_converges_and_follows_its_constraint() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        let shown = n1.watch("service create --name each --mode global weft/whoami")?;
        ensure!(
            shown.contains("overall progress: 3 out of 3 tasks"),
            "{shown}"
        );
        eventually(PATIENCE, "all three to be listed", || {
            let list = n1.say("service ls --format {{.Name}}/{{.Mode}}/{{.Replicas}}")?;
            ensure!(list == "each/global/3/3", "{list}");
            Ok(())
        })?;
        n1.watch("service update --constraint-add node.role==worker each")?;
        eventually(PATIENCE, "tasks on the workers alone", || {
            let nodes = nodes_of(n1, "each")?;
            ensure!(
                nodes == ["n2".to_owned(), "n3".to_owned()].into(),
                "{nodes:?}"
            );
            Ok(())
        })
    });
}

#[test]
fn the_endpoint_mode_is_honoured_or_refused() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.say("network create --driver overlay front")?;
        n1.watch("service create --name ring --network front --replicas 2 --endpoint-mode dnsrr weft/whoami")?;
        let endpoint =
            |field: &str| n1.say(&format!("service inspect --format {{{{{field}}}}} ring"));
        ensure!(
            endpoint(".Endpoint.Spec.Mode")? == "dnsrr",
            "{}",
            endpoint(".Endpoint.Spec.Mode")?
        );
        ensure!(
            endpoint("len .Endpoint.VirtualIPs")? == "0",
            "a dnsrr service has a virtual address"
        );
        n1.docker("service update -d --publish-add 8080:80 ring")?
            .refused("dnsrr")?;
        n1.watch("service update --endpoint-mode vip ring")?;
        ensure!(
            endpoint("len .Endpoint.VirtualIPs")? == "1",
            "no virtual address"
        );
        Ok(())
    });
}

#[test]
fn the_log_of_a_service_comes_from_every_node() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("say", "--mode global --stop-signal SIGKILL busybox sh -c 'echo out $HOSTNAME; echo err >&2; sleep 100000'")?;
        eventually(
            PATIENCE,
            "a line of each task, marked with its node",
            || {
                let log = n1.docker("service logs say")?;
                for node in ["n1", "n2", "n3"] {
                    let of_node: Vec<&str> = log
                        .out
                        .lines()
                        .filter(|line| line.contains(&format!("@{node} ")))
                        .collect();
                    ensure!(
                        of_node.len() == 1
                            && of_node[0].starts_with("say.0.")
                            && of_node[0].contains("| out "),
                        "{node} says {of_node:?}"
                    );
                }
                ensure!(
                    log.err
                        .lines()
                        .filter(|line| line.ends_with("| err"))
                        .count()
                        == 3,
                    "standard error: {}",
                    log.err
                );
                Ok(())
            },
        )?;
        let task = n1.say("service ps -q --filter node=n2 say")?;
        let of_task = n1.docker(&format!("service logs --raw --tail 1 {task}"))?;
        ensure!(
            of_task.out.starts_with("out ") && of_task.out.lines().count() == 1
                || of_task.err == "err",
            "the task's own log: {of_task}"
        );
        // Followed: what is said later comes by itself, until the watch is told to end.
        n1.create(
            "tick",
            "--stop-signal SIGKILL busybox sh -c 'while :; do echo tick; sleep 1; done'",
        )?;
        eventually(PATIENCE, "ticks in the followed log", || {
            let followed = n1.docker_for(6, "service logs --raw --follow --tail 0 tick")?;
            ensure!(
                followed.status == 124
                    && followed.out.lines().filter(|line| *line == "tick").count() > 1,
                "the followed log: {followed}"
            );
            Ok(())
        })
    });
}

#[test]
fn a_network_is_made_looked_at_and_removed() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        let id = n1.say("network create --driver overlay --label team=blue front")?;
        n1.say("network create --driver overlay back")?;
        let listed = n1.say("network ls --filter driver=overlay --format {{.Name}}/{{.Scope}}")?;
        for name in ["front", "back", "ingress"] {
            ensure!(
                listed.lines().any(|line| line == format!("{name}/swarm")),
                "{name} is not listed: {listed}"
            );
        }
        let subnet = |name: &str| {
            n1.say(&format!(
                "network inspect --format {{{{(index .IPAM.Config 0).Subnet}}}} {name}"
            ))
        };
        ensure!(
            subnet("ingress")? == "10.0.0.0/24",
            "ingress is {}",
            subnet("ingress")?
        );
        let (front, back) = (subnet("front")?, subnet("back")?);
        for cut in [&front, &back] {
            ensure!(
                cut.starts_with("10.0.") && cut.ends_with(".0/24"),
                "a network got {cut}"
            );
        }
        ensure!(front != back, "both are {front}");
        let shown =
            n1.say("network inspect --format {{.ID}}/{{.Driver}}/{{.Labels.team}} front")?;
        ensure!(
            shown == format!("{id}/overlay/blue"),
            "inspect shows {shown}"
        );
        n1.create("web", "--network front --constraint node.hostname==n1 --stop-signal SIGKILL weft/tools sleep 100000")?;
        let links = n1
            .exec("web", &["ip", "-o", "link", "show", "eth0"])?
            .ok()?;
        ensure!(
            links.contains("mtu 1450"),
            "1,500 bytes of the wire less 50 of the tunnel are due: {links}"
        );
        n1.docker("network rm front")?
            .refused("in use")
            .context("a network with a task")?;
        n1.say("service rm web")?;
        eventually(PATIENCE, "`front` to be removable", || {
            n1.say("network rm front")
        })?;
        ensure!(
            n1.say("network rm back")? == "back",
            "rm does not say the name"
        );
        ensure!(
            !n1.say("network ls --format {{.Name}}")?.contains("front"),
            "it is still listed"
        );
        Ok(())
    });
}

#[test]
fn a_service_on_the_hosts_own_network_sees_each_host_as_it_is() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        n1.watch("service create --name meter --mode global --network host --stop-signal SIGKILL weft/tools sleep 100000")?;
        for host in [n1, n2, n3] {
            let seen = host.exec("meter", &["ip", "-o", "address"])?.ok()?;
            for (address, _) in host.faces() {
                let bare = address.trim_matches(['[', ']']);
                ensure!(
                    seen.contains(bare),
                    "{} is not among the addresses that the task on {} sees: {seen}",
                    bare,
                    host.name()
                );
            }
        }
        let shown = n1.say("service inspect --pretty meter")?;
        ensure!(shown.contains("host"), "inspect hides the network: {shown}");
        n1.docker(
            "service create --name door --network host --publish 8000:80 weft/tools sleep 1",
        )?
        .refused("host")
        .context("ingress ports of a service on the host's own network")?;
        n1.create(
            "local",
            "--network bridge --constraint node.hostname==n2 --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        let links = n2.exec("local", &["ip", "-o", "address"])?.ok()?;
        ensure!(
            links.contains("172."),
            "the engine's own bridge gives an address of its own: {links}"
        );
        n1.watch("service update --network-rm host --constraint-add node.hostname==n3 meter")?;
        let inside = n3.exec("meter", &["ip", "-o", "address"])?.ok()?;
        ensure!(
            !inside.contains(&n3.v4()),
            "the task still sees its host's links: {inside}"
        );
        Ok(())
    });
}
