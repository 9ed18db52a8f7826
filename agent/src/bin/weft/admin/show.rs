//! What the data plane says, as tables for people.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use weft_dataplane::{DropCount, FlowPair, FlowRow, Question, Step};
use weft_types::{netstate::NetState, service::Protocol};

/// Reads `CLIENT:PORT` and `HOST:PORT/PROTOCOL`. Hosts may be nodes of the cluster, by name; the
/// protocol is TCP when none is given.
pub(super) fn question(client: &str, server: &str, net: &NetState) -> Result<Question, String> {
    let (server, protocol) = server.rsplit_once('/').unwrap_or((server, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(format!("{other:?} is no protocol: say tcp, udp or sctp")),
    };
    Ok(Question {
        client: end(client, net)?,
        server: end(server, net)?,
        protocol,
    })
}

fn end(text: &str, net: &NetState) -> Result<SocketAddr, String> {
    let named = || {
        let (host, port) = text.rsplit_once(':')?;
        let mut nodes = net.nodes.values();
        let node = nodes.find(|node| node.hostname == host)?;
        Some(SocketAddr::new(node.addr, port.parse().ok()?))
    };
    text.parse().ok().or_else(named).ok_or_else(|| {
        format!("{text:?} is neither ADDRESS:PORT ([ADDRESS]:PORT for IPv6) nor NODE:PORT with a node of this cluster")
    })
}

/// What each program decides, in the order in which the packet meets them.
pub(super) fn steps(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "no program of this node would see this packet: ask on the node that it reaches\n"
            .to_owned();
    }
    let mut text = String::new();
    for (number, step) in steps.iter().enumerate() {
        let mark = if step.dropped { "DROPPED: " } else { "" };
        let _infallible = writeln!(
            text,
            "{}. {} at {}: {mark}{}",
            number + 1,
            step.program,
            step.place,
            step.decision
        );
        for why in &step.why {
            let _infallible = writeln!(text, "     {why}");
        }
        if !step.packet.is_empty() {
            let _infallible = writeln!(text, "   > {}", step.packet);
        }
    }
    text
}

/// Who talks to whom.
pub(super) fn pairs(pairs: &[FlowPair]) -> String {
    if pairs.is_empty() {
        return "no flow\n".to_owned();
    }
    let mut text = format!(
        "{:<24} {:<24} {:>8} {:>12} {:>14}  OLDEST\n",
        "CLIENT", "SERVICE", "FLOWS", "PACKETS", "BYTES"
    );
    for pair in pairs {
        let _infallible = writeln!(
            text,
            "{:<24} {:<24} {:>8} {:>12} {:>14}  {}",
            pair.client.as_deref().unwrap_or("(outside)"),
            pair.service.as_deref().unwrap_or("(none)"),
            pair.flows,
            pair.packets,
            pair.bytes,
            age(pair.oldest)
        );
    }
    text
}

/// Every flow.
pub(super) fn flows(rows: &[FlowRow]) -> String {
    if rows.is_empty() {
        return "no flow\n".to_owned();
    }
    let mut text = format!(
        "{:<5} {:<46} {:<30} {:<30} {:>12} {:>12} {:>8} {:>8}  STATE\n",
        "PROTO", "CLIENT", "ASKED", "TASK", "TO TASK", "TO CLIENT", "AGE", "IDLE"
    );
    let named = |addr: SocketAddr, name: &Option<String>| match name {
        Some(name) => format!("{addr} ({name})"),
        None => addr.to_string(),
    };
    for row in rows {
        let _infallible = writeln!(
            text,
            "{:<5} {:<46} {:<30} {:<30} {:>12} {:>12} {:>8} {:>8}  {}{}",
            row.protocol,
            named(row.client, &row.client_name),
            named(row.asked, &row.service),
            named(row.task, &row.task_name),
            row.to_task.1,
            row.to_client.1,
            age(row.age),
            age(row.idle),
            row.state.text(),
            row.ingress
                .map_or_else(String::new, |node| format!(", came in at {node}")),
        );
    }
    text
}

/// A span in its largest fitting unit.
fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", span.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Which packets were dropped, and why.
pub(super) fn drops(drops: Vec<DropCount>) -> String {
    if drops.is_empty() {
        return "no packet was dropped\n".to_owned();
    }
    let reasons = drops.iter().map(|drop| drop.reason.len());
    let wide = reasons.max().unwrap_or(0).max("REASON".len());
    let mut text = format!(
        "{:<12} {:<wide$} {:>10} {:>12}  LAST\n",
        "PROGRAM", "REASON", "PACKETS", "BYTES"
    );
    for drop in drops {
        let last = drop.sample.map(|sample| {
            let end = |(address, port): (IpAddr, u16)| match port {
                0 => address.to_string(),
                port => SocketAddr::new(address, port).to_string(),
            };
            format!(
                "{} > {} protocol {} vni {}, {:.1} s ago",
                end(sample.source),
                end(sample.destination),
                sample.protocol,
                sample.vni,
                sample.age.as_secs_f64()
            )
        });
        let _infallible = writeln!(
            text,
            "{:<12} {:<wide$} {:>10} {:>12}  {}",
            drop.program,
            drop.reason,
            drop.packets,
            drop.bytes,
            last.unwrap_or_default()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_and_refused_with_what_to_say_instead() {
        let net = NetState::default();
        let read = question("192.0.2.1:4711", "[2001:db8::1]:80/udp", &net).expect("a question");
        assert_eq!(read.client, "192.0.2.1:4711".parse().expect("an address"));
        assert_eq!(read.protocol, Protocol::Udp);
        let tcp = question("192.0.2.1:1", "192.0.2.2:80", &net).expect("a question");
        assert_eq!(tcp.protocol, Protocol::Tcp);
        for (client, server) in [("192.0.2.1", "192.0.2.2:80"), ("n1:1", "192.0.2.2:80")] {
            let refusal = question(client, server, &net).expect_err("a refusal");
            assert!(refusal.contains("NODE:PORT"), "{refusal}");
        }
        assert!(question("192.0.2.1:1", "192.0.2.2:80/icmp", &net).is_err());
    }

    #[test]
    fn the_longest_reason_fits_its_column() {
        let count = |reason| DropCount {
            reason,
            program: "uplink_in",
            packets: 7,
            bytes: 420,
            sample: None,
        };
        let long = "fragment too small to hold its transport header, or that would overwrite it";
        let text = drops(vec![count("no room for a new flow"), count(long)]);
        let ends: Vec<usize> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.find("          7"))
            .collect();
        assert_eq!(ends.len(), 2, "{text}");
        assert_eq!(ends[0], ends[1], "{text}");
    }

    #[test]
    fn a_drop_stands_out() {
        let step = Step {
            program: "uplink_in".to_owned(),
            place: "eth0".to_owned(),
            decision: "no such port".to_owned(),
            dropped: true,
            why: vec!["192.0.2.1 is this node's".to_owned()],
            packet: String::new(),
        };
        assert_eq!(
            steps(&[step]),
            "1. uplink_in at eth0: DROPPED: no such port\n     192.0.2.1 is this node's\n"
        );
    }

    #[test]
    fn ages_are_short() {
        let text = |seconds| age(Duration::from_secs(seconds));
        assert_eq!([text(5), text(65), text(7260)], ["5.0s", "1m05s", "2h01m"]);
    }
}
