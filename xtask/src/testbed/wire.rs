//! Namespaces, the switch, and the cables between.

use std::fs;

use anyhow::{Context, Result};

use super::plan::{SWITCH, Station, namespace_file};
use crate::run::run;

/// Makes a network namespace bound to the name `ip netns` knows it by.
///
/// Not by `ip netns add`: that makes `/run/netns` itself a mount, which would stay behind.
pub(crate) fn make_namespace(name: &str) -> Result<()> {
    let file = namespace_file(name);
    fs::create_dir_all("/run/netns").context("cannot make /run/netns")?;
    fs::File::create(&file).with_context(|| format!("cannot make {}", file.display()))?;
    run("unshare")
        .arg(format!("--net={}", file.display()))
        .arg("true")
        .quiet()?;
    run(&format!("ip -n {name} link set lo up")).quiet()
}

/// Makes the switch: a bridge that forwards everything and remembers nothing of multicast.
pub(crate) fn make_switch() -> Result<()> {
    make_namespace(SWITCH)?;
    batch(
        SWITCH,
        "link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0\nlink set br0 up\n",
    )
}

/// Plugs a station into the switch and gives it its addresses.
///
/// The far end is `eth0` of the station's namespace from birth, so nothing ever shows in ours.
pub(crate) fn plug(station: &Station) -> Result<()> {
    let Station {
        namespace, port, ..
    } = station;
    batch(
        SWITCH,
        &format!(
            "link add {port} mtu 1500 type veth peer name eth0 netns {namespace} mtu 1500 address {mac}\n\
             link set {port} master br0 up\n",
            mac = station.mac()
        ),
    )?;
    batch(
        namespace,
        &format!(
            "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
            station.v4(),
            station.v6()
        ),
    )
}

/// Sends what a host does not know to the client, which plays the outside world.
pub(crate) fn route_to_the_world(station: &Station) -> Result<()> {
    let world = Station::client();
    batch(
        &station.namespace,
        &format!(
            "route add default via {}\n-6 route add default via {} dev eth0\n",
            world.v4(),
            world.v6()
        ),
    )
}

/// Sets kernel switches of a namespace.
pub(crate) fn sysctl(namespace: &str, switches: &[&str]) -> Result<()> {
    run("nsenter")
        .arg(format!("--net={}", namespace_file(namespace).display()))
        .arg("sysctl")
        .arg("-qw")
        .args(switches)
        .quiet()
}

/// Takes the host off the switch without taking its carrier: it keeps talking, nobody hears.
pub(crate) fn cut(station: &Station) -> Result<()> {
    batch(SWITCH, &format!("link set {} nomaster\n", station.port))
}

/// Undoes [`cut`].
pub(crate) fn heal(station: &Station) -> Result<()> {
    batch(SWITCH, &format!("link set {} master br0\n", station.port))
}

/// Whether the host is on the switch.
pub(crate) fn is_plugged(station: &Station) -> bool {
    run(&format!(
        "ip -n {SWITCH} -o link show {} master br0",
        station.port
    ))
    .read()
    .is_ok_and(|line| !line.is_empty())
}

fn batch(namespace: &str, lines: &str) -> Result<()> {
    // `ip -batch` takes one family per run, so `-6` lines go by themselves.
    let (six, any): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.starts_with("-6 "));
    if !any.is_empty() {
        run(&format!("ip -n {namespace} -batch -"))
            .input(any.join("\n") + "\n")
            .quiet()?;
    }
    for line in six {
        run(&format!("ip -n {namespace} {line}")).quiet()?;
    }
    Ok(())
}
