//! A member of the consensus group, as a model: terms, votes, a log, commits.
//!
//! Follows "In Search of an Understandable Consensus Algorithm" (Ongaro and Ousterhout 2014),
//! figures 2 and 13, with the timings of `weft_control::raft` and one thing more: a member that
//! hears from a leader does not vote, as openraft's leases and pre-votes have it, unless the leader
//! itself hands over. Nothing is said to others that depends on a write which is not kept yet. The
//! group changes by one voter at a time (Ongaro's dissertation, 4.1), and only once the change
//! before it and an entry of the leader's own term are committed.

mod lead;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    Millis,
    chance::Chance,
    disk::{Disk, Entry, Log, Snapshot, Write},
    lapse::Lapse,
    members::{Members, Number},
};

/// A leader heard of so recently is followed without doubt.
const LEASE: Millis = 500;
/// After the lease a follower waits at least and at most so long before it stands for election.
const ELECTION: (Millis, Millis) = (250, 500);

/// What members say to each other.
#[derive(Debug, Clone)]
pub struct Message {
    /// The sender's term.
    pub term: u64,
    /// What it says.
    pub word: Word,
}

/// The words.
#[derive(Debug, Clone)]
pub enum Word {
    /// Vote for me: my last entry is this.
    Vote {
        /// Index and term.
        last: (u64, u64),
        /// The leader asked for it.
        handed: bool,
    },
    /// Whether the vote is given.
    Voted(bool),
    /// Entries after `prev`.
    Append {
        /// Index and term of the entry before.
        prev: (u64, u64),
        /// The entries; none is a sign of life.
        entries: Vec<Arc<Entry>>,
        /// What is committed.
        commit: u64,
    },
    /// The log agrees with the leader's up to here.
    Appended(u64),
    /// It does not; the log ends here.
    Behind(u64),
    /// The state, because the entries are gone.
    Install(Arc<Snapshot>),
    /// Lead in my stead.
    Stand,
}

#[derive(Debug)]
enum Role {
    Follower,
    Candidate(BTreeSet<Number>),
    Leader {
        peers: BTreeMap<Number, Peer>,
        beat_at: Millis,
        since: Millis,
    },
}

/// A follower, as its leader sees it.
#[derive(Debug, Clone, Copy)]
struct Peer {
    next: u64,
    agreed: u64,
    asked_at: Option<Millis>,
    /// When it answered last.
    heard: Option<Millis>,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    id: Number,
    /// The group in force, and since which entry.
    group: (u64, Members),
    role: Role,
    term: u64,
    vote: Option<Number>,
    log: Log,
    snapshot: Option<Arc<Snapshot>>,
    commit: u64,
    leader: Option<Number>,
    heard: Millis,
    stand_at: Millis,
    /// The write of its vote for itself.
    stands: u64,
    /// Where it keeps all that must survive.
    pub disk: Disk,
    /// To be said once the write of that number is kept.
    held_back: VecDeque<(u64, Number, Message)>,
    out: Vec<(Number, Message)>,
    /// A snapshot from the leader, to be taken into the state machine.
    installed: Option<Arc<Snapshot>>,
    chance: Chance,
}

impl Member {
    /// A member that begins with what `disk` has kept.
    #[must_use]
    pub fn start(
        id: Number,
        mut disk: Disk,
        lapse: Option<Lapse>,
        now: Millis,
        chance: Chance,
    ) -> Self {
        disk.lapse = lapse;
        let kept = disk.kept.clone();
        let mut member = Self {
            id,
            group: kept.log.members(),
            role: Role::Follower,
            term: kept.term,
            vote: kept.vote,
            log: kept.log,
            commit: kept.snapshot.as_ref().map_or(0, |snapshot| snapshot.index),
            snapshot: kept.snapshot,
            leader: None,
            heard: 0,
            stand_at: 0,
            stands: 0,
            disk,
            held_back: VecDeque::new(),
            out: Vec::new(),
            installed: None,
            chance,
        };
        member.wait(now);
        member
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> Number {
        self.id
    }

    /// The group, as far as it knows.
    #[must_use]
    pub fn group(&self) -> &Members {
        &self.group.1
    }

    /// Whether it has a vote that is committed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.group.1.voters.contains(&self.id) && self.group.0 <= self.commit
    }

