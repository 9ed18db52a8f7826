//! Bad input: a clear refusal, and nothing is lost.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Host, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// A story of bad input to a swarm of three: whatever is said, every agent is the process that it was, and answers.
fn harmless(tell: impl FnOnce(Host) -> Result<()>) {
    story(Shape::Swarm(3, 1), |bed| {
        let agents =
            || -> Result<Vec<String>> { bed.hosts().into_iter().map(Host::agent).collect() };
        let before = agents()?;
        tell(bed.hosts()[0])?;
        let after = agents()?;
        ensure!(before == after, "agents were {before:?} and are {after:?}");
        for host in bed.hosts() {
            host.say("info").context("after the bad input")?;
        }
        Ok(())
    });
}

#[test]
fn a_service_that_cannot_be_is_refused_with_the_reason() {
    harmless(|n1| {
        n1.create("web", "--publish 8080:80 weft/whoami")?;
        for (line, words) in [
            (
                "service create -d --name web weft/whoami",
                "name conflicts with an existing object",
            ),
            (
                "service create -d --name other --publish 8080:80 weft/whoami",
                "port '8080' is already in use by service 'web'",
            ),
            (
                "service create -d --name no/slash weft/whoami",
                "name must be valid as a DNS name component",
            ),
            (
                "service create -d --name lost --network nowhere weft/whoami",
                "network nowhere not found",
            ),
            (
                "service create -d --name picky --constraint node.role~manager weft/whoami",
                "constraint expected one operator from ==, !=",
            ),
            (
                "service update -d --image weft/whoami nosuch",
                "service nosuch not found",
            ),
            ("service rm nosuch", "service nosuch not found"),
            (
                "network create --driver overlay --subnet 10.300.0.0/24 odd",
                "invalid",
            ),
            ("network rm nosuch", "nosuch not found"),
            (
                "node update --availability drain nosuch",
                "node nosuch not found",
            ),
        ] {
            n1.docker(line)?
                .refused(words)
                .with_context(|| format!("`docker {line}`"))?;
        }
        ensure!(
            n1.say("service ls --format {{.Name}}")? == "web",
            "a refused service is there"
        );
        Ok(())
    });
}

#[test]
fn subnets_that_overlap_are_refused() {
    harmless(|n1| {
        n1.say("network create --driver overlay --subnet 10.88.0.0/16 wide")?;
        n1.docker("network create --driver overlay --subnet 10.88.7.0/24 narrow")?
            .refused("overlap")?;
        n1.create("user", "--network wide weft/whoami")?;
        n1.docker("network rm wide")?.refused("in use")?;
        Ok(())
    });
}

#[test]
fn a_full_subnet_is_a_reason_in_service_ps() {
    harmless(|n1| {
        n1.say("network create --driver overlay --subnet 10.99.0.0/29 tiny")?;
        n1.say("service create --detach --name crowd --replicas 8 --network tiny weft/whoami")?;
        eventually(PATIENCE, "a task to say why it has no address", || {
            let errors = n1.say("service ps --no-trunc --format {{.Error}} crowd")?;
            ensure!(
                errors.contains("available")
                    || errors.contains("exhausted")
                    || errors.contains("free"),
                "errors are: {errors}"
            );
            Ok(())
        })
    });
}

#[test]
fn an_unknown_image_is_a_reason_in_service_ps() {
    harmless(|n1| {
        n1.say(
            "service create --detach --name ghost --restart-delay 1s 127.0.0.1:9/no/such:image",
        )?;
        eventually(PATIENCE, "tasks to be rejected", || {
            let list =
                n1.say("service ps --no-trunc --format {{.CurrentState}}|{{.Error}} ghost")?;
            ensure!(
                list.contains("Rejected") && list.contains("|\"")
                    || list.contains("|No such image")
                    || list.contains("connect"),
                "{list}"
            );
            Ok(())
        })?;
        // A program that is not in the image is said in Docker's words.
        n1.say(
            "service create --detach --name empty --restart-condition none busybox no-such-program",
        )?;
        eventually(PATIENCE, "the task to fail", || {
            let list =
                n1.say("service ps --no-trunc --format {{.CurrentState}}|{{.Error}} empty")?;
            ensure!(
                list.contains("Failed") || list.contains("Rejected"),
                "{list}"
            );
            Ok(())
        })
    });
}

