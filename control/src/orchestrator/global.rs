//! Services of one task on every node that fits.

use weft_types::{
    NodeId, TaskState,
    node::{Availability, Node},
    service::Service,
};

use super::{
    constraint,
    restart::{has_failed, promote, restart},
    slot::Slots,
    task::{Place, is_bad, new_task},
    update,
};
use crate::store::{Draft, IdSource};

pub(super) fn run(draft: &mut Draft, ids: &mut IdSource, service: &Service) {
    let now = draft.now();
    let template = &service.spec.task_template;
    let fits = |node: &Node| !is_bad(Some(node)) && constraint::satisfies(node, template);
    let slots = Slots::of(draft, service);
    for (place, tasks) in &slots.by_place {
        let Place::Node(id) = *place else { continue };
        let Some(node) = draft.node(id).cloned() else {
            for task in tasks {
                draft.edit_task(task.id, |task| task.desired_state = TaskState::Remove);
            }
            continue;
        };
        for task in tasks {
            if !fits(&node) {
                draft.edit_task(task.id, |task| {
                    task.desired_state = task.desired_state.max(TaskState::Shutdown);
                });
            } else if has_failed(draft, task) {
                if node.spec.availability == Availability::Pause {
                    draft.edit_task(task.id, |task| task.desired_state = TaskState::Shutdown);
                } else {
                    restart(draft, ids, service, task, tasks);
                }
            }
        }
    }
    let slots = Slots::of(draft, service);
    for tasks in slots.by_place.values() {
        promote(draft, service, tasks);
    }
    let slots = Slots::of(draft, service);
    let occupied = slots.occupied(service, now);
    let vacant: Vec<NodeId> = draft
        .nodes()
        .filter(|node| node.spec.availability == Availability::Active && fits(node))
        .map(|node| node.id)
        .filter(|id| !occupied.contains_key(&Place::Node(*id)))
        .collect();
    for id in vacant {
        draft.put(new_task(
            service,
            Place::Node(id),
            TaskState::Running,
            now,
            ids,
        ));
    }
    update::run(draft, ids, service.id);
}
