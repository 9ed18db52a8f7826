//! Which of the hosts that may have a container should.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::{host::Host, place::Unplaced, wish::Wish};

/// How containers are spread over hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Where least is reserved; then where fewest containers are.
    #[default]
    Spread,
    /// Where most is reserved and it still fits; then where most containers are.
    Binpack,
    /// Anywhere.
    Random,
}

impl Strategy {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Binpack => "binpack",
            Self::Random => "random",
        }
    }

    /// `hosts` best first; those where it does not fit are left out. `overcommit` is the part by
    /// which hosts promise more than they have, `dice` any number.
    ///
    /// # Errors
    /// When it fits nowhere.
    pub fn rank<'a>(
        self,
        mut hosts: Vec<&'a Host>,
        wish: &Wish,
        overcommit: f64,
        dice: u64,
    ) -> Result<Vec<&'a Host>, Unplaced> {
        if self == Self::Random {
            let count = u64::try_from(hosts.len()).unwrap_or(1).max(1);
            let turn = usize::try_from(dice % count).unwrap_or(0);
            hosts.rotate_left(turn);
            return Ok(hosts);
        }
        let mut weighed: Vec<(i64, &Host)> = hosts
            .into_iter()
            .filter_map(|host| Some((weight(host, wish, overcommit)?, host)))
            .collect();
        if weighed.is_empty() {
            return Err(Unplaced::NoResources);
        }
        weighed.sort_by(|one, other| {
            let by_load = one.0.cmp(&other.0).then_with(|| {
                let counts = [one.1, other.1].map(|host| host.containers.len());
                counts[0].cmp(&counts[1])
            });
            let by_load = match self {
                Self::Binpack => by_load.reverse(),
                Self::Spread | Self::Random => by_load,
            };
            by_load.then_with(|| by_name(one.1, other.1))
        });
        Ok(weighed.into_iter().map(|(_, host)| host).collect())
    }
}

fn by_name(one: &Host, other: &Host) -> Ordering {
    (&one.name, &one.id).cmp(&(&other.name, &other.id))
}

/// Percent of CPU and memory that would be reserved, added up; 100 for what is not asked for. `None`
/// if it does not fit.
fn weight(host: &Host, wish: &Wish, overcommit: f64) -> Option<i64> {
    let (cpus, bytes) = host.reserved();
    let score = |asked: i64, reserved: i64, has: i64| -> Option<i64> {
        if asked <= 0 {
            return Some(100);
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "a part of a host's memory or CPUs: the last digits decide nothing"
        )]
        let total = (has as f64 * (1.0 + overcommit)) as i64;
        let percent = reserved
            .saturating_add(asked)
            .saturating_mul(100)
            .checked_div(total)?;
        (percent <= 100 && asked <= total).then_some(percent)
    };
    let cpu = score(wish.facts.nano_cpus, cpus, host.nano_cpus)?;
    let memory = score(wish.facts.memory_bytes, bytes, host.memory_bytes)?;
    Some(cpu + memory)
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = [Self::Spread, Self::Binpack, Self::Random].into_iter();
        all.find(|strategy| strategy.name() == text)
            .ok_or_else(|| format!("strategy {text:?} is none of spread, binpack, random"))
    }
}
