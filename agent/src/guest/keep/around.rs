//! What guests are kept by: the engine, which has the containers, and managers, who grant the wishes.

use std::net::IpAddr;

use async_trait::async_trait;
use tokio::sync::mpsc;
use weft_proto::{ControlError, ControlReply, ControlRequest};

use crate::{guest::Wish, task::Failure};

/// How a user's own container is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Look {
    /// Process whose namespace it is, while it runs.
    pub pid: Option<i64>,
    /// Its name, without the slash.
    pub name: String,
    /// The wishes that it was made with.
    pub wishes: Vec<Wish>,
    /// Networks of the engine's own that it is on.
    pub networks: Vec<String>,
    /// Resolvers that are to be asked for it instead of the host's.
    pub servers: Vec<String>,
    /// Why it cannot be on a swarm network, if it cannot.
    pub refusal: Option<String>,
}

/// Addresses of a container on swarm networks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Addresses {
    /// Those that it was told of before.
    pub before: Vec<IpAddr>,
    /// Those that it has.
    pub now: Vec<IpAddr>,
}

/// What the engine tells of users' own containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// One has started, ended or gone.
    Container {
        /// Its id.
        id: String,
        /// Whether it was made with wishes.
        wishes: bool,
    },
    /// Something may have been missed.
    Resync,
}

/// Users' own containers, as the engine has them.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// How one is; `None` when there is none.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn look(&self, container: &str) -> Result<Option<Look>, Failure>;

    /// Leads a container to the resolver in its sandbox.
    ///
    /// # Errors
    /// When its settings cannot be written.
    async fn lead_to_resolver(&self, container: &str) -> Result<(), Failure>;

    /// Leads a container that is on no swarm network any more to the resolvers that it would have without.
    ///
    /// # Errors
    /// When its settings cannot be written.
    async fn lead_away(&self, container: &str) -> Result<(), Failure>;

    /// Lets a container find its host name at its addresses, as `/etc/hosts` says on the engine's networks.
    ///
    /// # Errors
    /// When its file cannot be written.
    async fn tell_addresses(&self, container: &str, addresses: &Addresses) -> Result<(), Failure>;

    /// Tells of changes from now on; first, and after each gap, [`Heard::Resync`].
    async fn listen(&self) -> mpsc::Receiver<Heard>;
}

/// Asks managers in this node's name.
#[async_trait]
pub trait Managers: Send + Sync + 'static {
    /// Asks any manager.
    ///
    /// # Errors
    /// The manager's refusal, or `Unavailable` when none answers.
    async fn ask(&self, request: ControlRequest) -> Result<ControlReply, ControlError>;
}
