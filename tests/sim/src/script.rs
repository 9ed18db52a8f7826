//! What happens in a life, as data: chosen by a seed, shrunk when it fails, kept as a test.

use serde::{Deserialize, Serialize};

use crate::{Millis, chance::Chance, deed::Deed, lapse::Lapse};

/// A life's course.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// Decides all that is not written here: delays, losses, torn writes.
    pub seed: u64,
    /// Hosts; the first ones are managers.
    pub hosts: u32,
    /// How many of them are.
    pub managers: u32,
    /// Entries of the log between two snapshots.
    pub snapshot_every: u64,
    /// Milliseconds that a write takes, at most.
    pub disk: Millis,
    /// When faults stop.
    pub ends: Millis,
    /// What is left out, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapse: Option<Lapse>,
    /// What is done, and when.
    pub deeds: Vec<(Millis, Deed)>,
}

impl Script {
    /// The course that `seed` chooses.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::seeded(seed);
        let managers = chance.pick(&[1, 3, 3, 3, 5]);
        let hosts = u32::try_from(chance.within(u64::from(managers.max(2)), 5)).unwrap_or(5);
        let ends = chance.within(10_000, 35_000);
        let count = chance.within(4, 40);
        let mut deeds: Vec<(Millis, Deed)> = (0..count)
            .map(|_| {
                let at = chance.within(2_000, ends);
                (at, Deed::any(&mut chance, hosts))
            })
            .collect();
        deeds.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            hosts,
            managers,
            snapshot_every: chance.pick(&[10, 50, 200]),
            disk: chance.pick(&[1, 5, 20, 100]),
            ends,
            lapse: None,
            deeds,
        }
    }
}
