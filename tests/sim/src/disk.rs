//! A manager's disk: writes are promised at once, kept a little later, and lost by a crash before.

use std::{collections::VecDeque, sync::Arc};

use weft_control::store::Transaction;

use crate::{Millis, chance::Chance, lapse::Lapse, members::Members};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Term of the leader that made it.
    pub term: u64,
    /// Its place.
    pub index: u64,
    /// Names it among all entries ever proposed.
    pub mark: u64,
    /// What it does.
    pub body: Body,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Only begins a term.
    Begin,
    /// Changes the store.
    Store(Transaction),
    /// Changes the group; in force on each member from when it is in its log.
    Members(Members),
}

/// A snapshot of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The store, as it encodes itself.
    pub bytes: Vec<u8>,
    /// The group as of that entry.
    pub members: Members,
}

/// A log whose first entries may be in a snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Log {
    /// The last entry that is not here any more, and its term.
    base: (u64, u64),
    entries: VecDeque<Arc<Entry>>,
    /// The groups that it names and from which entry on, the one in force at its base first.
    groups: VecDeque<(u64, Members)>,
}

impl Log {
    /// The log of a group that begins: its first entry says who they are.
    fn founded(members: Members) -> Self {
        let mut log = Self::default();
        log.apply(&Write::Append(vec![Arc::new(Entry {
            term: 0,
            index: 1,
            mark: 0,
            body: Body::Members(members),
        })]));
        log
    }

    /// The newest group that it names, and since which entry. A log that never heard of any names
    /// nobody.
    #[must_use]
    pub fn members(&self) -> (u64, Members) {
        self.groups.back().cloned().unwrap_or_default()
    }

    /// The group as of an entry that is here, or of the last one that is not.
    #[must_use]
    pub fn members_at(&self, index: u64) -> Members {
        let groups = self.groups.iter().rev();
        let mut groups = groups.skip_while(|(since, _)| *since > index);
        groups
            .next()
            .map(|(_, members)| members.clone())
            .unwrap_or_default()
    }

    /// The last entry, here or in the snapshot: index and term.
    #[must_use]
    pub fn last(&self) -> (u64, u64) {
        let last = self.entries.back();
        last.map_or(self.base, |entry| (entry.index, entry.term))
    }

    /// The last entry that is not here any more, and its term.
    #[must_use]
    pub fn base(&self) -> (u64, u64) {
        self.base
    }

    /// An entry, if it is here.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Arc<Entry>> {
        let at = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term of an entry, if it is known.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// Entries from `index` on, at most `count`.
    #[must_use]
    pub fn from(&self, index: u64, count: usize) -> Vec<Arc<Entry>> {
        let at = index.saturating_sub(self.base.0 + 1);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.entries.iter().skip(at).take(count).cloned().collect()
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Vote { .. } => {}
            Write::Append(entries) => {
                self.entries.extend(entries.iter().cloned());
                for entry in entries {
                    if let Body::Members(members) = &entry.body {
                        self.groups.push_back((entry.index, members.clone()));
                    }
                }
            }
            Write::Truncate { from } => {
                while self.entries.back().is_some_and(|last| last.index >= *from) {
                    self.entries.pop_back();
                }
                while self.groups.back().is_some_and(|(since, _)| since >= from) {
                    self.groups.pop_back();
                }
            }
            Write::Install(snapshot) => {
                let known = self.term(snapshot.index) == Some(snapshot.term);
                if !known {
                    self.entries.clear();
                    self.groups = [(snapshot.index, snapshot.members.clone())].into();
                }
                self.purge(snapshot.index, snapshot.term);
            }
            Write::Purge { upto, .. } => {
                let term = self.term(*upto).unwrap_or(self.base.1);
                self.purge(*upto, term);
            }
        }
    }

    fn purge(&mut self, upto: u64, term: u64) {
        while self
            .entries
            .front()
            .is_some_and(|first| first.index <= upto)
        {
            self.entries.pop_front();
        }
        while self.groups.get(1).is_some_and(|(since, _)| *since <= upto) {
            self.groups.pop_front();
        }
        if upto > self.base.0 {
            self.base = (upto, term);
        }
    }
}

