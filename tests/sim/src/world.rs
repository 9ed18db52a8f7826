//! All hosts and the wire between them, step by step.

use std::panic::{AssertUnwindSafe, catch_unwind};

use weft_control::store::View;

use crate::{
    Millis,
    agent::{Agent, Air},
    chance::Chance,
    deed::{Ask, Deed},
    disk::Disk,
    heal,
    host::{Host, Machine},
    invariants::{Record, settled_is_quiet},
    manager::{Group, Manager},
    script::Script,
    wire::{Body, HostId, Letter, Weather, Wire},
};

/// One step.
const STEP: Millis = 25;
/// How long after the last fault all must be well. Addresses rest for a minute, tasks wait for
/// those before them for as long, and clocks that ran ahead are waited for.
const PATIENCE: Millis = 300_000;
/// Between two looks at whether all is well.
const LOOK: Millis = 500;
/// Between two askings of what healing needs.
const ASK_AGAIN: Millis = 20_000;
/// Ring entries of clocks that were set are trusted again after so long.
const CLOCKS_SETTLE: Millis = 30_000;

/// How a life went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Entries committed.
    pub commits: u64,
    /// Virtual time it took.
    pub lasted: Millis,
    /// A number that two runs of the same script share.
    pub print: u64,
}

/// How a life failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What did not hold.
    pub what: String,
    /// At which virtual time.
    pub at: Millis,
}

struct World {
    group: Group,
    now: Millis,
    hosts: Vec<Host>,
    wire: Wire,
    record: Record,
    sessions: u64,
    chance: Chance,
    is_loud: bool,
    /// Every service is to go.
    is_clearing: bool,
}

/// Lives through `script`; `is_loud` tells the course on standard error.
///
/// # Errors
/// With what did not hold.
pub fn run(script: &Script, is_loud: bool) -> Result<Life, Failure> {
    let mut world = World::new(script, is_loud);
    let lived = catch_unwind(AssertUnwindSafe(|| world.live(script)));
    match lived {
        Ok(Ok(())) => Ok(Life {
            commits: world.record.commits,
            lasted: world.now,
            print: world.print(),
        }),
        Ok(Err(what)) => Err(Failure {
            what,
            at: world.now,
        }),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Failure {
                what: text.unwrap_or_else(|| "a panic without words".to_owned()),
                at: world.now,
            })
        }
    }
}

impl World {
    fn new(script: &Script, is_loud: bool) -> Self {
        let chance = Chance::seeded(script.seed).apart(7);
        let group = Group {
            hosts: script.hosts,
            managers: script.managers,
            snapshot_every: script.snapshot_every,
        };
        let hosts = (1..=script.hosts).map(|id| {
            let mut disk = Disk::default();
            disk.slowness = script.disk;
            Host {
                id,
                machine: Machine::default(),
                agent: None,
                manager: None,
                disk: (id <= script.managers).then_some(disk),
                back: Some(0),
                lives: 0,
            }
        });
        Self {
            group,
            now: 0,
            hosts: hosts.collect(),
            wire: Wire::new(chance.apart(11)),
            record: Record::default(),
            sessions: 0,
            chance,
            is_loud,
            is_clearing: false,
        }
    }

    fn live(&mut self, script: &Script) -> Result<(), String> {
        let mut deeds = script.deeds.iter().peekable();
        while self.now < script.ends {
            while let Some((_, deed)) = deeds.next_if(|(at, _)| *at <= self.now) {
                if self.is_loud {
                    eprintln!("{:>7} {deed:?}", self.now);
                }
                self.befall(deed);
            }
            self.step();
        }
        self.calm(script);
        self.until("all is well", |world| {
            heal::complaint(world.newest(), &world.hosts)
        })?;
        let last = self.record.last_acknowledged();
        for manager in self.hosts.iter().filter_map(|host| host.manager.as_ref()) {
            if manager.applied < last {
                return Err(format!(
                    "an acknowledged write is never lost: manager {} does not know entry {last}",
                    manager.host
                ));
            }
        }
        // What falls due just now is written a little later.
        self.until("the loops are content", |world| {
            let clock = world.hosts[0].machine.clock(world.now);
            settled_is_quiet::check(world.newest(), clock)
                .err()
                .map(|broken| broken.to_string())
        })?;
        self.clear()
    }

    /// Every service goes, and nothing is left over.
    fn clear(&mut self) -> Result<(), String> {
        self.is_clearing = true;
        self.until("nothing is left", |world| {
            let view = world.newest();
            if view.task_count() > 0 || view.services().next().is_some() {
                return Some(format!("{} tasks are left", view.task_count()));
            }
            let held: usize = view
                .networks()
                .map(|network| view.ledger().held(network.id).count())
                .sum();
            if held > 0 {
                return Some(format!("{held} addresses are still held"));
            }
            heal::complaint(view, &world.hosts)
        })
    }

