//! What a node must run and hold.

use std::{collections::BTreeMap, sync::Arc};

use weft_proto::dispatcher::AssignmentSet;
use weft_types::{
    ConfigId, NodeId, SecretId, TaskId, TaskState,
    secret::{Config, Secret},
    task::Task,
};

use crate::store::{Differences, View};

/// Everything that `node` must run and hold: its tasks from assigned on, ended ones included as
/// long as they are remembered, and the secrets and configs of those that have not ended.
#[must_use]
pub fn assignments(view: &View, node: NodeId) -> AssignmentSet {
    Held::of(view, node).1
}

/// What a node was told to run and hold, shared with the view that says so.
#[derive(Debug, Default)]
pub(super) struct Held {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    secrets: Files<SecretId, Secret>,
    configs: Files<ConfigId, Config>,
}

impl Held {
    /// What `node` must run and hold, and how it is told all of it.
    pub(super) fn of(view: &View, node: NodeId) -> (Self, AssignmentSet) {
        let mut held = Self::default();
        let mut all = AssignmentSet {
            complete: true,
            ..AssignmentSet::default()
        };
        for task in view.tasks_on_node(node).filter(|task| is_told(task)) {
            held.take(task);
            all.tasks.push(Task::clone(task));
        }
        held.files(view, &mut all);
        (held, all)
    }

    /// Goes on to `view`, which has `differences` from the view before, and says the step. Costs
    /// about as much as there are differences.
    pub(super) fn go_on(
        &mut self,
        view: &View,
        differences: &Differences<'_>,
        node: NodeId,
    ) -> AssignmentSet {
        let mut step = AssignmentSet::default();
        for (old, new) in &differences.tasks {
            let Some(id) = old.or(*new).map(|task| task.id) else {
                continue;
            };
            let is = view.task(id);
            let is = is.filter(|task| task.node_id == Some(node) && is_told(task));
            let was = self.tasks.remove(&id);
            if let Some(was) = &was {
                self.uses(was, false);
            }
            match (was, is) {
                (was, Some(is)) => {
                    self.take(is);
                    if !was.is_some_and(|was| asks_the_same(&was, is)) {
                        step.tasks.push(Task::clone(is));
                    }
                }
                (Some(_), None) => step.removed_tasks.push(id),
                (None, None) => {}
            }
        }
        self.files(view, &mut step);
        step
    }

    fn take(&mut self, task: &Arc<Task>) {
        self.uses(task, true);
        self.tasks.insert(task.id, Arc::clone(task));
    }

    /// Counts what a task that has not ended uses.
    fn uses(&mut self, task: &Task, begins: bool) {
        let container = task.spec.container_spec.as_ref();
        let Some(container) = container.filter(|_| !task.status.state.is_terminal()) else {
            return;
        };
        for reference in container.secrets.iter().flatten() {
            self.secrets.count(reference.secret_id, begins);
        }
        for reference in container.configs.iter().flatten() {
            self.configs.count(reference.config_id, begins);
        }
    }

    /// Adds to `step` what is otherwise of the secrets and configs.
    fn files(&mut self, view: &View, step: &mut AssignmentSet) {
        let secret = |id| view.secret(id);
        let same = |old: &Secret, new: &Secret| old.meta.version == new.meta.version;
        (step.secrets, step.removed_secrets) = self.secrets.go_on(secret, same);
        let config = |id| view.config(id);
        let same = |old: &Config, new: &Config| old.meta.version == new.meta.version;
        (step.configs, step.removed_configs) = self.configs.go_on(config, same);
    }
}

/// Secrets, or configs, that a node was told.
#[derive(Debug)]
struct Files<K, T> {
    /// How many references of tasks there are to each.
    used: BTreeMap<K, usize>,
    told: BTreeMap<K, Arc<T>>,
}

impl<K, T> Default for Files<K, T> {
    fn default() -> Self {
        Self {
            used: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy, T: Clone> Files<K, T> {
    fn count(&mut self, id: K, begins: bool) {
        let used = self.used.entry(id).or_default();
        *used = if begins {
            *used + 1
        } else {
            used.saturating_sub(1)
        };
        if *used == 0 {
            self.used.remove(&id);
        }
    }

    /// What is new or changed, and what is gone.
    fn go_on<'a>(
        &mut self,
        find: impl Fn(K) -> Option<&'a Arc<T>>,
        same: impl Fn(&T, &T) -> bool,
    ) -> (Vec<T>, Vec<K>)
    where
        T: 'a,
    {
        let mut changed = Vec::new();
        let mut left = std::mem::take(&mut self.told);
        for id in self.used.keys() {
            let Some(is) = find(*id) else { continue };
            let was = left.remove(id);
            if !was.is_some_and(|was| same(&was, is)) {
                changed.push(T::clone(is));
            }
            self.told.insert(*id, Arc::clone(is));
        }
        (changed, left.into_keys().collect())
    }
}

/// Whether a task is its node's to know of.
fn is_told(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && task.status.state != TaskState::Orphaned
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
