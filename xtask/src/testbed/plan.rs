//! The testbed on paper: names, addresses and places. A contract that tests, people and scripts rely on.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::place;

/// The client host's namespace.
pub(crate) const CLIENT: &str = "weft-client";
/// The switch's namespace; it holds one bridge and a port per host.
pub(crate) const SWITCH: &str = "weft-switch";
/// Control groups of every container of the bed lie under this one.
pub(crate) const CGROUP: &str = "weft-testbed";
/// Says which clone's testbed is up on this machine: names of namespaces are the machine's, not the clone's.
pub(crate) const OWNER: &str = "/run/weft-testbed.owner";
/// Most hosts that the addressing leaves room for (client is 100).
pub(crate) const MOST_HOSTS: u8 = 80;

/// A machine on the switch, host or client, as the wiring sees it.
pub(crate) struct Station {
    /// Its network namespace, and its port's name on the switch.
    pub(crate) namespace: String,
    /// Port's name on the switch's bridge.
    pub(crate) port: String,
    /// Last digits of both addresses.
    pub(crate) digits: u8,
}

impl Station {
    /// The client.
    pub(crate) fn client() -> Self {
        Station {
            namespace: CLIENT.into(),
            port: "client".into(),
            digits: 100,
        }
    }

    /// IPv4 address without its prefix length.
    pub(crate) fn v4(&self) -> String {
        format!("192.0.2.{}", self.digits)
    }

    /// IPv6 address without its prefix length: the same digits as IPv4, read as text.
    pub(crate) fn v6(&self) -> String {
        format!("2001:db8::{}", self.digits)
    }

    /// A stable hardware address, outside the `02:` range that tasks use.
    pub(crate) fn mac(&self) -> String {
        format!("06:00:00:00:00:{:02x}", self.digits)
    }
}

/// A host of the bed: namespaces of its own for network, processes, mounts and its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host(pub(crate) u8);

impl Host {
    /// Reads `n2`, `weft-n2` or `2`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let digits = text.trim_start_matches("weft-").trim_start_matches('n');
        match digits.parse() {
            Ok(number @ 1..=MOST_HOSTS) => Ok(Host(number)),
            _ => bail!("no host is called `{text}`; hosts are n1, n2, …"),
        }
    }

    /// `n1`: its hostname.
    pub(crate) fn name(self) -> String {
        format!("n{}", self.0)
    }

    /// Its place on the switch.
    pub(crate) fn station(self) -> Station {
        Station {
            namespace: format!("weft-n{}", self.0),
            port: self.name(),
            digits: 10 + self.0,
        }
    }

    /// Folder of everything that the host keeps.
    pub(crate) fn dir(self) -> PathBuf {
        self.dir_in(&dir())
    }

    /// The same in the bed of any clone, by that bed's folder.
    pub(crate) fn dir_in(self, bed: &Path) -> PathBuf {
        bed.join(self.name())
    }

    /// Where the Docker API is answered: by the agent, or by the engine when that is what is compared with.
    pub(crate) fn front_door(self) -> PathBuf {
        if place::against_docker() {
            return self.engine_socket();
        }
        self.dir().join("docker.sock")
    }

    /// Where the host's engine answers.
    pub(crate) fn engine_socket(self) -> PathBuf {
        self.dir().join("engine.sock")
    }

    /// The host's own bpffs, mounted before the host starts.
    pub(crate) fn pins(self) -> PathBuf {
        self.dir().join("bpf")
    }

    /// The script that is process 1 of the host; its path tells our processes from others'.
    pub(crate) fn init(self) -> PathBuf {
        self.init_in(&dir())
    }

    /// The same in the bed of any clone.
    pub(crate) fn init_in(self, bed: &Path) -> PathBuf {
        self.dir_in(bed).join("init.sh")
    }
}

/// Folder of the bed.
pub(crate) fn dir() -> PathBuf {
    dir_of(&place::root())
}

/// Folder of the bed of the clone whose top folder this is.
pub(crate) fn dir_of(clone: &Path) -> PathBuf {
    clone.join("target/testbed")
}

/// Folder of images ready to load, kept from one bed to the next.
pub(crate) fn images() -> PathBuf {
    dir().join("images")
}

/// The mount point that `ip netns` uses for a namespace of this name.
pub(crate) fn namespace_file(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Hosts that were made and not taken down, by their namespaces.
pub(crate) fn hosts() -> Vec<Host> {
    let mut hosts: Vec<Host> = (1..=MOST_HOSTS)
        .map(Host)
        .filter(|host| namespace_file(&host.station().namespace).exists())
        .collect();
    hosts.sort();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_contract() {
        let second = Host(2).station();
        assert_eq!(
            (second.v4().as_str(), second.v6().as_str()),
            ("192.0.2.12", "2001:db8::12")
        );
        assert_eq!(Station::client().v6(), "2001:db8::100");
    }

    #[test]
    fn a_host_is_read_from_any_of_its_names() {
        for text in ["n3", "weft-n3", "3"] {
            assert_eq!(Host::parse(text).ok().map(|host| host.0), Some(3));
        }
        assert!(Host::parse("n0").is_err());
        assert!(Host::parse("client").is_err());
    }
}
