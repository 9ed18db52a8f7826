//! What a host is in the cluster, and how it becomes it: in and out of the cluster, in and out of
//! the group of managers. As the owner of agent and manager in the product does it.

use weft_types::{NodeId, node::Role};

use crate::{
    Millis,
    agent::{Agent, Air, Notice},
    chance::Chance,
    deed::Ask,
    disk::Disk,
    host::{Host, addr},
    lapse::Lapse,
    manager::{Group, Manager},
    members::Number,
    wire::{Body, Caller, HostId},
};

/// Between two tries.
const RETRY: Millis = 1_000;
/// How long a manager may take to become a full member.
const JOIN_LIMIT: Millis = 20_000;

/// Numbers of a host's nodes are so far apart.
const HOSTS: u128 = 100;

/// The node that a host is after it has left the cluster so many times.
pub(crate) fn node(host: HostId, life: u32) -> NodeId {
    NodeId::numbered(u128::from(host) + HOSTS * u128::from(life))
}

/// The host of a node.
pub(crate) fn host_of(node: NodeId) -> Option<HostId> {
    let number = u128::from_str_radix(node.as_str(), 36).ok()?;
    HostId::try_from(number % HOSTS).ok()
}

/// What somebody wants of the leader.
#[derive(Debug, Clone)]
pub(crate) enum Plea {
    /// A user's wish.
    Ask(Ask),
    /// A host wants to be a node.
    Enter { host: HostId, node: NodeId },
    /// A node wants a certificate for the role that is due, in place of one for this role.
    Renew {
        host: HostId,
        node: NodeId,
        certified: Role,
    },
    /// A node wants to be a member of the group of managers.
    Join { host: HostId, node: NodeId },
}

/// What the leader answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The host is this node now, and these are the managers' hosts.
    Entered(NodeId, Vec<HostId>),
    /// The node has a certificate for this role.
    Renewed(NodeId, Role),
    /// The node is this member now.
    Joined(NodeId, Number),
}

/// What a host is in the cluster.
#[derive(Debug)]
pub(crate) struct Seat {
    /// How often it has left.
    pub(crate) life: u32,
    /// Whether it is a node.
    pub(crate) is_in: bool,
    /// By its certificate.
    pub(crate) certified: Role,
    /// As what its manager's files know it, while there are any.
    pub(crate) number: Option<Number>,
    /// The manager's disk while no manager runs.
    pub(crate) disk: Option<Disk>,
    wished: Option<Role>,
    /// When the manager that is becoming a member is given up.
    limit: Option<Millis>,
    step_at: Millis,
    leave_at: Option<Millis>,
}

impl Seat {
    /// A host of the first hour.
    pub(crate) fn founding(host: HostId, disk: Option<Disk>) -> Self {
        Self {
            life: 0,
            is_in: true,
            certified: if disk.is_some() {
                Role::Manager
            } else {
                Role::Worker
            },
            number: disk.is_some().then_some(host),
            disk,
            wished: None,
            limit: None,
            step_at: 0,
            leave_at: None,
        }
    }

    /// The node that it is.
    pub(crate) fn node(&self, host: HostId) -> NodeId {
        node(host, self.life)
    }

    /// Its user lets it leave at that time, and join again.
    pub(crate) fn start_anew(&mut self, at: Millis) {
        self.leave_at.get_or_insert(at);
    }

    /// Its process is gone, with what only it knew.
    pub(crate) fn crash(&mut self) {
        self.wished = None;
        self.limit = None;
        self.step_at = 0;
    }
}

impl Host {
    /// The process begins again.
    pub(crate) fn begin(&mut self, group: Group, chance: &Chance, air: &mut Air<'_>) {
        self.lives += 1;
        if self.seat.is_in {
            self.start_agent(group, chance, air);
        }
    }

    fn salt(&self) -> u64 {
        u64::from(self.id) * 1000 + self.lives
    }

    fn start_agent(&mut self, group: Group, chance: &Chance, air: &mut Air<'_>) {
        let caller = Caller {
            node: self.node(),
            role: self.seat.certified,
        };
        let chance = chance.apart(self.salt() + 500_000);
        let machine = &mut self.machine;
        let agent = Agent::start(self.id, caller, group, machine, chance, air);
        self.agent = Some(agent);
    }

    /// The leader answers.
    pub(crate) fn answered(
        &mut self,
        from: HostId,
        reply: Reply,
        group: Group,
        chance: &Chance,
        air: &mut Air<'_>,
    ) {
        match reply {
            Reply::Entered(node, managers) if node == self.node() && !self.seat.is_in => {
                self.seat.is_in = true;
                let others = managers.into_iter().filter(|host| *host != from);
                self.machine.journal.managers = std::iter::once(from)
                    .chain(others)
                    .map(|host| (None, addr(host).to_string()))
                    .collect();
                self.lives += 1;
                self.start_agent(group, chance, air);
            }
            Reply::Renewed(node, role) if node == self.node() && self.seat.is_in => {
                self.seat.wished = None;
                if self.seat.certified != role {
                    self.seat.certified = role;
                    self.seat.step_at = 0;
                    if let Some(agent) = &mut self.agent {
                        agent.renewed(role, air);
                    }
                }
            }
            Reply::Joined(node, number)
                if node == self.node()
                    && self.seat.certified == Role::Manager
                    && self.manager.is_none()
                    && self.seat.disk.is_none() =>
            {
                self.seat.number = Some(number);
                self.seat.disk = Some(Disk::default());
                self.seat.limit = Some(air.now + JOIN_LIMIT);
                self.seat.step_at = 0;
            }
            Reply::Entered(..) | Reply::Renewed(..) | Reply::Joined(..) => {}
        }
    }

