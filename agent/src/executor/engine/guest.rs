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

/// The host's resolvers.
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
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

    async fn lead_away(&self, container: &str) -> Result<(), Failure> {
        let Some(found) = Self::look(self, container).await? else {
            return Ok(());
        };
        // The engine has a resolver there itself, or there is nobody to be asked.
        if networks(&found) != ["bridge"] {
            return Ok(());
        }
        let servers = servers(&found);
        let path = found.resolv_conf_path;
        let Some(path) = path.and_then(|path| own_file(path, container)) else {
            return Ok(());
        };
        let host = fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default();
        lead_away(&path, &servers, &host).map_err(|error| {
            let path = path.display();
            Failure::lasting(format!(
                "cannot lead the container to the host's resolvers in {path}: {error}"
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

/// Puts resolvers outside in the place of the sandbox's: the user's, the host's, or those that the engine gives who has none
/// that a container can reach.
fn lead_away(path: &std::path::Path, servers: &[String], host: &str) -> io::Result<()> {
    let mut servers = servers.to_vec();
    if servers.is_empty() {
        let host = ResolvConf::parse(host).servers;
        let host = host.iter().filter(|server| !server.is_loopback());
        servers = host.map(IpAddr::to_string).collect();
    }
    if servers.is_empty() {
        servers = ["8.8.8.8", "8.8.4.4"].map(str::to_owned).to_vec();
    }
    let held = fs::read_to_string(path)?;
    let rest = held.lines().filter(|line| {
        let line = line.trim();
        !line.starts_with("nameserver") && line != "options ndots:0"
    });
    let servers = servers.iter().map(|server| format!("nameserver {server}"));
    let lines: Vec<String> = servers.chain(rest.map(str::to_owned)).collect();
    fs::write(path, lines.join("\n") + "\n")
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
        networks: networks(found),
        servers: servers(found),
        wishes: label(WISHES_LABEL)
            .map(|label| wishes_of(label))
            .unwrap_or_default(),
        refusal: refusal(mode.unwrap_or_default(), label(TASK_LABEL).is_some()),
    }
}

/// Networks of the engine's own that it is on, in a constant order.
fn networks(found: &ContainerInspectResponse) -> Vec<String> {
    let settings = found.network_settings.as_ref();
    let networks = settings.and_then(|settings| settings.networks.as_ref());
    let names = networks.into_iter().flat_map(|networks| networks.keys());
    let mut names: Vec<String> = names.filter(|name| *name != "none").cloned().collect();
    names.sort();
    names
}

/// Resolvers that the user gave it (`--dns`).
fn servers(found: &ContainerInspectResponse) -> Vec<String> {
    let host = found.host_config.as_ref();
    let servers = host.and_then(|host| host.dns.clone()).unwrap_or_default();
    let outside = |server: &String| server != RESOLVER;
    servers.into_iter().filter(outside).collect()
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
        shared if shared.starts_with("container:") => Some(
            "container sharing network namespace with another container or host cannot be connected to any other network".to_owned(),
        ),
        // A network of the engine's: ours come beside it.
        _ => None,
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
        for mode in ["", "none", "default", "bridge", "mine"] {
            assert_eq!(refusal(mode, false), None, "{mode}");
            assert!(refusal(mode, true).is_some());
        }
        for mode in ["host", "container:abc"] {
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
        // And away from it again.
        let away = |servers: &[&str], host: &str| {
            let servers: Vec<String> = servers.iter().map(|&server| server.to_owned()).collect();
            lead_away(&path, &servers, host).expect("written");
            fs::read_to_string(&path).expect("a file")
        };
        let search = "search example.org";
        let host = "nameserver 127.0.0.53\nnameserver 192.0.2.53\n";
        assert_eq!(
            away(&[], host),
            format!("nameserver 192.0.2.53\n{search}\n")
        );
        assert_eq!(
            away(&["192.0.2.99"], host),
            format!("nameserver 192.0.2.99\n{search}\n")
        );
        assert_eq!(
            away(&[], "nameserver 127.0.0.53\n"),
            format!("nameserver 8.8.8.8\nnameserver 8.8.4.4\n{search}\n")
        );
    }
}
