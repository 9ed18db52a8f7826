//! What `weft` tells of one request that was just made: where it went, that it lives, and why another was dropped.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Held, Host, Shape, client, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// What `weft` answers on a host; never that something is unknown.
fn told(host: Host, words: &[&str]) -> Result<String> {
    let text = host.weft(words)?.ok()?;
    let name = host.name();
    ensure!(
        !text.to_lowercase().contains("unknown"),
        "`weft {}` on {name}:\n{text}",
        words.join(" ")
    );
    Ok(text)
}

/// The same, with each of these words in it.
fn says(host: Host, words: &[&str], said: &[&str]) -> Result<()> {
    let text = told(host, words)?;
    for part in said {
        ensure!(
            text.contains(part),
            "`weft {}` on {} does not say {part:?}:\n{text}",
            words.join(" "),
            host.name()
        );
    }
    Ok(())
}

#[test]
fn a_request_is_explained_listed_and_when_it_is_dropped_counted() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, _] = bed.all()?;
        n1.create(
            "web",
            "--publish 8080:80 --constraint node.hostname==n2 weft/whoami",
        )?;
        for (address, seen) in n1.faces() {
            client::ask_host(n1, 8080, client::ask)?;
            let held = Held::open(&address, 8080).context("a request")?;
            let (from, to) = (held.client.to_string(), format!("{address}:8080/tcp"));
            ensure!(from.contains(seen), "the client is {from}");
            // Where it came in, and where its task is.
            let explain = ["explain", &from, &to];
            says(
                n1,
                &explain,
                &[
                    "1. uplink_in at eth0: tunnelled to the chosen backend's node",
                    "port 8080/tcp is published by service web, its tasks listen at 80",
                    "on n2",
                    &format!("> {from} -> {to}"),
                ],
            )?;
            says(
                n2,
                &explain,
                &[
                    "the flow is known",
                    "answer tunnelled to the node the client came in by",
                    "through n1",
                ],
            )?;
            eventually(PATIENCE, "the connection to be listed as open", || {
                let list = told(n2, &["flows", "--all"])?;
                let row = list.lines().find(|line| line.contains(&from));
                let row = row.with_context(|| format!("no flow of {from} in:\n{list}"))?;
                for part in ["(web)", "web.1.", "open", "came in at 192.0.2.11"] {
                    ensure!(row.contains(part), "{part} is not in: {row}");
                }
                let sums = told(n2, &["flows"])?;
                let row = sums
                    .lines()
                    .find(|line| line.contains("(outside)") && line.contains("web"));
                ensure!(row.is_some(), "nobody outside asks web:\n{sums}");
                Ok(())
            })?;
            drop(held);
        }

        // Who is not on the list is told of before it asks, and counted when it did.
        n1.say(
            "service update --detach --label-add weft.allow=203.0.113.0/24,2001:db8:7::/64 web",
        )?;
        let reason = "source is not on the service's allow list";
        for (address, seen) in n1.faces() {
            let from = match seen.contains(':') {
                true => format!("[{seen}]:51234"),
                false => format!("{seen}:51234"),
            };
            let to = format!("{address}:8080/tcp");
            eventually(PATIENCE, "the list to be in force", || {
                says(n1, &["explain", &from, &to], &["DROPPED", reason])
            })?;
            ensure!(client::is_shut(&address, 8080)?, "{address} answers");
            eventually(PATIENCE, "the drop to be counted and shown", || {
                let list = told(n1, &["drops"])?;
                let row = list.lines().find(|line| line.contains(reason));
                let row = row.with_context(|| format!("no such drop in:\n{list}"))?;
                for part in [seen, &format!("{address}:8080"), "uplink_in", "s ago"] {
                    ensure!(row.contains(part), "{part} is not in: {row}");
                }
                Ok(())
            })?;
        }
        Ok(())
    });
}
