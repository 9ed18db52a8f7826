//! The table at the heart of the demo: each host asked on each family, from outside, by a client that nobody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::run;
use crate::testbed::plan::{CLIENT, Host, Station, namespace_file};
use crate::testbed::swarm::docker;
use crate::wait;

/// One question and what came back.
pub(super) struct Row {
    host: String,
    /// The address asked, as it stands in a URL.
    address: String,
    /// The client's own address in that family: what the task should see.
    expected: String,
    answer: Result<Answer>,
}

struct Answer {
    task: String,
    client: String,
}

/// Asks each host on both families. An address that is not ready within 30 s becomes a failed row, not an error.
pub(super) fn ask_every_host(manager: Host, hosts: &[Host], port: u16) -> Result<Vec<Row>> {
    let tasks = tasks_by_container(manager, "webui")?;
    let client = Station::client();
    let mut rows = Vec::new();
    for host in hosts {
        let station = host.station();
        for (address, expected) in [
            (station.v4(), client.v4()),
            (format!("[{}]", station.v6()), client.v6()),
        ] {
            let url = format!("http://{address}:{port}/json");
            let _ = wait::until(Duration::from_secs(90), &url, || ask(&url).is_ok());
            let answer = ask(&url).and_then(|body| read_answer(&body, &tasks));
            rows.push(Row {
                host: host.name(),
                address: format!("{address}:{port}"),
                expected,
                answer,
            });
        }
    }
    Ok(rows)
}

/// Prints the table.
pub(super) fn print(rows: &[Row]) {
    println!(
        "\n  {:<5} {:<24} {:<8} {:<14} CLIENT ADDRESS SEEN",
        "HOST", "ADDRESS", "ANSWER", "SERVING TASK"
    );
    for row in rows {
        let (answer, task, client) = match &row.answer {
            Ok(answer) => ("200", answer.task.as_str(), answer.client.as_str()),
            Err(_) => ("none", "-", "-"),
        };
        println!(
            "  {:<5} {:<24} {answer:<8} {task:<14} {client}",
            row.host, row.address
        );
    }
    println!();
}

/// Every row must have an answer, and in it the client's own address.
pub(super) fn judge(rows: &[Row]) -> Result<()> {
    let mut faults = Vec::new();
    for row in rows {
        match &row.answer {
            Err(error) => faults.push(format!(
                "{} at {} does not answer: {error:#}",
                row.host, row.address
            )),
            Ok(answer) if answer.client != row.expected => faults.push(format!(
                "{} at {}: the task saw {} where the client is {}",
                row.host, row.address, answer.client, row.expected
            )),
            Ok(_) => {}
        }
    }
    if !faults.is_empty() {
        bail!(
            "the routing mesh does not keep its promise:\n  {}",
            faults.join("\n  ")
        );
    }
    Ok(())
}

/// Asks a URL once, from the client host.
pub(super) fn ask(url: &str) -> Result<String> {
    run("nsenter")
        .arg(format!("--net={}", namespace_file(CLIENT).display()))
        .args([
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--globoff",
            "--max-time",
            "3",
            url,
        ])
        .read()
}

fn read_answer(body: &str, tasks: &BTreeMap<String, String>) -> Result<Answer> {
    let facts: Value = serde_json::from_str(body).with_context(|| format!("answered `{body}`"))?;
    let text = |field: &str| {
        facts[field]
            .as_str()
            .with_context(|| format!("the answer lacks {field}: {body}"))
    };
    let hostname = text("hostname")?;
    let task = tasks
        .iter()
        .find(|(container, _)| container.starts_with(hostname));
    let task = task.map_or(hostname, |(_, name)| name).to_owned();
    let (client, _port) = text("client")?
        .rsplit_once(':')
        .context("a client without a port")?;
    Ok(Answer {
        task,
        client: client.trim_matches(['[', ']']).to_owned(),
    })
}

/// Names of a service's tasks by the containers that they run in.
fn tasks_by_container(manager: Host, service: &str) -> Result<BTreeMap<String, String>> {
    let list = docker(manager)
        .args([
            "service",
            "ps",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Name}}",
            "--filter",
            "desired-state=running",
            service,
        ])
        .read()?;
    let mut tasks = BTreeMap::new();
    for (id, name) in list.lines().filter_map(|line| line.split_once(' ')) {
        let container = docker(manager)
            .args([
                "inspect",
                "--type",
                "task",
                "--format",
                "{{.Status.ContainerStatus.ContainerID}}",
                id,
            ])
            .read()?;
        tasks.insert(container, name.to_owned());
    }
    Ok(tasks)
}
