//! What befalls the world, and its end.

use super::World;
use crate::{
    Millis,
    agent::Air,
    deed::Deed,
    host::Host,
    script::Script,
    seat::Plea,
    wire::{Body, HostId, Weather},
};

impl World {
    /// Faults stop.
    pub(super) fn calm(&mut self, script: &Script) {
        if self.is_loud {
            eprintln!("{:>7} faults stop", self.now);
        }
        self.wire.weather = Weather::default();
        self.wire.cut.clear();
        for host in &mut self.hosts {
            host.machine.off = 0;
            host.machine.refuses_until = 0;
            if let Some(disk) = host.disk_mut() {
                disk.slowness = script.disk;
                disk.full_until = 0;
            }
        }
    }

    pub(super) fn befall(&mut self, deed: &Deed) {
        let now = self.now;
        match deed {
            Deed::Ask { through, ask } => {
                let body = Body::Plea(Plea::Ask(ask.clone()), 0);
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
                if let Some(host) = self.host_mut(*host) {
                    host.machine.off = *off;
                }
            }
            Deed::Disk { host, slowness } => {
                if let Some(disk) = self.host_mut(*host).and_then(Host::disk_mut) {
                    disk.slowness = *slowness;
                }
            }
            Deed::Full { host, lasts } => {
                if let Some(disk) = self.host_mut(*host).and_then(Host::disk_mut) {
                    disk.full_until = now + lasts;
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

    pub(super) fn host_mut(&mut self, id: HostId) -> Option<&mut Host> {
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
            let mut air = Air {
                now,
                wire: &mut self.wire,
                record: &mut self.record,
                sessions: &mut self.sessions,
            };
            manager.end(&mut air);
            host.seat.disk = Some(manager.member.crash(&mut self.chance));
        }
        host.seat.crash();
    }
}
