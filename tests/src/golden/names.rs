//! Ids by the names of what they are of.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Host;

/// Every id seen so far. What was named keeps its name: a second object of one name is `name#2`, tasks of a slot by age.
#[derive(Default, Debug)]
pub struct Names {
    by_id: BTreeMap<String, String>,
    count: BTreeMap<String, usize>,
}

impl Names {
    /// Names an id that is not yet named.
    pub fn learn(&mut self, id: &str, name: &str) {
        if id.len() < 12 || self.by_id.contains_key(id) {
            return;
        }
        let count = self.count.entry(name.to_owned()).or_default();
        *count += 1;
        let name = match count {
            1 => format!("<{name}>"),
            more => format!("<{name}#{more}>"),
        };
        self.by_id.insert(id.to_owned(), name);
    }

    /// Puts names in the place of ids, whole or cut to twelve.
    #[must_use]
    pub fn put_in(&self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        let mut word = String::new();
        // A last blank ends the last word.
        for letter in text.chars().chain([' ']) {
            if letter.is_ascii_alphanumeric() {
                word.push(letter);
                continue;
            }
            match self.find(&word) {
                Some(name) => named.push_str(name),
                None => named.push_str(&word),
            }
            word.clear();
            named.push(letter);
        }
        named.pop();
        named
    }

    fn find(&self, word: &str) -> Option<&str> {
        if word.len() < 12 {
            return None;
        }
        let (id, name) = self.by_id.range(word.to_owned()..).next()?;
        let whole = id == word;
        (whole || (word.len() == 12 && id.starts_with(word))).then_some(name.as_str())
    }

    /// Asks the hosts for what they know. One that does not answer is left out.
    pub fn ask(&mut self, hosts: &[Host]) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for host in hosts {
            let list = |path: &str| match ask(*host, "GET", path, "") {
                Ok((200, body)) => serde_json::from_str::<Vec<Value>>(&body).unwrap_or_default(),
                _ => vec![],
            };
            // Without a leader each question takes the managers' whole patience.
            if !matches!(ask(*host, "GET", "/nodes", ""), Ok((200 | 503, _))) {
                continue;
            }
            for node in list("/nodes") {
                let name = text(&node["Description"]["Hostname"]);
                self.learn(&text(&node["ID"]), &format!("node {name}"));
            }
            let services = list("/services");
            let service_name = |id: &Value| {
                let service = services.iter().find(|service| service["ID"] == *id);
                service.map_or_else(String::new, |service| text(&service["Spec"]["Name"]))
            };
            for service in &services {
                let name = text(&service["Spec"]["Name"]);
                self.learn(&text(&service["ID"]), &format!("service {name}"));
            }
            for kind in ["secret", "config"] {
                for object in list(&format!("/{kind}s")) {
                    let name = text(&object["Spec"]["Name"]);
                    self.learn(&text(&object["ID"]), &format!("{kind} {name}"));
                }
            }
            for network in list("/networks") {
                let name = text(&network["Name"]);
                self.learn(&text(&network["Id"]), &format!("network {name}"));
            }
            let mut tasks = list("/tasks");
            tasks.sort_by_key(|task| text(&task["CreatedAt"]));
            for task in &tasks {
                let service = service_name(&task["ServiceID"]);
                let slot = match task["Slot"].as_u64() {
                    Some(slot) => slot.to_string(),
                    None => self.by_id.get(&text(&task["NodeID"])).map_or_else(
                        || "?".to_owned(),
                        |node| node.trim_matches(['<', '>']).to_owned(),
                    ),
                };
                self.learn(&text(&task["ID"]), &format!("task {service}.{slot}"));
                let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
                self.learn(&container, &format!("container {service}.{slot}"));
            }
            if let Ok((200, body)) = ask(*host, "GET", "/swarm", "") {
                let cluster: Value = serde_json::from_str(&body).unwrap_or_default();
                self.learn(&text(&cluster["ID"]), "cluster");
            }
        }
    }
}

/// One request to a host's front door: status and body.
///
/// # Errors
/// When there is no answer within 60 s.
pub fn ask(host: Host, method: &str, path: &str, body: &str) -> Result<(i32, String)> {
    let socket = host.front_door();
    let mut stream = UnixStream::connect(&socket)
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // Of version 1.0, so that the answer comes in one piece and ends with the connection.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("{method} {path} at {} is not answered", host.name()))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}
