//! The agent's process: the real worker and session, around them what its runtime does, on a
//! pretend engine and kernel.

mod deeds;

use std::collections::BTreeMap;

use weft_agent::{
    session::Session,
    task::{Action, Event, Observation},
    worker::{Assignment, Outcome, Worker},
};
use weft_proto::{
    WIRE_VERSION,
    dispatcher::{AssignmentSet, ManagerMessage, NodeMessage},
};
use weft_types::{
    TaskId, Timestamp,
    netstate::NetDelta,
    node::{NodeDescription, Role},
};

use crate::{
    Millis,
    chance::Chance,
    host::{Machine, addr, host_at},
    invariants::Record,
    lapse::Lapse,
    manager::Group,
    wire::{Body, Caller, HostId, Wire},
};

/// A stream of which nothing is heard is given up after so long.
const SILENCE: Millis = 2_500;
/// How long a manager may take to welcome a node.
const WELCOME_LIMIT: Millis = 5_000;
/// Between two tellings of flows.
const DRAIN_PERIOD: Millis = 200;
/// Between two tries of what the kernel refused.
const RETRY: Millis = 500;

/// What a step of the world works with.
pub(crate) struct Air<'a> {
    pub(crate) now: Millis,
    pub(crate) wire: &'a mut Wire,
    pub(crate) record: &'a mut Record,
    /// Numbers sessions.
    pub(crate) sessions: &'a mut u64,
}

struct Link {
    session: u64,
    caller: Caller,
    manager: HostId,
    dial_at: Millis,
    is_open: bool,
    heard: Millis,
}

struct Doing {
    action: Action,
    begun: Millis,
    due: Millis,
}

/// What the owner of an agent must know.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Notice {
    /// The role that its node is to have.
    Role(Role),
    /// Its node is not of the cluster any more.
    Removed,
}

/// The agent of a host, as long as its process lives.
pub(crate) struct Agent {
    host: HostId,
    /// As whom it calls, by the certificate held now.
    pub(crate) caller: Caller,
    /// For its owner.
    pub(crate) notices: Vec<Notice>,
    begun: Millis,
    wall: Timestamp,
    lapse: Option<Lapse>,
    worker: Worker,
    session: Session,
    link: Option<Link>,
    heartbeat: Option<(Millis, Millis)>,
    drain_at: Option<Millis>,
    doing: BTreeMap<TaskId, Doing>,
    applied: u64,
    knows_all: bool,
    chance: Chance,
}

impl Agent {
    /// The process begins.
    pub(crate) fn start(
        host: HostId,
        caller: Caller,
        group: Group,
        machine: &mut Machine,
        chance: Chance,
        air: &mut Air<'_>,
    ) -> Self {
        let journal = machine.journal.managers.iter();
        let mut known: Vec<_> = journal
            .filter_map(|(id, addr)| Some((*id, addr.parse().ok()?)))
            .collect();
        if known.is_empty() {
            known = (1..=group.managers)
                .map(|host| (None, addr(host)))
                .collect();
        }
        let mut agent = Self {
            host,
            caller,
            notices: Vec::new(),
            begun: air.now,
            wall: machine.clock(air.now),
            lapse: group.lapse,
            worker: Worker::default(),
            session: Session::new(known, machine.journal.net.clone()),
            link: None,
            heartbeat: None,
            drain_at: None,
            doing: BTreeMap::new(),
            applied: 0,
            knows_all: false,
            chance,
        };
        let journal = machine.journal.tasks.values().cloned().collect();
        let adopted = agent.worker.adopt(journal, agent.wall);
        agent.carry_out(adopted, machine, air);
        agent.look_at_everything(machine, air);
        agent
    }

    fn clock(&self, machine: &Machine, now: Millis) -> Timestamp {
        if self.lapse == Some(Lapse::FollowsTheClock) {
            return machine.clock(now);
        }
        self.wall
            .after(std::time::Duration::from_millis(now - self.begun))
    }

    /// Whether a manager has welcomed it.
    pub(crate) fn is_connected(&self) -> bool {
        self.session.is_up()
    }

    /// Its talk, if there is one.
    pub(crate) fn talks(&self) -> Option<(u64, HostId)> {
        self.link
            .as_ref()
            .filter(|link| link.is_open)
            .map(|link| (link.session, link.manager))
    }

    /// The hosts of managers that it knows.
    pub(crate) fn managers(&self) -> Vec<HostId> {
        let managers = self.session.managers().iter();
        managers.map(|(_, addr)| host_at(*addr)).collect()
    }

