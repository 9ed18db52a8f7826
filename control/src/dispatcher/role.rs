//! Which role a node's certificate should say, and telling the node until it does.

use std::time::Duration;

use weft_proto::ControlError;
use weft_types::{
    NodeId, Version,
    node::{Node, Role},
};

use crate::store::{Change, View};

/// Between two tellings of a role that the node's certificate does not say yet.
const AGAIN: Duration = Duration::from_secs(10);

/// The role that the certificate of a node should say, which says `certified` now: a manager that
/// is to be a worker stays one until it is a member no more. One that was taken out becomes a worker
/// before it is a manager again: its manager's files know only the member that it was.
#[must_use]
pub fn due_role(node: &Node, certified: Role, is_member: bool) -> Role {
    let was_taken_out = certified == Role::Manager && node.role == Role::Worker;
    if is_member || (node.spec.role == Role::Manager && !was_taken_out) {
        Role::Manager
    } else {
        Role::Worker
    }
}

/// The nodes whose role is to be written down anew: those about to be taken out, before they are,
/// so that it is known even if they are promoted meanwhile; and those that stay after all.
/// `leader` itself is left alone: it hands over first.
#[must_use]
pub fn unwritten_roles(
    view: &View,
    leader: NodeId,
    is_member: impl Fn(NodeId) -> bool,
) -> Vec<Change> {
    view.nodes()
        .filter(|node| node.id != leader && node.role != node.spec.role)
        .filter(|node| node.spec.role == Role::Worker || is_member(node.id))
        .map(|node| {
            Change::put(Node {
                role: node.spec.role,
                ..Node::clone(node)
            })
        })
        .collect()
}

/// Whether the manager `node` may become a worker. `voters` are the members that have a vote, each
/// with whether it is reached.
///
/// # Errors
/// In Docker's words, when no manager would be left, or no majority of those that are left is reached.
pub fn may_demote(
    view: &View,
    node: NodeId,
    voters: &[(NodeId, bool)],
) -> Result<(), ControlError> {
    let managers = view
        .nodes()
        .filter(|known| known.spec.role == Role::Manager);
    if managers.count() <= 1 {
        return Err(ControlError::precondition(
            "attempting to demote the last manager of the swarm",
        ));
    }
    let stay = || voters.iter().filter(|(voter, _)| *voter != node);
    let reached = stay().filter(|(_, is_reached)| *is_reached);
    if reached.count() * 2 <= stay().count() {
        return Err(ControlError::precondition(
            "can't remove member from the raft: this would result in a loss of quorum",
        ));
    }
    Ok(())
}

/// What a node has been told of its certificate in one session.
///
/// A node that is told a role gets a certificate for the role that is due by then, which may be
/// another, and what it was told may be lost. So it is told again from time to time, until it calls
/// with a certificate that says what is due: the session it has opened with that one knows so.
#[derive(Debug)]
pub struct ToldRole {
    /// As what it calls in this session.
    certified: Role,
    told: Role,
    /// The epoch of the authority for which it was asked to renew its certificate.
    renew: Option<Version>,
    at: Duration,
}

impl ToldRole {
    /// A session that was opened with a certificate for this role.
    #[must_use]
    pub fn new(certified: Role) -> Self {
        Self {
            certified,
            told: certified,
            renew: None,
            at: Duration::ZERO,
        }
    }

    /// As what the node calls in this session.
    #[must_use]
    pub fn certified(&self) -> Role {
        self.certified
    }