#[test]
fn an_update_of_a_stale_version_is_refused() {
    harmless(|n1| {
        n1.create("web", "weft/whoami")?;
        let id = n1.say("service inspect --format {{.ID}} web")?;
        let words = ["service", "inspect", "--format", "{{json .Spec}}", "web"];
        let spec = n1
            .docker_words(weft_tests::Cli::Default, &words, b"")?
            .ok()?;
        let socket = n1.front_door();
        let path = format!("http://d/services/{id}/update?version=1");
        let socket = socket.to_string_lossy();
        let answer = weft_tests::command(
            "curl",
            [
                "-s",
                "--unix-socket",
                &socket,
                "-H",
                "Content-Type: application/json",
                "-d",
                &spec,
                &path,
            ],
            &[],
            b"",
        )?
        .ok()?;
        ensure!(
            answer.contains("update out of sequence"),
            "a stale update is answered with {answer}"
        );
        Ok(())
    });
}

#[test]
fn garbage_on_the_api_socket_harms_nobody() {
    harmless(|n1| {
        let noise: Vec<u8> = (0..4096_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let lines: [&[u8]; 5] = [
            &noise,
            b"GET",
            b"POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"Name\": ",
            b"POST /v1.41/services/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
            b"GET /v9999.1/services HTTP/1.1\r\nHost: d\r\n\r\n",
        ];
        for line in lines {
            let mut stream =
                UnixStream::connect(n1.front_door()).context("the front door is closed")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            // The door may hang up on us before we are done: that is its right.
            let _ = stream.write_all(line);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            ensure!(
                !answer.starts_with(b"HTTP/1.1 2"),
                "garbage was accepted: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        ensure!(
            n1.say("service ls -q")?.is_empty(),
            "garbage made a service"
        );
        Ok(())
    });
}

#[test]
fn random_bytes_to_the_resolver_harm_nobody() {
    harmless(|n1| {
        n1.say("network create --driver overlay front")?;
        n1.create(
            "probe",
            "--network front --mode global --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        let throw = "for size in 1 11 12 13 100 500 1400; do for n in 1 2 3 4 5; do head -c $size /dev/urandom | socat -t0 - UDP4:127.0.0.11:53; \
                     head -c $size /dev/urandom | socat -t0 - TCP4:127.0.0.11:53; done; done";
        n1.exec("probe", &["sh", "-c", throw])?;
        eventually(PATIENCE, "the resolver to answer as before", || {
            let found = n1.exec("probe", &["dig", "+short", "tasks.probe"])?.ok()?;
            ensure!(found.lines().count() == 3, "tasks.probe is {found}");
            Ok(())
        })
    });
}

#[test]
fn an_overlay_packet_from_a_stranger_is_dropped() {
    harmless(|n1| {
        n1.create(
            "web",
            "--constraint node.hostname==n1 --publish 8080:80 weft/whoami",
        )?;
        eventually(PATIENCE, "the port to answer", || {
            client::ask(&n1.v4(), 8080)
        })?;
        // A VXLAN header for every network number a small swarm has, then a frame of noise.
        let throw = format!(
            "for vni in 00 01 02 03; do {{ printf '\\010\\000\\000\\000\\000\\020\\'$vni'\\000'; head -c 200 /dev/urandom; }} | socat -u - UDP4-SENDTO:{}:4789; done",
            n1.v4()
        );
        client::run(&["busybox", "sh", "-c", &throw])?.ok()?;
        let weft = weft_tests::bed::agent();
        let state = n1.dir().join("state").display().to_string();
        let words = [&weft, "drops", "--state-dir", &state];
        eventually(PATIENCE, "the drop to be counted with its reason", || {
            let drops = n1.run(&words)?.ok()?;
            let reason = "tunnelled packet from an address that is no node";
            ensure!(drops.contains(reason), "{drops}");
            Ok(())
        })?;
        client::ask_host(n1, 8080, client::ask).context("the mesh as before")?;
        Ok(())
    });
}
