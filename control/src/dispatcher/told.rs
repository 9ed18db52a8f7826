//! What a node has been told of tasks and network in its session, and the step from there to what
//! it must run and know.

use weft_proto::dispatcher::AssignmentSet;
use weft_types::{
    NodeId,
    netstate::{NetDelta, NetState},
};

use super::{
    assignment::Held,
    netstate::project_parts,
    step::{Parts, step},
};
use crate::store::{Differences, View};

/// What a node has been told in one session; a new session begins with nothing told.
#[derive(Debug, Default)]
pub struct Told {
    network: Option<Network>,
    work: Option<(View, Held)>,
}

/// The network as it was told.
#[derive(Debug)]
struct Network {
    /// The revision told last.
    revision: u64,
    /// The newest view that says the same.
    seen: View,
    parts: Parts,
}

impl Told {
    /// The node cannot follow the steps of the network any more: the next is a snapshot.
    pub fn lost_thread(&mut self) {
        self.network = None;
    }

    /// The step to the network as `view` has it, numbered by the view's index; `None` when the
    /// node knows it already.
    pub fn network(&mut self, view: &View, node: NodeId) -> Option<NetDelta> {
        let Some(told) = &mut self.network else {
            let parts = Parts::of(view, node);
            let mut whole = project_parts(view, &parts.networks(view));
            whole.revision = view.index();
            self.network = Some(Network {
                revision: whole.revision,
                seen: view.clone(),
                parts,
            });
            return Some(NetState::default().delta_to(&whole));
        };
        let differences = Differences::between(&told.seen, view);
        let parts = told.parts.after(&differences, node);
        let before = told.parts.networks(&told.seen);
        let after = parts.networks(view);
        let delta = step((&told.seen, &before), (view, &after), &differences);
        let delta = delta.map(|delta| NetDelta {
            base: told.revision,
            revision: view.index(),
            ..delta
        });
        told.revision = delta.as_ref().map_or(told.revision, |_| view.index());
        told.parts = parts;
        told.seen = view.clone();
        delta
    }

    /// The step to what the node must run by `view`, everything at first; `None` when the node
    /// knows it already.
    pub fn assignments(&mut self, view: &View, node: NodeId) -> Option<AssignmentSet> {
        let step = match &mut self.work {
            None => {
                let (held, all) = Held::of(view, node);
                self.work = Some((view.clone(), held));
                all
            }
            Some((seen, held)) => {
                let differences = Differences::between(seen, view);
                let step = held.go_on(view, &differences, node);
                *seen = view.clone();
                step
            }
        };
        (step != AssignmentSet::default()).then_some(step)
    }
}
