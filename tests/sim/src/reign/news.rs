//! What nodes are told, and whether they are heard of.

use std::{collections::BTreeMap, time::Duration};

use weft_control::dispatcher::{self, Sound};
use weft_proto::dispatcher::ManagerMessage;
use weft_types::NodeId;

use super::{GRACE, Job, PERIOD, Reign, Talk, tend::due_role};
use crate::{
    agent::Air,
    deed::node_on,
    host::addr,
    manager::Manager,
    members,
    wire::{Body, HostId},
};

impl Reign {
    pub(super) fn notice_silence(&mut self, manager: &Manager, air: &mut Air<'_>) {
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

    pub(super) fn drop_talk(&mut self, node: NodeId, host: HostId, air: &mut Air<'_>) {
        if let Some(talk) = self.talks.remove(&node) {
            hang_up(host, &talk, None, air);
        }
    }

    /// Tells nodes what they do not know yet.
    pub(super) fn tell_news(&mut self, manager: &Manager, air: &mut Air<'_>) {
        let view = manager.view();
        let me = manager.host;
        let group = manager.member.group();
        let mut managers = vec![me];
        managers.extend(group.all().map(members::host_of).filter(|host| *host != me));
        for (node, talk) in &mut self.talks {
            if talk.has_ended {
                continue;
            }
            let Some(known) = view.node(*node) else {
                tell(me, talk.host, talk.session, ManagerMessage::Removed, air);
                talk.has_ended = true;
                continue;
            };
            if talk.managers != managers {
                talk.managers.clone_from(&managers);
                let named = managers
                    .iter()
                    .filter_map(|host| Some((node_on(&view, *host)?.id, addr(*host).to_string())));
                let named = ManagerMessage::Managers(named.collect());
                tell(me, talk.host, talk.session, named, air);
            }
            let due = due_role(manager, known, talk.role.certified());
            let now = Duration::from_millis(air.now);
            if let Some(role) = talk.role.step(due, None, now) {
                tell(me, talk.host, talk.session, ManagerMessage::Role(role), air);
            }
            if talk.seen == Some(view.index()) && !talk.lost_thread {
                continue;
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

pub(super) fn tell(
    me: HostId,
    to: HostId,
    session: u64,
    message: ManagerMessage,
    air: &mut Air<'_>,
) {
    air.wire
        .send(air.now, me, to, Body::Manager(session, Box::new(message)));
}

pub(super) fn hang_up(me: HostId, talk: &Talk, lead: Option<HostId>, air: &mut Air<'_>) {
    let lead = lead.filter(|lead| *lead != me);
    let redirect = ManagerMessage::Redirect(lead.map(|lead| addr(lead).to_string()));
    tell(me, talk.host, talk.session, redirect, air);
    air.wire
        .send(air.now, me, talk.host, Body::Hangup(talk.session));
}
