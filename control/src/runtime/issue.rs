//! Giving out node certificates: only the leader writes nodes, any manager may be asked.

use tracing::info;
use weft_proto::{
    ControlError, ErrorCode,
    ca::{IssueReply, IssueRequest},
    service::ca_client::CaClient,
    token::JoinToken,
};
use weft_types::{
    Meta, NodeId, Timestamp,
    cluster::Cluster,
    node::{Node, NodeSpec, NodeStatus, Role},
};

use super::{Forwarded, Manager, ProposeError, clock, rotation, route::forwarded};
use crate::{
    ca::{CaError, NodeTitle, Validity},
    store::Change,
};

/// Docker's words for a token that opens nothing.
const NO_TOKEN: &str = "A valid join token is necessary to join this cluster";

/// The role that a token gives; both tokens are always compared.
fn role_of(token: &str, cluster: &Cluster) -> Option<Role> {
    let token: JoinToken = token.parse().ok()?;
    let opens = |known: &str| known.parse().is_ok_and(|known: JoinToken| known == token);
    let (worker, manager) = (
        opens(&cluster.join_tokens.worker),
        opens(&cluster.join_tokens.manager),
    );
    match (worker, manager) {
        (_, true) => Some(Role::Manager),
        (true, false) => Some(Role::Worker),
        (false, false) => None,
    }
}

fn sign(cluster: &Cluster, csr: &str, node: NodeId, role: Role) -> Result<IssueReply, CaError> {
    let title = NodeTitle {
        node,
        cluster: cluster.id,
        role,
    };
    let duration = cluster.spec.ca_config.validity();
    let validity = Validity {
        now: clock::now(),
        duration,
    };
    Ok(IssueReply {
        node,
        cluster: cluster.id,
        role,
        certificate: rotation::signer(cluster).sign(csr, title, validity)?,
        trust_root: rotation::trusted(cluster),
        managers: Vec::new(),
    })
}

pub(super) fn refused(error: CaError) -> ControlError {
    match error {
        CaError::Request(_) => ControlError::invalid(error.to_string()),
        other => ControlError::unknown(other.to_string()),
    }
}

impl Manager {
    /// Certifies a node. Who asks has been checked.
    pub(crate) async fn issue(&self, request: IssueRequest) -> Result<IssueReply, ControlError> {
        self.route(
            false,
            || self.issue_here(&request),
            |addr| {
                let request = request.clone();
                async move {
                    let mut client = CaClient::new(self.peers.control(addr));
                    match forwarded(client.issue(request).await, false) {
                        // Two managers may disagree for a moment about who leads.
                        Forwarded::Done(Err(error)) if error.code == ErrorCode::Unavailable => {
                            Forwarded::Again
                        }
                        other => other,
                    }
                }
            },
        )
        .await
    }

    async fn issue_here(&self, request: &IssueRequest) -> Result<IssueReply, ProposeError> {
        let mut reply = match request.on_behalf_of {
            Some(node) => self.renew(node, request).await,
            None => self.take_in(request).await,
        }?;
        reply.managers = self.managers().into_iter().map(|(_, addr)| addr).collect();
        Ok(reply)
    }

    /// A new node's first certificate.
    async fn take_in(&self, request: &IssueRequest) -> Result<IssueReply, ProposeError> {
        let reply = self
            .propose(|view, _, ids| {
                let cluster = view
                    .cluster()
                    .ok_or_else(|| ControlError::unavailable("the cluster is being made"))?;
                let role = role_of(&request.token, cluster)
                    .ok_or_else(|| ControlError::invalid(NO_TOKEN))?;
                let id: NodeId = ids.id();
                let reply = sign(cluster, &request.csr, id, role).map_err(refused)?;
                let node = Node {
                    id,
                    meta: Meta::default(),
                    spec: NodeSpec {
                        role,
                        availability: request.availability,
                        ..NodeSpec::default()
                    },
                    description: Default::default(),
                    status: NodeStatus::default(),
                    manager_status: None,
                    role,
                    index: view.ledger().next_node_index(),
                    data_path_addr: None,
                    addresses: Default::default(),
                    wireguard: None,
                    down_since: Timestamp::default(),
                    applied_revision: 0,
                    certificate: rotation::epoch(cluster),
                };
                Ok((vec![Change::put(node)], reply))
            })
            .await?;
        info!(node = %reply.node, role = ?reply.role, "node joins");
        Ok(reply)
    }

    /// A new certificate for a node that has one, in the role that is due.
    async fn renew(
        &self,
        node: NodeId,
        request: &IssueRequest,
    ) -> Result<IssueReply, ProposeError> {
        let written = self.propose(|view, _, _| {
            let (Some(cluster), Some(known)) = (view.cluster(), view.node(node)) else {
                return Err(ControlError::new(
                    ErrorCode::PermissionDenied,
                    format!("node {node} is not part of the cluster"),
                ));
            };
            let certified = request.certified.unwrap_or(known.role);
            let role = self.due_role(known, certified);
            let reply = sign(cluster, &request.csr, node, role).map_err(refused)?;
            let mut node = Node::clone(known);
            node.role = role;
            node.certificate = rotation::epoch(cluster);
            let change = (node != **known).then(|| Change::put(node));
            Ok((change.into_iter().collect(), reply))
        });
        let reply = written.await?;
        if reply.role == Role::Worker && request.certified == Some(Role::Manager) {
            // A session is judged by the certificate that it was opened with.
            self.sessions.end(node);
        }
        Ok(reply)
    }
}
