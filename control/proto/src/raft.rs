//! Between managers.

use serde::{Deserialize, Serialize};
use weft_types::NodeId;

/// A message of the consensus engine, opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMessage {
    /// Which call.
    pub call: RaftCall,
    /// Its body, as the consensus room encodes it.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Calls between consensus engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftCall {
    /// Entries, or a heartbeat.
    AppendEntries,
    /// A candidate's plea.
    Vote,
    /// A candidate's question before its plea.
    PreVote,
    /// One chunk of a snapshot.
    Snapshot,
    /// The leader hands over.
    TransferLeader,
}

/// A manager wants to be a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who.
    pub node: NodeId,
    /// `ip:port` at which peers reach it.
    pub addr: String,
}

/// A manager is to be a member no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveRequest {
    /// Who.
    pub node: NodeId,
}

/// The members after the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReply {
    /// Node and address.
    pub members: Vec<(NodeId, String)>,
    /// Raft id of the one that asked.
    pub raft_id: u64,
}
