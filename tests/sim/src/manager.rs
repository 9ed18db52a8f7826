//! The manager's process: a member of the group, the real store, and a reign while it leads.

use std::sync::Arc;

use weft_control::store::{IdSource, Store, View};
use weft_types::Timestamp;

use crate::{
    Millis,
    agent::Air,
    chance::Chance,
    disk::{self, Disk, Snapshot},
    lapse::Lapse,
    members::{self, Number},
    raft::{Member, Message},
    reign::Reign,
    wire::{Body, HostId},
};

/// Entries that a snapshot covers and that are kept all the same, for followers a little behind.
const KEEP: u64 = 5;

/// A manager, as long as its process lives.
pub(crate) struct Manager {
    pub(crate) host: HostId,
    pub(crate) member: Member,
    pub(crate) store: Store,
    pub(crate) applied: u64,
    group: Group,
    pub(crate) reign: Option<Reign>,
    pub(crate) ids: IdSource,
    pub(crate) chance: Chance,
}

/// What every manager knows of its cluster from the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// Hosts, all of which are nodes.
    pub(crate) hosts: u32,
    /// The first of them, which are managers at the beginning.
    pub(crate) managers: u32,
    /// Entries of the log between two snapshots.
    pub(crate) snapshot_every: u64,
    /// What everybody leaves out.
    pub(crate) lapse: Option<Lapse>,
}

impl Manager {
    /// The process begins with what its disk has kept.
    pub(crate) fn start(
        host: HostId,
        number: Number,
        group: Group,
        disk: Disk,
        mut chance: Chance,
        now: Millis,
    ) -> Self {
        let member = Member::start(number, disk, group.lapse, now, chance.apart(1));
        let mut manager = Self {
            host,
            member,
            store: Store::new(),
            applied: 0,
            group,
            reign: None,
            ids: IdSource::seeded(chance.number()),
            chance,
        };
        if let Some(snapshot) = manager.member.snapshot().cloned() {
            manager.restore(&snapshot);
        }
        manager
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        self.store = Store::restore(&snapshot.bytes)
            .unwrap_or_else(|error| panic!("a snapshot of our own cannot be restored: {error}"));
        self.applied = snapshot.index;
    }

    pub(crate) fn group(&self) -> Group {
        self.group
    }

    pub(crate) fn view(&self) -> View {
        self.store.view()
    }

    /// Takes a message of another member.
    pub(crate) fn hear(&mut self, from: Number, message: Message, air: &mut Air<'_>) {
        self.member.hear(from, message, air.now);
        self.apply(air);
        self.send(air);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, clock: Timestamp, air: &mut Air<'_>) {
        self.member.tick(air.now);
        self.apply(air);
        // A leader that was cut off has nothing to say: who still reaches it is to look elsewhere.
        let reigns = self.member.has_majority(air.now);
        let term = self.member.leads().filter(|_| reigns);
        if self.reign.as_ref().map(Reign::term) != term {
            self.end(air);
            self.reign = term.map(|term| Reign::new(term, air.now));
        }
        if let Some(mut reign) = self.reign.take() {
            reign.tick(self, clock, air);
            self.reign = Some(reign);
        }
        self.send(air);
    }

    /// Its reign is over, if there is one.
    pub(crate) fn end(&mut self, air: &mut Air<'_>) {
        let lead = self.leader();
        if let Some(mut reign) = self.reign.take() {
            reign.end(self.host, lead, air);
        }
    }

    /// The host of the leader, as far as it knows.
    pub(crate) fn leader(&self) -> Option<HostId> {
        self.member.leader().map(members::host_of)
    }

    fn send(&mut self, air: &mut Air<'_>) {
        for (to, message) in self.member.take_out() {
            let body = Body::Raft(self.member.id(), to, message);
            air.wire
                .send(air.now, self.host, members::host_of(to), body);
        }
    }

    /// Keeps the store up with what is committed.
    pub(crate) fn apply(&mut self, air: &mut Air<'_>) {
        if let Some(snapshot) = self.member.take_installed() {
            air.record
                .installs(self.host, snapshot.index, &snapshot.bytes);
            self.restore(&snapshot);
        }
        while self.applied < self.member.commit() {
            let Some(entry) = self.member.log().get(self.applied + 1).map(Arc::clone) else {
                panic!("entry {} is committed and nowhere", self.applied + 1);
            };
            self.applied = entry.index;
            let before = self.view();
            let verdict = match &entry.body {
                disk::Body::Store(change) => self.store.apply(entry.index, change).map(drop),
                disk::Body::Begin | disk::Body::Members(_) => Ok(()),
            };
            air.record.applies(
                self.host,
                entry.index,
                entry.mark,
                &before,
                &self.view(),
                air.now,
            );
            if let Some(mut reign) = self.reign.take() {
                reign.applied(entry.index, entry.mark, verdict, self, air);
                self.reign = Some(reign);
            }
        }
        let covered = self.member.snapshot().map_or(0, |snapshot| snapshot.index);
        if self.applied >= covered + self.group.snapshot_every {
            let bytes = self
                .store
                .snapshot()
                .unwrap_or_else(|error| panic!("the store cannot be encoded: {error}"));
            air.record.snapshots(self.host, self.applied, &bytes);
            let snapshot = Snapshot {
                index: self.applied,
                term: self.member.log().term(self.applied).unwrap_or(0),
                bytes,
                members: self.member.log().members_at(self.applied),
            };
            self.member.compact(snapshot, KEEP, air.now);
        }
    }
}
