//! What the store holds, what may be done to it, and what is told of it.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use weft_types::{
    ConfigId, Meta, NetworkId, NodeId, SecretId, ServiceId, TaskId, Timestamp, Version,
    cluster::Cluster,
    network::Network,
    node::Node,
    secret::{Config, Secret},
    service::Service,
    task::Task,
};

/// Names one object of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// The cluster: there is one.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
}

impl Key {
    /// The kind of object, as Docker's events name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Node(_) => "node",
            Self::Network(_) => "network",
            Self::Secret(_) => "secret",
            Self::Config(_) => "config",
            Self::Service(_) => "service",
            Self::Task(_) => "task",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Cluster => f.write_str(kind),
            Self::Node(id) => write!(f, "{kind} {id}"),
            Self::Network(id) => write!(f, "{kind} {id}"),
            Self::Secret(id) => write!(f, "{kind} {id}"),
            Self::Config(id) => write!(f, "{kind} {id}"),
            Self::Service(id) => write!(f, "{kind} {id}"),
            Self::Task(id) => write!(f, "{kind} {id}"),
        }
    }
}

/// One object of the store, shared and never changed in place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A network.
    Network(Arc<Network>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
}

impl Object {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Cluster(_) => Key::Cluster,
            Self::Node(object) => Key::Node(object.id),
            Self::Network(object) => Key::Network(object.id),
            Self::Secret(object) => Key::Secret(object.id),
            Self::Config(object) => Key::Config(object.id),
            Self::Service(object) => Key::Service(object.id),
            Self::Task(object) => Key::Task(object.id),
        }
    }

    /// Its version and times.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Cluster(object) => &object.meta,
            Self::Node(object) => &object.meta,
            Self::Network(object) => &object.meta,
            Self::Secret(object) => &object.meta,
            Self::Config(object) => &object.meta,
            Self::Service(object) => &object.meta,
            Self::Task(object) => &object.meta,
        }
    }

    pub(super) fn set_meta(&mut self, meta: Meta) {
        match self {
            Self::Cluster(object) => Arc::make_mut(object).meta = meta,
            Self::Node(object) => Arc::make_mut(object).meta = meta,
            Self::Network(object) => Arc::make_mut(object).meta = meta,
            Self::Secret(object) => Arc::make_mut(object).meta = meta,
            Self::Config(object) => Arc::make_mut(object).meta = meta,
            Self::Service(object) => Arc::make_mut(object).meta = meta,
            Self::Task(object) => Arc::make_mut(object).meta = meta,
        }
    }
}

macro_rules! into_object {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Arc::new(object))
            }
        }
    )*};
}
into_object!(Cluster, Node, Network, Secret, Config, Service, Task);

/// One effect of a transaction.
///
/// The writer says which version he saw; if the object has moved since, the whole transaction is
/// refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Create or replace. The object's own `meta.version` is the version it replaces; 0 creates.
    Put(Object),
    /// Remove.
    Delete {
        /// Which.
        key: Key,
        /// The version the writer saw.
        version: Version,
    },
}

impl Change {
    /// Creates or replaces `object`.
    #[must_use]
    pub fn put(object: impl Into<Object>) -> Self {
        Self::Put(object.into())
    }

    /// Removes `object`.
    #[must_use]
    pub fn delete(object: &Object) -> Self {
        Self::Delete {
            key: object.key(),
            version: object.meta().version,
        }
    }

    /// The object it concerns.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put(object) => object.key(),
            Self::Delete { key, .. } => *key,
        }
    }
}

/// What one entry of the log carries: changes that happen together or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// The leader's clock when it proposed; every replica applies with this time.
    pub now: Timestamp,
    /// Each object at most once.
    pub changes: Vec<Change>,
}

/// What happened to one object in one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The commit.
    pub index: u64,
    /// When, by the leader's clock.
    pub now: Timestamp,
    /// Which object.
    pub key: Key,
    /// Before; `None` when it was created.
    pub old: Option<Object>,
    /// After; `None` when it was removed.
    pub new: Option<Object>,
}
