//! Names and reach: tasks of one network find each other by name on any host; strangers find nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::world::Resolver;
use weft_tests::{Bed, Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// A network with two services: `web` (three tasks) and `probe` (a task on each host, to ask from).
fn furnish(bed: &Bed) -> Result<Host> {
    let n1 = bed.hosts()[0];
    n1.say("network create --driver overlay --attachable front")?;
    n1.create("web", "--network front --replicas 3 weft/whoami")?;
    n1.create(
        "probe",
        "--network front --mode global --stop-signal SIGKILL weft/tools sleep 100000",
    )?;
    Ok(n1)
}

fn addresses(host: Host, from: &str, name: &str) -> Result<BTreeSet<String>> {
    let answer = host
        .exec(from, &["dig", "+short", "+time=2", "+tries=1", name])?
        .ok()?;
    Ok(answer
        .lines()
        .filter(|line| !line.starts_with(';'))
        .map(str::to_owned)
        .collect())
}

#[test]
fn a_service_answers_by_its_name_from_every_host() {
    story(Shape::Swarm(3, 1), |bed| {
        furnish(bed)?;
        for host in bed.hosts() {
            let place = host.name();
            let vip = eventually(
                PATIENCE,
                &format!("`web` to have one address on {place}"),
                || {
                    let found = addresses(host, "probe", "web")?;
                    ensure!(found.len() == 1, "web is {found:?}");
                    Ok(found)
                },
            )?;
            let tasks = eventually(
                PATIENCE,
                &format!("`tasks.web` to have three addresses on {place}"),
                || {
                    let found = addresses(host, "probe", "tasks.web")?;
                    ensure!(found.len() == 3, "tasks.web is {found:?}");
                    Ok(found)
                },
            )?;
            ensure!(
                vip.is_disjoint(&tasks),
                "the service's address is a task's: {vip:?} {tasks:?}"
            );
            let mut served = BTreeSet::new();
            eventually(
                PATIENCE,
                &format!("all tasks of web to answer on {place}"),
                || {
                    let body = host
                        .exec("probe", &["curl", "-sf", "--max-time", "2", "http://web/"])?
                        .ok()?;
                    served.insert(weft_tests::client::read(&body)?.hostname);
                    ensure!(served.len() == 3, "served so far: {served:?}");
                    Ok(())
                },
            )?;
        }
        Ok(())
    });
}

#[test]
fn an_address_has_a_name_and_strange_names_are_refused() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = furnish(bed)?;
        let task = eventually(PATIENCE, "tasks.web", || {
            addresses(n1, "probe", "tasks.web")?
                .into_iter()
                .next()
                .context("no address")
        })?;
        eventually(PATIENCE, "the name of an address", || {
            let name = n1.exec("probe", &["dig", "+short", "-x", &task])?.ok()?;
            ensure!(
                name.contains("web.") && name.contains("front"),
                "{task} is called `{name}`"
            );
            Ok(())
        })?;
        eventually(PATIENCE, "an answer over TCP", || {
            let by_tcp = n1.exec("probe", &["dig", "+tcp", "+short", "web"])?.ok()?;
            ensure!(by_tcp.starts_with("10."), "it is `{by_tcp}`");
            Ok(())
        })?;
        // Nobody outside answers here, so a name that is no network's ends in a refusal or silence, never in an address.
        let strange = n1
            .exec(
                "probe",
                &["dig", "+short", "+time=1", "+tries=1", "no-such-service"],
            )?
            .out;
        ensure!(
            !strange
                .lines()
                .any(|line| !line.starts_with(';') && !line.is_empty()),
            "a name nobody has is {strange}"
        );
        Ok(())
    });
}

