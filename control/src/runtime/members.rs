//! Who is a member of the consensus group, kept in step with the nodes' roles.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use openraft::{
    ChangeMembers, Instant, RaftMetrics, ServerState, async_runtime::watch::WatchReceiver,
};
use tracing::{debug, info};
use weft_proto::{ControlError, ControlRequest, raft::MembersReply};
use weft_types::{
    NodeId,
    node::{ManagerStatus, Node, Reachability, Role},
    service::{PortConfig, Protocol, PublishMode, ServiceSpec},
};

use super::{Manager, propose::ProposeError, rotation};
use crate::{
    api, dispatcher,
    raft::{Member, Types},
    store::{Change, View},
};

/// Entries by which a new member's log may lag when it gets a vote.
const CAUGHT_UP: u64 = 100;

/// A peer that has not acknowledged anything for longer than this is unreachable.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(2);

/// How long one change of membership may take.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

/// The members and their numbers.
fn members(metrics: &RaftMetrics<Types>) -> BTreeMap<u64, Member> {
    let nodes = metrics.membership_config.nodes();
    nodes
        .map(|(number, member)| (*number, member.clone()))
        .collect()
}

/// Finds the node that a request names, as the API does: id, then name, then unique prefix.
fn named<'a>(view: &'a View, name: &str) -> Option<&'a Arc<Node>> {
    let nodes = || view.nodes();
    nodes()
        .find(|node| node.id.as_str() == name)
        .or_else(|| {
            let mut found = nodes().filter(|node| node.description.hostname == name);
            found.next().filter(|_| found.next().is_none())
        })
        .or_else(|| {
            let mut found = nodes().filter(|node| node.id.as_str().starts_with(name));
            found.next().filter(|_| found.next().is_none())
        })
}

impl Manager {
    /// The managers and their addresses, the leader first.
    pub(crate) fn managers(&self) -> Vec<(NodeId, String)> {
        let metrics = self.metrics();
        let mut managers: Vec<_> = members(&metrics)
            .into_iter()
            .map(|(number, member)| (Some(number) != metrics.current_leader, member))
            .map(|(follows, member)| (follows, member.node, member.addr))
            .collect();
        managers.sort();
        managers
            .into_iter()
            .map(|(_, node, addr)| (node, addr))
            .collect()
    }

