//! Users' own containers on swarm networks: `docker run --network`, `network connect`.

mod away;
mod beside;

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `line`, told to the CLI of `host`, prints all of `words`.
fn prints(host: Host, line: &str, words: &[&str]) -> Result<()> {
    eventually(PATIENCE, line, || {
        let said = host.say(line)?;
        for word in words {
            ensure!(said.contains(word), "{word:?} is not in: {said}");
        }
        Ok(())
    })
}

#[test]
fn containers_and_services_share_an_attachable_network() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.say("network create --driver overlay --attachable --subnet 10.77.0.0/24 front")?;
        n1.create(
            "web",
            "--network front --constraint node.hostname==n3 weft/whoami",
        )?;
        n1.say("run -d --name mine --network front --network-alias other --ip 10.77.0.77 weft/tools sleep 1000")?;
        // The container finds the service, by its virtual address, on another host.
        prints(n1, "exec mine curl -s -m 5 http://web/", &["hostname"])?;
        // A task of a service finds the container, by name and by alias.
        n1.create(
            "probe",
            "--network front --constraint node.hostname==n2 --stop-signal SIGKILL weft/tools sleep 1000",
        )?;
        for name in ["mine", "other"] {
            eventually(PATIENCE, "a task to find the container by its name", || {
                let found = n2.exec("probe", &["dig", "+short", "+time=2", "+tries=1", name])?;
                ensure!(found.out.contains("10.77.0.77"), "{name}: {found}");
                Ok(())
            })?;
        }
        eventually(PATIENCE, "the container to be reached", || {
            n2.exec("probe", &["ping", "-c", "1", "-W", "3", "mine"])?
                .ok()
        })?;
        // Both inspections show it.
        prints(n1, "inspect mine", &["\"front\"", "10.77.0.77"])?;
        prints(n1, "network inspect front", &["\"mine\"", "10.77.0.77/24"])?;
        // The address is taken while it runs, and free when it has ended.
        let taken = n1.docker("run --rm --network front --ip 10.77.0.77 busybox true")?;
        ensure!(taken.status != 0, "one address for two: {taken}");
        n1.say("rm -f mine")?;
        eventually(PATIENCE, "its name to go", || {
            let found = n2.exec("probe", &["dig", "+short", "+time=2", "+tries=1", "mine"])?;
            ensure!(!found.out.contains("10.77.0.77"), "{found}");
            Ok(())
        })?;
        eventually(PATIENCE, "the address to be free", || {
            n1.say("run --rm --network front --ip 10.77.0.77 busybox true")
        })?;
        n1.say("service rm web probe")?;
        eventually(PATIENCE, "the network to be free", || {
            n1.say("network rm front").map(drop)
        })
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.say("network create --driver overlay --attachable front")?;
        n1.say("network create --driver overlay --attachable --subnet 10.78.0.0/24 back")?;
        n1.say("network create --driver overlay closed")?;
        n1.create("web", "--network back weft/whoami")?;
        n1.say("run -d --name mine --network front weft/tools sleep 1000")?;
        n1.say("network connect --ip 10.78.0.9 back mine")?;
        prints(n1, "exec mine ip addr", &["eth0", "eth1", "10.78.0.9/24"])?;
        prints(n1, "exec mine curl -s -m 5 http://web/", &["hostname"])?;
        n1.docker("network connect closed mine")?
            .refused("not manually attachable")?;
        n1.say("network disconnect front mine")?;
        eventually(PATIENCE, "the first interface to go", || {
            let links = n1.say("exec mine ip addr")?;
            ensure!(!links.contains("eth0"), "{links}");
            Ok(())
        })?;
        prints(n1, "exec mine curl -s -m 5 http://web/", &["hostname"])?;
        // A worker's containers too, and they keep their network while its agent is away.
        n2.say("run -d --name theirs --network back weft/tools sleep 1000")?;
        prints(n2, "exec theirs curl -s -m 5 http://web/", &["hostname"])?;
        n2.verb("kill")?;
        n2.verb("start")?;
        prints(n2, "exec theirs curl -s -m 5 http://web/", &["hostname"])?;
        prints(
            n1,
            "exec mine dig +short +time=2 +tries=1 theirs",
            &["10.78.0."],
        )
    });
}

#[test]
fn addresses_of_both_families_are_kept_shown_and_given_back() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        n1.say("network create --driver overlay --attachable --ipv6 --subnet 10.76.0.0/24 --subnet fd76::/64 both")?;
        n1.say("run -d --name mine --network both --ip 10.76.0.76 --ip6 fd76::76 --network-alias other weft/tools sleep 1000")?;
        prints(
            n1,
            "exec mine ip addr show eth0",
            &["10.76.0.76/24", "fd76::76/64"],
        )?;
        n2.say("run -d --name theirs --network both weft/tools sleep 1000")?;
        for name in ["mine", "other"] {
            for (family, address) in [("-4", "10.76.0.76"), ("-6", "fd76::76")] {
                let line = format!("exec theirs ping {family} -c 1 -W 3 {name}");
                prints(n2, &line, &[address])?;
            }
        }
        let shown = "inspect --format {{json .NetworkSettings.Networks.both}} mine";
        prints(
            n1,
            shown,
            &[
                r#""IPAddress":"10.76.0.76""#,
                r#""IPPrefixLen":24"#,
                r#""GlobalIPv6Address":"fd76::76""#,
                r#""GlobalIPv6PrefixLen":64"#,
                r#""other""#,
            ],
        )?;
        let facts = [r#""mine""#, "10.76.0.76/24", "fd76::76/64"];
        prints(n1, "network inspect both", &facts)?;
        prints(n1, "network inspect -v both", &facts)?;
        // What is taken, or of another network, is refused before anything runs.
        for address in ["10.76.0.76", "10.99.0.1"] {
            let line = format!("run --rm --network both --ip {address} busybox true");
            n2.docker(&line)?.refused("attach to network both")?;
        }
        // A worker that has nothing of the network yet: a manager says whether it is there.
        n3.say("run -d --name late weft/tools sleep 1000")?;
        n3.docker("network connect nosuch late")?
            .refused("nosuch not found")?;
        n3.say("network connect --ip6 fd76::99 --alias tardy both late")?;
        prints(n2, "exec theirs ping -6 -c 1 -W 3 tardy", &["fd76::99"])?;
        n3.say("network disconnect both late")?;
        n3.docker("network disconnect both late")?
            .refused("is not connected to")?;
        // Who ends by itself gives back name and address; who is started again has both.
        n1.say("kill mine")?;
        eventually(PATIENCE, "its name to go", || {
            let found = n2.say("exec theirs dig +short +time=2 +tries=1 mine")?;
            ensure!(found.is_empty(), "{found}");
            Ok(())
        })?;
        eventually(PATIENCE, "the container to start again", || {
            n1.say("start mine")
        })?;
        prints(n2, "exec theirs ping -6 -c 1 -W 3 mine", &["fd76::76"])?;
        n1.say("run -d --name brief --network both --ip 10.76.0.80 busybox true")?;
        eventually(PATIENCE, "the address of one that ended to be free", || {
            n2.say("run --rm --network both --ip 10.76.0.80 busybox true")
                .map(drop)
        })?;
        n1.say("rm -f mine brief")?;
        n2.say("rm -f theirs")?;
        n3.say("rm -f late")?;
        eventually(PATIENCE, "the network to be free", || {
            n1.say("network rm both").map(drop)
        })
    });
}
