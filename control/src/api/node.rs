//! Nodes: role, availability, labels; and forgetting them.

use weft_proto::{ControlError, ControlReply};
use weft_types::{
    TaskState, Timestamp,
    node::{Node, NodeSpec, NodeState, Role},
    validate,
};

use super::{Answer, find, in_sequence, refused};
use crate::store::{Draft, Key, View};

pub(super) fn update(
    view: &View,
    now: Timestamp,
    reference: &str,
    version: u64,
    spec: &NodeSpec,
) -> Answer {
    let node = find::node(view, reference)?;
    validate::node_spec(spec).map_err(refused)?;
    in_sequence(version, node.meta.version)?;
    let mut draft = Draft::new(view, now);
    draft.edit_node(node.id, |node| node.spec = spec.clone());
    Ok((draft.changes(), ControlReply::Done))
}

pub(super) fn remove(view: &View, now: Timestamp, reference: &str, force: bool) -> Answer {
    let node = find::node(view, reference)?;
    let id = node.id;
    if node.spec.role == Role::Manager {
        return Err(ControlError::precondition(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. \
             It must be demoted to worker before removal"
        )));
    }
    if !force && node.status.state == NodeState::Ready {
        return Err(ControlError::precondition(format!(
            "node {id} is not down and can't be removed"
        )));
    }
    let mut draft = Draft::new(view, now);
    let tasks: Vec<_> = view.tasks_on_node(id).cloned().collect();
    for task in tasks {
        if task.service_id.is_none() {
            draft.delete(Key::Task(task.id));
        } else if !task.status.state.is_terminal() {
            draft.edit_task(task.id, |task| {
                task.status.state = TaskState::Orphaned;
                task.status.timestamp = now;
                "node was removed".clone_into(&mut task.status.message);
            });
        }
    }
    draft.edit_cluster(|cluster| {
        if !cluster.blacklist.contains(&id) {
            cluster.blacklist.push(id);
        }
    });
    draft.delete(Key::Node(id));
    Ok((draft.changes(), ControlReply::Done))
}

/// Shows on a node which revision of the network its kernel holds, of how many there are: as a
/// number for programs, and in its status for people, unless that has something graver to say.
pub fn show_revision(node: &mut Node, applied: u64, latest: u64) {
    node.applied_revision = applied;
    if node.status.state == NodeState::Ready && node.status.message.is_empty() {
        node.status.message = format!("network revision {applied} of {latest}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_ready_node_shows_its_revision_and_a_lost_one_why_it_is_lost() {
        let mut node = fixture::node(1);
        node.status.state = NodeState::Ready;
        node.status.message.clear();
        show_revision(&mut node, 41, 42);
        assert_eq!(node.status.message, "network revision 41 of 42");
        assert_eq!(node.applied_revision, 41);
        node.status.state = NodeState::Down;
        "heartbeat failure".clone_into(&mut node.status.message);
        show_revision(&mut node, 0, 43);
        assert_eq!(node.status.message, "heartbeat failure");
    }
}
