//! What was wished, as ratios within one run.

use std::fmt::Write as _;

use crate::{
    gauge::Kind,
    record::{Ratio, Record},
};

pub(crate) const LOCAL: &str = "weft: published port, local task";
pub(crate) const REMOTE: &str = "weft: published port, remote task";
pub(crate) const DIRECT: &str = "weft: task to task";
const VIP: &str = "weft: task to service address";
const SECRET: &str = "weft: task to task, encrypted";
pub(crate) const BRIDGE: &str = "bridge + VXLAN, task to task";
const FORWARD: &str = "kernel forwarding";
pub(crate) const VETH: &str = "plain veth";
pub(crate) const HAPROXY_LOCAL: &str = "HAProxy (TCP), local task";
pub(crate) const HAPROXY_REMOTE: &str = "HAProxy (TCP), remote task";
pub(crate) const DNAT_LOCAL: &str = "nftables DNAT, local task";
pub(crate) const DNAT_REMOTE: &str = "nftables DNAT, remote task";

/// Figures in which less is better are compared the other way round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    Rate,
    Slowest,
}

use Figure::{Rate, Slowest};

type Goal = (&'static str, &'static str, Figure, Kind, &'static str, f64);

/// What, whose, which figure of which kind, beside whom, and the least ratio.
const GOALS: [Goal; 19] = [
    (
        "remote published port beside bridge + VXLAN, Gbit/s up",
        REMOTE,
        Rate,
        Kind::Up,
        BRIDGE,
        0.95,
    ),
    ("… down", REMOTE, Rate, Kind::Down, BRIDGE, 0.95),
    (
        "… p99 of a question (theirs / ours)",
        REMOTE,
        Slowest,
        Kind::Ask,
        BRIDGE,
        1.0,
    ),
    (
        "task to task beside bridge + VXLAN, Gbit/s up",
        DIRECT,
        Rate,
        Kind::Up,
        BRIDGE,
        0.95,
    ),
    ("… down", DIRECT, Rate, Kind::Down, BRIDGE, 0.95),
    (
        "… p99 of a question (theirs / ours)",
        DIRECT,
        Slowest,
        Kind::Ask,
        BRIDGE,
        1.0,
    ),
    (
        "remote published port beside nftables DNAT, Gbit/s up",
        REMOTE,
        Rate,
        Kind::Up,
        DNAT_REMOTE,
        0.95,
    ),
    (
        "… p99 of a question (theirs / ours)",
        REMOTE,
        Slowest,
        Kind::Ask,
        DNAT_REMOTE,
        1.0,
    ),
    (
        "local published port beside kernel forwarding, Gbit/s up",
        LOCAL,
        Rate,
        Kind::Up,
        FORWARD,
        0.95,
    ),
    ("… down", LOCAL, Rate, Kind::Down, FORWARD, 0.95),
    (
        "connections beside nftables DNAT, local",
        LOCAL,
        Rate,
        Kind::Connect,
        DNAT_LOCAL,
        1.0,
    ),
    ("… remote", REMOTE, Rate, Kind::Connect, DNAT_REMOTE, 1.0),
    (
        "connections beside HAProxy, local",
        LOCAL,
        Rate,
        Kind::Connect,
        HAPROXY_LOCAL,
        3.0,
    ),
    ("… remote", REMOTE, Rate, Kind::Connect, HAPROXY_REMOTE, 3.0),
    (
        "service address beside task address, Gbit/s up",
        VIP,
        Rate,
        Kind::Up,
        DIRECT,
        0.98,
    ),
    ("… questions", VIP, Rate, Kind::Ask, DIRECT, 0.98),
    ("… connections", VIP, Rate, Kind::Connect, DIRECT, 0.98),
    (
        "encrypted beside wireguard-go, Gbit/s up",
        SECRET,
        Rate,
        Kind::Up,
        "wireguard-go, host to host",
        1.5,
    ),
    (
        "… down",
        SECRET,
        Rate,
        Kind::Down,
        "wireguard-go, host to host",
        1.5,
    ),
];

/// The table of goals, each met or by how much it was missed, and the names of those that were.
pub(crate) fn table(record: &Record) -> (String, Vec<String>) {
    let mut text =
        String::from("| goal | asked | found | least to most | met |\n|---|---|---|---|---|\n");
    let (mut missed, mut whole) = (Vec::new(), String::new());
    let mut row = |what: &str, asked: f64, found: Option<Ratio>| {
        // "…" stands for what the goal before it is about.
        let name = match what.strip_prefix('…') {
            Some(rest) => format!("{whole},{rest}"),
            None => {
                whole = what.split(", ").next().unwrap_or(what).to_owned();
                what.to_owned()
            }
        };
        if let Some(Ratio {
            middle: found,
            least,
            most,
        }) = found
        {
            let met = if found >= asked {
                "yes".to_owned()
            } else {
                missed.push(name);
                format!("**no**, {:.1} % short", 100.0 * (1.0 - found / asked))
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {what} | ≥ {asked:.2} | {found:.2} | {least:.2} to {most:.2} | {met} |"
            );
        }
    };
    for (what, whose, figure, kind, beside, asked) in GOALS {
        let found = if figure == Rate {
            record.ratio((whose, kind), (beside, kind), |sample| sample.rate)
        } else {
            record.ratio((beside, kind), (whose, kind), |sample| sample.p99)
        };
        row(what, asked, found);
    }
    for crowd in crate::own::CROWDS {
        for (way, short) in [(REMOTE, "remote published port"), (VIP, "service address")] {
            let many = format!("{way}, {}", crowd.name);
            for (kind, what) in [(Kind::Up, "Gbit/s up"), (Kind::Connect, "connections")] {
                let found = record.ratio((&many, kind), (way, kind), |sample| sample.rate);
                row(
                    &format!("{} beside one, {short}, {what}", crowd.name),
                    0.95,
                    found,
                );
            }
        }
    }
    let ours = |size: u32| format!("weft's resolver, {size} names");
    let docker = "Docker's resolver, 10 names";
    row(
        "names beside Docker's resolver, queries a second",
        2.0,
        record.ratio_of_names(&ours(10), docker, |(rate, _)| rate),
    );
    row(
        "… latency (theirs / ours)",
        1.0,
        record.ratio_of_names(docker, &ours(10), |(_, wait)| wait),
    );
    row(
        "100,000 names beside 10, queries a second",
        0.95,
        record.ratio_of_names(&ours(100_000), &ours(10), |(rate, _)| rate),
    );
    (text, missed)
}
