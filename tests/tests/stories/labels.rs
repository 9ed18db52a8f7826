//! Labels of services: who is asked, and where a port answers.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Held, Host, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// Containers that answer at a host, asked often enough that one that may be chosen is.
fn served(host: Host) -> Result<BTreeSet<String>> {
    (0..24)
        .map(|_| Ok(client::ask(&host.v4(), 8080)?.hostname))
        .collect()
}

/// The container of `web` on a host, by the name that it answers with.
fn container(host: Host) -> Result<String> {
    let id = host.containers("web")?;
    let id = id
        .first()
        .with_context(|| format!("{} runs no task", host.name()))?;
    host.say(&format!("inspect --format {{{{.Config.Hostname}}}} {id}"))
}

fn served_by(asked: Host, by: &str) -> Result<()> {
    let who = served(asked)?;
    ensure!(
        who == BTreeSet::from([by.to_owned()]),
        "{} gave {who:?}, not {by} alone",
        asked.name()
    );
    Ok(())
}

/// A second interface of a host, which the client reaches through its first; gone with the value.
struct Inner {
    host: Host,
    addresses: [String; 2],
}

impl Inner {
    fn make(host: Host) -> Result<Self> {
        let inner = Self {
            host,
            addresses: [
                format!("203.0.113.{}", host.0),
                format!("2001:db8:51::{}", host.0),
            ],
        };
        let link = [
            "ip", "link", "add", "weftin", "type", "veth", "peer", "name", "weftinx",
        ];
        host.run(&link)?.ok()?;
        for side in ["weftin", "weftinx"] {
            host.run(&["ip", "link", "set", side, "up"])?.ok()?;
        }
        for (address, via) in inner.addresses.iter().zip([host.v4(), host.v6()]) {
            inner.take(address)?;
            client::run(&["ip", "route", "replace", address, "via", &via])?.ok()?;
        }
        Ok(inner)
    }

    fn take(&self, address: &str) -> Result<()> {
        let mut words = vec!["ip", "addr", "add", address, "dev", "weftin"];
        // Another who has it would have to be waited for.
        words.extend(address.contains(':').then_some("nodad"));
        self.host.run(&words)?.ok().map(drop)
    }

    /// Its addresses as they stand in a URL.
    fn faces(&self) -> [String; 2] {
        let [v4, v6] = &self.addresses;
        [v4.clone(), format!("[{v6}]")]
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.host.run(&["ip", "link", "del", "weftin"]);
        for address in &self.addresses {
            let _ = client::run(&["ip", "route", "del", address]);
        }
    }
}

