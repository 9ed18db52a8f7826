//! How a node gets its certificate.

use serde::{Deserialize, Serialize};
use weft_types::{
    ClusterId, NodeId,
    node::{Availability, Role},
};

/// Asks for the root certificate; the caller checks its digest against the join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRequest {}

/// The root certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootReply {
    /// PEM, exactly as the digest in join tokens was made from.
    pub certificate: String,
}

/// Asks for a node certificate: with a token to join, without one to renew (the caller's own
/// certificate then says who it is).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueRequest {
    /// Certificate signing request, PEM. Only its key is used.
    pub csr: String,
    /// Join token; empty to renew.
    pub token: String,
    /// Availability wished by the joining node.
    pub availability: Availability,
    /// Address at which the joining manager's peers reach it (`ip:port`).
    pub advertise_addr: String,
    /// The node that asked to renew, when a manager hands its request on to the leader.
    #[serde(default)]
    pub on_behalf_of: Option<NodeId>,
    /// As what that node's certificate names it.
    #[serde(default)]
    pub certified: Option<Role>,
}

/// A node's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueReply {
    /// Who the node is from now on.
    pub node: NodeId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// In which role.
    pub role: Role,
    /// Certificate chain, PEM.
    pub certificate: String,
    /// Root certificates to trust, PEM.
    pub trust_root: String,
    /// Managers to turn to (`ip:port`), the leader first: the one that was asked may be none any more
    /// when the node opens its first session.
    #[serde(default)]
    pub managers: Vec<String>,
}