    /// The engine tells of a container.
    pub(crate) fn observe(
        &mut self,
        task: TaskId,
        observation: Observation,
        machine: &mut Machine,
        air: &mut Air<'_>,
    ) {
        self.event(task, Event::Observed(Ok(observation)), machine, air);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, machine: &mut Machine, air: &mut Air<'_>) {
        self.keep_network(machine, air);
        let due: Vec<TaskId> = self
            .doing
            .iter()
            .filter(|(_, doing)| doing.due <= air.now)
            .map(|(task, _)| *task)
            .collect();
        for task in due {
            self.finish(task, machine, air);
        }
        let outcome = self.worker.tick(self.clock(machine, air.now));
        self.carry_out(outcome, machine, air);
        if let Some((period, at)) = self.heartbeat
            && at <= air.now
        {
            self.heartbeat = Some((period, air.now + period));
            self.say(NodeMessage::Heartbeat, air);
        }
        if self.drain_at.is_some_and(|at| at <= air.now) {
            self.drain_at = None;
            self.count_flows(machine, air);
        }
        self.mind_link(air);
        self.settle(machine, air);
    }

    fn mind_link(&mut self, air: &mut Air<'_>) {
        let Some(link) = &mut self.link else {
            return self.dial(air);
        };
        if !link.is_open && link.dial_at <= air.now {
            link.is_open = true;
            link.caller = self.caller;
            link.heard = air.now;
            let hello = NodeMessage::Hello {
                description: Box::new(NodeDescription {
                    hostname: format!("n{}", self.host),
                    ..NodeDescription::default()
                }),
                data_path_addr: Some(addr(self.host).ip()),
                addresses: [addr(self.host).ip()].into(),
                wireguard: None,
                applied_revision: self.applied,
                wire_version: WIRE_VERSION,
            };
            self.say(hello, air);
            return;
        }
        let limit = if self.session.is_up() {
            SILENCE
        } else {
            WELCOME_LIMIT
        };
        // A stream that works is kept alive below what is modelled here.
        let silent = !self.session.is_up() || air.wire.is_broken(link.session);
        if link.is_open && silent && link.heard + limit <= air.now {
            self.drop_link(air);
        }
    }

    fn dial(&mut self, air: &mut Air<'_>) {
        let Some(next) = self.session.dial() else {
            return;
        };
        *air.sessions += 1;
        self.link = Some(Link {
            session: *air.sessions,
            caller: self.caller,
            manager: host_at(next.addr),
            dial_at: air.now + u64::try_from(next.pause.as_millis()).unwrap_or(0),
            is_open: false,
            heard: air.now,
        });
    }

    fn drop_link(&mut self, air: &mut Air<'_>) {
        self.close_link(air);
        self.session.lost();
    }

    /// Its certificate says another role now: it calls anew.
    pub(crate) fn renewed(&mut self, role: Role, air: &mut Air<'_>) {
        self.caller.role = role;
        self.session.renewed();
        self.close_link(air);
    }

    fn close_link(&mut self, air: &mut Air<'_>) {
        if let Some(link) = self.link.take()
            && link.is_open
        {
            air.wire
                .send(air.now, self.host, link.manager, Body::Hangup(link.session));
            air.wire.forget(link.session);
        }
        self.heartbeat = None;
    }

    /// The manager's end was closed.
    pub(crate) fn hung_up(&mut self, session: u64, air: &mut Air<'_>) {
        if self
            .link
            .as_ref()
            .is_some_and(|link| link.session == session)
        {
            self.drop_link(air);
        }
    }

    fn say(&mut self, message: NodeMessage, air: &mut Air<'_>) {
        if let Some(link) = self.link.as_ref().filter(|link| link.is_open) {
            let body = Body::Node(link.session, link.caller, Box::new(message));
            air.wire.send(air.now, self.host, link.manager, body);
        }
    }