    fn newest(&self) -> &View {
        self.record.newest()
    }

    /// Lets time pass until `complaint` has none.
    fn until(
        &mut self,
        what: &str,
        complaint: impl Fn(&Self) -> Option<String>,
    ) -> Result<(), String> {
        let begun = self.now;
        let mut ask_at = self.now;
        loop {
            let Some(text) = complaint(self) else {
                return Ok(());
            };
            if self.now > begun + PATIENCE {
                return Err(format!(
                    "after faults stop all converges: waited {} s for {what}: {text}\n{}",
                    PATIENCE / 1000,
                    self.picture()
                ));
            }
            if ask_at <= self.now {
                ask_at = self.now + ASK_AGAIN;
                let mut asks = heal::asks(self.newest());
                if self.is_clearing {
                    asks.extend((0..4).map(|service| Ask::Remove { service }));
                }
                for ask in asks {
                    self.ask_leader(ask);
                }
            }
            for _ in 0..LOOK / STEP {
                self.step();
            }
        }
    }

    /// All tasks, for people.
    fn picture(&self) -> String {
        let view = self.newest();
        let tasks = view.tasks().map(|task| {
            format!(
                "  {} v{} on {:?}: {} of {} withdrawn={} {}",
                task.name,
                task.spec_version.index,
                task.node_id.map(|node| node.to_string()),
                task.status.state,
                task.desired_state,
                task.withdrawn,
                task.status.err
            )
        });
        let mut lines: Vec<String> = tasks.collect();
        lines.sort();
        lines.extend(
            view.services()
                .map(|service| format!("  {} {:?}", service.spec.name, service.update_status)),
        );
        lines.join("\n")
    }

    fn ask_leader(&mut self, ask: Ask) {
        let leaders = self
            .hosts
            .iter_mut()
            .filter_map(|host| host.manager.as_mut());
        let reign = leaders
            .filter_map(|manager| manager.reign.as_mut())
            .max_by_key(|reign| reign.term());
        if let Some(reign) = reign {
            reign.ask(ask);
        }
    }

    /// Faults stop.
    fn calm(&mut self, script: &Script) {
        if self.is_loud {
            eprintln!("{:>7} faults stop", self.now);
        }
        self.wire.weather = Weather::default();
        self.wire.cut.clear();
        for host in &mut self.hosts {
            if host.machine.off != 0 {
                self.record.clocks_differ_until = self.now + CLOCKS_SETTLE;
            }
            host.machine.off = 0;
            host.machine.refuses_until = 0;
            if let Some(manager) = &mut host.manager {
                manager.member.disk.slowness = script.disk;
            }
        }
    }

    fn befall(&mut self, deed: &Deed) {
        let now = self.now;
        match deed {
            Deed::Ask { through, ask } => {
                let body = Body::Ask(ask.clone(), 0);
                self.wire.send(now, *through, *through, body);
            }
            Deed::Weather { loss, delay } => {
                self.wire.weather = Weather {
                    loss: *loss,
                    delay: *delay,
                };
            }
            Deed::Partition { side, one_way } => {
                let of = |host: HostId| side & (1 << (host - 1)) != 0;
                for from in 1..=self.group.hosts {
                    for to in 1..=self.group.hosts {
                        if (of(from) && !of(to)) || (!one_way && !of(from) && of(to)) {
                            self.wire.cut.insert((from, to));
                        }
                    }
                }
            }
            Deed::Mend => self.wire.cut.clear(),
            Deed::Kill { host, back } => self.kill(*host, *back),
            Deed::Reboot { host, back } => {
                self.kill(*host, *back);
                if let Some(host) = self.host_mut(*host) {
                    host.machine.reboot();
                    let id = host.id;
                    self.record.kernel_is_empty(id);
                }
            }
            Deed::Clock { host, off } => {
                self.record.clocks_differ_until = Millis::MAX;
                if let Some(host) = self.host_mut(*host) {
                    host.machine.off = *off;
                }
            }
            Deed::Disk { host, slowness } => {
                if let Some(manager) = self.host_mut(*host).and_then(|host| host.manager.as_mut()) {
                    manager.member.disk.slowness = *slowness;
                }
            }
            Deed::Crash { nth } => {
                let containers = self
                    .hosts
                    .iter_mut()
                    .flat_map(|host| host.machine.containers.values_mut());
                let mut running: Vec<_> = containers.filter(|container| container.runs()).collect();
                let count = running.len() as u64;
                if let Some(at) = nth.checked_rem(count)
                    && let Some(container) = running.get_mut(usize::try_from(at).unwrap_or(0))
                {
                    container.ends = Some((now, 1));
                }
            }
            Deed::Refuse { host, lasts } => {
                if let Some(host) = self.host_mut(*host) {
                    host.machine.refuses_until = now + lasts;
                }
            }
        }
    }