#[test]
fn a_port_answers_at_the_named_interface_of_each_host_and_nowhere_else() {
    story(Shape::Swarm(3, 1), |bed| {
        let hosts: [Host; 3] = bed.all()?;
        let [n1, n2, _] = hosts;
        let inner = [Inner::make(n1)?, Inner::make(n2)?];
        n1.create(
            "web",
            "--replicas 1 --publish 8080:80 --label weft.listen=weftin weft/whoami",
        )?;
        for side in &inner {
            for (address, expected) in side.faces().iter().zip([client::V4, client::V6]) {
                let answer = eventually(PATIENCE, &format!("{address}:8080 to answer"), || {
                    client::ask(address, 8080)
                })?;
                ensure!(answer.client == expected, "{address}: {answer:?}");
            }
        }
        for host in hosts {
            for (address, _) in host.faces() {
                ensure!(
                    client::is_shut(&address, 8080)?,
                    "{address}:8080 answers, and is at no such interface"
                );
            }
        }
        // The address goes and comes again: the port goes and comes with it, and nobody says a word.
        let [address, _] = &inner[0].addresses;
        let gone = format!("{address}/32");
        n1.run(&["ip", "addr", "del", &gone, "dev", "weftin"])?
            .ok()?;
        n1.run(&["ip", "addr", "add", &gone, "dev", "eth0"])?.ok()?;
        eventually(PATIENCE, &format!("{address} to be silent at eth0"), || {
            ensure!(client::is_shut(address, 8080)?, "it answers");
            Ok(())
        })?;
        n1.run(&["ip", "addr", "del", &gone, "dev", "eth0"])?.ok()?;
        inner[0].take(address)?;
        eventually(PATIENCE, &format!("{address}:8080 to answer again"), || {
            client::ask(address, 8080)
        })?;
        n1.say("service update --detach --label-add weft.listen=eth0 web")?;
        client::ask_every_host(bed, 8080, client::ask)?;
        for side in &inner {
            eventually(PATIENCE, "the other interface to be silent", || {
                for address in side.faces() {
                    ensure!(client::is_shut(&address, 8080)?, "{address} answers");
                }
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn the_nearest_tasks_answer_until_their_host_is_lost() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        for (host, zone) in [(n1, "east"), (n2, "east"), (n3, "west")] {
            n1.say(&format!(
                "node update --label-add weft.zone={zone} {}",
                host.name()
            ))?;
        }
        n1.create(
            "web",
            "--replicas 2 --constraint node.hostname!=n1 --publish 8080:80 --label weft.prefer=local weft/whoami",
        )?;
        let (east, west) = (container(n2)?, container(n3)?);
        for (asked, by) in [(n2, &east), (n3, &west)] {
            let what = format!("{} to be served by its own task", asked.name());
            eventually(PATIENCE, &what, || served_by(asked, by))?;
        }
        eventually(
            PATIENCE,
            "n1, which runs no task, to be served by both",
            || {
                let who = served(n1)?;
                ensure!(who.len() == 2, "it gave {who:?} alone");
                Ok(())
            },
        )?;
        n1.say("service update --detach --label-add weft.prefer=zone web")?;
        for (asked, by) in [(n1, &east), (n2, &east), (n3, &west)] {
            let what = format!("{} to be served by its own zone", asked.name());
            eventually(PATIENCE, &what, || served_by(asked, by))?;
        }
        n2.verb("cut")?;
        // By the hosts' own finding; a manager has another task started in that zone soon after.
        eventually(PATIENCE, "the other zone alone to serve n1", || {
            let who = served(n1)?;
            ensure!(!who.contains(&east), "the lost {east} is among {who:?}");
            Ok(())
        })?;
        n2.verb("heal")?;
        n1.converged("web")?;
        for host in [n1, n2, n3] {
            // A node that is just coming back is written by others meanwhile.
            let what = format!("the zone of {} to be forgotten", host.name());
            eventually(PATIENCE, &what, || {
                n1.say(&format!("node update --label-rm weft.zone {}", host.name()))
            })?;
        }
        Ok(())
    });
}

#[test]
fn new_connections_go_to_the_task_with_fewer() {
    story(Shape::Swarm(3, 1), |bed| {
        let hosts: [Host; 3] = bed.all()?;
        let n1 = hosts[0];
        n1.create(
            "web",
            "--replicas 1 --publish 8080:80 --label weft.choice=leastconn weft/whoami",
        )?;
        client::ask_every_host(bed, 8080, client::ask)?;
        let through = |number: usize| Held::open(&hosts[number % 3].v4(), 8080);
        let held: Vec<_> = (0..60).map(through).collect::<Result<_>>()?;
        let heavy: BTreeSet<&String> = held.iter().map(|held| &held.hostname).collect();
        ensure!(heavy.len() == 1, "one task took all: {heavy:?}");
        n1.say("service scale --detach web=2")?;
        n1.converged("web")?;
        for host in hosts {
            let what = format!("the new task to answer at {}", host.name());
            eventually(PATIENCE, &what, || {
                let who = client::ask(&host.v4(), 8080)?.hostname;
                ensure!(!heavy.contains(&who), "{who} did");
                Ok(())
            })?;
        }
        // A hash alone would give the new task half; one connection in thirty-two has no choice.
        let more: Vec<_> = (0..40).map(through).collect::<Result<_>>()?;
        let light = more
            .iter()
            .filter(|held| !heavy.contains(&held.hostname))
            .count();
        ensure!(
            light >= 32,
            "the new task took {light} of 40 with 60 at the old"
        );
        Ok(())
    });
}

#[test]
fn only_those_on_the_list_are_answered_and_each_by_its_own_task() {
    story(Shape::Swarm(3, 1), |bed| {
        let hosts: [Host; 3] = bed.all()?;
        let n1 = hosts[0];
        n1.create(
            "web",
            "--replicas 3 --publish 8080:80 --label weft.allow=10.9.0.0/16 weft/whoami",
        )?;
        for host in hosts {
            for (address, _) in host.faces() {
                ensure!(
                    client::is_shut(&address, 8080)?,
                    "{address} answers one who is not on the list"
                );
            }
        }
        let list = format!("{},{}", client::V4, client::V6);
        n1.say(&format!(
            "service update --detach --label-add weft.allow={list} web"
        ))?;
        client::ask_every_host(bed, 8080, client::ask)?;
        n1.say("service update --detach --label-add weft.affinity=300s web")?;
        eventually(
            PATIENCE,
            "one task for one client, wherever it asks",
            || {
                let mut who = BTreeSet::new();
                for host in hosts {
                    who.append(&mut served(host)?);
                }
                ensure!(who.len() == 1, "{who:?}");
                Ok(())
            },
        )?;
        n1.say(
            "service update --detach --label-rm weft.affinity --label-add weft.weights=n3=100 web",
        )?;
        let heavy = container(hosts[2])?;
        eventually(PATIENCE, "most requests to go to n3", || {
            let asked = (0..60).map(|_| Ok(client::ask(&n1.v4(), 8080)?.hostname));
            let asked: Vec<String> = asked.collect::<Result<_>>()?;
            let there = asked.iter().filter(|who| **who == heavy).count();
            ensure!(there >= 50, "{there} of 60");
            Ok(())
        })
    });
}

#[test]
fn ten_thousand_ports_are_published_as_one() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.create(
            "web",
            "--replicas 1 --publish 20000-29999:80-10079 weft/whoami",
        )?;
        client::ask_every_host(bed, 20_000, client::ask)?;
        let address = n1.v4();
        ensure!(
            client::is_shut(&address, 30_000)?,
            "one port further answers"
        );
        n1.say("service rm web").map(drop)
    });
}
