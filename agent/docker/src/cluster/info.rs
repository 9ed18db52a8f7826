//! `docker info` of the cluster: sums, and the state of each host as classic Swarm printed it.

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use http::{Method, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{Asked, Cluster, Member, hosts::request};
use crate::reply::{Reply, json as answer_json, ok};

/// Fields that are added up over the hosts.
const SUMS: [&str; 7] = [
    "Containers",
    "ContainersRunning",
    "ContainersPaused",
    "ContainersStopped",
    "Images",
    "NCPU",
    "MemTotal",
];

impl Cluster {
    pub(super) async fn info(&self, asked: &Asked) -> Reply {
        let members = self.members().await?;
        let parts = asked.like("/info", asked.raw_query())?;
        let own = self.here.get_object("/info").await?;
        let (StatusCode::OK, mut info) = own else {
            return Ok(answer_json(own.0, &own.1));
        };
        let asked: Vec<BoxFuture<'_, Said>> = members
            .iter()
            .map(|member| self.ask_info(member, parts.clone()).boxed())
            .collect();
        let answers = join_all(asked).await;
        let mut warnings = match info["Warnings"].take() {
            Value::Array(list) => list,
            _ => Vec::new(),
        };
        let mut rows = self.head(members.len()).await;
        for field in SUMS {
            let values = answers.iter().flatten().map(|(value, _)| &value[field]);
            info[field] = values.filter_map(Value::as_i64).sum::<i64>().into();
        }
        for (member, answer) in members.iter().zip(&answers) {
            if let Err(why) = answer {
                let name = &member.origin.name;
                warnings.push(format!("WARNING: node {name} is left out: {why}").into());
            }
            rows.extend(member_rows(member, answer));
        }
        info["SystemStatus"] = rows
            .iter()
            .map(|(key, value)| json!([key, value]))
            .collect();
        info["Warnings"] = Value::Array(warnings);
        Ok(ok(&info))
    }

    async fn ask_info(&self, member: &Member, parts: Parts) -> Said {
        if !member.is_up {
            return Err(member.state.clone());
        }
        let answer = member.ask(parts, Bytes::new()).await;
        let answer = answer.map_err(|refusal| refusal.message)?;
        let reserved = self.reserved(member).await;
        match answer.status {
            StatusCode::OK => Ok((answer.value, reserved)),
            status => Err(format!("answers {status}")),
        }
    }

    async fn head(&self, nodes: usize) -> Vec<(String, String)> {
        let leads = match self.node.control().await {
            Ok(manager) => manager.standing().await.leads,
            Err(_) => false,
        };
        let filters = self.policy.filters.iter().map(|filter| filter.name());
        let filters: Vec<&str> = filters.collect();
        [
            ("Role", if leads { "primary" } else { "replica" }.to_owned()),
            ("Strategy", self.policy.strategy.to_string()),
            ("Filters", filters.join(", ")),
            ("Nodes", nodes.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// Billionths of a CPU and bytes that the containers of a host reserve.
    async fn reserved(&self, member: &Member) -> (i64, i64) {
        let Ok(question) = request(Method::GET, "/containers/json?all=1") else {
            return (0, 0);
        };
        let Ok(answer) = member.ask(question, Bytes::new()).await else {
            return (0, 0);
        };
        let mut host = member.host();
        let list = answer.value.as_array().map_or(&[][..], Vec::as_slice);
        host.containers = list.iter().map(weft_cluster::Container::listed).collect();
        self.fill_facts(member, &mut host).await;
        host.reserved()
    }
}

type Said = Result<(Value, (i64, i64)), String>;

fn member_rows(member: &Member, said: &Said) -> Vec<(String, String)> {
    let mut rows = vec![(
        format!(" {}", member.origin.name),
        member.origin.addr.clone(),
    )];
    let mut row = |key: &str, value: String| rows.push((format!("  └ {key}"), value));
    row("ID", member.origin.id.clone());
    let status = match said {
        Ok(_) if member.is_active => "Healthy".to_owned(),
        Ok(_) => "Healthy (takes no new containers)".to_owned(),
        Err(_) if member.is_up => "Unhealthy".to_owned(),
        Err(_) => member.state.clone(),
    };
    row("Status", status);
    let labels = member
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let labels = labels.collect::<Vec<_>>().join(", ");
    match said {
        Ok((info, (cpus, bytes))) => {
            let count = |field: &str| info[field].as_i64().unwrap_or(0);
            row(
                "Containers",
                format!(
                    "{} ({} Running, {} Paused, {} Stopped)",
                    count("Containers"),
                    count("ContainersRunning"),
                    count("ContainersPaused"),
                    count("ContainersStopped")
                ),
            );
            let cores = cores(member.nano_cpus);
            row("Reserved CPUs", format!("{} / {cores}", self::cores(*cpus)));
            row(
                "Reserved Memory",
                format!("{} / {}", size(*bytes), size(member.memory_bytes)),
            );
            row("Labels", labels);
            row("Error", "(none)".to_owned());
        }
        Err(why) => {
            row("Labels", labels);
            row("Error", why.clone());
        }
    }
    row("ServerVersion", member.release.clone());
    rows
}

/// Cores, with as many digits as they need.
fn cores(nano: i64) -> String {
    let whole = nano / 1_000_000_000;
    match nano % 1_000_000_000 / 1_000_000 {
        0 => whole.to_string(),
        milli => format!("{whole}.{milli:03}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

/// Bytes for people.
fn size(bytes: i64) -> String {
    let mut tenths = i128::from(bytes) * 10;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenth) => format!("{whole}.{tenth} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_for_people() {
        for (bytes, expected) in [(0, "0 B"), (1536, "1.5 KiB"), (4 << 30, "4 GiB")] {
            assert_eq!(size(bytes), expected);
        }
        for (nano, expected) in [(0, "0"), (4_000_000_000, "4"), (500_000_000, "0.5")] {
            assert_eq!(cores(nano), expected);
        }
    }
}