    fn host_mut(&mut self, id: HostId) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.id == id)
    }

    fn kill(&mut self, id: HostId, back: Millis) {
        let now = self.now;
        let Some(at) = self.hosts.iter().position(|host| host.id == id) else {
            return;
        };
        let host = &mut self.hosts[at];
        host.back = Some(now + back);
        // The other ends of its connections are told by the system, if it can be heard.
        if let Some(agent) = host.agent.take()
            && let Some((session, manager)) = agent.talks()
        {
            self.wire.send(now, id, manager, Body::Hangup(session));
        }
        if let Some(mut manager) = host.manager.take() {
            if let Some(mut reign) = manager.reign.take() {
                let mut air = Air {
                    now,
                    wire: &mut self.wire,
                    record: &mut self.record,
                    sessions: &mut self.sessions,
                };
                reign.end(id, None, &mut air);
            }
            host.disk = Some(manager.member.crash(&mut self.chance));
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some((_, letter)) = self.wire.next(self.now) {
            self.deliver(letter);
        }
        for at in 0..self.hosts.len() {
            self.tick(at);
        }
        self.record.check_hosts(&self.hosts);
    }

    fn tick(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let mut air = Air {
            now: self.now,
            wire: &mut self.wire,
            record: &mut self.record,
            sessions: &mut self.sessions,
        };
        if host.back.is_some_and(|back| back <= self.now) {
            host.back = None;
            host.lives += 1;
            let salt = u64::from(host.id) * 1000 + host.lives;
            if let Some(disk) = host.disk.take() {
                let chance = self.chance.apart(salt);
                host.manager = Some(Manager::start(host.id, self.group, disk, chance, self.now));
            }
            let chance = self.chance.apart(salt + 500_000);
            host.agent = Some(Agent::start(
                host.id,
                self.group.managers,
                &mut host.machine,
                chance,
                &mut air,
            ));
        }
        let told = host.machine.tick(self.now);
        if let Some(agent) = &mut host.agent {
            for (task, observation) in told {
                agent.observe(task, observation, &mut host.machine, &mut air);
            }
            agent.tick(&mut host.machine, &mut air);
        }
        if let Some(manager) = &mut host.manager {
            let clock = host.machine.clock(self.now);
            manager.tick(clock, &mut air);
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, body } = letter;
        let managers = u64::from(self.group.managers);
        let Some(at) = self.hosts.iter().position(|host| host.id == to) else {
            return;
        };
        let host = &mut self.hosts[at];
        let mut air = Air {
            now: self.now,
            wire: &mut self.wire,
            record: &mut self.record,
            sessions: &mut self.sessions,
        };
        match body {
            Body::Raft(message) => {
                if let Some(manager) = &mut host.manager {
                    manager.hear(from, message, &mut air);
                }
            }
            Body::Node(session, message) => {
                let reign = host
                    .manager
                    .as_mut()
                    .and_then(|manager| manager.reign.as_mut());
                match reign {
                    Some(reign) => reign.hear(from, session, *message, &mut air),
                    None => {
                        // Nobody listens, or somebody who does not lead.
                        let lead = host.manager.as_ref().map(|manager| manager.member.leader());
                        if let Some(lead) = lead {
                            let lead = lead.filter(|lead| *lead != to);
                            let lead = lead.map(|lead| crate::host::addr(lead).to_string());
                            let redirect = weft_proto::dispatcher::ManagerMessage::Redirect(lead);
                            let body = Body::Manager(session, Box::new(redirect));
                            air.wire.send(air.now, to, from, body);
                        }
                        air.wire.send(air.now, to, from, Body::Hangup(session));
                    }
                }
            }
            Body::Manager(session, message) => {
                if let Some(agent) = &mut host.agent {
                    agent.hear(session, *message, &mut host.machine, &mut air);
                }
            }
            Body::Hangup(session) => {
                if let Some(agent) = &mut host.agent {
                    agent.hung_up(session, &mut air);
                }
                if let Some(reign) = host.manager.as_mut().and_then(|m| m.reign.as_mut()) {
                    reign.hung_up(from, session);
                }
            }
            Body::Ask(ask, hops) => {
                if host.agent.is_none() || hops > 4 {
                    return;
                }
                let leader = host.manager.as_ref().map(|manager| manager.member.leader());
                match host
                    .manager
                    .as_mut()
                    .and_then(|manager| manager.reign.as_mut())
                {
                    Some(reign) => reign.ask(ask),
                    None => {
                        let other = self.chance.within(1, managers) as HostId;
                        let other = leader.flatten().unwrap_or(other);
                        air.wire.send(air.now, to, other, Body::Ask(ask, hops + 1));
                    }
                }
            }
        }
    }

    /// A number that two runs of the same script share.
    fn print(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (self.now, self.record.commits, self.sessions).hash(&mut hasher);
        for object in self.newest().objects() {
            format!("{object:?}").hash(&mut hasher);
        }
        hasher.finish()
    }
}
