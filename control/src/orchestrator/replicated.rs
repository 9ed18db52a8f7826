//! Services of so many tasks.

use weft_types::{TaskState, service::Service};

use super::{
    restart::{has_failed, promote, restart},
    slot::{Slots, surplus},
    task::{Place, new_task},
    update,
};
use crate::store::{Draft, IdSource};

/// Tasks made in one run at most; the rest follows in the next.
pub(super) const BATCH: u64 = 2_000;

pub(super) fn run(draft: &mut Draft, ids: &mut IdSource, service: &Service, wished: u64) {
    let now = draft.now();
    let slots = Slots::of(draft, service);
    for tasks in slots.by_place.values() {
        for task in tasks {
            if has_failed(draft, task) {
                restart(draft, ids, service, task, tasks);
            }
        }
    }
    let slots = Slots::of(draft, service);
    for tasks in slots.by_place.values() {
        promote(draft, service, tasks);
    }
    let slots = Slots::of(draft, service);
    let occupied = slots.occupied(service, now);
    let have = occupied.len() as u64;
    if have > wished {
        let keep = usize::try_from(wished).unwrap_or(usize::MAX);
        for place in surplus(&occupied, keep) {
            for task in slots.by_place.get(&place).into_iter().flatten() {
                draft.edit_task(task.id, |task| task.desired_state = TaskState::Remove);
            }
        }
    } else if have < wished {
        // Dead slots are forgotten, so that their numbers are free again.
        for (place, tasks) in &slots.by_place {
            if !occupied.contains_key(place) {
                for task in tasks {
                    draft.edit_task(task.id, |task| task.desired_state = TaskState::Remove);
                }
            }
        }
        let free = (1u64..).filter(|slot| !occupied.contains_key(&Place::Slot(*slot)));
        for slot in free.take(usize::try_from((wished - have).min(BATCH)).unwrap_or(0)) {
            let place = Place::Slot(slot);
            draft.put(new_task(service, place, TaskState::Running, now, ids));
        }
        if wished - have > BATCH {
            draft.wake_at(now);
        }
    }
    update::run(draft, ids, service.id);
}
