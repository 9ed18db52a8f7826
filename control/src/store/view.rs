//! The state at one moment.

use std::{ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};
use weft_types::{
    ConfigId, Id, NetworkId, NodeId, SecretId, ServiceId, TaskId, TaskState,
    cluster::Cluster,
    network::Network,
    node::Node,
    secret::{Config, Secret},
    service::Service,
    task::Task,
};

use super::{Key, Ledger, Object};

/// Kinds whose names are unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    Network,
    Secret,
    Config,
    Service,
}

/// The replicated state at one moment: cheap to clone, never changes under its reader.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(super) index: u64,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(super) networks: OrdMap<NetworkId, Arc<Network>>,
    pub(super) secrets: OrdMap<SecretId, Arc<Secret>>,
    pub(super) configs: OrdMap<ConfigId, Arc<Config>>,
    pub(super) services: OrdMap<ServiceId, Arc<Service>>,
    services_refused: OrdSet<ServiceId>,
    pub(super) tasks: OrdMap<TaskId, Arc<Task>>,
    pub(super) names: OrdMap<(Named, String), Key>,
    tasks_by_slot: OrdSet<(ServiceId, u64, TaskId)>,
    tasks_by_node: OrdSet<(NodeId, TaskId)>,
    tasks_by_network: OrdSet<(NetworkId, TaskId)>,
    tasks_waiting: OrdSet<(ServiceId, u64, TaskId)>,
    tasks_leaving: OrdSet<TaskId>,
    loads: OrdMap<NodeId, Load>,
    pub(super) ledger: Ledger,
}

/// What the tasks that a node holds add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Tasks meant to run there.
    pub tasks: usize,
    /// Billionths of a CPU reserved, by tasks that are to stop as well.
    pub nano_cpus: i64,
    /// Bytes of memory reserved.
    pub memory_bytes: i64,
}

impl Load {
    /// What one task adds.
    fn of(task: &Task) -> Self {
        let resources = task.spec.resources.as_ref();
        let reserved = resources.and_then(|resources| resources.reservations.as_ref());
        Self {
            tasks: usize::from(task.desired_state <= TaskState::Complete),
            nano_cpus: reserved.map_or(0, |reserved| reserved.nano_cpus),
            memory_bytes: reserved.map_or(0, |reserved| reserved.memory_bytes),
        }
    }
}

/// Below and above every id of a kind, for ranges.
fn all<T>() -> (Id<T>, Id<T>) {
    let highest = "zzzzzzzzzzzzzzzzzzzzzzzzz";
    (
        Id::numbered(0),
        highest.parse().unwrap_or_else(|_| Id::numbered(u128::MAX)),
    )
}

