//! Starting again from one manager when the majority is lost for good.

use std::{collections::BTreeMap, io, path::Path};

use openraft::{
    EntryPayload, Membership,
    alias::{LogIdOf, SnapshotMetaOf, StoredMembershipOf},
    entry::RaftEntry,
};

use super::{LogStore, Member, Seal, machine::SnapshotFile};
use crate::store::Store;

/// Makes what `directory` holds into the state of a group of one, `member`, under a new number.
///
/// All that this manager's log has is kept, committed or not: the others that could have told are
/// gone. The engine must not be running. When this returns, the new beginning is on disk.
///
/// # Errors
/// When the old state cannot be read or the new one not be written.
pub fn revive(directory: &Path, seal: &Seal, member: Member) -> io::Result<u64> {
    let log = LogStore::open(directory, seal.clone())?;
    let file = SnapshotFile::new(directory, seal.clone());
    let (mut store, mut last): (Store, Option<LogIdOf<super::Types>>) = match file.load()? {
        Some((meta, data)) => (
            Store::restore(&data).map_err(io::Error::other)?,
            meta.last_log_id,
        ),
        None => (Store::new(), None),
    };
    for entry in log.entries()? {
        let id = entry.log_id();
        if Some(id) <= last {
            continue;
        }
        if let EntryPayload::Normal(proposal) = &entry.payload {
            // A refused transaction was refused on every manager, and changed nothing.
            let _ = store.apply(id.index, &proposal.0);
        }
        last = Some(id);
    }
    let number: u64 = rand::random();
    let membership = Membership::new(
        vec![[number].into_iter().collect()],
        BTreeMap::from([(number, member)]),
    )
    .map_err(|error| io::Error::other(error.to_string()))?;
    let meta = SnapshotMetaOf::<super::Types> {
        last_log_id: last,
        last_membership: StoredMembershipOf::<super::Types>::new(last, membership),
    };
    let data = store.snapshot().map_err(io::Error::other)?;
    file.save(&meta, &data)?;
    log.reset(last, number)?;
    Ok(number)
}
