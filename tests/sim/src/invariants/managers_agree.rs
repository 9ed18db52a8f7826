//! The same entries give the same state on every manager.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use weft_control::{invariant::Broken, store::View};

use crate::wire::HostId;

const SENTENCE: &str = "the same entries give the same state on every manager";

/// One of so many commits is compared: it costs as much as the state is large.
const EVERY: u64 = 16;

/// Compares a manager's state with that of the first who came there.
pub(super) fn check(host: HostId, first: &View, own: &View) -> Result<(), Broken> {
    if !own.index().is_multiple_of(EVERY) || own.objects().eq(first.objects()) {
        return Ok(());
    }
    let case = format!("manager {host} has another state at commit {}", own.index());
    Err(Broken::new(SENTENCE, case))
}

/// Fingerprints of snapshots by their place.
#[derive(Debug, Default)]
pub(super) struct Snapshots(BTreeMap<u64, u64>);

impl Snapshots {
    pub(super) fn check(&mut self, host: HostId, index: u64, bytes: &[u8]) -> Result<(), Broken> {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let print = hasher.finish();
        if *self.0.entry(index).or_insert(print) == print {
            return Ok(());
        }
        let case = format!("manager {host} has another snapshot of {index}");
        Err(Broken::new(SENTENCE, case))
    }
}
