//! What would have to move. Nothing ever moves by itself: this is asked for.

use std::sync::Arc;

use weft_proto::Move;
use weft_types::{TaskState, Timestamp, service::Service, service::UpdateState, task::Task};

use super::{filter::Needs, node_table::NodeTable, spread};
use crate::{
    orchestrator::is_dirty,
    store::{Draft, View},
};

/// The moves, at most `budget`, after which services are spread as if their tasks were placed
/// now: no node has two more of a service than another one that could take one.
///
/// Services in the middle of an update, jobs, global services and those with preferences are left
/// alone.
#[must_use]
pub fn plan(view: &View, now: Timestamp, budget: usize) -> Vec<Move> {
    let draft = Draft::new(view, now);
    let mut moves = Vec::new();
    for service in view.services() {
        if moves.len() >= budget {
            break;
        }
        if service.replicas().is_some() && is_at_rest(service) {
            level(&draft, service, budget, &mut moves);
        }
    }
    moves
}

fn is_at_rest(service: &Service) -> bool {
    let placement = service.spec.task_template.placement.as_ref();
    let preferences = placement.and_then(|placement| placement.preferences.as_ref());
    let state = service.update_status.as_ref().map(|status| status.state);
    preferences.is_none_or(Vec::is_empty)
        && !matches!(
            state,
            Some(UpdateState::Updating | UpdateState::RollbackStarted)
        )
}

fn level(draft: &Draft, service: &Service, budget: usize, moves: &mut Vec<Move>) {
    let meant = draft
        .tasks_of(service.id)
        .filter(|task| task.desired_state <= TaskState::Running);
    let mut tasks: Vec<_> = meant.cloned().collect();
    // Somebody who is on his way, or shares his slot, is left alone.
    let all_run = tasks
        .iter()
        .all(|task| task.status.state == TaskState::Running && !is_dirty(draft, service, task));
    let Some(first) = tasks.first().filter(|_| all_run) else {
        return;
    };
    // As it was made: numbers that were found for its ports are those of its node.
    let mut made = Task::clone(first);
    made.ports.clone_from(&service.endpoint.ports);
    let needs = Needs::of(draft, &Arc::new(made));
    let mut table = NodeTable::of(draft, std::slice::from_ref(&needs));
    while moves.len() < budget {
        let fullest = table
            .rows()
            .max_by_key(|(place, row)| (row.of_service(needs.service), usize::MAX - place))
            .map(|(place, row)| (place, row.of_service(needs.service), row.node.id));
        let (Some((from, most, node)), Ok(to)) = (fullest, spread::choose(&table, &needs)) else {
            return;
        };
        if most < table.row(to).of_service(needs.service) + 2 {
            return;
        }
        let Some(at) = tasks.iter().rposition(|task| task.node_id == Some(node)) else {
            return;
        };
        let task = tasks.remove(at);
        table.leave(from, service.id);
        table.claim(to, &needs);
        moves.push(Move {
            task: task.id,
            name: format!("{}.{}", service.spec.name, task.slot),
            from: node,
            to: table.row(to).node.id,
        });
    }
}
