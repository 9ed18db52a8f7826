//! Messages to the other managers.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    alias::{SnapshotMetaOf, SnapshotOf, VoteOf},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::{Code, transport::Channel};
use weft_proto::{
    codec, dial,
    identity::Credentials,
    raft::{RaftCall, RaftMessage},
};

use super::{Member, Types};

/// Bytes of a snapshot in one message.
const CHUNK_BYTES: usize = 1 << 20;

/// How long a peer may take over one chunk; the last one includes installing the whole.
const CHUNK_LIMIT: Duration = Duration::from_secs(30);

/// How long a peer may take to store entries.
const ENTRIES_LIMIT: Duration = Duration::from_secs(5);

/// What every message says: for whom it is. A manager that is not that member refuses it, so that
/// an address that has changed hands cannot mix two members up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Letter<T> {
    pub(super) to: u64,
    pub(super) body: T,
}

/// A piece of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) vote: VoteOf<Types>,
    pub(super) meta: SnapshotMetaOf<Types>,
    /// Where the piece belongs, in bytes.
    pub(super) offset: u64,
    #[serde(with = "serde_bytes")]
    pub(super) data: Vec<u8>,
    /// Nothing comes after it.
    pub(super) last: bool,
}

/// Connections to the other managers, one per address and purpose, shared by all that talk to it.
#[derive(Debug, Clone)]
pub struct Peers {
    credentials: Credentials,
    channels: Arc<Mutex<HashMap<(SocketAddr, Purpose), Channel>>>,
}

/// Entries and votes do not wait behind snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Entries,
    Heartbeats,
    Snapshots,
    Control,
}

impl Peers {
    /// Nobody yet.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            channels: Arc::default(),
        }
    }

    /// A connection for forwarding requests to the manager at `addr`.
    #[must_use]
    pub fn control(&self, addr: SocketAddr) -> Channel {
        self.channel(addr, Purpose::Control)
    }

    fn channel(&self, addr: SocketAddr, purpose: Purpose) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels
            .entry((addr, purpose))
            .or_insert_with(|| dial::connect_lazily(addr, &self.credentials))
            .clone()
    }

    fn peer(&self, target: u64, member: &Member, purpose: Purpose) -> Peer {
        let channel = member
            .addr
            .parse()
            .map(|addr| self.channel(addr, purpose))
            .map_err(|_| dial::DialError::Address(member.addr.clone()).to_string());
        Peer { target, channel }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        self.peer(target, member, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Peer {
        self.peer(target, member, Purpose::Heartbeats)
    }

    async fn new_snapshot_client(&mut self, target: u64, member: &Member) -> Peer {
        self.peer(target, member, Purpose::Snapshots)
    }
}

/// One other manager.
#[derive(Debug)]
pub struct Peer {
    target: u64,
    channel: Result<Channel, String>,
}

impl Peer {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: RaftCall,
        body: Q,
        limit: Duration,
    ) -> Result<A, RPCError<Types>> {
        let unreachable = |cause: String| RPCError::Unreachable(Unreachable::from_string(cause));
        let channel = self.channel.clone().map_err(unreachable)?;
        let letter = Letter {
            to: self.target,
            body,
        };
        let body =
            codec::encode(&letter).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let mut client = dial::raft(channel);
        let answer = client.message(RaftMessage { call, body });
        let answer = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => answer.into_inner(),
            // Refusals of the other end will be the same at once: wait as if it were away.
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => {
                return Err(RPCError::Network(NetworkError::new(&status)));
            }
            Ok(Err(status)) => return Err(unreachable(status.to_string())),
            Err(_) => {
                let cause = format!("no answer in {} ms", limit.as_millis());
                return Err(RPCError::Network(NetworkError::from_string(cause)));
            }
        };
        codec::decode(&answer.body).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // Only a heartbeat is about time; entries take what their size takes, and heartbeats go
        // their own way meanwhile.
        let limit = if request.entries.is_empty() {
            option.soft_ttl()
        } else {
            ENTRIES_LIMIT
        };
        self.ask(RaftCall::AppendEntries, request, limit).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(RaftCall::Vote, request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(RaftCall::PreVote, request, option.soft_ttl())
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut cancel = std::pin::pin!(cancel);
        let SnapshotOf::<Types, Bytes> { meta, snapshot } = snapshot;
        let mut offset = 0;
        loop {
            let end = snapshot.len().min(offset + CHUNK_BYTES);
            let chunk = Chunk {
                vote,
                meta: meta.clone(),
                offset: offset as u64,
                data: snapshot.slice(offset..end).to_vec(),
                last: end == snapshot.len(),
            };
            let last = chunk.last;
            let answer: SnapshotResponse<Types> = tokio::select! {
                answer = self.ask(RaftCall::Snapshot, chunk, CHUNK_LIMIT) => answer?,
                closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            };
            if last || answer.vote != vote {
                return Ok(answer);
            }
            offset = end;
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.ask(RaftCall::TransferLeader, request, option.soft_ttl())
            .await
    }
}

/// A letter that could not be read.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Letter<T>> {
    codec::decode(bytes).map_err(io::Error::other)
}