    /// A manager speaks.
    pub(crate) fn hear(
        &mut self,
        session: u64,
        message: ManagerMessage,
        machine: &mut Machine,
        air: &mut Air<'_>,
    ) {
        let Some(link) = self.link.as_mut().filter(|link| link.session == session) else {
            return;
        };
        link.heard = air.now;
        match message {
            ManagerMessage::Welcome {
                heartbeat_millis, ..
            } => {
                self.session.established();
                let period = heartbeat_millis.max(50);
                self.heartbeat = Some((period, air.now + period));
            }
            ManagerMessage::Managers(managers) => {
                self.session.set_managers(&managers);
                let known = self.session.managers().iter();
                machine.journal.managers =
                    known.map(|(id, addr)| (*id, addr.to_string())).collect();
            }
            ManagerMessage::Assignments(set) => self.assign(*set, machine, air),
            ManagerMessage::NetState(delta) => self.step_network(*delta, machine, air),
            ManagerMessage::StatusStored(sequence) => self.session.stored(sequence),
            ManagerMessage::Redirect(lead) => {
                self.drop_link(air);
                self.session.redirected(lead.as_deref());
            }
            ManagerMessage::Role(role) => self.notices.push(Notice::Role(role)),
            ManagerMessage::Removed => self.notices.push(Notice::Removed),
            ManagerMessage::Node(_)
            | ManagerMessage::TrustRoot(_)
            | ManagerMessage::LogRequest { .. }
            | ManagerMessage::LogCancel(_)
            | ManagerMessage::Tunnel(_) => {}
        }
        self.settle(machine, air);
    }

    fn assign(&mut self, set: AssignmentSet, machine: &mut Machine, air: &mut Air<'_>) {
        let complete = set.complete;
        let assignment = Assignment {
            complete,
            tasks: set.tasks,
            removed: set.removed_tasks,
        };
        let outcome = self.worker.assign(assignment, self.clock(machine, air.now));
        self.carry_out(outcome, machine, air);
        if complete && !self.knows_all {
            self.knows_all = true;
            self.look_at_everything(machine, air);
        }
    }

    fn step_network(&mut self, delta: NetDelta, machine: &mut Machine, air: &mut Air<'_>) {
        if self.session.net_step(delta).is_err() {
            return self.say(NodeMessage::NetStateGap, air);
        }
        machine.journal.net = self.session.net().clone();
    }

    fn keep_network(&mut self, machine: &mut Machine, air: &mut Air<'_>) {
        let kernel = &mut machine.kernel;
        if let Some((due, state)) = kernel.becomes.take() {
            if due > air.now {
                kernel.becomes = Some((due, state));
            } else if machine.refuses_until > air.now {
                kernel.becomes = Some((air.now + RETRY, self.session.net().clone()));
            } else {
                kernel.state = state;
                air.record
                    .kernel_holds(self.host, self.caller.node, &kernel.state);
                let revision = kernel.state.revision;
                if self.applied != revision {
                    self.applied = revision;
                    self.say(NodeMessage::Applied { revision }, air);
                }
            }
        }
        let wished = self.session.net();
        if machine.kernel.becomes.is_none()
            && wished.revision != 0
            && (wished.revision != machine.kernel.state.revision || self.applied != wished.revision)
        {
            let takes = 2 + self.chance.below(120);
            machine.kernel.becomes = Some((air.now + takes, wished.clone()));
        }
    }

    fn event(&mut self, task: TaskId, event: Event, machine: &mut Machine, air: &mut Air<'_>) {
        let outcome = self.worker.event(task, event, self.clock(machine, air.now));
        self.carry_out(outcome, machine, air);
    }

    fn carry_out(&mut self, outcome: Outcome, machine: &mut Machine, air: &mut Air<'_>) {
        for (task, status) in outcome.reports {
            self.session.report(task, status);
        }
        for (task, action) in outcome.actions {
            self.begin(task, action, machine, air);
        }
    }

    fn draining(&self) -> impl Iterator<Item = &TaskId> {
        let machines = self.worker.machines();
        machines
            .filter(|(_, held)| held.is_draining())
            .map(|(task, _)| task)
    }

    fn count_flows(&mut self, machine: &mut Machine, air: &mut Air<'_>) {
        let tasks: Vec<TaskId> = self.draining().copied().collect();
        for task in tasks {
            let open = u64::from(self.chance.per_mille(500));
            self.event(task, Event::Flows(open), machine, air);
        }
    }

    /// Journal first, then sandboxes, then reports.
    fn settle(&mut self, machine: &mut Machine, air: &mut Air<'_>) {
        for task in self.worker.take_unsaved() {
            match self.worker.machine(&task) {
                Some(held) => {
                    let entry = (held.task().clone(), held.status().clone());
                    machine.journal.tasks.insert(task, entry);
                }
                None => {
                    machine.journal.tasks.remove(&task);
                }
            }
        }
        let wished = self.worker.sandboxes();
        machine
            .kernel
            .sandboxes
            .retain(|task| wished.contains(task));
        while let Some(report) = self.session.take_report() {
            if let NodeMessage::Status { updates, .. } = &report {
                air.record.reports(self.caller.node, updates);
            }
            self.say(report, air);
        }
        if self.drain_at.is_none() && self.draining().next().is_some() {
            self.drain_at = Some(air.now + DRAIN_PERIOD);
        }
    }
}