impl View {
    /// The last commit that this view has.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The cluster; `None` before it was made.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> + '_ {
        self.nodes.values()
    }

    /// A network.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> + '_ {
        self.networks.values()
    }

    /// The network of published ports; `None` when the user removed it.
    #[must_use]
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        let mut networks = self.networks.values();
        networks.find(|network| network.spec.ingress && !network.pending_delete)
    }

    /// A secret.
    #[must_use]
    pub fn secret(&self, id: SecretId) -> Option<&Arc<Secret>> {
        self.secrets.get(&id)
    }

    /// All secrets, by id.
    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> + '_ {
        self.secrets.values()
    }

    /// A config.
    #[must_use]
    pub fn config(&self, id: ConfigId) -> Option<&Arc<Config>> {
        self.configs.get(&id)
    }

    /// All configs, by id.
    pub fn configs(&self) -> impl Iterator<Item = &Arc<Config>> + '_ {
        self.configs.values()
    }

    /// A service.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// The services that could not be given all that they ask for, by id.
    pub fn services_refused(&self) -> impl Iterator<Item = ServiceId> + '_ {
        self.services_refused.iter().copied()
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> + '_ {
        self.services.values()
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> + '_ {
        self.tasks.values()
    }

    /// How many tasks there are.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// The tasks of a service, by slot, then id.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> + '_ {
        let (low, high) = all();
        self.tasks_by_slot
            .range((
                Bound::Included((service, 0, low)),
                Bound::Included((service, u64::MAX, high)),
            ))
            .filter_map(|(_, _, task)| self.tasks.get(task))
    }

    /// The tasks of one slot of a service.
    pub fn tasks_of_slot(
        &self,
        service: ServiceId,
        slot: u64,
    ) -> impl Iterator<Item = &Arc<Task>> + '_ {
        let (low, high) = all();
        self.tasks_by_slot
            .range((
                Bound::Included((service, slot, low)),
                Bound::Included((service, slot, high)),
            ))
            .filter_map(|(_, _, task)| self.tasks.get(task))
    }

    /// The tasks that are a node's.
    pub fn tasks_on_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> + '_ {
        let (low, high) = all();
        self.tasks_by_node
            .range((Bound::Included((node, low)), Bound::Included((node, high))))
            .filter_map(|(_, task)| self.tasks.get(task))
    }

    /// What the tasks that a node holds add up to.
    #[must_use]
    pub fn load(&self, node: NodeId) -> Load {
        self.loads.get(&node).copied().unwrap_or_default()
    }

    /// The tasks that have an attachment to a network.
    pub fn tasks_on_network(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Task>> + '_ {
        let (low, high) = all();
        self.tasks_by_network
            .range((
                Bound::Included((network, low)),
                Bound::Included((network, high)),
            ))
            .filter_map(|(_, task)| self.tasks.get(task))
    }

    /// The tasks that no agent has yet: observed earlier than assigned. By service, then slot;
    /// those without a service first.
    pub fn tasks_waiting(&self) -> impl Iterator<Item = &Arc<Task>> + '_ {
        self.tasks_waiting
            .iter()
            .filter_map(|(_, _, task)| self.tasks.get(task))
    }

    /// The tasks that are to stop and have not been withdrawn from the network yet.
    pub fn tasks_leaving(&self) -> impl Iterator<Item = &Arc<Task>> + '_ {
        self.tasks_leaving
            .iter()
            .filter_map(|task| self.tasks.get(task))
    }

    /// The service of this name, letter case aside.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        match self.named(Named::Service, name)? {
            Key::Service(id) => self.service(id),
            _ => None,
        }
    }

    /// The network of this name, letter case aside.
    #[must_use]
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        match self.named(Named::Network, name)? {
            Key::Network(id) => self.network(id),
            _ => None,
        }
    }

    /// The secret of this name, letter case aside.
    #[must_use]
    pub fn secret_named(&self, name: &str) -> Option<&Arc<Secret>> {
        match self.named(Named::Secret, name)? {
            Key::Secret(id) => self.secret(id),
            _ => None,
        }
    }

    /// The config of this name, letter case aside.
    #[must_use]
    pub fn config_named(&self, name: &str) -> Option<&Arc<Config>> {
        match self.named(Named::Config, name)? {
            Key::Config(id) => self.config(id),
            _ => None,
        }
    }

    /// Owners of what there is only one of.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// An object by its key.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Object> {
        match key {
            Key::Cluster => self.cluster.clone().map(Object::Cluster),
            Key::Node(id) => self.nodes.get(&id).cloned().map(Object::Node),
            Key::Network(id) => self.networks.get(&id).cloned().map(Object::Network),
            Key::Secret(id) => self.secrets.get(&id).cloned().map(Object::Secret),
            Key::Config(id) => self.configs.get(&id).cloned().map(Object::Config),
            Key::Service(id) => self.services.get(&id).cloned().map(Object::Service),
            Key::Task(id) => self.tasks.get(&id).cloned().map(Object::Task),
        }
    }

    /// Every object, kind by kind, in an order in which they can be put back.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        cluster
            .chain(self.nodes.values().cloned().map(Object::Node))
            .chain(self.networks.values().cloned().map(Object::Network))
            .chain(self.secrets.values().cloned().map(Object::Secret))
            .chain(self.configs.values().cloned().map(Object::Config))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.tasks.values().cloned().map(Object::Task))
    }

    fn load_with(&mut self, node: NodeId, task: &Task) {
        if !holds(task) {
            return;
        }
        let (mut load, more) = (self.load(node), Load::of(task));
        load.tasks += more.tasks;
        load.nano_cpus += more.nano_cpus;
        load.memory_bytes += more.memory_bytes;
        self.loads.insert(node, load);
    }

    fn unload(&mut self, node: NodeId, task: &Task) {
        if !holds(task) {
            return;
        }
        let (mut load, less) = (self.load(node), Load::of(task));
        load.tasks -= less.tasks;
        load.nano_cpus -= less.nano_cpus;
        load.memory_bytes -= less.memory_bytes;
        if load == Load::default() {
            self.loads.remove(&node);
        } else {
            self.loads.insert(node, load);
        }
    }

    fn named(&self, kind: Named, name: &str) -> Option<Key> {
        self.names.get(&(kind, name.to_lowercase())).copied()
    }

    /// Takes an object out of its table and of the indexes, not of the ledger.
    pub(super) fn unlink(&mut self, object: &Object) {
        if let Some(name) = name_of(object) {
            self.names.remove(&name);
        }
        match object {
            Object::Cluster(_) => self.cluster = None,
            Object::Node(node) => drop(self.nodes.remove(&node.id)),
            Object::Network(network) => drop(self.networks.remove(&network.id)),
            Object::Secret(secret) => drop(self.secrets.remove(&secret.id)),
            Object::Config(config) => drop(self.configs.remove(&config.id)),
            Object::Service(service) => {
                self.services.remove(&service.id);
                self.services_refused.remove(&service.id);
            }
            Object::Task(task) => {
                self.tasks.remove(&task.id);
                if let Some(service) = task.service_id {
                    self.tasks_by_slot.remove(&(service, task.slot, task.id));
                }
                self.tasks_waiting.remove(&waiting_row(task));
                self.tasks_leaving.remove(&task.id);
                if let Some(node) = task.node_id {
                    self.tasks_by_node.remove(&(node, task.id));
                    self.unload(node, task);
                }
                for attachment in &task.networks_attachments {
                    let row = (attachment.network_id, task.id);
                    self.tasks_by_network.remove(&row);
                }
            }
        }
    }

    /// Lets a task share its spec with `old`, its last version, or with the tasks beside it in its
    /// service: they repeat it, and here it is once.
    pub(super) fn share(&self, object: &mut Object, old: Option<&Object>) {
        let Object::Task(task) = object else {
            return;
        };
        let old = match old {
            Some(Object::Task(old)) => Some(old),
            _ => None,
        };
        let beside = task.service_id.map(|service| {
            let row = (service, task.slot, task.id);
            let (low, high) = all();
            let before = (Bound::Included((service, 0, low)), Bound::Excluded(row));
            let after = (
                Bound::Excluded(row),
                Bound::Included((service, u64::MAX, high)),
            );
            let before = self.tasks_by_slot.range(before).next_back();
            let after = self.tasks_by_slot.range(after).next();
            [before, after]
        });
        let beside = beside.into_iter().flatten().flatten();
        let beside = beside.filter_map(|(_, _, other)| self.tasks.get(other));
        for known in old.into_iter().chain(beside) {
            if known.spec.is_same(&task.spec) {
                return;
            }
            if known.spec == task.spec {
                let spec = known.spec.clone();
                Arc::make_mut(task).spec = spec;
                return;
            }
        }
    }

    /// Puts an object into its table and the indexes, not into the ledger. The other owner of its
    /// name is returned, and keeps it.
    pub(super) fn link(&mut self, object: &Object) -> Option<Key> {
        let mut clash = None;
        if let Some(name) = name_of(object) {
            match self.names.get(&name) {
                Some(other) if *other != object.key() => clash = Some(*other),
                _ => drop(self.names.insert(name, object.key())),
            }
        }
        match object {
            Object::Cluster(cluster) => self.cluster = Some(cluster.clone()),
            Object::Node(node) => drop(self.nodes.insert(node.id, node.clone())),
            Object::Network(network) => drop(self.networks.insert(network.id, network.clone())),
            Object::Secret(secret) => drop(self.secrets.insert(secret.id, secret.clone())),
            Object::Config(config) => drop(self.configs.insert(config.id, config.clone())),
            Object::Service(service) => {
                self.services.insert(service.id, service.clone());
                if !service.allocation_error.is_empty() {
                    self.services_refused.insert(service.id);
                }
            }
            Object::Task(task) => {
                self.tasks.insert(task.id, task.clone());
                if let Some(service) = task.service_id {
                    self.tasks_by_slot.insert((service, task.slot, task.id));
                }
                if is_leaving(task) {
                    self.tasks_leaving.insert(task.id);
                }
                if task.status.state < TaskState::Assigned {
                    self.tasks_waiting.insert(waiting_row(task));
                }
                if let Some(node) = task.node_id {
                    self.tasks_by_node.insert((node, task.id));
                    self.load_with(node, task);
                }
                for attachment in &task.networks_attachments {
                    let row = (attachment.network_id, task.id);
                    self.tasks_by_network.insert(row);
                }
            }
        }
        clash
    }
}

/// Whether the task's node holds it or may.
fn holds(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}

fn is_leaving(task: &Task) -> bool {
    task.desired_state > TaskState::Complete && holds(task) && !task.withdrawn
}

fn waiting_row(task: &Task) -> (ServiceId, u64, TaskId) {
    let service = task.service_id.unwrap_or(ServiceId::numbered(0));
    (service, task.slot, task.id)
}

/// The unique name of an object. A service or network that is being removed has given its name
/// back already, so that it can be made again at once.
fn name_of(object: &Object) -> Option<(Named, String)> {
    let (kind, name) = match object {
        Object::Network(network) if !network.pending_delete => (Named::Network, &network.spec.name),
        Object::Service(service) if !service.pending_delete => (Named::Service, &service.spec.name),
        Object::Secret(secret) => (Named::Secret, &secret.spec.name),
        Object::Config(config) => (Named::Config, &config.spec.name),
        _ => return None,
    };
    Some((kind, name.to_lowercase()))
}
