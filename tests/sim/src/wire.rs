//! What is under way between hosts.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::dispatcher::{ManagerMessage, NodeMessage};
use weft_types::{NodeId, node::Role};

use crate::{
    Millis,
    chance::Chance,
    members::Number,
    raft,
    seat::{Plea, Reply},
};

/// A host by its number, from 1.
pub(crate) type HostId = u32;

/// Who speaks in a session, by his certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) node: NodeId,
    pub(crate) role: Role,
}

/// What a letter says.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Between managers, from one member to another; each on its own.
    Raft(Number, Number, raft::Message),
    /// In a session, from the node.
    Node(u64, Caller, Box<NodeMessage>),
    /// In a session, to the node.
    Manager(u64, Box<ManagerMessage>),
    /// One end of a session has closed it.
    Hangup(u64),
    /// What somebody wants of the leader, on its way, and how often it was handed on.
    Plea(Plea, u32),
    /// What the leader answers to the plea of a host.
    Reply(Reply),
}

impl Body {
    /// The session that it is a part of.
    fn session(&self) -> Option<u64> {
        match self {
            Self::Node(session, ..) | Self::Manager(session, _) | Self::Hangup(session) => {
                Some(*session)
            }
            Self::Raft(..) | Self::Plea(..) | Self::Reply(_) => None,
        }
    }
}

/// Something under way.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    pub(crate) body: Body,
}

/// Loss and delay of the moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Of a thousand letters so many are lost.
    pub(crate) loss: u64,
    /// Milliseconds that a letter takes longer, at most.
    pub(crate) delay: Millis,
}

#[derive(Debug)]
pub(crate) struct Wire {
    under_way: BTreeMap<(Millis, u64), Letter>,
    sent: u64,
    pub(crate) weather: Weather,
    /// From whom nothing comes through to whom.
    pub(crate) cut: BTreeSet<(HostId, HostId)>,
    /// Sessions of which something was lost: nothing more of them arrives.
    broken: BTreeSet<u64>,
    /// When the last letter of a session arrives: they do not overtake each other.
    last_due: BTreeMap<(u64, HostId), Millis>,
    chance: Chance,
}

impl Wire {
    pub(crate) fn new(chance: Chance) -> Self {
        Self {
            under_way: BTreeMap::new(),
            sent: 0,
            weather: Weather::default(),
            cut: BTreeSet::new(),
            broken: BTreeSet::new(),
            last_due: BTreeMap::new(),
            chance,
        }
    }

    pub(crate) fn send(&mut self, now: Millis, from: HostId, to: HostId, body: Body) {
        let session = body.session();
        if session.is_some_and(|session| self.broken.contains(&session)) {
            return;
        }
        let near = from == to;
        let lost =
            !near && (self.cut.contains(&(from, to)) || self.chance.per_mille(self.weather.loss));
        if lost {
            // A stream repeats what is lost, for a while; then it is broken.
            if let Some(session) = session
                && (self.cut.contains(&(from, to)) || self.chance.per_mille(300))
            {
                self.broken.insert(session);
                return;
            }
            if session.is_none() {
                return;
            }
        }
        let mut due = now + 1;
        if !near {
            due += self.chance.below(3) + self.chance.below(self.weather.delay + 1);
        }
        if lost {
            due += 200;
        }
        if let Some(session) = session {
            let last = self.last_due.entry((session, to)).or_default();
            due = due.max(*last);
            *last = due;
        } else if !near && matches!(body, Body::Raft(..)) && self.chance.per_mille(10) {
            // What was thought lost and was sent again arrives twice.
            self.sent += 1;
            let again = Letter {
                from,
                to,
                body: body.clone(),
            };
            let late = due + self.chance.below(500);
            self.under_way.insert((late, self.sent), again);
        }
        self.sent += 1;
        self.under_way
            .insert((due, self.sent), Letter { from, to, body });
    }

    /// The next letter that arrives by `now`, and when.
    pub(crate) fn next(&mut self, now: Millis) -> Option<(Millis, Letter)> {
        let first = self.under_way.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let at = first.key().0;
        let letter = first.remove();
        if let Some(session) = letter.body.session()
            && self.broken.contains(&session)
        {
            return self.next(now);
        }
        Some((at, letter))
    }

    /// Whether anything of a session still gets through.
    pub(crate) fn is_broken(&self, session: u64) -> bool {
        self.broken.contains(&session)
    }

    /// What was under way to a host that has died is lost with it.
    pub(crate) fn forget(&mut self, session: u64) {
        self.last_due.retain(|(held, _), _| *held != session);
    }
}
