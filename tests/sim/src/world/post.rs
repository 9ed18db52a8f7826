//! Who takes what arrives.

use super::World;
use crate::{
    agent::{Agent, Air},
    host::addr,
    members::host_of,
    wire::{Body, HostId, Letter},
};

impl World {
    pub(super) fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, body } = letter;
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
            Body::Raft(from, to, message) => {
                let manager = host.manager.as_mut();
                if let Some(manager) = manager.filter(|manager| manager.member.id() == to) {
                    manager.hear(from, message, &mut air);
                }
            }
            Body::Node(session, caller, message) => {
                let reign = host
                    .manager
                    .as_mut()
                    .and_then(|manager| manager.reign.as_mut());
                match reign {
                    Some(reign) => reign.hear(from, session, caller, *message, &mut air),
                    None => {
                        // Nobody listens, or somebody who does not lead.
                        let lead = host.manager.as_ref().map(|manager| manager.leader());
                        if let Some(lead) = lead {
                            let lead = lead.filter(|lead| *lead != to);
                            let lead = lead.map(|lead| addr(lead).to_string());
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
                    reign.hung_up(session);
                }
            }
            Body::Plea(plea, hops) => {
                if host.back.is_some() || hops > 4 {
                    return;
                }
                match host.manager.as_mut() {
                    Some(manager) => match (manager.leader(), manager.reign.as_mut()) {
                        (_, Some(reign)) => reign.beg(plea),
                        (Some(leader), None) if leader != to => {
                            air.wire
                                .send(air.now, to, leader, Body::Plea(plea, hops + 1));
                        }
                        (_, None) => {
                            let others: Vec<HostId> =
                                manager.member.group().all().map(host_of).collect();
                            if !others.is_empty() {
                                let other = self.chance.pick(&others);
                                air.wire
                                    .send(air.now, to, other, Body::Plea(plea, hops + 1));
                            }
                        }
                    },
                    // A worker's user goes to a manager that the worker knows.
                    None => {
                        let doors = host.agent.as_ref().map(Agent::managers).unwrap_or_default();
                        if !doors.is_empty() {
                            let door = self.chance.pick(&doors);
                            air.wire.send(air.now, to, door, Body::Plea(plea, hops + 1));
                        }
                    }
                }
            }
            Body::Reply(reply) => {
                if host.back.is_none() {
                    host.answered(from, reply, self.group, &self.chance, &mut air);
                }
            }
        }
    }
}
