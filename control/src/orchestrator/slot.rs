//! The places of a service and the tasks that fill or filled them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use weft_types::{NodeId, Timestamp, service::Service, service::UpdateState, task::Task};

use super::{
    restart::may_restart,
    task::{self, Place},
};
use crate::store::View;

/// All tasks of a service by the place they fill, those of one place oldest first.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) by_place: BTreeMap<Place, Vec<Arc<Task>>>,
}

impl Slots {
    /// The places of `service`. Tasks desired removed are no part of any.
    pub(super) fn of(view: &View, service: &Service) -> Self {
        let mut by_place: BTreeMap<Place, Vec<Arc<Task>>> = BTreeMap::new();
        for task in view.tasks_of(service.id) {
            if task.desired_state == weft_types::TaskState::Remove {
                continue;
            }
            if let Some(place) = Place::of(service, task) {
                by_place.entry(place).or_default().push(task.clone());
            }
        }
        for tasks in by_place.values_mut() {
            tasks.sort_by_key(|task| (task::made(view, task), task.meta.version.index, task.id));
        }
        Self { by_place }
    }

    /// Places that count: they have a task meant to run, or their newest one ended and must not
    /// be replaced. With each, the tasks that an update may replace.
    pub(super) fn occupied(
        &self,
        service: &Service,
        now: Timestamp,
    ) -> BTreeMap<Place, Vec<Arc<Task>>> {
        let rolling_back = service
            .update_status
            .as_ref()
            .is_some_and(|status| status.state == UpdateState::RollbackStarted);
        let mut occupied = BTreeMap::new();
        for (place, tasks) in &self.by_place {
            let meant: Vec<_> = tasks
                .iter()
                .filter(|task| is_meant(task))
                .cloned()
                .collect();
            if !meant.is_empty() {
                occupied.insert(*place, meant);
            } else if let Some(newest) = tasks.last()
                && !rolling_back
                && !may_restart(service, newest, tasks, now)
            {
                occupied.insert(*place, vec![newest.clone()]);
            }
        }
        occupied
    }
}

/// Whether a task is meant to run.
pub(super) fn is_meant(task: &Task) -> bool {
    task.desired_state <= weft_types::TaskState::Running
}

/// Which of `occupied` go when only `keep` may stay: nodes that have most copies lose first, then
/// those without a node, then high slot numbers; running ones stay before others.
pub(super) fn surplus(occupied: &BTreeMap<Place, Vec<Arc<Task>>>, keep: usize) -> Vec<Place> {
    let runs = |tasks: &[Arc<Task>]| {
        let mut tasks = tasks.iter();
        tasks.any(|task| task.status.state == weft_types::TaskState::Running)
    };
    let mut order: Vec<(bool, Place, Option<NodeId>)> = occupied
        .iter()
        .map(|(place, tasks)| {
            let node = tasks.iter().find_map(|task| task.node_id);
            (!runs(tasks), *place, node)
        })
        .collect();
    order.sort_unstable();
    let mut copies: HashMap<NodeId, usize> = HashMap::new();
    let mut ranked: Vec<(usize, usize, Place)> = order
        .into_iter()
        .enumerate()
        .map(|(position, (_, place, node))| {
            let rank = node.map_or(usize::MAX, |node| {
                let copies = copies.entry(node).or_default();
                *copies += 1;
                *copies
            });
            (rank, position, place)
        })
        .collect();
    ranked.sort_unstable();
    ranked
        .into_iter()
        .skip(keep)
        .map(|(.., place)| place)
        .collect()
}

#[cfg(test)]
mod tests {
    use weft_types::TaskState;

    use super::*;
    use crate::{fixture, orchestrator::task::new_task, store::IdSource};

    /// The slots that go when `keep` stay, of slots 1, 2, … on such nodes, running or not.
    fn goes(slots: &[(u32, bool)], keep: usize) -> Vec<Place> {
        let service = fixture::service(1, "web", 1);
        let mut ids = IdSource::seeded(1);
        let occupied = (1..).zip(slots).map(|(slot, (node, runs))| {
            let place = Place::Slot(slot);
            let now = Timestamp(1);
            let mut task = new_task(&service, place, TaskState::Running, now, &mut ids);
            task.node_id = (*node > 0).then(|| fixture::node(*node).id);
            if *runs {
                task.status.state = TaskState::Running;
            }
            (place, vec![Arc::new(task)])
        });
        surplus(&occupied.collect(), keep)
    }

    #[test]
    fn the_fullest_node_loses_first_then_what_does_not_run_then_the_highest() {
        let slots = |slots: &[u64]| slots.iter().copied().map(Place::Slot).collect::<Vec<_>>();
        assert_eq!(goes(&[(1, true), (1, true), (2, true)], 2), slots(&[2]));
        assert_eq!(goes(&[(1, false), (2, true), (3, true)], 2), slots(&[1]));
        assert_eq!(goes(&[(0, true), (1, true), (2, true)], 2), slots(&[1]));
        assert_eq!(goes(&[(1, true), (2, true), (3, true)], 1), slots(&[2, 3]));
    }
}
