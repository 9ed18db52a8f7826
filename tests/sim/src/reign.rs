//! What a leader does as long as it leads: requests, sessions and loops, one write at a time, as
//! `weft_control::runtime` does it.

use std::collections::{BTreeMap, VecDeque};

use weft_control::{
    api,
    dispatcher::{self, Acked, Acks, Registration, Sound, Told},
    settle::Settler,
    store::{ApplyError, Change, Transaction, View},
};
use weft_proto::dispatcher::{ManagerMessage, NodeMessage};
use weft_types::{NodeId, SessionId, TaskId, Timestamp, task::TaskStatus};

use crate::{
    Millis,
    agent::Air,
    deed::{Ask, node},
    heal,
    host::addr,
    manager::Manager,
    wire::{Body, HostId},
};

/// Between a node's heartbeats.
const PERIOD: Millis = 600;
/// Periods of silence after which a node is down.
const GRACE: Millis = 3;
/// Between two looks at who is silent.
const TICK: Millis = 100;
/// How often a decision is thought again when somebody wrote in between.
const TRIES: u32 = 5;

/// Something that is to be written.
enum Job {
    /// The cluster itself, by its first leader.
    Found,
    /// Whether nodes live must be heard anew.
    Begin,
    Ask(Ask),
    Register {
        session: u64,
        host: HostId,
        registration: Box<Registration>,
    },
    Reports {
        session: u64,
        node: NodeId,
        sequence: u64,
        updates: Vec<(TaskId, TaskStatus)>,
    },
    Down(NodeId, &'static str),
    /// What the loops want.
    Loops,
}

struct Talk {
    session: u64,
    host: HostId,
    told: Told,
    acked: Acked,
    heard: Millis,
    has_ended: bool,
    lost_thread: bool,
    seen: Option<u64>,
}

/// A term of a leader.
pub(crate) struct Reign {
    term: u64,
    begun: Millis,
    has_begun: bool,
    settler: Settler,
    wake_at: Option<Timestamp>,
    seen: Option<(u64, Acks)>,
    talks: BTreeMap<NodeId, Talk>,
    queue: VecDeque<(Job, u32)>,
    /// What is being written: its place, its name, and what for.
    turn: Option<(u64, u64, Job, u32)>,
    look_at: Millis,
}

impl Reign {
    pub(crate) fn new(term: u64, now: Millis) -> Self {
        Self {
            term,
            begun: now,
            has_begun: false,
            settler: Settler::default(),
            wake_at: None,
            seen: None,
            talks: BTreeMap::new(),
            queue: VecDeque::new(),
            turn: None,
            look_at: now,
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// A user wishes something.
    pub(crate) fn ask(&mut self, ask: Ask) {
        self.queue.push_back((Job::Ask(ask), 0));
    }

    /// It is over: the nodes must go elsewhere.
    pub(crate) fn end(&mut self, host: HostId, lead: Option<HostId>, air: &mut Air<'_>) {
        for talk in std::mem::take(&mut self.talks).into_values() {
            hang_up(host, &talk, lead, air);
        }
    }

    /// A node speaks.
    pub(crate) fn hear(
        &mut self,
        from: HostId,
        session: u64,
        message: NodeMessage,
        air: &mut Air<'_>,
    ) {
        if let NodeMessage::Hello {
            description,
            data_path_addr,
            addresses,
            wireguard,
            ..
        } = message
        {
            let registration = Registration {
                description: *description,
                remote: addr(from).ip(),
                data_path_addr,
                addresses,
                wireguard,
            };
            let job = Job::Register {
                session,
                host: from,
                registration: Box::new(registration),
            };
            return self.queue.push_back((job, 0));
        }
        let Some(talk) = self.talks.get_mut(&node(from)) else {
            return;
        };
        if talk.session != session {
            return;
        }
        talk.heard = air.now;
        match message {
            NodeMessage::Status { sequence, updates } => {
                let job = Job::Reports {
                    session,
                    node: node(from),
                    sequence,
                    updates,
                };
                self.queue.push_back((job, 0));
            }
            NodeMessage::Applied { revision } => {
                talk.acked.report(revision);
            }
            NodeMessage::NetStateGap => talk.lost_thread = true,
            _ => {}
        }
    }

    /// A node closed its end.
    pub(crate) fn hung_up(&mut self, from: HostId, session: u64) {
        if let Some(talk) = self.talks.get_mut(&node(from))
            && talk.session == session
        {
            talk.has_ended = true;
        }
    }

    fn acks(&self) -> Acks {
        let mut acks = Acks::default();
        for (node, talk) in &self.talks {
            acks.applied.insert(*node, talk.acked.revision());
        }
        acks
    }

    /// An entry was applied.
    pub(crate) fn applied(
        &mut self,
        index: u64,
        mark: u64,
        verdict: Result<(), ApplyError>,
        host: HostId,
        air: &mut Air<'_>,
    ) {
        if self.turn.as_ref().is_none_or(|(at, ..)| *at != index) {
            return;
        }
        let Some((_, name, job, tries)) = self.turn.take() else {
            return;
        };
        if name != mark {
            // Another leader's entry stands there: this term is over, whatever this member knows.
            return;
        }
        match verdict {
            Ok(()) => {
                if matches!(job, Job::Ask(_)) {
                    air.record.acknowledges(index, mark);
                }
                self.done(job, host, air);
            }
            Err(error) if error.is_race() && tries < TRIES => {
                self.queue.push_front((job, tries + 1));
            }
            Err(error) => {
                // Only one write is under way at a time: nobody can have been faster.
                panic!("what a leader decided was refused: {error}");
            }
        }
    }

    fn done(&mut self, job: Job, host: HostId, air: &mut Air<'_>) {
        match job {
            Job::Begin => self.has_begun = true,
            Job::Register {
                session,
                host: from,
                ..
            } => {
                let talk = Talk {
                    session,
                    host: from,
                    told: Told::default(),
                    acked: Acked::default(),
                    heard: air.now,
                    has_ended: false,
                    lost_thread: false,
                    seen: None,
                };
                if let Some(old) = self.talks.insert(node(from), talk) {
                    hang_up(host, &old, None, air);
                }
                let welcome = ManagerMessage::Welcome {
                    session: SessionId::numbered(u128::from(session)),
                    heartbeat_millis: PERIOD,
                };
                tell(host, from, session, welcome, air);
            }
            Job::Reports {
                session,
                node,
                sequence,
                ..
            } => {
                if let Some(talk) = self.talks.get(&node)
                    && talk.session == session
                {
                    let stored = ManagerMessage::StatusStored(sequence);
                    tell(host, talk.host, session, stored, air);
                }
            }
            Job::Found | Job::Ask(_) | Job::Down(..) | Job::Loops => {}
        }
    }

    /// Time has passed, or something was heard.
    pub(crate) fn tick(&mut self, manager: &mut Manager, clock: Timestamp, air: &mut Air<'_>) {
        // Nothing is decided before all that earlier leaders committed has been applied.
        if self.turn.is_none() && manager.applied < manager.member.log().last().0 {
            return;
        }
        if !self.has_begun
            && self.turn.is_none()
            && self
                .queue
                .front()
                .is_none_or(|(job, _)| !matches!(job, Job::Begin | Job::Found))
        {
            let first = if manager.view().cluster().is_none() {
                Job::Found
            } else {
                Job::Begin
            };
            self.queue.push_front((first, 0));
        }
        self.work(manager, clock, air);
        if self.has_begun && self.look_at <= air.now {
            self.look_at = air.now + TICK;
            self.notice_silence(manager, air);
        }
        self.tell_news(manager, air);
    }

    /// Carries out jobs until one waits for its commit.
    fn work(&mut self, manager: &mut Manager, clock: Timestamp, air: &mut Air<'_>) {
        while self.turn.is_none() {
            let view = manager.view();
            let (job, tries) = match self.queue.pop_front() {
                Some(job) => job,
                None => {
                    let seen = (view.index(), self.acks());
                    let is_due = self.wake_at.is_some_and(|at| at <= clock);
                    if !self.has_begun || (!is_due && self.seen.as_ref() == Some(&seen)) {
                        return;
                    }
                    self.seen = Some(seen);
                    (Job::Loops, 0)
                }
            };
            let changes = self.decide(&job, &view, clock, manager);
            if changes.is_empty() {
                self.done(job, manager.host, air);
                continue;
            }
            let transaction = Transaction {
                now: clock,
                changes,
            };
            let mark = manager.chance.number();
            if let Some(index) = manager.member.propose(Some(transaction), mark, air.now) {
                self.turn = Some((index, mark, job, tries));
                // Alone in its group it may be committed as soon as it is kept.
                return;
            }
            return;
        }
    }

    fn decide(
        &mut self,
        job: &Job,
        view: &View,
        clock: Timestamp,
        manager: &mut Manager,
    ) -> Vec<Change> {
        match job {
            Job::Found => heal::founding(manager.group()),
            Job::Begin => dispatcher::unknown(view, clock),
            Job::Ask(ask) => {
                let Some(request) = ask.request(view) else {
                    return Vec::new();
                };
                // What is refused changes nothing.
                match api::handle(view, clock, &mut manager.ids, &request) {
                    Ok((changes, _)) => changes,
                    Err(_) => Vec::new(),
                }
            }
            Job::Register {
                host, registration, ..
            } => dispatcher::register(view, clock, node(*host), registration),
            Job::Reports { node, updates, .. } => dispatcher::status(view, clock, *node, updates),
            Job::Down(node, why) => dispatcher::down(view, clock, *node, why),
            Job::Loops => {
                let acks = self.acks();
                let mut outcome = self.settler.settle(view, clock, &mut manager.ids);
                if outcome.changes.is_empty() {
                    let withdrawn = dispatcher::withdraw(view, clock, &acks);
                    outcome.wake_at = [outcome.wake_at, withdrawn.wake_at]
                        .into_iter()
                        .flatten()
                        .min();
                    outcome.changes = withdrawn.changes;
                }
                self.wake_at = outcome.wake_at;
                outcome.changes
            }
        }
    }

    fn notice_silence(&mut self, manager: &Manager, air: &mut Air<'_>) {
        let view = manager.view();
        let sounds: BTreeMap<NodeId, Sound> = self
            .talks
            .iter()
            .map(|(node, talk)| {
                let sound = if talk.heard + PERIOD * GRACE < air.now {
                    Sound::Silent
                } else if talk.has_ended {
                    Sound::Gone
                } else {
                    Sound::Speaks
                };
                (*node, sound)
            })
            .collect();
        for node in dispatcher::misknown(&view, &sounds) {
            self.drop_talk(node, manager.host, air);
        }
        let all_should_be_here = self.begun + 2 * GRACE * PERIOD < air.now;
        for (node, why) in dispatcher::lost(&view, &sounds, all_should_be_here) {
            self.drop_talk(node, manager.host, air);
            let is_known = self
                .queue
                .iter()
                .any(|(job, _)| matches!(job, Job::Down(known, _) if *known == node));
            let is_written =
                matches!(&self.turn, Some((_, _, Job::Down(known, _), _)) if *known == node);
            if !is_known && !is_written {
                self.queue.push_back((Job::Down(node, why), 0));
            }
        }
    }

    fn drop_talk(&mut self, node: NodeId, host: HostId, air: &mut Air<'_>) {
        if let Some(talk) = self.talks.remove(&node) {
            hang_up(host, &talk, None, air);
        }
    }

    /// Tells nodes what they do not know yet.
    fn tell_news(&mut self, manager: &Manager, air: &mut Air<'_>) {
        let view = manager.view();
        let (me, members) = (manager.host, manager.group().managers);
        for (node, talk) in &mut self.talks {
            if talk.has_ended || (talk.seen == Some(view.index()) && !talk.lost_thread) {
                continue;
            }
            if talk.seen.is_none() {
                let mut managers = vec![me];
                managers.extend((1..=members).filter(|host| *host != me));
                let managers = managers
                    .into_iter()
                    .map(|host| (crate::deed::node(host), addr(host).to_string()));
                let managers = ManagerMessage::Managers(managers.collect());
                tell(me, talk.host, talk.session, managers, air);
            }
            talk.seen = Some(view.index());
            if std::mem::take(&mut talk.lost_thread) {
                talk.told.lost_thread();
            }
            if let Some(delta) = talk.told.network(&view, *node) {
                talk.acked.sent(delta.revision);
                let delta = ManagerMessage::NetState(Box::new(delta));
                tell(me, talk.host, talk.session, delta, air);
            } else {
                talk.acked.still(view.index());
            }
            if let Some(set) = talk.told.assignments(&view, *node) {
                let set = ManagerMessage::Assignments(Box::new(set));
                tell(me, talk.host, talk.session, set, air);
            }
        }
    }
}

fn tell(me: HostId, to: HostId, session: u64, message: ManagerMessage, air: &mut Air<'_>) {
    air.wire
        .send(air.now, me, to, Body::Manager(session, Box::new(message)));
}

fn hang_up(me: HostId, talk: &Talk, lead: Option<HostId>, air: &mut Air<'_>) {
    let lead = lead.filter(|lead| *lead != me);
    let redirect = ManagerMessage::Redirect(lead.map(|lead| addr(lead).to_string()));
    tell(me, talk.host, talk.session, redirect, air);
    air.wire
        .send(air.now, me, talk.host, Body::Hangup(talk.session));
}