#[test]
fn aliases_and_containers_have_names_too() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = furnish(bed)?;
        n1.create(
            "store",
            "--network name=front,alias=db --constraint node.hostname==n2 weft/whoami",
        )?;
        let id = bed.hosts()[1]
            .containers("store")?
            .into_iter()
            .next()
            .context("no container of store on n2")?;
        let container = bed.hosts()[1].say(&format!("inspect --format {{{{.Name}}}} {id}"))?;
        let known = |name: &str| {
            eventually(PATIENCE, name, || {
                let found = addresses(n1, "probe", name)?;
                ensure!(found.len() == 1, "{found:?}");
                Ok(found)
            })
        };
        let task = known("tasks.store")?;
        for (name, means) in [
            ("db", known("store")?),
            ("tasks.db", task.clone()),
            (container.trim_start_matches('/'), task.clone()),
            (id.as_str(), task.clone()),
        ] {
            for host in bed.hosts() {
                eventually(PATIENCE, &format!("`{name}` on {}", host.name()), || {
                    let found = addresses(host, "probe", name)?;
                    ensure!(
                        found == means && !found.is_empty(),
                        "{found:?} where {means:?} is due"
                    );
                    Ok(())
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_name_of_the_world_is_asked_of_the_hosts_resolver() {
    story(Shape::Swarm(3, 1), |bed| {
        furnish(bed)?;
        let _world = Resolver::start([198, 51, 100, 1].into())?;
        for host in bed.hosts() {
            eventually(
                PATIENCE,
                &format!("the world's answer on {}", host.name()),
                || {
                    let found = addresses(host, "probe", "www.example.org")?;
                    ensure!(found == ["198.51.100.1".to_owned()].into(), "{found:?}");
                    Ok(())
                },
            )?;
            let own = eventually(PATIENCE, "an answer for a name of our own", || {
                let own = addresses(host, "probe", "web")?;
                ensure!(!own.is_empty(), "none");
                Ok(own)
            })?;
            ensure!(
                own.iter().all(|address| address.starts_with("10.")) && own.len() == 1,
                "the world was asked for a name of our own: {own:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_dnsrr_service_has_its_tasks_addresses_and_no_other() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = furnish(bed)?;
        n1.create(
            "ring",
            "--network front --replicas 2 --endpoint-mode dnsrr weft/whoami",
        )?;
        eventually(PATIENCE, "`ring` to be its two tasks", || {
            let found = addresses(n1, "probe", "ring")?;
            ensure!(found.len() == 2, "ring is {found:?}");
            ensure!(
                found == addresses(n1, "probe", "tasks.ring")?,
                "ring and tasks.ring differ"
            );
            Ok(())
        })
    });
}

#[test]
fn tasks_that_share_no_network_do_not_reach_each_other() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = furnish(bed)?;
        n1.say("network create --driver overlay back")?;
        n1.create(
            "spy",
            "--network back --mode global --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        let targets = eventually(PATIENCE, "tasks.web", || {
            let found = addresses(n1, "probe", "tasks.web")?;
            ensure!(found.len() == 3, "tasks.web is {found:?}");
            Ok(found)
        })?;
        for host in bed.hosts() {
            for target in &targets {
                let url = format!("http://{target}/");
                eventually(
                    PATIENCE,
                    &format!("{target} to answer its own network"),
                    || {
                        host.exec("probe", &["curl", "-sf", "--max-time", "2", &url])?
                            .ok()
                    },
                )?;
                ensure!(
                    host.exec("spy", &["curl", "-s", "--max-time", "1", &url])?
                        .status
                        != 0,
                    "a stranger on {} reaches {target}",
                    host.name()
                );
            }
            let found = host
                .exec("spy", &["dig", "+short", "+time=1", "+tries=1", "web"])?
                .out;
            ensure!(
                !found
                    .lines()
                    .any(|line| !line.starts_with(';') && !line.is_empty()),
                "a stranger learns that web is {found}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_subnet_of_the_users_choice_is_honoured() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.say("network create --driver overlay --subnet 10.77.5.0/24 --ipv6 --subnet fd77:5::/64 chosen")?;
        n1.create(
            "probe",
            "--network chosen --mode global --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        for host in bed.hosts() {
            let seen = host.exec("probe", &["ip", "address"])?.ok()?;
            ensure!(
                seen.contains(" 10.77.5."),
                "no address of 10.77.5.0/24 on {}: {seen}",
                host.name()
            );
            ensure!(
                seen.contains(" fd77:5::"),
                "no address of fd77:5::/64 on {}: {seen}",
                host.name()
            );
        }
        Ok(())
    });
}

#[test]
fn a_task_reaches_the_world_outside() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = furnish(bed)?;
        for host in bed.hosts() {
            eventually(
                PATIENCE,
                &format!("a task on {} to reach the world", host.name()),
                || {
                    host.exec("probe", &["ping", "-c1", "-W1", "198.51.100.1"])?
                        .ok()
                },
            )?;
        }
        let _ = n1;
        Ok(())
    });
}

#[test]
fn an_encrypted_network_shows_nothing_but_wireguard_on_the_wire() {
    story(Shape::Swarm(3, 1), |bed| {
        let n1 = bed.hosts()[0];
        n1.say("network create --driver overlay --opt encrypted hush")?;
        n1.create("web", "--network hush --replicas 3 weft/whoami")?;
        n1.create(
            "probe",
            "--network hush --mode global --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        let wire = std::thread::spawn(|| {
            let words = [
                "8",
                "nsenter",
                "--net=/run/netns/weft-switch",
                "tcpdump",
                // Without times, whose digits are like ports.
                "-tlnni",
                "any",
                "udp port 4789 or udp port 51871",
            ];
            weft_tests::command("timeout", words, &[], b"")
        });
        eventually(
            PATIENCE,
            "every host's task to be served by all three",
            || {
                for host in bed.hosts() {
                    let mut served = BTreeSet::new();
                    for _ in 0..20 {
                        let body = host
                            .exec("probe", &["curl", "-sm", "3", "http://web/"])?
                            .ok()?;
                        served.insert(weft_tests::client::read(&body)?.hostname);
                    }
                    ensure!(
                        served.len() == 3,
                        "{} was served by {served:?}",
                        host.name()
                    );
                }
                Ok(())
            },
        )?;
        let wire = wire
            .join()
            .map_err(|_| anyhow::anyhow!("the capture panicked"))??;
        let seen = |what: &str| wire.out.lines().filter(|line| line.contains(what)).count();
        ensure!(seen(".51871") > 0, "no WireGuard on the wire: {}", wire.out);
        // Hosts look at their paths to each other in clear, on the ingress network's number.
        let options = n1.say("network inspect --format {{json .Options}} hush")?;
        let options: BTreeMap<String, String> = serde_json::from_str(&options)?;
        let number = options
            .get("com.docker.network.driver.overlay.vxlanid_list")
            .with_context(|| format!("the network shows no number: {options:?}"))?;
        let clear = format!("vni {number}");
        let clear: Vec<&str> = wire
            .out
            .lines()
            .filter(|line| line.ends_with(&clear))
            .collect();
        ensure!(clear.is_empty(), "clear packets on the wire: {clear:?}");
        Ok(())
    });
}
