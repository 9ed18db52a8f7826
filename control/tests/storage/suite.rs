//! What a log keeps, as a model says it, and the suite that every storage of a log must pass.

use std::{collections::BTreeMap, io, sync::Arc};

use openraft::{
    EntryPayload, RaftLogReader,
    alias::{EntryOf, LogIdOf, VoteOf},
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
    vote::RaftLeaderId,
};
use proptest::prelude::*;
use weft_control::{
    raft::{LogStore, Proposal, Types},
    store::{Change, Transaction},
};
use weft_proto::codec;
use weft_types::{
    Timestamp,
    secret::{Base64, Config, ConfigSpec},
};

/// One thing done to a log. What it does depends on what the log holds: see [`Told::after`].
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// So many entries, each with so many bytes.
    Append(u64, usize),
    /// The last so many entries go, as when a new leader knows better.
    Truncate(u64),
    /// The first so many entries go, as when a snapshot has them.
    Purge(u64),
    /// A vote in the next term.
    Vote,
    /// The entry so far from the last is committed.
    Committed(u64),
    /// The number of this member.
    Member(u64),
    /// Closed and opened.
    Reopen,
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => (1..5_u64, prop_oneof![0..100_usize, 2_000..9_000_usize]).prop_map(|(n, size)| Op::Append(n, size)),
        2 => (0..4_u64).prop_map(Op::Truncate),
        2 => (0..6_u64).prop_map(Op::Purge),
        2 => Just(Op::Vote),
        2 => (0..3_u64).prop_map(Op::Committed),
        1 => any::<u64>().prop_map(Op::Member),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..20)
}

/// What a log was told to keep, or says that it keeps.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    /// Entries by index, as they are spelled.
    pub(crate) log: BTreeMap<u64, Vec<u8>>,
    pub(crate) last: Option<LogIdOf<Types>>,
    pub(crate) purged: Option<LogIdOf<Types>>,
    pub(crate) vote: Option<VoteOf<Types>>,
    pub(crate) member: Option<u64>,
    pub(crate) committed: Option<LogIdOf<Types>>,
}

pub(crate) fn id(term: u64, index: u64) -> LogIdOf<Types> {
    LogIdOf::<Types>::new(RaftLeaderId::new(term, 7), index)
}

fn spelled(entry: &EntryOf<Types>) -> Vec<u8> {
    codec::encode(entry).expect("an entry can be written")
}

fn entry(id: LogIdOf<Types>, size: usize) -> EntryOf<Types> {
    let config = Config {
        id: weft_types::ConfigId::numbered(u128::from(id.index) + 1),
        meta: weft_types::Meta::default(),
        spec: ConfigSpec {
            name: format!("c{}", id.index),
            data: Base64(vec![b'x'; size]),
            ..ConfigSpec::default()
        },
    };
    let transaction = Transaction {
        now: Timestamp(i64::try_from(id.index).unwrap_or_default()),
        changes: vec![Change::put(config)],
    };
    EntryOf::<Types>::new(id, EntryPayload::Normal(Proposal(Arc::new(transaction))))
}

impl Told {
    fn term(&self) -> u64 {
        self.vote.map_or(0, |vote| vote.leader_id.term)
    }

    fn id_at(&self, index: u64) -> Option<LogIdOf<Types>> {
        match self.log.get(&index) {
            Some(bytes) => {
                let entry: EntryOf<Types> = codec::decode(bytes).expect("an entry");
                Some(entry.log_id())
            }
            None => self.purged.filter(|purged| purged.index == index),
        }
    }

    fn settle(&mut self) {
        self.last = match self.log.keys().next_back() {
            Some(last) => self.id_at(*last),
            None => self.purged,
        };
    }

    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    fn appended(&self, count: u64, size: usize) -> Vec<EntryOf<Types>> {
        (self.next()..self.next() + count)
            .map(|index| entry(id(self.term(), index), size))
            .collect()
    }

    /// The last entry that a truncation by `count` leaves; `None` if none.
    fn left(&self, count: u64) -> Option<LogIdOf<Types>> {
        let floor = self.purged.map_or(0, |purged| purged.index + 1);
        let from = self.next().saturating_sub(count).max(floor);
        self.id_at(from.checked_sub(1)?)
    }

