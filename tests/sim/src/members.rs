//! Who belongs to the consensus group.

use std::collections::BTreeSet;

use crate::wire::HostId;

/// A member. One that was taken out and comes again has another number: of what the earlier one
/// promised it knows nothing.
pub type Number = u32;

/// Numbers of one host are so far apart.
const HOSTS: u32 = 100;

/// The host of a member.
#[must_use]
pub fn host_of(number: Number) -> HostId {
    number % HOSTS
}

/// The `nth` number of a host's members.
#[must_use]
pub fn number(host: HostId, nth: u32) -> Number {
    host + HOSTS * nth
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Those of whom a majority decides.
    pub voters: BTreeSet<Number>,
    /// Those who only listen, until they have caught up.
    pub learners: BTreeSet<Number>,
}

impl Members {
    /// The group of the first hosts.
    #[must_use]
    pub fn first(hosts: u32) -> Self {
        Self {
            voters: (1..=hosts).collect(),
            learners: BTreeSet::new(),
        }
    }

    /// Everybody.
    pub fn all(&self) -> impl Iterator<Item = Number> + '_ {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// The members of a host.
    pub fn of_host(&self, host: HostId) -> impl Iterator<Item = Number> + '_ {
        self.all().filter(move |number| host_of(*number) == host)
    }

    /// The group without a member.
    #[must_use]
    pub fn without(&self, number: Number) -> Self {
        let mut left = self.clone();
        left.voters.remove(&number);
        left.learners.remove(&number);
        left
    }
}
