//! Users' own containers, as the engine has them.

use std::{fs, future::ready, io, net::IpAddr, path::PathBuf};

use async_trait::async_trait;
use bollard::models::{ContainerInspectResponse, EventMessage};
use tokio::sync::mpsc;
use weft_dns::resolv_conf::ResolvConf;

use super::{
    Engine, TASK_LABEL,
    stream::{Wished, follow},
};
use crate::{
    guest::{
        WISHES_LABEL,
        keep::{Addresses, Containers, Heard, Look},
        wishes_of,
    },
    task::Failure,
};

/// Where the resolver of a sandbox listens.
const RESOLVER: &str = "127.0.0.11";

#[async_trait]
impl Containers for Engine {
    async fn look(&self, container: &str) -> Result<Option<Look>, Failure> {
        let found = Self::look(self, container).await?;
        Ok(found.as_ref().map(look))
    }

    async fn lead_to_resolver(&self, container: &str) -> Result<(), Failure> {
        let found = Self::look(self, container).await?;
        let path = found.and_then(|found| found.resolv_conf_path);
        let Some(path) = path.and_then(|path| own_file(path, container)) else {
            return Ok(());
        };
        lead(&path).map_err(|error| {
            let path = path.display();
            Failure::lasting(format!(
                "cannot lead the container to its resolver in {path}: {error}"
            ))
        })
    }

    async fn tell_addresses(&self, container: &str, addresses: &Addresses) -> Result<(), Failure> {
        let Some(found) = Self::look(self, container).await? else {
            return Ok(());
        };
        let hostname = found.config.and_then(|config| config.hostname);
        let path = found.hosts_path;
        let (Some(hostname), Some(path)) =
            (hostname, path.and_then(|path| own_file(path, container)))
        else {
            return Ok(());
        };
        tell(&path, &hostname, addresses).map_err(|error| {
            let path = path.display();
            Failure::lasting(format!(
                "cannot write the container's addresses into {path}: {error}"
            ))
        })
    }

    async fn listen(&self) -> mpsc::Receiver<Heard> {
        let wished = Wished {
            label: None,
            events: &["start", "die", "destroy"],
        };
        follow(self.clone(), wished, Heard::Resync, |_, event| {
            ready(change(event))
        })
    }
}

/// A file that the engine made for this container. One that the user has mounted there instead may be the host's own.
fn own_file(path: String, container: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    let folder = path.parent()?.file_name()?;
    (folder == container).then_some(path)
}

/// Writes who the container is below the lines of the engine, which has these lines for networks of its own.
fn tell(path: &std::path::Path, hostname: &str, addresses: &Addresses) -> io::Result<()> {
    let line = |address: &IpAddr| format!("{address}\t{hostname}");
    let stale: Vec<String> = addresses.before.iter().map(line).collect();
    let held = fs::read_to_string(path)?;
    let kept = held
        .lines()
        .filter(|held| !stale.iter().any(|line| line == held));
    let mut lines: Vec<String> = kept.map(str::to_owned).collect();
    for line in addresses.now.iter().map(line) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let text = lines.join("\n") + "\n";
    if text == held {
        return Ok(());
    }
    fs::write(path, text)
}

/// Writes over the file, which the container has mounted: one in its place would not be seen.
fn lead(path: &std::path::Path) -> io::Result<()> {
    let held = fs::read_to_string(path)?;
    if held
        .lines()
        .any(|line| line.trim() == format!("nameserver {RESOLVER}"))
    {
        return Ok(());
    }
    fs::write(path, ResolvConf::parse(&held).for_sandbox(&[], &[]))
}

fn look(found: &ContainerInspectResponse) -> Look {
    let state = found.state.clone().unwrap_or_default();
    let labels = found
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    let mode = found.host_config.as_ref();
    let mode = mode.and_then(|host| host.network_mode.as_deref());
    Look {
        pid: state.pid.filter(|_| state.running == Some(true)),
        name: found
            .name
            .as_deref()
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned(),
        wishes: label(WISHES_LABEL)
            .map(|label| wishes_of(label))
            .unwrap_or_default(),
        refusal: refusal(mode.unwrap_or_default(), label(TASK_LABEL).is_some()),
    }
}

/// Why a container with this network mode cannot be on a swarm network.
fn refusal(mode: &str, is_task: bool) -> Option<String> {
    if is_task {
        return Some(
            "this container belongs to a service: change its networks with docker service update"
                .to_owned(),
        );
    }
    match mode {
        "host" => Some("container cannot be disconnected from host network or connected to another network".to_owned()),
        "" | "none" | "default" | "bridge" => None,
        shared if shared.starts_with("container:") => Some(
            "container sharing network namespace with another container or host cannot be connected to any other network".to_owned(),
        ),
        own => Some(format!(
            "this container is on the engine's network {own}, whose own resolver hides the names of swarm networks: run it with --network NAME of the swarm network instead"
        )),
    }
}

fn change(event: EventMessage) -> Option<Heard> {
    let actor = event.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    if attributes.contains_key(TASK_LABEL) {
        return None;
    }
    Some(Heard::Container {
        id: actor.id?,
        wishes: attributes.contains_key(WISHES_LABEL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_with_a_namespace_of_their_own_are_taken() {
        for mode in ["", "none", "default", "bridge"] {
            assert_eq!(refusal(mode, false), None, "{mode}");
            assert!(refusal(mode, true).is_some());
        }
        for mode in ["host", "container:abc", "mine"] {
            assert!(refusal(mode, false).is_some(), "{mode}");
        }
    }

    #[test]
    fn a_file_that_the_user_mounted_is_left_alone() {
        let id = "0123abcd";
        let own = "/var/lib/docker/containers/0123abcd/resolv.conf";
        assert_eq!(own_file(own.to_owned(), id), Some(own.into()));
        for other in ["/etc/resolv.conf", "/etc/hosts", "", "0123abcd"] {
            assert_eq!(own_file(other.to_owned(), id), None, "{other}");
        }
    }

    #[test]
    fn a_container_finds_its_own_name_at_its_addresses() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hosts");
        fs::write(&path, "127.0.0.1\tlocalhost\n172.17.0.2\tme\n").expect("a file");
        let [one, two] = ["10.0.1.2", "fd76::2"].map(|text| text.parse().expect("an address"));
        let told = |before: &[IpAddr], now: &[IpAddr]| {
            let (before, now) = (before.to_vec(), now.to_vec());
            tell(&path, "me", &Addresses { before, now }).expect("written");
            fs::read_to_string(&path).expect("a file")
        };
        let engine = "127.0.0.1\tlocalhost\n172.17.0.2\tme\n";
        assert_eq!(told(&[], &[one]), format!("{engine}10.0.1.2\tme\n"));
        assert_eq!(told(&[], &[one]), format!("{engine}10.0.1.2\tme\n"));
        assert_eq!(told(&[one], &[two]), format!("{engine}fd76::2\tme\n"));
        assert_eq!(told(&[two], &[]), engine);
    }

    #[test]
    fn resolver_settings_are_written_once_and_in_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.53\nsearch example.org\n").expect("a file");
        lead(&path).expect("written");
        let led = fs::read_to_string(&path).expect("a file");
        assert_eq!(
            led,
            "nameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n"
        );
        lead(&path).expect("written again");
        assert_eq!(fs::read_to_string(&path).expect("a file"), led);
    }
}
