//! The group of managers, kept in step with the nodes' roles.

use weft_control::{
    dispatcher,
    store::{Change, View},
};
use weft_proto::ControlRequest;
use weft_types::{
    NodeId,
    node::{Node, Role},
};

use super::{Job, Reign};
use crate::{
    Millis,
    agent::Air,
    deed::node_on,
    manager::Manager,
    members::{self, Members},
    seat::{Reply, host_of},
};

/// Between two looks at the group.
const TICK: Millis = 500;
/// Entries by which a new member's log may lag when it gets a vote.
const CAUGHT_UP: u64 = 100;

/// Whether a node is a member of the group.
fn is_member(manager: &Manager, node: NodeId) -> bool {
    let host = host_of(node);
    let newest = host.and_then(|host| node_on(&manager.view(), host).map(|newest| newest.id));
    let group = manager.member.group();
    newest == Some(node) && host.is_some_and(|host| group.of_host(host).next().is_some())
}

/// The role that the certificate of a node should say, which says `certified` now.
pub(super) fn due_role(manager: &Manager, node: &Node, certified: Role) -> Role {
    dispatcher::due_role(node, certified, is_member(manager, node.id))
}

/// Writes down as what a node is certified.
pub(super) fn set_role(known: &Node, role: Role) -> Option<Change> {
    (known.role != role).then(|| {
        Change::put(Node {
            role,
            ..known.clone()
        })
    })
}

/// Writes down which managers are about to be taken out, before they are, and which are to stay
/// after all.
pub(super) fn roles(view: &View, manager: &Manager) -> Vec<Change> {
    node_on(view, manager.host)
        .map(|own| dispatcher::unwritten_roles(view, own.id, |node| is_member(manager, node)))
        .unwrap_or_default()
}

/// Whether a request leaves the cluster its majority.
pub(super) fn may_change(
    view: &View,
    manager: &Manager,
    request: &ControlRequest,
    now: Millis,
) -> bool {
    let named = |name: &str| view.nodes().find(|node| node.id.as_str() == name);
    match request {
        ControlRequest::RemoveNode { node, .. } => {
            named(node).is_none_or(|node| !is_member(manager, node.id))
        }
        ControlRequest::UpdateNode { node, spec, .. } if spec.role == Role::Worker => {
            let Some(node) = named(node).filter(|node| node.spec.role == Role::Manager) else {
                return true;
            };
            let reached = manager.member.reached(now);
            let voters = manager.member.group().voters.iter().filter_map(|number| {
                let voter = node_on(view, members::host_of(*number))?;
                Some((voter.id, reached.contains(number)))
            });
            dispatcher::may_demote(view, node.id, &voters.collect::<Vec<_>>()).is_ok()
        }
        _ => true,
    }
}

impl Reign {
    /// Brings the group one step nearer to what the nodes' roles say.
    pub(super) fn tend(&mut self, manager: &mut Manager, air: &mut Air<'_>) {
        if self.change.is_some() {
            return;
        }
        if !self.joins.is_empty() {
            return self.admit(manager, air);
        }
        self.tend_at = air.now + TICK;
        let view = manager.view();
        let group = manager.member.group().clone();
        let stays = |host| {
            let node = node_on(&view, host);
            node.is_some_and(|node| node.spec.role == Role::Manager)
        };
        let leaves = group.all().find(|number| !stays(members::host_of(*number)));
        if let Some(number) = leaves {
            if number == manager.member.id() {
                manager.member.hand_over(air.now);
            } else if roles(&view, manager).is_empty() {
                self.regroup(manager, group.without(number), None, air);
            } else {
                self.write_roles();
            }
            return;
        }
        let last = manager.member.log().last().0;
        let mut learners = group.learners.iter().copied();
        let ready = learners.find(|number| {
            let agreed = manager.member.agreed(*number);
            agreed.is_some_and(|agreed| agreed + CAUGHT_UP >= last)
        });
        if let Some(number) = ready {
            let mut grown = group.without(number);
            grown.voters.insert(number);
            self.regroup(manager, grown, None, air);
            return;
        }
        if !roles(&view, manager).is_empty() {
            self.write_roles();
        }
    }

    fn write_roles(&mut self) {
        if !self.queue.iter().any(|(job, _)| matches!(job, Job::Roles)) {
            self.queue.push_back((Job::Roles, 0));
        }
    }

    /// Takes a node into the group. One that asks has nothing of an earlier membership left: it is
    /// somebody new.
    fn admit(&mut self, manager: &mut Manager, air: &mut Air<'_>) {
        let (host, node) = self.joins[0];
        let view = manager.view();
        let manages = view
            .node(node)
            .is_some_and(|node| node.spec.role == Role::Manager);
        let group = manager.member.group().clone();
        let old = group.of_host(host).next();
        if !manages || old == Some(manager.member.id()) {
            self.joins.remove(0);
        } else if let Some(old) = old {
            self.regroup(manager, group.without(old), None, air);
        } else {
            let nth = u32::try_from(manager.chance.within(1, 1_000_000)).unwrap_or(1);
            let number = members::number(host, nth);
            let mut grown = group;
            grown.learners.insert(number);
            let reply = Reply::Joined(node, number);
            if self.regroup(manager, grown, Some(reply), air) {
                self.joins.remove(0);
            }
        }
    }

    fn regroup(
        &mut self,
        manager: &mut Manager,
        members: Members,
        reply: Option<Reply>,
        air: &mut Air<'_>,
    ) -> bool {
        let mark = manager.chance.number();
        let place = manager.member.change(members, mark, air.now);
        self.change = place.map(|index| (index, mark, reply));
        place.is_some()
    }
}
