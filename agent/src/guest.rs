//! Users' own containers on swarm networks: `docker run --network`, `docker network connect`.
//!
//! A [`Guest`] is such a container with its wishes. Each wish that is granted is a task of the
//! cluster's that nobody runs: it holds the addresses. All of a guest's attachments are one sandbox,
//! named after the first task, so interfaces come and go while it runs. A container that ends gives
//! its addresses back and keeps its wishes: they are granted anew when it starts again.
//!
//! PURE, apart from [`keep`], which carries it out, and its doors.

pub mod keep;

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};
use weft_proto::{ControlError, ControlRequest};
use weft_types::{NodeId, TaskId, netstate::NetState, task::Task};

/// Label of a container with its wishes, written by the front door when it was made.
pub const WISHES_LABEL: &str = "io.weft.networks";

/// A user's own container that is, or wishes to be, on swarm networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// The engine's id, 64 digits.
    pub container: String,
    /// Its name, without the slash.
    pub name: String,
    /// Its wishes, in the order in which they came.
    pub wishes: Vec<Wish>,
    /// Names the sandbox while it has one.
    pub sandbox: Option<TaskId>,
    /// Whether the wishes that it was made with are among these, or were and were given up.
    #[serde(default)]
    pub begun: bool,
}

/// A wish to be on a network, and what was granted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Wish {
    /// Name or id.
    pub network: String,
    /// Further names on it.
    pub aliases: Vec<String>,
    /// Fixed addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// The task that holds the addresses.
    pub held: Option<Box<Task>>,
}

impl Wish {
    fn is_about(&self, network: &str, net: &NetState) -> bool {
        let held = self.held.iter().flat_map(|task| &task.networks_attachments);
        let mut held = held.map(|attachment| attachment.network_id);
        self.network == network
            || held.any(|id| {
                let known = net.networks.get(&id);
                id.as_str() == network || known.is_some_and(|known| known.name == network)
            })
    }
}

/// The wishes that a container was made with.
#[must_use]
pub fn wishes_of(label: &str) -> Vec<Wish> {
    serde_json::from_str(label).unwrap_or_default()
}

impl Guest {
    /// A container without wishes.
    #[must_use]
    pub fn new(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            name: String::new(),
            wishes: Vec::new(),
            sandbox: None,
            begun: false,
        }
    }

    /// Whether nothing of it must be remembered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.wishes.is_empty() && !self.begun
    }

    /// Takes the wishes that it was made with, once.
    pub fn begin(&mut self, wishes: Vec<Wish>, net: &NetState) {
        if self.begun || wishes.is_empty() {
            return;
        }
        self.begun = true;
        for wish in wishes {
            // One that is known is known as it was amended since.
            let _known = self.wish(wish, net);
        }
    }

    /// Whether it has this very wish.
    #[must_use]
    pub fn has(&self, wish: &Wish, net: &NetState) -> bool {
        self.wishes.iter().any(|known| {
            known.is_about(&wish.network, net)
                && known.aliases == wish.aliases
                && known.addresses == wish.addresses
        })
    }

    /// Takes a wish; the same once more changes nothing.
    ///
    /// # Errors
    /// When it is on the network already, in another way.
    pub fn wish(&mut self, wish: Wish, net: &NetState) -> Result<(), ControlError> {
        if self.has(&wish, net) {
            return Ok(());
        }
        let known = self
            .wishes
            .iter()
            .find(|known| known.is_about(&wish.network, net));
        match known {
            None => {
                self.wishes.push(wish);
                Ok(())
            }
            Some(known) => Err(ControlError::exists(format!(
                "endpoint with name {} already exists in network {}",
                self.name, known.network
            ))),
        }
    }

    /// Takes a wish of a container that does not run: the last word counts. Answers the one before.
    pub fn amend(&mut self, wish: Wish, net: &NetState) -> Option<Wish> {
        let before = self.give_up(&wish.network, net);
        self.wishes.push(wish);
        before
    }

    /// Takes the wish for `network` away and answers it.
    pub fn give_up(&mut self, network: &str, net: &NetState) -> Option<Wish> {
        let at = self
            .wishes
            .iter()
            .position(|wish| wish.is_about(network, net))?;
        Some(self.wishes.remove(at))
    }

    /// What to ask the managers for `wish`.
    #[must_use]
    pub fn request(&self, wish: &Wish, node: NodeId) -> ControlRequest {
        ControlRequest::AttachNetwork {
            node,
            container_id: self.container.clone(),
            container_name: self.name.clone(),
            network: wish.network.clone(),
            aliases: wish.aliases.clone(),
            addresses: wish.addresses.clone(),
        }
    }

    /// Tasks that hold its addresses.
    pub fn held(&self) -> impl Iterator<Item = TaskId> {
        let held = self.wishes.iter().filter_map(|wish| wish.held.as_ref());
        held.map(|task| task.id)
    }

    /// Everything that it is on as one task, which is what a sandbox is made from.
    pub fn joined(&mut self) -> Option<Task> {
        let mut held = self.wishes.iter().filter_map(|wish| wish.held.as_ref());
        let mut task = Task::clone(held.next()?);
        let rest = held.flat_map(|task| task.networks_attachments.iter().cloned());
        task.networks_attachments.extend(rest);
        task.id = *self.sandbox.get_or_insert(task.id);
        Some(task)
    }

    /// Forgets what it holds, and answers it.
    pub fn let_go(&mut self) -> Vec<TaskId> {
        self.sandbox = None;
        let wishes = self.wishes.iter_mut();
        let held = wishes.filter_map(|wish| wish.held.take());
        held.map(|task| task.id).collect()
    }

    /// Forgets granted wishes that the managers do not know any more, so that they are asked for
    /// anew. Says whether there were any.
    pub fn forget_lost(&mut self, known: &BTreeSet<TaskId>) -> bool {
        let mut lost = false;
        for wish in &mut self.wishes {
            if wish
                .held
                .as_ref()
                .is_some_and(|task| !known.contains(&task.id))
            {
                wish.held = None;
                lost = true;
            }
        }
        lost
    }
}
