//! What a node has been told of tasks and network in its session, and the step from there to what
//! it must run and know.

use std::sync::Arc;

use weft_proto::dispatcher::AssignmentSet;
use weft_types::{
    NodeId,
    netstate::{NetDelta, NetState},
};

use super::{Pictures, assignment::Held, network_differs};
use crate::store::View;

/// What a node has been told in one session; a new session begins with nothing told.
#[derive(Debug, Default)]
pub struct Told {
    net: Arc<NetState>,
    /// The view that the network was looked at last in.
    seen: Option<View>,
    ingredients: Vec<u64>,
    assigned: Option<Held>,
    pictures: Arc<Pictures>,
}

impl Told {
    /// One that shares what it holds of the network with all others that have `pictures`.
    #[must_use]
    pub fn sharing(pictures: Arc<Pictures>) -> Self {
        Self {
            pictures,
            ..Self::default()
        }
    }

    /// The node cannot follow the steps of the network any more: the next is a snapshot.
    pub fn lost_thread(&mut self) {
        self.net = Arc::default();
    }

    /// The step to the network as `view` has it, numbered by the view's index; `None` when the
    /// node knows it already.
    pub fn network(&mut self, view: &View, node: NodeId) -> Option<NetDelta> {
        let net = self.other_network(view, node)?;
        let delta = self.net.delta_to(&net);
        self.net = net;
        Some(delta)
    }

    /// The step to what the node must run by `view`, everything at first; `None` when the node
    /// knows it already.
    pub fn assignments(&mut self, view: &View, node: NodeId) -> Option<AssignmentSet> {
        let ingredients = ingredients(view, node);
        if self.ingredients == ingredients {
            return None;
        }
        self.ingredients = ingredients;
        let all = Held::of(view, node);
        let step = all.step_from(self.assigned.as_ref());
        self.assigned = Some(all);
        (step != AssignmentSet::default()).then_some(step)
    }

    /// The network as `view` has it, if it is not what the node was told.
    fn other_network(&mut self, view: &View, node: NodeId) -> Option<Arc<NetState>> {
        let seen = self.seen.replace(view.clone());
        let knows_something = self.net.revision != 0;
        if knows_something && seen.is_some_and(|seen| !network_differs(&seen, view, node)) {
            return None;
        }
        let net = self.pictures.of(view, node);
        (!knows_something || !self.net.same_facts(&net)).then_some(net)
    }
}

/// The versions of all that a node's assignments are made of: much cheaper than making them.
fn ingredients(view: &View, node: NodeId) -> Vec<u64> {
    let tasks = view.tasks_on_node(node).map(|task| task.meta.version.index);
    let secrets = view.secrets().map(|secret| secret.meta.version.index);
    let configs = view.configs().map(|config| config.meta.version.index);
    // Zero is no version: it stands between the kinds, and makes even nothing an ingredient.
    let kinds = tasks.chain([0]).chain(secrets).chain([0]).chain(configs);
    kinds.collect()
}
