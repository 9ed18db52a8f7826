//! What a network is to those who are on it.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the task of `service` on `host` runs `words` well, and says what that printed.
fn runs(host: Host, service: &str, words: &[&str]) -> Result<String> {
    eventually(PATIENCE, &format!("{service} to run {words:?}"), || {
        host.exec(service, words)?.ok()
    })
}

#[test]
fn a_vip_answers_at_every_port_and_to_ping() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.say("network create --driver overlay --subnet 10.82.0.0/24 front")?;
        n1.create(
            "many",
            "--network front --constraint node.hostname==n3 --stop-signal SIGKILL busybox sh -c 'mkdir /w; echo here > /w/index.html; for port in 80 8123; do httpd -p $port -h /w; done; exec httpd -f -p 40123 -h /w'",
        )?;
        n1.create(
            "asks",
            "--network front --constraint node.hostname==n2 --hostname asker --host db:192.0.2.99 --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        let vip = n1.say("service inspect --format '{{range .Endpoint.VirtualIPs}}{{println .Addr}}{{end}}' many")?;
        let vip = vip.lines().find(|line| line.starts_with("10.82.0."));
        let vip = vip
            .and_then(|vip| vip.split('/').next())
            .unwrap_or_default();
        // Nothing was published: a network's own ports are all open to it.
        for port in [80, 8123, 40123] {
            let url = format!("http://{vip}:{port}/");
            let page = runs(n2, "asks", &["curl", "-sS", "-m", "5", &url])?;
            ensure!(page == "here", "{url} says {page}");
        }
        runs(n2, "asks", &["ping", "-c", "1", "-W", "3", vip])?;
        // A port that nobody listens at is refused by the task, not passed over in silence.
        let shut = n2.exec(
            "asks",
            &["curl", "-sS", "-m", "5", &format!("http://{vip}:81/")],
        )?;
        ensure!(shut.status == 7, "port 81 of {vip}: {shut}");
        let hosts = runs(n2, "asks", &["cat", "/etc/hosts"])?;
        let has = |address: &str, name: &str| {
            let mut lines = hosts
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.any(|words| words.len() == 2 && words[0].starts_with(address) && words[1] == name)
        };
        ensure!(
            has("127.0.0.1", "localhost") && has("10.82.0.", "asker") && has("192.0.2.99", "db"),
            "/etc/hosts lacks a name that it should have:\n{hosts}"
        );
        Ok(())
    });
}

#[test]
fn an_internal_network_has_no_way_out() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.say("network create --driver overlay --attachable --internal dark")?;
        n1.say("network create --driver overlay lit")?;
        for (name, place) in [
            ("far", "--network dark --constraint node.hostname==n3"),
            ("inside", "--network dark --constraint node.hostname==n2"),
            ("open", "--network lit --constraint node.hostname==n2"),
        ] {
            let line = format!("{place} --stop-signal SIGKILL weft/tools sleep 100000");
            n1.create(name, &line)?;
        }
        runs(n2, "inside", &["ping", "-c", "1", "-W", "3", "far"])?;
        let out = ["ping", "-c", "1", "-W", "2", "198.51.100.1"];
        runs(n2, "open", &out)?;
        let way = n2.exec("inside", &out)?;
        ensure!(way.status != 0, "it reached the world: {way}");
        let routes = runs(n2, "inside", &["ip", "route"])?;
        ensure!(
            !routes.contains("default"),
            "a way out of an internal network:\n{routes}"
        );
        // Nor by published ports of a container of the user's own.
        n2.docker("run --rm -p 8090:80 --network dark busybox true")?
            .refused("it is internal")?;
        n2.say("run -d --name guest --network dark weft/tools sleep 1000")?;
        eventually(PATIENCE, "the guest to reach its network", || {
            n2.say("exec guest ping -c 1 -W 3 far")
        })?;
        let way = n2.docker("exec guest ping -c 1 -W 2 198.51.100.1")?;
        ensure!(way.status != 0, "the guest reached the world: {way}");
        n2.say("rm -f guest").map(drop)
    });
}
