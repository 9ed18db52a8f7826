//! Keys of encrypted networks: everything encrypted by a label of the swarm, keys changed by one command.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use weft_tests::golden::names::ask;
use weft_tests::load::Load;
use weft_tests::{Bed, Host, Shape, client, eventually, story};

/// Keys are told, tried and told again within seconds; the bed is slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// Encrypts every network of the swarm.
fn encrypt_everything(at: Host) -> Result<()> {
    let (_, body) = ask(at, "GET", "/swarm", "")?;
    let swarm: Value = serde_json::from_str(&body).context("GET /swarm answers no JSON")?;
    let mut spec = swarm["Spec"].clone();
    spec["Labels"] = serde_json::json!({"weft.encrypted": "true"});
    let version = &swarm["Version"]["Index"];
    let path = format!("/swarm/update?version={version}");
    let (status, said) = ask(at, "POST", &path, &spec.to_string())?;
    ensure!(status == 200, "{path}: {status} {said}");
    Ok(())
}

/// Names of a host's WireGuard devices.
fn devices(host: Host) -> Result<Vec<String>> {
    let links = host.run(&["ip", "-o", "link"])?.ok()?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    let ours = names.filter(|name| name.starts_with("weft-wg"));
    Ok(ours.map(str::to_owned).collect())
}

/// Waits until each host has this one device.
fn await_device(bed: &Bed, device: &str) -> Result<()> {
    for host in bed.hosts() {
        let what = format!("{} to use the device {device} alone", host.name());
        eventually(PATIENCE, &what, || {
            let devices = devices(host)?;
            ensure!(devices == [device], "it has {devices:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// What the switch carries for a while of task traffic between nodes, by port.
fn on_the_wire() -> Result<String> {
    let words = [
        "4",
        "nsenter",
        "--net=/run/netns/weft-switch",
        "tcpdump",
        // Without times, whose digits are like ports.
        "-tlnni",
        "any",
        "udp port 4789 or udp portrange 51871-51872",
    ];
    Ok(weft_tests::command("timeout", words, &[], b"")?.out)
}

#[test]
fn node_keys_are_rotated_under_load_and_nothing_is_lost() {
    story(Shape::Swarm(3, 3), |bed| {
        let n1 = bed.hosts()[0];
        // Encrypted it stays.
        bed.spoil();
        encrypt_everything(n1)?;
        n1.say("network create --driver overlay hush")?;
        n1.create(
            "web",
            "--network hush --replicas 3 --publish 8000:80 weft/whoami",
        )?;
        n1.create(
            "probe",
            "--network hush --mode global --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        await_device(bed, "weft-wg")?;

        for host in bed.hosts() {
            client::all_serve(host, 8000, 3)?;
            let what = format!("tasks.web to have an address on {}", host.name());
            eventually(PATIENCE, &what, || {
                let found = host.exec("probe", &["dig", "+short", "+time=2", "tasks.web"])?;
                ensure!(found.out.lines().count() == 3, "{found}");
                Ok(())
            })?;
            let what = format!("tasks.web to answer a ping on {}", host.name());
            eventually(PATIENCE, &what, || {
                let words = [
                    "ping",
                    "-c",
                    "10",
                    "-i",
                    "0.02",
                    "-W",
                    "1",
                    "-q",
                    "tasks.web",
                ];
                let said = host.exec("probe", &words)?.ok()?;
                ensure!(said.contains(" 0% packet loss"), "{said}");
                Ok(())
            })?;
        }
        let load = Load::start(60, 8000, &bed.hosts())?;
        // Twice, so that the first device is taken up again.
        let rotate = |device: &str| -> Result<()> {
            load.step(device);
            n1.say("swarm ca --rotate --quiet")?;
            await_device(bed, device)
        };
        let pings = std::thread::scope(|scope| {
            let pings: Vec<_> = bed
                .hosts()
                .into_iter()
                .map(|host| {
                    scope.spawn(move || {
                        let words = ["ping", "-i", "0.02", "-w", "40", "-q", "tasks.web"];
                        host.exec("probe", &words)
                    })
                })
                .collect();
            rotate("weft-wg1")?;
            rotate("weft-wg")?;
            let pings = pings.into_iter().map(|ping| {
                let ping = ping.join();
                ping.map_err(|_| anyhow!("a ping panicked"))??.ok()
            });
            pings.collect::<Result<Vec<String>>>()
        })?;
        let wire = on_the_wire()?;
        let told = load.end()?;
        told.none_failed()?;
        for ping in pings {
            ensure!(ping.contains(" 0% packet loss"), "{ping}");
        }
        let seen =
            |what: &str| -> Vec<&str> { wire.lines().filter(|line| line.contains(what)).collect() };
        ensure!(!seen(".51871").is_empty(), "no WireGuard among: {wire}");
        let clear = seen(".4789");
        ensure!(clear.is_empty(), "clear packets: {clear:#?}");
        let other = seen(".51872");
        ensure!(other.is_empty(), "the other keys are used: {other:#?}");
        Ok(())
    });
}
