//! What a node must run and hold.

use std::{collections::BTreeMap, sync::Arc};

use weft_proto::dispatcher::AssignmentSet;
use weft_types::{
    ConfigId, NodeId, SecretId, TaskId, TaskState,
    secret::{Config, Secret},
    task::Task,
};

use crate::store::View;

/// Everything that `node` must run and hold: its tasks from assigned on, ended ones included as
/// long as they are remembered, and the secrets and configs of those that have not ended.
#[must_use]
pub fn assignments(view: &View, node: NodeId) -> AssignmentSet {
    Held::of(view, node).step_from(None)
}

/// What a node must run and hold, shared with the view that says so.
#[derive(Debug, Default)]
pub(super) struct Held {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    secrets: BTreeMap<SecretId, Arc<Secret>>,
    configs: BTreeMap<ConfigId, Arc<Config>>,
}

impl Held {
    pub(super) fn of(view: &View, node: NodeId) -> Self {
        let mut held = Self::default();
        for task in view.tasks_on_node(node) {
            if task.status.state < TaskState::Assigned || task.status.state == TaskState::Orphaned {
                continue;
            }
            held.tasks.insert(task.id, Arc::clone(task));
            let container = task.spec.container_spec.as_ref();
            let Some(container) = container.filter(|_| !task.status.state.is_terminal()) else {
                continue;
            };
            for reference in container.secrets.iter().flatten() {
                let secret = view.secret(reference.secret_id);
                held.secrets
                    .extend(secret.map(|secret| (secret.id, Arc::clone(secret))));
            }
            for reference in container.configs.iter().flatten() {
                let config = view.config(reference.config_id);
                held.configs
                    .extend(config.map(|config| (config.id, Arc::clone(config))));
            }
        }
        held
    }

    /// The step from `old`; everything when there is none.
    pub(super) fn step_from(&self, old: Option<&Self>) -> AssignmentSet {
        let nothing = Self::default();
        let complete = old.is_none();
        let old = old.unwrap_or(&nothing);
        let (tasks, removed_tasks) = step(&old.tasks, &self.tasks, asks_the_same);
        let (secrets, removed_secrets) = step(&old.secrets, &self.secrets, |old, new| {
            old.meta.version == new.meta.version
        });
        let (configs, removed_configs) = step(&old.configs, &self.configs, |old, new| {
            old.meta.version == new.meta.version
        });
        AssignmentSet {
            complete,
            tasks,
            removed_tasks,
            secrets,
            removed_secrets,
            configs,
            removed_configs,
        }
    }
}

/// Whether two versions of a task ask the same of its node: what the node itself reported is not
/// told to it again.
fn asks_the_same(old: &Task, new: &Task) -> bool {
    old.meta.version == new.meta.version
        || (old.desired_state == new.desired_state
            && old.withdrawn == new.withdrawn
            && old.start_after == new.start_after
            && old.spec_version == new.spec_version
            && old.spec == new.spec
            && old.networks_attachments == new.networks_attachments
            && old.ports == new.ports
            && old.generic_resources == new.generic_resources
            && old.registry_auth == new.registry_auth)
}

/// What is new or changed, and what is gone.
fn step<T: Clone, K: Ord + Copy>(
    old: &BTreeMap<K, Arc<T>>,
    new: &BTreeMap<K, Arc<T>>,
    same: impl Fn(&T, &T) -> bool,
) -> (Vec<T>, Vec<K>) {
    let changed = new.iter().filter(|(key, item)| {
        let known = old.get(key);
        !known.is_some_and(|known| Arc::ptr_eq(known, item) || same(known, item))
    });
    let changed = changed.map(|(_, item)| T::clone(item)).collect();
    let gone = old.keys().filter(|key| !new.contains_key(key));
    (changed, gone.copied().collect())
}
