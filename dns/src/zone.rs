//! The names of networks: which names, to which addresses.
//!
//! A [`Zone`] holds the names of one network; [`Zones`] holds the zones that a node knows. Both
//! are immutable once built: a change is a new zone, swapped in whole, so a query sees either all
//! of a revision or none of it. Zones of networks that did not change are shared between revisions.
//!
//! Names are kept in lower case, as bytes, labels joined by dots, without the last dot.

mod names;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnetwork::IpNetwork;
pub use names::Entry;
use names::{Collected, Names};
use weft_types::NetworkId;

/// The zones that a node knows.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    /// Zone by network. Every network of every asker should be here; a missing one answers nothing.
    pub networks: BTreeMap<NetworkId, Arc<Zone>>,
}

/// The names of one network.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    name: Box<str>,
    key: Box<[u8]>,
    subnets: Vec<IpNetwork>,
    names: Names,
    pointers: HashMap<IpAddr, Box<str>>,
}

impl Zone {
    /// The network's name as the user wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `name` (lower case) is this network's name.
    #[must_use]
    pub fn is_named(&self, name: &[u8]) -> bool {
        *self.key == *name
    }

    /// What `name` (lower case, no last dot) means here, if this network owns it.
    #[must_use]
    pub fn entry(&self, name: &[u8]) -> Option<Entry<'_>> {
        self.names.get(name)
    }

    /// The container that has `address` on this network.
    #[must_use]
    pub fn pointer(&self, address: IpAddr) -> Option<&str> {
        self.pointers.get(&address).map(AsRef::as_ref)
    }

    /// Whether `address` lies in one of this network's subnets.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// How many names the zone owns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the zone owns no name, as that of the ingress network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.len() == 0
    }
}

/// How the name of a service is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode<'a> {
    /// By the service's virtual addresses on this network.
    Vip(&'a [IpAddr]),
    /// By the addresses of its serving tasks.
    RoundRobin,
}

/// A service as one network names it.
#[derive(Debug, Clone, Copy)]
pub struct ServiceNames<'a> {
    /// Its name and its aliases on this network. All are equal.
    pub names: &'a [&'a str],
    /// How those names are answered.
    pub mode: Mode<'a>,
    /// Addresses of all tasks that serve now, for `tasks.<name>` and for round robin.
    pub tasks: &'a [IpAddr],
}

/// A container as one network names it: a task's, or one attached by hand.
#[derive(Debug, Clone, Copy)]
pub struct ContainerNames<'a> {
    /// The container's name, `web.1.<task id>` for a task: the name that its address points back to.
    pub name: &'a str,
    /// Other names of this container alone: 12 digits of its id, hostname, aliases.
    pub others: &'a [&'a str],
    /// Its addresses on this network.
    pub addresses: &'a [IpAddr],
}

/// Collects the names of one network.
///
/// One name may be given by several (two services sharing an alias): it then means all their
/// addresses together, as in Docker.
#[derive(Debug, Default)]
pub struct ZoneBuilder {
    zone: Zone,
    names: Collected,
}

impl ZoneBuilder {
    /// A zone without names for the network called `name`.
    #[must_use]
    pub fn new(name: &str, subnets: &[IpNetwork]) -> Self {
        Self {
            zone: Zone {
                name: name.into(),
                key: key(name),
                subnets: subnets.to_vec(),
                ..Zone::default()
            },
            names: Collected::new(),
        }
    }

    /// Adds a service's names, and `tasks.` before each of them.
    pub fn service(&mut self, service: &ServiceNames<'_>) -> &mut Self {
        for name in service.names {
            let whole = match service.mode {
                Mode::Vip(addresses) => addresses,
                Mode::RoundRobin => service.tasks,
            };
            self.add(key(name), whole);
            self.add(key(&format!("tasks.{name}")), service.tasks);
        }
        self
    }

    /// Adds a container's names and the way back from its addresses.
    pub fn container(&mut self, container: &ContainerNames<'_>) -> &mut Self {
        self.add(key(container.name), container.addresses);
        for name in container.others {
            self.add(key(name), container.addresses);
        }
        self.pointer(container.name, container.addresses)
    }

    /// Adds only the way back: the name that `addresses` point to, although it does not lead to them.
    pub fn pointer(&mut self, name: &str, addresses: &[IpAddr]) -> &mut Self {
        for address in addresses {
            self.zone.pointers.insert(*address, name.into());
        }
        self
    }

    /// The finished zone.
    #[must_use]
    pub fn build(self) -> Zone {
        Zone {
            names: Names::pack(self.names),
            ..self.zone
        }
    }

    fn add(&mut self, key: Box<[u8]>, addresses: &[IpAddr]) {
        self.names.entry(key).or_default().extend(addresses);
    }
}

fn key(name: &str) -> Box<[u8]> {
    name.trim_end_matches('.')
        .to_ascii_lowercase()
        .into_bytes()
        .into()
}
