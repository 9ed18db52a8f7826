//! What a leader does: proposes, replicates, counts, changes the group, hands over.

use std::{collections::BTreeSet, sync::Arc};

use super::{Member, Message, Peer, Role, Word};
use crate::{
    Millis,
    disk::{Body, Entry, Write},
    lapse::Lapse,
    members::{Members, Number},
};

/// Between a leader's signs of life.
const HEARTBEAT: Millis = 100;
/// Entries in one message.
const BATCH: usize = 64;
/// A message that is not answered is sent again after so long.
const RESEND: Millis = 300;
/// A peer that has not answered for longer than this is unreachable.
const UNREACHABLE_AFTER: Millis = 2_000;

impl Member {
    /// Appends an entry, if it leads; answers its place.
    pub fn propose(&mut self, body: Body, mark: u64, now: Millis) -> Option<u64> {
        self.leads()?;
        let index = self.log.last().0 + 1;
        let entry = Arc::new(Entry {
            term: self.term,
            index,
            mark,
            body,
        });
        self.write(Write::Append(vec![entry]), now);
        self.replicate(now, false);
        Some(index)
    }

    /// Changes the group, if it leads and may; answers the place of the change.
    pub fn change(&mut self, members: Members, mark: u64, now: Millis) -> Option<u64> {
        let (since, old) = &self.group;
        let is_own = self.log.term(self.commit) == Some(self.term);
        let differ = old.voters.symmetric_difference(&members.voters).count();
        if *since > self.commit || !is_own || differ > 1 {
            return None;
        }
        self.propose(Body::Members(members), mark, now)
    }

    /// The members that this leader hears, itself included.
    #[must_use]
    pub fn reached(&self, now: Millis) -> BTreeSet<Number> {
        let mut reached = BTreeSet::from([self.id]);
        if let Role::Leader { peers, .. } = &self.role {
            let heard = |peer: &Peer| peer.heard.is_some_and(|at| now <= at + UNREACHABLE_AFTER);
            let peers = peers.iter().filter(|(_, peer)| heard(peer));
            reached.extend(peers.map(|(number, _)| *number));
        }
        reached
    }

    /// Whether it leads and has heard from a majority a short time ago.
    #[must_use]
    pub fn has_majority(&self, now: Millis) -> bool {
        let Role::Leader { since, .. } = &self.role else {
            return false;
        };
        let voters = &self.group.1.voters;
        let reached = self.reached(now);
        now <= since + UNREACHABLE_AFTER || voters.intersection(&reached).count() * 2 > voters.len()
    }

    /// How far the log of another member agrees with this leader's, if it ever said so.
    #[must_use]
    pub fn agreed(&self, number: Number) -> Option<u64> {
        let agreed = match &self.role {
            Role::Leader { peers, .. } => peers.get(&number)?.agreed,
            Role::Follower | Role::Candidate(_) => 0,
        };
        (agreed > 0).then_some(agreed)
    }

    /// Gives the lead to another voter, the best informed one that is reached.
    pub fn hand_over(&mut self, now: Millis) {
        let reached = self.reached(now);
        let voters = self.group.1.voters.intersection(&reached).copied();
        let heir = voters
            .filter(|number| *number != self.id)
            .max_by_key(|number| self.agreed(*number));
        if let (Some(heir), Some(term)) = (heir, self.leads()) {
            let word = Word::Stand;
            self.out.push((heir, Message { term, word }));
        }
    }

    pub(super) fn maybe_lead(&mut self, now: Millis) {
        let Role::Candidate(votes) = &self.role else {
            return;
        };
        // Its own vote counts once it is kept, as any other.
        if votes.len() + 1 < self.quorum() || self.disk.done() < self.stands {
            return;
        }
        self.role = Role::Leader {
            peers: [].into(),
            beat_at: now,
            since: now,
        };
        self.leader = Some(self.id);
        self.know_peers();
        // Nothing of earlier terms is committed but by an entry of one's own (5.4.2).
        let mark = self.chance.number();
        self.propose(Body::Begin, mark, now);
    }

    /// A leader's peers are the others of its group.
    pub(super) fn know_peers(&mut self) {
        let next = self.log.last().0 + 1;
        let others: BTreeSet<Number> = self.group.1.all().filter(|id| *id != self.id).collect();
        if let Role::Leader { peers, .. } = &mut self.role {
            peers.retain(|number, _| others.contains(number));
            for number in others {
                peers.entry(number).or_insert(Peer {
                    next,
                    agreed: 0,
                    asked_at: None,
                    heard: None,
                });
            }
        }
    }

    fn quorum(&self) -> usize {
        self.group.1.voters.len() / 2 + 1
    }

    /// What a majority keeps is committed.
    pub(super) fn count(&mut self) {
        let Role::Leader { peers, .. } = &self.role else {
            return;
        };
        let kept = &self.disk.kept.log;
        let mut own = kept.last().0.min(self.log.last().0);
        while own > self.commit && kept.term(own) != self.log.term(own) {
            own -= 1;
        }
        if self.disk.lapse == Some(Lapse::CountsTooSoon) {
            own = self.log.last().0;
        }
        let voters = self.group.1.voters.iter();
        let mut agreed: Vec<u64> = voters
            .map(|number| {
                if *number == self.id {
                    own
                } else {
                    peers.get(number).map_or(0, |peer| peer.agreed)
                }
            })
            .collect();
        agreed.sort_unstable_by(|one, other| other.cmp(one));
        let index = agreed.get(self.quorum() - 1).copied().unwrap_or(0);
        if index > self.commit && self.log.term(index) == Some(self.term) {
            self.commit = index;
        }
    }

    pub(super) fn replicate(&mut self, now: Millis, beat: bool) {
        let (term, commit, last) = (self.term, self.commit, self.log.last().0);
        let Role::Leader { peers, beat_at, .. } = &mut self.role else {
            return;
        };
        if beat {
            *beat_at = now + HEARTBEAT;
        }
        for (to, peer) in peers {
            let waits = peer.asked_at.is_some_and(|at| now < at + RESEND);
            let lags = peer.next <= last && !waits;
            if !beat && !lags {
                continue;
            }
            let word = if peer.next <= self.log.base().0 {
                match &self.snapshot {
                    Some(snapshot) => Word::Install(Arc::clone(snapshot)),
                    None => continue,
                }
            } else {
                let prev = peer.next - 1;
                let entries = if waits {
                    Vec::new()
                } else {
                    self.log.from(peer.next, BATCH)
                };
                Word::Append {
                    prev: (prev, self.log.term(prev).unwrap_or(0)),
                    entries,
                    commit,
                }
            };
            if lags {
                peer.asked_at = Some(now);
            }
            self.out.push((*to, Message { term, word }));
        }
    }
}
