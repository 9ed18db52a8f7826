//! What is up, in one table.

use anyhow::Result;

use super::plan::{CLIENT, Host, Station};
use super::{host, process, up, wire};

/// Prints hosts, engines, agents and cables.
pub(crate) fn print() -> Result<()> {
    let hosts = up::hosts()?;
    println!(
        "{:<7} {:<13} {:<17} {:<8} {:<9} {:<9} FRONT DOOR",
        "HOST", "IPV4", "IPV6", "CABLE", "ENGINE", "AGENT"
    );
    for host in hosts {
        let station = host.station();
        let running = process::init_of(host).is_some();
        println!(
            "{:<7} {:<13} {:<17} {:<8} {:<9} {:<9} unix://{}",
            host.name(),
            station.v4(),
            station.v6(),
            if wire::is_plugged(&station) {
                "plugged"
            } else {
                "cut"
            },
            state(
                running,
                host::answers(&host.engine_socket()),
                "dockerd",
                host
            ),
            state(running, host::answers(&host.front_door()), "weft", host),
            host.front_door().display(),
        );
    }
    let client = Station::client();
    println!(
        "{:<7} {:<13} {:<17} namespace {CLIENT}",
        "client",
        client.v4(),
        client.v6()
    );
    Ok(())
}

fn state(running: bool, answers: bool, program: &str, host: Host) -> &'static str {
    match (running, answers) {
        (false, _) => "host off",
        (true, true) => "answers",
        (true, false) if process::inside(host, program).is_empty() => "stopped",
        (true, false) => "silent",
    }
}
