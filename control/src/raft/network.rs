//! Messages to the other managers.

use std::{
    collections::HashMap,
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    EntryPayload, RaftNetworkFactory, RaftNetworkV2,
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

use super::{Image, Member, Types};

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
    /// Sends a short letter and waits for the answer.
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: RaftCall,
        body: Q,
        limit: Duration,
    ) -> Result<A, RPCError<Types>> {
        let letter = Letter {
            to: self.target,
            body,
        };
        let body = codec::encode(&letter).map_err(|error| lost(&error))?;
        self.send(call, body, limit).await
    }

    /// As [`Peer::ask`], for letters that may be long.
    async fn ask_much<Q: Serialize + Send + 'static, A: DeserializeOwned>(
        &self,
        call: RaftCall,
        body: Q,
        limit: Duration,
    ) -> Result<A, RPCError<Types>> {
        let letter = Letter {
            to: self.target,
            body,
        };
        let body = beside(move || codec::encode(&letter))
            .await
            .map_err(|error| lost(&error))?;
        self.send(call, body, limit).await
    }

    async fn send<A: DeserializeOwned>(
        &self,
        call: RaftCall,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<A, RPCError<Types>> {
        let unreachable = |cause: String| RPCError::Unreachable(Unreachable::from_string(cause));
        let mut client = dial::raft(self.channel.clone().map_err(unreachable)?);
        let answer = client.message(RaftMessage { call, body });
        let answer = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => answer.into_inner(),
            // Refusals of the other end will be the same at once: wait as if it were away.
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => {
                return Err(lost(&status));
            }
            Ok(Err(status)) => return Err(unreachable(status.to_string())),
            Err(_) => {
                let cause = format!("no answer in {} ms", limit.as_millis());
                return Err(RPCError::Network(NetworkError::from_string(cause)));
            }
        };
        codec::decode(&answer.body).map_err(|error| lost(&error))
    }
}

fn lost<E: Error + 'static>(error: &E) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // Only a heartbeat is about time; entries take what their size takes, and heartbeats go
        // their own way meanwhile.
        if request.entries.is_empty() {
            let limit = option.hard_ttl();
            return self.ask(RaftCall::AppendEntries, request, limit).await;
        }
        let changes = request.entries.iter().map(|entry| match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.0.changes.len(),
            _ => 1,
        });
        if changes.sum::<usize>() < MANY {
            self.ask(RaftCall::AppendEntries, request, ENTRIES_LIMIT)
                .await
        } else {
            self.ask_much(RaftCall::AppendEntries, request, ENTRIES_LIMIT)
                .await
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(RaftCall::Vote, request, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(RaftCall::PreVote, request, option.hard_ttl())
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Image>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut cancel = std::pin::pin!(cancel);
        let SnapshotOf::<Types, Image> { meta, snapshot } = snapshot;
        let snapshot = snapshot.bytes;
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
                answer = self.ask_much(RaftCall::Snapshot, chunk, CHUNK_LIMIT) => answer?,
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

/// Changes above which a letter is written beside the other work.
const MANY: usize = 32;

/// Bytes above which a letter is read beside the other work.
const LARGE: usize = 64 << 10;

/// Does `work` on a thread that serves nobody: heartbeats do not wait behind megabytes.
async fn beside<T: Send + 'static, E: Into<Box<dyn Error + Send + Sync>>>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(move || work().map_err(io::Error::other))
        .await
        .map_err(io::Error::other)?
}

/// The letter that `bytes` spell.
pub(super) async fn read<T: DeserializeOwned + Send + 'static>(
    bytes: Vec<u8>,
) -> io::Result<Letter<T>> {
    if bytes.len() < LARGE {
        return codec::decode(&bytes).map_err(io::Error::other);
    }
    beside(move || codec::decode(&bytes)).await
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn letter(bytes: usize) -> Vec<u8> {
        let body = vec![7u64; bytes];
        codec::encode(&Letter { to: 1, body }).unwrap()
    }

    #[tokio::test]
    async fn a_large_letter_is_not_read_where_heartbeats_are_served() {
        // What is done in place is done at the first look.
        let short = read::<Vec<u64>>(letter(100)).now_or_never();
        assert_eq!(short.expect("read in place").unwrap().body.len(), 100);
        assert!(read::<Vec<u64>>(letter(LARGE)).now_or_never().is_none());
        let long = read::<Vec<u64>>(letter(LARGE)).await.unwrap();
        assert_eq!(long.body.len(), LARGE);
        let mut cut = letter(LARGE);
        cut.pop();
        assert!(read::<Vec<u64>>(cut).await.is_err());
    }
}