    /// The role to tell now, if there is one: a role that the node has already asks it to renew its
    /// certificate. `due` is the role that its certificate should say, `renew` the epoch of the
    /// authority when its certificate is of an older one, `now` counts from any moment.
    pub fn step(&mut self, due: Role, renew: Option<Version>, now: Duration) -> Option<Role> {
        let is_news = self.told != due || (renew.is_some() && self.renew != renew);
        let is_owed = self.certified != due || renew.is_some();
        let is_due = is_news || (is_owed && self.at + AGAIN <= now);
        is_due.then(|| {
            (self.told, self.renew, self.at) = (due, renew, now);
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use weft_types::Timestamp;

    use super::*;
    use crate::{
        fixture,
        store::{Object, Store, Transaction},
    };

    fn node(number: u32, wished: Role, written: Role) -> Node {
        let mut node = fixture::node(number);
        (node.spec.role, node.role) = (wished, written);
        node
    }

    #[test]
    fn a_manager_that_was_taken_out_is_a_worker_before_it_is_a_manager_again() {
        use Role::{Manager, Worker};
        // Wished, written down, certified, a member; due.
        for (wished, written, certified, is_member, expected) in [
            (Manager, Manager, Manager, true, Manager),
            // Joining: certified, and no member yet.
            (Manager, Manager, Manager, false, Manager),
            // Promoted.
            (Manager, Worker, Worker, false, Manager),
            // Demoted, and still a member.
            (Worker, Manager, Manager, true, Manager),
            (Worker, Worker, Manager, true, Manager),
            (Worker, Worker, Manager, false, Worker),
            // Demoted, taken out, and promoted before it knew.
            (Manager, Worker, Manager, false, Worker),
            // Promoted again before it was taken out.
            (Manager, Worker, Manager, true, Manager),
        ] {
            let node = node(1, wished, written);
            assert_eq!(
                due_role(&node, certified, is_member),
                expected,
                "{wished:?}, written {written:?}, certified {certified:?}, member {is_member}"
            );
        }
    }

    #[test]
    fn who_is_to_be_taken_out_is_written_down_before() {
        use Role::{Manager, Worker};
        let nodes = [
            // The leader hands over before anything is written of it.
            node(1, Worker, Manager),
            node(2, Worker, Manager),
            // Wished again while it was still a member.
            node(3, Manager, Worker),
            // Promoted, with a worker's certificate still.
            node(4, Manager, Worker),
            node(5, Manager, Manager),
        ];
        let mut store = Store::new();
        let transaction = Transaction {
            now: Timestamp::ZERO,
            changes: nodes.map(Change::put).into(),
        };
        store.apply(1, &transaction).expect("nodes");
        let view = store.view();
        let (leader, outsider) = (NodeId::numbered(1), NodeId::numbered(4));
        let changes = unwritten_roles(&view, leader, |node| node != outsider);
        let written: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(Object::Node(node)) => Some((node.id, node.role)),
                _ => None,
            })
            .collect();
        let expected = [
            (NodeId::numbered(2), Worker),
            (NodeId::numbered(3), Manager),
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn the_last_manager_stays_though_one_that_is_to_go_has_a_vote_still() {
        use Role::{Manager, Worker};
        let may = |wished: [Role; 3], demoted: u32, reached: &[u32]| {
            let mut store = Store::new();
            let nodes = (1..)
                .zip(wished)
                .map(|(number, role)| node(number, role, Manager));
            let transaction = Transaction {
                now: Timestamp::ZERO,
                changes: nodes.map(Change::put).collect(),
            };
            store.apply(1, &transaction).expect("nodes");
            let voters =
                (1..=3).map(|number| (NodeId::numbered(number.into()), reached.contains(&number)));
            let voters: Vec<_> = voters.collect();
            let answer = may_demote(&store.view(), NodeId::numbered(demoted.into()), &voters);
            answer.map_err(|refusal| refusal.message)
        };
        assert_eq!(may([Manager; 3], 1, &[1, 2, 3]), Ok(()));
        assert_eq!(may([Manager; 3], 1, &[2, 3]), Ok(()));
        let no_majority =
            "can't remove member from the raft: this would result in a loss of quorum".to_owned();
        assert_eq!(may([Manager; 3], 1, &[1, 2]), Err(no_majority));
        assert_eq!(may([Manager, Worker, Manager], 1, &[1, 2, 3]), Ok(()));
        let last = "attempting to demote the last manager of the swarm".to_owned();
        assert_eq!(may([Manager, Worker, Worker], 1, &[1, 2, 3]), Err(last));
    }

    #[test]
    fn a_role_is_told_until_the_certificate_says_it() {
        use Role::{Manager, Worker};
        let second = Duration::from_secs;
        let mut told = ToldRole::new(Worker);
        assert_eq!(told.step(Worker, None, second(100)), None);
        assert_eq!(told.step(Manager, None, second(101)), Some(Manager));
        // What it gets may be of a moment in which it was to stay a worker.
        assert_eq!(told.step(Manager, None, second(102)), None);
        assert_eq!(told.step(Manager, None, second(111)), Some(Manager));
        assert_eq!(told.step(Manager, None, second(112)), None);
        // It is to stay a worker after all, as it calls: told once.
        assert_eq!(told.step(Worker, None, second(113)), Some(Worker));
        assert_eq!(told.step(Worker, None, second(1_000)), None);
        // An authority that is replaced.
        let epoch = |index| Some(Version { index });
        assert_eq!(told.step(Worker, epoch(7), second(1_001)), Some(Worker));
        assert_eq!(told.step(Worker, epoch(7), second(1_002)), None);
        assert_eq!(told.step(Worker, epoch(8), second(1_003)), Some(Worker));
        assert_eq!(told.step(Worker, epoch(8), second(1_013)), Some(Worker));
        assert_eq!(told.step(Worker, None, second(2_000)), None);
    }
}
