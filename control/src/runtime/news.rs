//! What a node has been told in its session, and the step from there to what it must know.

use std::time::Instant;

use weft_proto::dispatcher::ManagerMessage;
use weft_types::{
    NodeId,
    node::{Node, Role},
};

use super::{Manager, rotation, session::Session};
use crate::{dispatcher, store::View};

impl Manager {
    /// What the node does not know yet of `view`.
    pub(super) fn news(
        &self,
        session: &Session,
        view: &View,
        told: &mut Told,
    ) -> Vec<ManagerMessage> {
        let mut news = Vec::new();
        let Some(node) = view.node(session.node) else {
            return news;
        };
        if told
            .node
            .as_ref()
            .is_none_or(|old| !tells_the_same(old, node))
        {
            told.node = Some(Node::clone(node));
            news.push(ManagerMessage::Node(Box::new(Node::clone(node))));
        }
        let managers = self.managers();
        if told.managers != managers {
            told.managers.clone_from(&managers);
            news.push(ManagerMessage::Managers(managers));
        }
        let mut renew = None;
        if let Some(cluster) = view.cluster() {
            let roots = rotation::trusted(cluster);
            if told.roots != roots {
                told.roots.clone_from(&roots);
                news.push(ManagerMessage::TrustRoot(roots));
            }
            renew = rotation::is_stale(cluster, node).then(|| rotation::epoch(cluster));
        }
        let due = self.due_role(node, told.role.certified());
        let role = told.role.step(due, renew, told.begun.elapsed());
        news.extend(role.map(ManagerMessage::Role));
        // The network before the tasks: a sandbox can then be made as soon as its task is known.
        if let Some(delta) = told.work.network(view, session.node) {
            session.acked().sent(delta.revision);
            news.push(ManagerMessage::NetState(Box::new(delta)));
        } else if session.acked().still(view.index()) {
            self.wake.notify_one();
        }
        let set = told.work.assignments(view, session.node);
        news.extend(set.map(|set| ManagerMessage::Assignments(Box::new(set))));
        news
    }
}

/// Whether a node's own object has not changed in a way that matters to the node.
fn tells_the_same(old: &Node, new: &Node) -> bool {
    old.spec == new.spec
        && old.role == new.role
        && old.index == new.index
        && old.data_path_addr == new.data_path_addr
        && old.description == new.description
}

/// What a node has been told in this session.
pub(super) struct Told {
    node: Option<Node>,
    managers: Vec<(NodeId, String)>,
    roots: String,
    role: dispatcher::ToldRole,
    begun: Instant,
    /// What it must run and know of the network.
    pub(super) work: dispatcher::Told,
}

impl Told {
    pub(super) fn new(certified: Role) -> Self {
        Self {
            node: None,
            managers: Vec::new(),
            roots: String::new(),
            role: dispatcher::ToldRole::new(certified),
            begun: Instant::now(),
            work: dispatcher::Told::default(),
        }
    }
}