    /// Keeps the host what the managers wish it to be.
    pub(crate) fn sit(&mut self, group: Group, chance: &mut Chance, air: &mut Air<'_>) {
        let told = self
            .agent
            .as_mut()
            .map(|agent| std::mem::take(&mut agent.notices));
        for notice in told.into_iter().flatten() {
            match notice {
                Notice::Role(role) => {
                    self.seat.wished = Some(role);
                    self.seat.step_at = 0;
                }
                // Its user lets it leave and join again, some time later.
                Notice::Removed => {
                    let pause = chance.within(100, 3_000);
                    self.seat.leave_at.get_or_insert(air.now + pause);
                }
            }
        }
        if self.seat.leave_at.is_some_and(|at| at <= air.now) {
            return self.leave(air);
        }
        if self.seat.step_at > air.now {
            return;
        }
        self.seat.step_at = air.now + RETRY;
        let (host, node) = (self.id, self.node());
        if !self.seat.is_in {
            let door = chance.within(1, u64::from(group.hosts)) as HostId;
            let plea = Body::Plea(Plea::Enter { host, node }, 0);
            return air.wire.send(air.now, host, door, plea);
        }
        let mut doors = self.agent.as_ref().map(Agent::managers).unwrap_or_default();
        if let Some(wished) = self.seat.wished {
            // Its own manager may be the one that is being taken away.
            doors.retain(|door| *door != host || wished == Role::Manager);
            if let Some(door) = some(&doors, chance) {
                let certified = self.seat.certified;
                let plea = Plea::Renew {
                    host,
                    node,
                    certified,
                };
                let plea = Body::Plea(plea, 0);
                air.wire.send(air.now, host, door, plea);
            }
            return;
        }
        match (self.seat.certified, &self.manager) {
            (Role::Manager, None) => self.start_manager(group, &doors, chance, air),
            (Role::Manager, Some(manager)) => {
                let is_full = manager.member.is_full() && manager.view().node(node).is_some();
                if is_full {
                    self.seat.limit = None;
                } else if self.seat.limit.is_some_and(|limit| limit <= air.now) {
                    // Its vote may be on the way: it begins again as the same member.
                    self.restart_manager(chance, air);
                }
            }
            (Role::Worker, _) => self.stop_manager(air),
        }
    }

    fn start_manager(
        &mut self,
        group: Group,
        doors: &[HostId],
        chance: &mut Chance,
        air: &mut Air<'_>,
    ) {
        let (host, node) = (self.id, self.node());
        match (self.seat.disk.take(), self.seat.number) {
            (Some(disk), Some(number)) => {
                self.lives += 1;
                let chance = chance.apart(self.salt());
                let manager = Manager::start(host, number, group, disk, chance, air.now);
                self.manager = Some(manager);
            }
            _ => {
                // Whoever asks twice is taken in twice, and is not the first one any more.
                self.seat.step_at = air.now + JOIN_LIMIT;
                if let Some(door) = some(doors, chance) {
                    let plea = Body::Plea(Plea::Join { host, node }, 0);
                    air.wire.send(air.now, host, door, plea);
                }
            }
        }
    }

    fn restart_manager(&mut self, chance: &mut Chance, air: &mut Air<'_>) {
        if let Some(mut manager) = self.manager.take() {
            manager.end(air);
            self.seat.disk = Some(manager.member.crash(chance));
            self.seat.limit = None;
            self.seat.step_at = air.now + RETRY;
        }
    }

    /// Ends the manager and removes its files.
    fn stop_manager(&mut self, air: &mut Air<'_>) {
        if let Some(mut manager) = self.manager.take() {
            manager.end(air);
        }
        self.seat.disk = None;
        self.seat.number = None;
        self.seat.limit = None;
    }

    /// Leaves the cluster; what comes back is another node.
    fn leave(&mut self, air: &mut Air<'_>) {
        self.stop_manager(air);
        if let Some((session, manager)) = self.agent.take().and_then(|agent| agent.talks()) {
            air.wire
                .send(air.now, self.id, manager, Body::Hangup(session));
        }
        self.machine.wipe();
        air.record.kernel_is_empty(self.id);
        self.seat = Seat {
            life: self.seat.life + 1,
            is_in: false,
            ..Seat::founding(self.id, None)
        };
    }

    /// A manager whose disk has no room ends, and tries again later.
    pub(crate) fn mind_disk(&mut self, chance: &mut Chance, air: &mut Air<'_>) {
        let has_failed = |manager: &Manager| {
            let goes_on = manager.group().lapse == Some(Lapse::GoesOnWhenFull);
            manager.member.disk.has_failed() && !goes_on
        };
        if self.manager.as_ref().is_some_and(has_failed) {
            self.restart_manager(chance, air);
        }
    }
}

fn some(doors: &[HostId], chance: &mut Chance) -> Option<HostId> {
    (!doors.is_empty()).then(|| chance.pick(doors))
}