    /// Whether a node is a member of the consensus group.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        let metrics = self.metrics();
        metrics
            .membership_config
            .nodes()
            .any(|(_, member)| member.node == node)
    }

    /// The role that the certificate of a node should say, which says `certified` now.
    pub(crate) fn due_role(&self, node: &Node, certified: Role) -> Role {
        dispatcher::due_role(node, certified, self.is_member(node.id))
    }

    /// Whether this leader has heard from a majority a short time ago.
    pub(crate) fn has_majority(&self) -> bool {
        let metrics = self.metrics();
        let voters = metrics.membership_config.voter_ids().count();
        voters == 1
            || metrics
                .last_quorum_acked
                .is_some_and(|at| at.elapsed() < UNREACHABLE_AFTER)
    }

    /// The numbers of members that this leader reaches, itself included.
    fn reached(metrics: &RaftMetrics<Types>) -> BTreeSet<u64> {
        let mut reached = BTreeSet::from([metrics.id]);
        for (number, acked) in metrics.heartbeat.iter().flatten() {
            if acked.is_some_and(|at| at.elapsed() < UNREACHABLE_AFTER) {
                reached.insert(*number);
            }
        }
        reached
    }

    /// Adds to nodes what only the leader knows: their place among the managers, whose certificates
    /// they hold, and the revision that their kernels hold.
    pub(crate) fn fold_in(&self, nodes: &mut [Node]) {
        let acks = self.sessions.acks();
        let view = self.replica.view();
        let cluster = view.cluster().cloned();
        let metrics = self.metrics();
        let reached = Self::reached(&metrics);
        let by_node: BTreeMap<NodeId, (u64, String)> = members(&metrics)
            .into_iter()
            .map(|(number, member)| (member.node, (number, member.addr)))
            .collect();
        for node in nodes {
            if let Some(cluster) = &cluster {
                node.description.tls_info = rotation::shown(cluster, node);
            }
            let applied = acks.applied.get(&node.id).copied();
            api::show_revision(node, applied.unwrap_or(0), view.index());
            node.manager_status = by_node.get(&node.id).map(|(number, addr)| ManagerStatus {
                leader: *number == metrics.id,
                reachability: if reached.contains(number) {
                    Reachability::Reachable
                } else {
                    Reachability::Unreachable
                },
                addr: addr.clone(),
            });
        }
    }

    /// Refuses changes of the managers that would cost the cluster its majority, and authorities
    /// that nobody would ask.
    pub(crate) fn may_change(
        &self,
        view: &View,
        request: &ControlRequest,
    ) -> Result<(), ControlError> {
        match request {
            ControlRequest::RemoveNode { node, .. } => match named(view, node) {
                Some(node) if self.is_member(node.id) => Err(ControlError::precondition(format!(
                    "node {} is a cluster manager and is a member of the raft cluster. It must be \
                     demoted to worker before removal",
                    node.id
                ))),
                _ => Ok(()),
            },
            ControlRequest::UpdateNode { node, spec, .. } if spec.role == Role::Worker => {
                match named(view, node) {
                    Some(node) if node.spec.role == Role::Manager => self.may_demote(view, node),
                    _ => Ok(()),
                }
            }
            ControlRequest::CreateService { spec, .. }
            | ControlRequest::UpdateService { spec, .. } => self.leaves_managers_their_ports(spec),
            _ => Ok(()),
        }
    }

    /// A port of the mesh is taken on every node: on the managers' own one, no node would reach
    /// them any more. In `host` mode it is taken where a task runs, and may well be free there.
    fn leaves_managers_their_ports(&self, spec: &ServiceSpec) -> Result<(), ControlError> {
        let members = members(&self.metrics());
        let listens = |port: &&PortConfig| {
            members
                .values()
                .filter_map(|member| member.addr.parse::<SocketAddr>().ok())
                .any(|addr| addr.port() == port.published_port)
        };
        spec.ports()
            .iter()
            .filter(|port| port.protocol == Protocol::Tcp)
            .filter(|port| port.publish_mode == PublishMode::Ingress)
            .find(listens)
            .map_or(Ok(()), |port| {
                Err(api::needed(port, "nodes reach managers there"))
            })
    }

    fn may_demote(&self, view: &View, node: &Node) -> Result<(), ControlError> {
        let metrics = self.metrics();
        let reached = Self::reached(&metrics);
        let votes: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let voters: Vec<_> = members(&metrics)
            .into_iter()
            .filter(|(number, _)| votes.contains(number))
            .map(|(number, member)| (member.node, reached.contains(&number)))
            .collect();
        dispatcher::may_demote(view, node.id, &voters)
    }

    /// What a request has as a consequence besides its commit: a removed node's connections are
    /// closed.
    pub(crate) async fn after(&self, request: &ControlRequest) {
        if matches!(request, ControlRequest::RemoveNode { .. })
            && let Some(cluster) = self.replica.view().cluster()
        {
            for node in &cluster.blacklist {
                // Its session is told first, and ends by itself.
                if self.sessions.get(*node).is_none() {
                    self.connections.close(*node);
                }
            }
        }
    }

    /// Takes a manager into the group; its number there.
    pub(crate) async fn admit(&self, member: Member) -> Result<MembersReply, ProposeError> {
        let view = self.fresh_view().await?;
        let manages = view
            .node(member.node)
            .is_some_and(|node| node.spec.role == Role::Manager);
        if !manages {
            return Err(ControlError::precondition(format!(
                "node {} is not to be a manager",
                member.node
            ))
            .into());
        }
        let old: BTreeSet<u64> = {
            let metrics = self.metrics();
            members(&metrics)
                .into_iter()
                .filter(|(_, other)| other.node == member.node)
                .map(|(number, _)| number)
                .collect()
        };
        // A node that asks has nothing of an earlier membership left: it is somebody new.
        if !old.is_empty() {
            self.expel(old).await?;
        }
        let number: u64 = rand::random();
        info!(node = %member.node, addr = %member.addr, number, "taking a manager in");
        let added = self.raft.add_learner(number, member, false);
        match tokio::time::timeout(CHANGE_LIMIT, added).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(change_error(&error)),
            Err(_) => return Err(ProposeError::NotLeader),
        }
        let metrics = self.metrics();
        Ok(MembersReply {
            members: members(&metrics)
                .into_values()
                .map(|member| (member.node, member.addr))
                .collect(),
            raft_id: number,
        })
    }

    /// Takes a node out of the group; fine if it is not in it.
    pub(crate) async fn dismiss(&self, node: NodeId) -> Result<MembersReply, ProposeError> {
        self.confirm().await?;
        let numbers: BTreeSet<u64> = {
            let metrics = self.metrics();
            members(&metrics)
                .into_iter()
                .filter(|(_, member)| member.node == node)
                .map(|(number, _)| number)
                .collect()
        };
        if numbers.contains(self.raft.node_id()) {
            self.hand_over().await;
            return Err(ProposeError::NotLeader);
        }
        if !numbers.is_empty() {
            self.expel(numbers).await?;
        }
        Ok(MembersReply {
            members: self.managers(),
            raft_id: 0,
        })
    }

    /// Gives the lead to another voter, the best informed one that is reached.
    pub(crate) async fn hand_over(&self) {
        let heir = {
            let metrics = self.metrics();
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            let reached = Self::reached(&metrics);
            let replication = metrics.replication.iter().flatten();
            replication
                .filter(|(number, _)| **number != metrics.id)
                .filter(|(number, _)| voters.contains(number) && reached.contains(number))
                .max_by_key(|(_, matched)| matched.map(|id| id.index))
                .map(|(number, _)| *number)
        };
        if let Some(heir) = heir {
            info!(node = %self.node, heir, "handing over");
            if self.raft.trigger().transfer_leader(heir).await.is_err() {
                return;
            }
            let mut metrics = self.raft.metrics();
            let gone = async {
                while metrics.borrow_and_update().state == ServerState::Leader {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(CHANGE_LIMIT, gone).await;
        }
    }

    async fn expel(&self, numbers: BTreeSet<u64>) -> Result<(), ProposeError> {
        info!(?numbers, "taking members out");
        let voters: BTreeSet<u64> = {
            let metrics = self.metrics();
            metrics.membership_config.voter_ids().collect()
        };
        let change = if numbers.is_disjoint(&voters) {
            ChangeMembers::RemoveNodes(numbers)
        } else {
            ChangeMembers::RemoveVoters(numbers)
        };
        let changed = self.raft.change_membership(change, false);
        match tokio::time::timeout(CHANGE_LIMIT, changed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(change_error(&error)),
            Err(_) => Err(ProposeError::NotLeader),
        }
    }

    /// Brings membership one step nearer to what the nodes' roles say.
    pub(super) async fn tend_members(&self) {
        let view = self.replica.view();
        if view.cluster().is_none() {
            // The first commit is still to come: nobody's role is known.
            return;
        }
        let (all, voters, matched, last, me) = {
            let metrics = self.metrics();
            let matched: BTreeMap<u64, u64> = metrics
                .replication
                .iter()
                .flatten()
                .filter_map(|(number, id)| Some((*number, id.as_ref()?.index)))
                .collect();
            (
                members(&metrics),
                metrics
                    .membership_config
                    .voter_ids()
                    .collect::<BTreeSet<_>>(),
                matched,
                metrics.last_log_index.unwrap_or(0),
                metrics.id,
            )
        };
        let stays = |member: &Member| {
            view.node(member.node)
                .is_some_and(|node| node.spec.role == Role::Manager)
        };
        if let Some((number, member)) = all.iter().find(|(_, member)| !stays(member)) {
            if *number == me {
                self.hand_over().await;
            } else if self.has_unwritten_roles(&view) {
                self.write_roles().await;
            } else if let Err(error) = self.expel([*number].into()).await {
                debug!(node = %member.node, %error, "cannot take the member out yet");
            }
            return;
        }
        let ready: BTreeSet<u64> = all
            .keys()
            .filter(|number| !voters.contains(number))
            .filter(|number| {
                matched
                    .get(number)
                    .is_some_and(|index| index + CAUGHT_UP >= last)
            })
            .copied()
            .collect();
        if !ready.is_empty() {
            info!(?ready, "giving votes");
            let change = self
                .raft
                .change_membership(ChangeMembers::AddVoterIds(ready), true);
            if let Ok(Err(error)) = tokio::time::timeout(CHANGE_LIMIT, change).await {
                debug!(%error, "cannot give votes yet");
            }
            return;
        }
        if self.has_unwritten_roles(&view) {
            self.write_roles().await;
        }
    }

    fn unwritten_roles(&self, view: &View) -> Vec<Change> {
        dispatcher::unwritten_roles(view, self.node, |node| self.is_member(node))
    }

    fn has_unwritten_roles(&self, view: &View) -> bool {
        !self.unwritten_roles(view).is_empty()
    }

    /// Writes down who is a manager and who is none any more. From then on those are refused what
    /// only managers may, whatever their certificates still say.
    async fn write_roles(&self) {
        let written = self
            .propose(|view, _, _| Ok((self.unwritten_roles(view), ())))
            .await;
        if let Err(error) = written {
            debug!(%error, "cannot write down who is a manager no more");
        }
    }

    /// Gives up this manager's membership, for good: the node leaves or becomes a worker. The last
    /// manager just ends.
    ///
    /// # Errors
    /// When no leader could be told in time; the node is then still listed as a member.
    pub async fn leave(&self) -> Result<(), ControlError> {
        let alone = {
            let metrics = self.metrics();
            metrics.membership_config.nodes().count() <= 1
        };
        if alone {
            return Ok(());
        }
        self.part(self.node).await.map(|_| ())
    }
}

fn change_error(error: &impl std::fmt::Display) -> ProposeError {
    ProposeError::Refused(ControlError::unavailable(format!(
        "cannot change the managers now: {error}"
    )))
}
