//! Pictures of the network that several nodes are shown.
//!
//! Nodes that take part in the same networks must know the same. In a large cluster such a picture
//! is most of what a leader holds beside the store, so it is made once, and held once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use weft_types::{NetworkId, NodeId, netstate::NetState};

use super::netstate::{part_in, project_parts};
use crate::store::View;

/// The pictures that somebody still holds, of the newest view that one was asked for.
#[derive(Debug, Default)]
pub struct Pictures(Mutex<Newest>);

#[derive(Debug, Default)]
struct Newest {
    index: u64,
    held: Vec<(BTreeSet<NetworkId>, Weak<NetState>)>,
}

impl Pictures {
    /// What `node` must know by `view`, as [`super::project`] says, numbered by the view's index.
    #[must_use]
    pub fn of(&self, view: &View, node: NodeId) -> Arc<NetState> {
        let parts = part_in(view, node);
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.index != view.index() {
            newest.index = view.index();
            newest.held.clear();
        }
        let known = newest.held.iter().find(|(known, _)| *known == parts);
        if let Some(known) = known.and_then(|(_, picture)| picture.upgrade()) {
            return known;
        }
        let mut picture = project_parts(view, &parts);
        picture.revision = view.index();
        let picture = Arc::new(picture);
        newest.held.retain(|(known, _)| *known != parts);
        newest.held.push((parts, Arc::downgrade(&picture)));
        picture
    }
}
