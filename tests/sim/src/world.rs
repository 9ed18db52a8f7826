//! All hosts and the wire between them, step by step.

mod faults;
mod post;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use weft_control::store::View;
use weft_types::node::Role;

use crate::{
    Millis,
    agent::Air,
    chance::Chance,
    deed::Ask,
    disk::Disk,
    heal,
    host::{Host, Machine},
    invariants::{Record, settled_is_quiet},
    manager::Group,
    members::Members,
    script::Script,
    seat::Seat,
    wire::{HostId, Wire},
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
/// Between the removal of a host that finds no manager and its leaving.
const LEAVES_AFTER: Millis = 5_000;

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
            lapse: script.lapse,
        };
        let hosts = (1..=script.hosts).map(|id| {
            let disk = (id <= script.managers).then(|| {
                let mut disk = Disk::founded(Members::first(script.managers));
                disk.slowness = script.disk;
                disk
            });
            Host {
                id,
                machine: Machine::default(),
                agent: None,
                manager: None,
                seat: Seat::founding(id, disk),
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
                self.find_the_stranded();
            }
            for _ in 0..LOOK / STEP {
                self.step();
            }
        }
    }

    /// All tasks and managers, for people.
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
        let managers = self.hosts.iter().filter_map(|host| host.manager.as_ref());
        lines.extend(managers.map(|manager| {
            let situation = manager.member.situation();
            format!("  manager {}: {situation}", manager.member.id())
        }));
        lines.join("\n")
    }

    /// Hosts that were away while the last manager that they know became none are removed by their
    /// users, leave, and join anew: nobody is left whom they could ask.
    fn find_the_stranded(&mut self) {
        let of_managers = self.hosts.iter().filter(|host| {
            let is_on_its_way = host.back.is_some();
            is_on_its_way || host.seat.certified == Role::Manager
        });
        let managers: BTreeSet<HostId> = of_managers.map(|host| host.id).collect();
        let is_stranded = |host: &Host| {
            host.agent.as_ref().is_some_and(|agent| {
                let mut known = agent.managers().into_iter();
                !agent.is_connected() && known.all(|known| !managers.contains(&known))
            })
        };
        let stranded: Vec<HostId> = self
            .hosts
            .iter()
            .filter(|host| is_stranded(host))
            .map(|host| host.id)
            .collect();
        for id in stranded {
            let force = true;
            self.ask_leader(Ask::RemoveNode { host: id, force });
            let at = self.now + LEAVES_AFTER;
            if let Some(host) = self.host_mut(id) {
                host.seat.start_anew(at);
            }
        }
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
            host.begin(self.group, &self.chance, &mut air);
        }
        if host.back.is_some() {
            host.machine.tick(self.now);
            return;
        }
        host.sit(self.group, &mut self.chance, &mut air);
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
        host.mind_disk(&mut self.chance, &mut air);
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
