//! What a leader does as long as it leads: requests, sessions and loops, one write at a time, as
//! `weft_control::runtime` does it.

mod news;
mod tend;

use std::collections::{BTreeMap, VecDeque};

use weft_control::{
    api,
    dispatcher::{self, Acked, Acks, Registration, Told, ToldRole},
    settle::Settler,
    store::{ApplyError, Change, Transaction, View},
};
use weft_proto::dispatcher::{ManagerMessage, NodeMessage};
use weft_types::{NodeId, SessionId, TaskId, Timestamp, node::Role, task::TaskStatus};

use crate::{
    Millis,
    agent::Air,
    deed::Ask,
    disk, heal,
    host::addr,
    manager::Manager,
    members,
    seat::{Plea, Reply},
    wire::{Body, Caller, HostId},
};

use self::{
    news::{hang_up, tell},
    tend::{due_role, may_change, roles, set_role},
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
    /// A host is to be a node.
    Enter {
        host: HostId,
        node: NodeId,
    },
    /// A node is to have a certificate, for the role that is due.
    Renew {
        host: HostId,
        node: NodeId,
        certified: Role,
        role: Role,
    },
    /// Who is a manager, and who is none any more.
    Roles,
    Register {
        session: u64,
        host: HostId,
        caller: Caller,
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
    /// The role and the managers that it was told.
    role: ToldRole,
    managers: Vec<HostId>,
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
    tend_at: Millis,
    /// Nodes that want to be members.
    joins: Vec<(HostId, NodeId)>,
    /// The change of the group that is under way, and who is told when it is done.
    change: Option<(u64, u64, Option<Reply>)>,
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
            tend_at: now,
            joins: Vec::new(),
            change: None,
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

    /// Somebody wants something.
    pub(crate) fn beg(&mut self, plea: Plea) {
        let job = match plea {
            Plea::Ask(ask) => Job::Ask(ask),
            Plea::Enter { host, node } => Job::Enter { host, node },
            Plea::Renew {
                host,
                node,
                certified,
            } => Job::Renew {
                host,
                node,
                certified,
                role: Role::Worker,
            },
            Plea::Join { host, node } => {
                if !self.joins.contains(&(host, node)) {
                    self.joins.push((host, node));
                }
                return;
            }
        };
        self.queue.push_back((job, 0));
    }

    /// A node speaks.
    pub(crate) fn hear(
        &mut self,
        from: HostId,
        session: u64,
        caller: Caller,
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
                caller,
                registration: Box::new(registration),
            };
            return self.queue.push_back((job, 0));
        }
        let Some(talk) = self.talks.get_mut(&caller.node) else {
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
                    node: caller.node,
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
    pub(crate) fn hung_up(&mut self, session: u64) {
        let mut talks = self.talks.values_mut();
        if let Some(talk) = talks.find(|talk| talk.session == session) {
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
        manager: &mut Manager,
        air: &mut Air<'_>,
    ) {
        if self.change.as_ref().is_some_and(|(at, ..)| *at == index)
            && let Some((_, name, reply)) = self.change.take()
            && name == mark
            && let Some(Reply::Joined(node, number)) = reply
        {
            let to = members::host_of(number);
            answer(manager.host, to, Reply::Joined(node, number), air);
            return;
        }
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
                self.done(job, manager, air);
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

    fn done(&mut self, job: Job, manager: &Manager, air: &mut Air<'_>) {
        let host = manager.host;
        match job {
            Job::Enter { host: to, node } => {
                let group = manager.member.group();
                let managers = group.all().map(members::host_of).collect();
                answer(host, to, Reply::Entered(node, managers), air);
            }
            Job::Renew {
                host: to,
                node,
                certified,
                role,
            } => {
                if manager.view().node(node).is_some() {
                    answer(host, to, Reply::Renewed(node, role), air);
                }
                // A session is judged by the certificate that it was opened with.
                if role == Role::Worker && certified == Role::Manager {
                    self.drop_talk(node, host, air);
                }
            }
            Job::Begin => self.has_begun = true,
            Job::Register {
                session,
                host: from,
                caller,
                ..
            } => {
                if manager.view().node(caller.node).is_none() {
                    return tell(host, from, session, ManagerMessage::Removed, air);
                }
                let talk = Talk {
                    session,
                    host: from,
                    told: Told::default(),
                    acked: Acked::default(),
                    heard: air.now,
                    has_ended: false,
                    lost_thread: false,
                    seen: None,
                    role: ToldRole::new(caller.role),
                    managers: Vec::new(),
                };
                if let Some(old) = self.talks.insert(caller.node, talk) {
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
            Job::Found | Job::Ask(_) | Job::Down(..) | Job::Loops | Job::Roles => {}
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
        if self.has_begun && (self.tend_at <= air.now || !self.joins.is_empty()) {
            self.tend(manager, air);
        }
        self.tell_news(manager, air);
    }

    /// Carries out jobs until one waits for its commit.
    fn work(&mut self, manager: &mut Manager, clock: Timestamp, air: &mut Air<'_>) {
        while self.turn.is_none() {
            let view = manager.view();
            let (mut job, tries) = match self.queue.pop_front() {
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
            let changes = self.decide(&mut job, &view, clock, manager, air.now);
            if changes.is_empty() {
                self.done(job, manager, air);
                continue;
            }
            let transaction = Transaction {
                now: clock,
                changes,
            };
            let mark = manager.chance.number();
            if let Some(index) =
                manager
                    .member
                    .propose(disk::Body::Store(transaction), mark, air.now)
            {
                self.turn = Some((index, mark, job, tries));
                // Alone in its group it may be committed as soon as it is kept.
                return;
            }
            return;
        }
    }

    fn decide(
        &mut self,
        job: &mut Job,
        view: &View,
        clock: Timestamp,
        manager: &mut Manager,
        now: Millis,
    ) -> Vec<Change> {
        match job {
            Job::Found => heal::founding(manager.group()),
            Job::Begin => dispatcher::unknown(view, clock),
            Job::Ask(ask) => {
                let Some(request) = ask.request(view) else {
                    return Vec::new();
                };
                if !may_change(view, manager, &request, now) {
                    return Vec::new();
                }
                // What is refused changes nothing.
                match api::handle(view, clock, &mut manager.ids, &request) {
                    Ok((changes, _)) => changes,
                    Err(_) => Vec::new(),
                }
            }
            Job::Enter { host, node } => heal::entering(view, *host, *node),
            Job::Renew {
                node,
                certified,
                role,
                ..
            } => {
                let Some(known) = view.node(*node) else {
                    return Vec::new();
                };
                *role = due_role(manager, known, *certified);
                set_role(known, *role).into_iter().collect()
            }
            Job::Roles => roles(view, manager),
            Job::Register {
                caller,
                registration,
                ..
            } => dispatcher::register(view, clock, caller.node, registration),
            Job::Reports { node, updates, .. } => dispatcher::status(view, clock, *node, updates),
            Job::Down(node, why) => dispatcher::down(view, clock, *node, why),
            Job::Loops => {
                let acks = self.acks();
                let outcome = self.settler.decide(view, clock, &mut manager.ids, &acks);
                self.wake_at = outcome.wake_at;
                outcome.changes
            }
        }
    }
}

fn answer(me: HostId, to: HostId, reply: Reply, air: &mut Air<'_>) {
    air.wire.send(air.now, me, to, Body::Reply(reply));
}
