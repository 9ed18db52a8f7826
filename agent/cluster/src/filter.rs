//! Which hosts may have a container: one question after another, in classic Swarm's order.

use std::{fmt, str::FromStr};

use crate::{
    expression::Expression,
    host::{Host, Image},
    place::Unplaced,
    reference::Reference,
    wish::Wish,
};

/// Label of an engine: how many containers its host takes at most.
const SLOTS: &str = "containerslots";

/// One question about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Does it answer, and take containers?
    Health,
    /// Are the ports free?
    Port,
    /// Is there room, by its label `containerslots`?
    ContainerSlots,
    /// Are the containers there that this one needs beside it?
    Dependency,
    /// Is beside it what it wants beside it?
    Affinity,
    /// Is the host as it must be?
    Constraint,
    /// Is it one of those named?
    Whitelist,
}

impl Filter {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::Health,
        Self::Port,
        Self::ContainerSlots,
        Self::Dependency,
        Self::Affinity,
        Self::Constraint,
        Self::Whitelist,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Port => "port",
            Self::ContainerSlots => "containerslots",
            Self::Dependency => "dependency",
            Self::Affinity => "affinity",
            Self::Constraint => "constraint",
            Self::Whitelist => "whitelist",
        }
    }

    /// The hosts that pass; wishes (soft rules) count only if `soft`.
    ///
    /// # Errors
    /// Why none does.
    pub fn pass<'a>(
        self,
        hosts: Vec<&'a Host>,
        wish: &Wish,
        soft: bool,
    ) -> Result<Vec<&'a Host>, Unplaced> {
        match self {
            Self::Health => keep(hosts, |host| host.is_ready, || Unplaced::NoHealthyNode),
            Self::Port => ports(hosts, wish),
            Self::ContainerSlots => keep(hosts, has_slot, || Unplaced::NoSlot),
            Self::Dependency => dependencies(hosts, wish),
            Self::Affinity => rules(hosts, &wish.affinities, soft, "affinity", is_beside),
            Self::Constraint => rules(hosts, &wish.constraints, soft, "constraint", is_such),
            Self::Whitelist => rules(hosts, &wish.whitelists, soft, "whitelist", is_such),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let names = || Self::ALL.map(Self::name).join(", ");
        all.find(|filter| filter.name() == text)
            .ok_or_else(|| format!("filter {text:?} is none of {}", names()))
    }
}

fn keep(
    mut hosts: Vec<&Host>,
    test: impl Fn(&Host) -> bool,
    none: impl FnOnce() -> Unplaced,
) -> Result<Vec<&Host>, Unplaced> {
    hosts.retain(|host| test(host));
    if hosts.is_empty() {
        Err(none())
    } else {
        Ok(hosts)
    }
}

fn has_slot(host: &Host) -> bool {
    let slots = host.labels.get(SLOTS);
    // What is no number limits nothing, as in classic Swarm.
    match slots.and_then(|slots| slots.parse::<usize>().ok()) {
        Some(slots) => host.containers.len() < slots,
        None => true,
    }
}

fn ports<'a>(mut hosts: Vec<&'a Host>, wish: &Wish) -> Result<Vec<&'a Host>, Unplaced> {
    if wish.facts.is_on_host_network {
        for exposed in &wish.facts.exposed {
            let is_free = |host: &Host| {
                let mut others = host.containers.iter().map(|other| &other.facts);
                !others.any(|other| other.is_on_host_network && other.exposed.contains(exposed))
            };
            hosts = keep(hosts, is_free, || Unplaced::HostPort(exposed.clone()))?;
        }
        return Ok(hosts);
    }
    for port in &wish.facts.ports {
        let is_free = |host: &Host| {
            let others = host.containers.iter();
            let mut taken = others.flat_map(|other| &other.facts.ports);
            !taken.any(|taken| port.collides(taken))
        };
        hosts = keep(hosts, is_free, || Unplaced::Port(port.port))?;
    }
    Ok(hosts)
}

fn dependencies<'a>(mut hosts: Vec<&'a Host>, wish: &Wish) -> Result<Vec<&'a Host>, Unplaced> {
    // A network that hosts have of their own is on no other. One that is nowhere is for the engine to
    // refuse.
    let has_network = |host: &Host| host.networks.contains(&wish.network);
    if hosts.iter().any(|host| has_network(host)) {
        hosts.retain(|host| has_network(host));
    }
    let has = |host: &Host, container: &str| Reference::parse(container).is_on(host);
    keep(
        hosts,
        |host| {
            let mut needs = wish.dependencies.iter();
            needs.all(|(container, _)| has(host, container))
        },
        || {
            let options = wish.dependencies.iter().map(|(_, option)| option.as_str());
            Unplaced::Dependency(options.collect::<Vec<_>>().join(" "))
        },
    )
}

fn rules<'a>(
    mut hosts: Vec<&'a Host>,
    rules: &[Expression],
    soft: bool,
    what: &'static str,
    test: fn(&Expression, &Host) -> bool,
) -> Result<Vec<&'a Host>, Unplaced> {
    for rule in rules.iter().filter(|rule| soft || !rule.is_soft()) {
        hosts = keep(
            hosts,
            |host| test(rule, host),
            || Unplaced::Rule(what, rule.to_string()),
        )?;
    }
    Ok(hosts)
}

/// Whether the host itself is as `rule` says.
fn is_such(rule: &Expression, host: &Host) -> bool {
    match rule.key() {
        "node" => rule.holds_of([host.id.as_str()], [host.name.as_str()]),
        key => {
            let label = host
                .labels
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(key));
            rule.holds(label.map(|(_, value)| value.as_str()))
        }
    }
}

/// Whether what is on the host is as `rule` says.
fn is_beside(rule: &Expression, host: &Host) -> bool {
    let containers = || host.containers.iter();
    match rule.key() {
        "container" => rule.holds_of(
            containers().map(|container| container.id.as_str()),
            containers().flat_map(|container| container.names.iter().map(String::as_str)),
        ),
        "image" => rule.holds_of(
            host.images.iter().flat_map(Image::ids),
            host.images.iter().flat_map(Image::names),
        ),
        key => rule.holds(containers().filter_map(|container| {
            let mut labels = container.labels.iter();
            let label = labels.find(|(name, _)| name.eq_ignore_ascii_case(key));
            label.map(|(_, value)| value.as_str())
        })),
    }
}