    /// Whether it leads, as far as it knows, and since which term.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        matches!(self.role, Role::Leader { .. }).then_some(self.term)
    }

    /// Who leads, as far as it knows.
    #[must_use]
    pub fn leader(&self) -> Option<Number> {
        self.leader
    }

    /// The last entry known to be committed.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// The log as it remembers it.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The snapshot it has.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// Where it stands, for people.
    #[must_use]
    pub fn situation(&self) -> String {
        format!(
            "term {}, leader {:?}, commit {}, log {:?} to {:?}, group {:?}, role {:?}",
            self.term,
            self.leader,
            self.commit,
            self.log.base(),
            self.log.last(),
            self.group,
            self.role
        )
    }

    /// What is to be sent.
    pub fn take_out(&mut self) -> Vec<(Number, Message)> {
        std::mem::take(&mut self.out)
    }

    /// A state received that the state machine must take.
    pub fn take_installed(&mut self) -> Option<Arc<Snapshot>> {
        self.installed.take()
    }

    /// The crash of its host: only the disk is left.
    #[must_use]
    pub fn crash(mut self, chance: &mut Chance) -> Disk {
        self.disk.crash(chance);
        self.disk
    }

    /// The state machine has a snapshot; entries that it covers go, but for the last `keep`.
    pub fn compact(&mut self, snapshot: Snapshot, keep: u64, now: Millis) {
        let upto = snapshot.index.saturating_sub(keep).max(self.log.base().0);
        let snapshot = Arc::new(snapshot);
        self.write(Write::Purge { upto, snapshot }, now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis) {
        self.disk.tick(now);
        while self
            .held_back
            .front()
            .is_some_and(|(write, ..)| *write <= self.disk.done())
            && let Some((_, to, message)) = self.held_back.pop_front()
        {
            self.out.push((to, message));
        }
        match &self.role {
            Role::Leader { beat_at, .. } => {
                let beat = *beat_at <= now;
                self.count();
                self.replicate(now, beat);
            }
            Role::Follower | Role::Candidate(_) if self.stand_at <= now => self.stand(now, false),
            Role::Candidate(_) => self.maybe_lead(now),
            Role::Follower => {}
        }
    }

    /// Takes a message.
    pub fn hear(&mut self, from: Number, message: Message, now: Millis) {
        let follows_somebody = self.leader.is_some() && now < self.heard + LEASE && self.heard > 0;
        if matches!(message.word, Word::Vote { handed: false, .. })
            && (follows_somebody || self.leads().is_some())
            && message.term > self.term
        {
            return;
        }
        if message.term > self.term {
            self.follow(message.term, now);
        }
        let is_old = message.term < self.term;
        match message.word {
            Word::Vote { last, .. } => {
                let mine = self.log.last();
                let grant = !is_old
                    && matches!(self.role, Role::Follower)
                    && (last.1, last.0) >= (mine.1, mine.0)
                    && self.vote.is_none_or(|vote| vote == from);
                if grant && self.vote.is_none() {
                    self.vote = Some(from);
                    self.write_vote(now);
                    self.wait(now);
                }
                self.say_when_kept(from, Word::Voted(grant));
            }
            Word::Voted(granted) => {
                if is_old || !granted {
                    return;
                }
                if let Role::Candidate(votes) = &mut self.role
                    && self.group.1.voters.contains(&from)
                {
                    votes.insert(from);
                }
                self.maybe_lead(now);
            }
            Word::Append {
                prev,
                entries,
                commit,
            } => {
                if is_old {
                    self.say_when_kept(from, Word::Behind(self.log.last().0));
                    return;
                }
                self.hears_leader(from, now);
                self.append(from, prev, entries, commit, now);
            }
            Word::Appended(agreed) => {
                if is_old {
                    return;
                }
                if let Role::Leader { peers, .. } = &mut self.role
                    && let Some(peer) = peers.get_mut(&from)
                {
                    peer.agreed = peer.agreed.max(agreed);
                    peer.next = peer.next.max(agreed + 1);
                    peer.asked_at = None;
                    peer.heard = Some(now);
                }
                self.count();
                self.replicate(now, false);
            }
            Word::Behind(last) => {
                if is_old {
                    return;
                }
                if let Role::Leader { peers, .. } = &mut self.role
                    && let Some(peer) = peers.get_mut(&from)
                {
                    peer.next = (peer.next - 1).min(last + 1).max(peer.agreed + 1).max(1);
                    peer.asked_at = None;
                    peer.heard = Some(now);
                }
                self.replicate(now, false);
            }
            Word::Install(snapshot) => {
                if is_old {
                    self.say_when_kept(from, Word::Behind(self.log.last().0));
                    return;
                }
                self.hears_leader(from, now);
                let index = snapshot.index;
                if index > self.commit {
                    self.snapshot = Some(Arc::clone(&snapshot));
                    self.commit = index;
                    self.installed = Some(Arc::clone(&snapshot));
                    self.write(Write::Install(snapshot), now);
                }
                self.say_when_kept(from, Word::Appended(index));
            }
            Word::Stand => {
                if !is_old && self.leader == Some(from) {
                    self.stand(now, true);
                }
            }
        }
    }

    fn append(
        &mut self,
        from: Number,
        prev: (u64, u64),
        entries: Vec<Arc<Entry>>,
        commit: u64,
        now: Millis,
    ) {
        let base = self.log.base().0;
        if prev.0 >= base && self.log.term(prev.0) != Some(prev.1) {
            self.say_when_kept(
                from,
                Word::Behind(self.log.last().0.min(prev.0.saturating_sub(1))),
            );
            return;
        }
        let agreed = prev.0 + entries.len() as u64;
        let mut fresh = Vec::new();
        for entry in entries {
            if entry.index <= base {
                continue;
            }
            match self.log.term(entry.index) {
                Some(term) if term == entry.term && fresh.is_empty() => {}
                Some(_) if fresh.is_empty() => {
                    assert!(
                        entry.index > self.commit,
                        "a committed entry was overwritten"
                    );
                    self.write(Write::Truncate { from: entry.index }, now);
                    fresh.push(entry);
                }
                _ => fresh.push(entry),
            }
        }
        if !fresh.is_empty() {
            self.write(Write::Append(fresh), now);
        }
        self.commit = self.commit.max(commit.min(agreed));
        self.say_when_kept(from, Word::Appended(agreed));
    }

    /// A write to memory now, and to the disk in its time.
    fn write(&mut self, write: Write, now: Millis) {
        if let Write::Purge { snapshot, .. } | Write::Install(snapshot) = &write {
            self.snapshot = Some(Arc::clone(snapshot));
        }
        let mut state = crate::disk::State {
            log: std::mem::take(&mut self.log),
            ..crate::disk::State::default()
        };
        state.apply(&write);
        self.log = state.log;
        self.disk.write(write, now, &mut self.chance);
        let group = self.log.members();
        if group != self.group {
            self.group = group;
            self.know_peers();
        }
    }

    fn write_vote(&mut self, now: Millis) -> u64 {
        let is_kept = self.disk.lapse != Some(Lapse::ForgetsVotes);
        let write = Write::Vote {
            term: self.term,
            vote: self.vote.filter(|_| is_kept),
        };
        self.disk.write(write, now, &mut self.chance)
    }

    fn say_when_kept(&mut self, to: Number, word: Word) {
        let message = Message {
            term: self.term,
            word,
        };
        let write = self.disk.begun();
        let speaks_too_soon = self.disk.lapse == Some(Lapse::SpeaksTooSoon);
        if write <= self.disk.done() || speaks_too_soon {
            self.out.push((to, message));
        } else {
            self.held_back.push_back((write, to, message));
        }
    }

    fn hears_leader(&mut self, from: Number, now: Millis) {
        self.role = Role::Follower;
        self.leader = Some(from);
        self.heard = now;
        self.wait(now);
    }

    fn follow(&mut self, term: u64, now: Millis) {
        self.term = term;
        self.vote = None;
        self.leader = None;
        self.write_vote(now);
        if !matches!(self.role, Role::Follower) {
            self.role = Role::Follower;
            self.wait(now);
        }
    }

    fn wait(&mut self, now: Millis) {
        self.stand_at = now + LEASE + self.chance.within(ELECTION.0, ELECTION.1);
    }

    fn stand(&mut self, now: Millis, handed: bool) {
        if !self.group.1.voters.contains(&self.id) {
            return self.wait(now);
        }
        self.term += 1;
        self.vote = Some(self.id);
        self.leader = None;
        self.stands = self.write_vote(now);
        self.role = Role::Candidate(BTreeSet::new());
        self.wait(now);
        let last = self.log.last();
        for to in self.group.1.voters.clone() {
            if to != self.id {
                self.say_when_kept(to, Word::Vote { last, handed });
            }
        }
        self.maybe_lead(now);
    }
}
