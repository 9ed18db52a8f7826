//! The routing mesh: a published port answers on every host, and the task sees who really asks.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use weft_tests::{Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_published_port_answers_on_every_host_with_the_clients_own_address() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 1 --publish 8080:80 weft/whoami")?;
        let served = client::ask_every_host(bed, 8080, client::ask)?;
        ensure!(
            served.len() == 1,
            "one task was wished, these answered: {served:?}"
        );
        // The task's own log tells the same.
        eventually(PATIENCE, "both families in the service's log", || {
            let log = n1.say("service logs --raw web")?;
            for family in [client::V4, client::V6] {
                ensure!(
                    log.contains(&format!("from {family}:"))
                        || log.contains(&format!("from [{family}]:")),
                    "{family} is not in the service's log:\n{log}"
                );
            }
            Ok(())
        })
    });
}

#[test]
fn all_tasks_of_a_service_take_turns_wherever_they_run() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 3 --publish 8080:80 weft/whoami")?;
        let nodes: BTreeSet<String> = n1.tasks("web")?.into_iter().map(|(_, node)| node).collect();
        ensure!(nodes.len() == 3, "three tasks spread over {nodes:?}");
        for host in bed.hosts() {
            let mut seen = BTreeSet::new();
            eventually(
                PATIENCE,
                &format!("three tasks to be seen through {}", host.name()),
                || {
                    seen.insert(client::ask(&host.v4(), 8080)?.hostname);
                    ensure!(seen.len() == 3, "seen so far: {seen:?}");
                    Ok(())
                },
            )?;
        }
        Ok(())
    });
}

#[test]
fn datagrams_are_answered_from_the_address_they_were_sent_to() {
    story(Shape::Swarm(3, 1), |bed| {
        bed.hosts()[0].create("web", "--replicas 1 --publish 8080:80/udp weft/whoami")?;
        client::ask_every_host(bed, 8080, client::ask_by_datagram)?;
        Ok(())
    });
}

#[test]
fn a_hosts_own_processes_reach_a_published_port_at_their_loopback() {
    story(Shape::Swarm(3, 1), |bed| {
        bed.hosts()[0].create("web", "--replicas 1 --publish 8080:80 weft/whoami")?;
        for host in bed.hosts() {
            for address in ["127.0.0.1".to_owned(), "localhost".to_owned(), host.v4()] {
                let url = format!("http://{address}:8080/");
                eventually(
                    PATIENCE,
                    &format!("{url} to answer on {}", host.name()),
                    || host.run(&["curl", "-sf", "--max-time", "3", &url])?.ok(),
                )?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_port_comes_and_goes_with_publish_add_and_publish_rm() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--replicas 2 weft/whoami")?;
        let refused = |port| client::is_shut(&n1.v4(), port);
        ensure!(refused(8000)?, "8000 answers although nothing is published");
        n1.say("service update --detach --publish-add 8000:80 web")?;
        n1.converged("web")?;
        client::ask_every_host(bed, 8000, client::ask)?;
        n1.say("service update --detach --publish-rm 80 web")?;
        n1.converged("web")?;
        eventually(PATIENCE, "port 8000 to be closed again", || {
            ensure!(refused(8000)?, "it still answers");
            Ok(())
        })
    });
}

#[test]
fn host_mode_answers_only_where_a_task_runs() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create("web", "--constraint node.hostname==n2 --publish mode=host,published=8081,target=80 weft/whoami")?;
        let second = bed.hosts()[1];
        client::ask_host(second, 8081, client::ask)?;
        ensure!(
            client::is_shut(&n1.v4(), 8081)?,
            "n1 answers although no task runs there"
        );
        Ok(())
    });
}

#[test]
fn a_large_answer_crosses_the_overlay_whole() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create(
            "load",
            "--constraint node.hostname==n3 --publish 5201:5201 weft/tools iperf3 -s",
        )?;
        let address = n1.v4();
        // Through a host that runs no task, both ways: segments larger than the overlay's MTU on the way.
        for direction in [&[][..], &["-R"][..]] {
            let words = [
                &[
                    "iperf3",
                    "-c",
                    &address,
                    "-n",
                    "20M",
                    "--connect-timeout",
                    "3000",
                ][..],
                direction,
            ]
            .concat();
            eventually(PATIENCE, "20 MB through the mesh", || {
                client::run(&words)?.ok()
            })?;
        }
        Ok(())
    });
}