/// One atomic write, as a transaction of the durable store is.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Term, and for whom it voted in it.
    Vote {
        /// The term.
        term: u64,
        /// The vote.
        vote: Option<u32>,
    },
    /// Entries at the end of the log.
    Append(Vec<Arc<Entry>>),
    /// Forgets entries.
    Truncate {
        /// From this one on.
        from: u64,
    },
    /// A snapshot, made here or received; entries that it replaces go when they contradict it.
    Install(Arc<Snapshot>),
    /// Forgets entries that a snapshot covers; the snapshot is written with it.
    Purge {
        /// Up to this one.
        upto: u64,
        /// What covers them.
        snapshot: Arc<Snapshot>,
    },
}

/// What is read back after a crash.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The newest term seen.
    pub term: u64,
    /// For whom this member voted in it.
    pub vote: Option<u32>,
    /// The log.
    pub log: Log,
    /// The newest snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
}

impl State {
    /// Takes one write.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Vote { term, vote } => (self.term, self.vote) = (*term, *vote),
            Write::Install(snapshot) | Write::Purge { snapshot, .. } => {
                self.snapshot = Some(Arc::clone(snapshot));
            }
            Write::Append(_) | Write::Truncate { .. } => {}
        }
        self.log.apply(write);
    }
}

/// A disk that takes its time, and that may be full.
#[derive(Debug, Default)]
pub struct Disk {
    /// What a crash leaves.
    pub kept: State,
    waiting: VecDeque<(Millis, u64, Write)>,
    begun: u64,
    done: u64,
    /// Milliseconds that a write takes, at most.
    pub slowness: Millis,
    /// Until then there is room for nothing.
    pub full_until: Millis,
    has_failed: bool,
    /// What it leaves out.
    pub lapse: Option<Lapse>,
}

impl Disk {
    /// The disk of a member of a group that begins.
    #[must_use]
    pub fn founded(members: Members) -> Self {
        let mut disk = Self::default();
        disk.kept.log = Log::founded(members);
        disk
    }

    /// Begins a write; answers its number.
    pub fn write(&mut self, write: Write, now: Millis, chance: &mut Chance) -> u64 {
        self.begun += 1;
        let after = self.waiting.back().map_or(now, |(due, ..)| *due);
        let due = after.max(now) + chance.below(self.slowness + 1);
        self.waiting.push_back((due, self.begun, write));
        self.begun
    }

    /// The number of the last write begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// The number of the last write that is kept.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Whether a write found no room. None is tried after it: the process must begin again.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis) {
        while !self.has_failed && self.waiting.front().is_some_and(|(due, ..)| *due <= now) {
            if now >= self.full_until {
                self.keep();
            } else if self.lapse == Some(Lapse::HidesThatItIsFull)
                && let Some((_, number, _)) = self.waiting.pop_front()
            {
                self.done = number;
            } else {
                self.has_failed = true;
            }
        }
    }

    fn keep(&mut self) {
        if let Some((_, number, write)) = self.waiting.pop_front() {
            self.kept.apply(&write);
            self.done = number;
        }
    }

    /// The power goes, or the process: of the writes under way a first part is kept, none if there
    /// was no room; the one that is torn is recognised and dropped whole, as the durable store
    /// does by its checksums.
    pub fn crash(&mut self, chance: &mut Chance) {
        if !self.has_failed {
            for _ in 0..chance.below(self.waiting.len() as u64 + 1) {
                self.keep();
            }
            if self.lapse == Some(Lapse::ReadsOnAfterTorn) {
                self.waiting.pop_front();
                while !self.waiting.is_empty() {
                    self.keep();
                }
            }
        }
        self.waiting.clear();
        self.begun = self.done;
        self.has_failed = false;
    }
}