    fn purged_by(&self, count: u64) -> Option<LogIdOf<Types>> {
        let index = self.log.keys().take(count as usize).next_back()?;
        self.id_at(*index)
    }

    fn vote_next(&self) -> VoteOf<Types> {
        VoteOf::<Types>::new(self.term() + 1, 7)
    }

    fn committed_at(&self, back: u64) -> Option<LogIdOf<Types>> {
        let index = self.last?.index.checked_sub(back)?;
        self.id_at(index)
    }

    /// What is kept once `op` is done.
    pub(crate) fn after(&self, op: &Op) -> Self {
        let mut next = self.clone();
        match op {
            Op::Append(count, size) => {
                let entries = self.appended(*count, *size);
                let rows = entries.iter().map(|entry| (entry.index(), spelled(entry)));
                next.log.extend(rows);
            }
            Op::Truncate(count) => {
                let from = self.left(*count).map_or(0, |left| left.index + 1);
                next.log.split_off(&from);
            }
            Op::Purge(count) => {
                if let Some(upto) = self.purged_by(*count) {
                    next.log = next.log.split_off(&(upto.index + 1));
                    next.purged = Some(upto);
                }
            }
            Op::Vote => next.vote = Some(self.vote_next()),
            Op::Committed(back) => next.committed = self.committed_at(*back),
            Op::Member(number) => next.member = Some(*number),
            Op::Reopen => {}
        }
        next.settle();
        next
    }

    /// Does `op`, which is not `Reopen`, to a log that keeps this.
    pub(crate) async fn run(&self, op: &Op, log: &mut LogStore) -> io::Result<()> {
        match op {
            Op::Append(count, size) => {
                let entries = self.appended(*count, *size);
                log.append(entries, IOFlushed::noop()).await
            }
            Op::Truncate(count) => log.truncate_after(self.left(*count)).await,
            Op::Purge(count) => match self.purged_by(*count) {
                Some(upto) => log.purge(upto).await,
                None => Ok(()),
            },
            Op::Vote => log.save_vote(&self.vote_next()).await,
            Op::Committed(back) => log.save_committed(self.committed_at(*back)).await,
            Op::Member(number) => log.set_member_number(*number),
            Op::Reopen => Ok(()),
        }
    }

    /// What `log` says that it keeps.
    pub(crate) async fn read(log: &mut LogStore) -> io::Result<Self> {
        let entries = log.try_get_log_entries(..).await?;
        let state = log.get_log_state().await?;
        Ok(Self {
            log: entries
                .iter()
                .map(|entry| (entry.index(), spelled(entry)))
                .collect(),
            last: state.last_log_id,
            purged: state.last_purged_log_id,
            vote: log.read_vote().await?,
            member: log.member_number()?,
            committed: log.read_committed().await?,
        })
    }
}

/// Runs `ops` on the log that `open` opens: after each, and after a reopening at the end, it keeps
/// what it was told and nothing else.
pub(crate) async fn conforms(open: impl Fn() -> io::Result<LogStore>, ops: &[Op]) {
    let mut log = open().expect("opened");
    let mut told = Told::default();
    for op in ops.iter().chain([&Op::Reopen]) {
        if matches!(op, Op::Reopen) {
            drop(log);
            log = open().expect("opened again");
        } else {
            told.run(op, &mut log).await.expect("done");
        }
        told = told.after(op);
        let read = Told::read(&mut log).await.expect("read");
        assert_eq!(read, told, "after {op:?}");
    }
}

/// Each thing a log does, one by one, in an order that meets the corners.
pub(crate) fn corners() -> Vec<Op> {
    use Op::{Append, Committed, Member, Purge, Reopen, Truncate, Vote};
    vec![
        Reopen,
        Vote,
        Append(3, 10),
        Reopen,
        Truncate(2),
        Vote,
        Append(4, 5_000),
        Committed(1),
        Member(u64::MAX),
        Purge(2),
        Reopen,
        Truncate(9),
        Append(2, 0),
        Purge(9),
        Reopen,
        Append(1, 20_000),
        Committed(0),
        Truncate(0),
    ]
}
