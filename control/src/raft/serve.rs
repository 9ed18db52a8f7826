//! Messages from the other managers.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use openraft::{
    alias::{SnapshotMetaOf, SnapshotOf, VoteOf},
    raft::SnapshotResponse,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use weft_proto::{
    codec,
    raft::{RaftCall, RaftMessage},
};

use super::{
    Image, Raft, Types,
    network::{Chunk, Letter, read},
};

/// A message that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It does not parse.
    #[error("consensus message {call:?} cannot be read: {cause}")]
    Malformed {
        /// Which call.
        call: RaftCall,
        /// Why.
        cause: String,
    },
    /// It is for somebody else.
    #[error("consensus message for member {to}, this is member {here}")]
    NotMine {
        /// For whom.
        to: u64,
        /// Who this is.
        here: u64,
    },
    /// A piece of a snapshot that does not follow the last one.
    #[error("snapshot chunk at byte {got}, expected byte {expected}")]
    OutOfOrder {
        /// Where the piece belongs.
        got: u64,
        /// Which was due.
        expected: u64,
    },
    /// The engine has stopped.
    #[error("consensus has stopped: {0}")]
    Stopped(String),
}

/// A snapshot that is still arriving.
#[derive(Debug)]
struct Arriving {
    vote: VoteOf<Types>,
    meta: SnapshotMetaOf<Types>,
    data: Vec<u8>,
}

/// Takes messages for this member.
#[derive(Clone)]
pub struct Inbox {
    raft: Raft,
    arriving: Arc<Mutex<Option<Arriving>>>,
    /// When a leader was last heard of.
    heard: Arc<std::sync::Mutex<Instant>>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({})", self.raft.node_id())
    }
}

impl Inbox {
    /// The inbox of `raft`.
    #[must_use]
    pub fn new(raft: Raft) -> Self {
        Self {
            raft,
            arriving: Arc::default(),
            heard: Arc::new(std::sync::Mutex::new(Instant::now())),
        }
    }

    /// Answers one message.
    ///
    /// # Errors
    /// When it is malformed, for another member, or the engine has stopped.
    pub async fn take(&self, message: RaftMessage) -> Result<RaftMessage, ServeError> {
        let call = message.call;
        let stopped = |error: String| ServeError::Stopped(error);
        let body = match call {
            RaftCall::AppendEntries => {
                let entries = self.open(message).await?;
                self.hear();
                let answer = self.raft.append_entries(entries).await;
                encode(call, &answer.map_err(|error| stopped(error.to_string()))?)
            }
            RaftCall::Vote => {
                let answer = self.raft.vote(self.open(message).await?).await;
                encode(call, &answer.map_err(|error| stopped(error.to_string()))?)
            }
            RaftCall::PreVote => {
                let answer = self.raft.pre_vote(self.open(message).await?).await;
                encode(call, &answer.map_err(|error| stopped(error.to_string()))?)
            }
            RaftCall::TransferLeader => {
                let answer = self
                    .raft
                    .handle_transfer_leader(self.open(message).await?)
                    .await;
                encode(call, &answer.map_err(|error| stopped(error.to_string()))?)
            }
            RaftCall::Snapshot => {
                let chunk: Chunk = self.open(message).await?;
                self.hear();
                encode(call, &self.piece(chunk).await?)
            }
        }?;
        Ok(RaftMessage { call, body })
    }

    /// How long no leader has been heard of. The engine itself remembers a leader until there is
    /// another one.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.elapsed()
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn open<T: DeserializeOwned + Send + 'static>(
        &self,
        message: RaftMessage,
    ) -> Result<T, ServeError> {
        let call = message.call;
        let letter: Letter<T> =
            read(message.body)
                .await
                .map_err(|error| ServeError::Malformed {
                    call,
                    cause: error.to_string(),
                })?;
        let here = *self.raft.node_id();
        if letter.to != here {
            return Err(ServeError::NotMine {
                to: letter.to,
                here,
            });
        }
        Ok(letter.body)
    }

    /// Takes one piece of a snapshot; installs the whole with the last.
    async fn piece(&self, chunk: Chunk) -> Result<SnapshotResponse<Types>, ServeError> {
        let mut slot = self.arriving.lock().await;
        if chunk.offset == 0 {
            *slot = Some(Arriving {
                vote: chunk.vote,
                meta: chunk.meta.clone(),
                data: Vec::new(),
            });
        }
        let expected = match slot.as_mut() {
            Some(arriving) if arriving.vote == chunk.vote && arriving.meta == chunk.meta => {
                let expected = arriving.data.len() as u64;
                if chunk.offset == expected {
                    arriving.data.extend_from_slice(&chunk.data);
                    None
                } else {
                    Some(expected)
                }
            }
            _ => Some(0),
        };
        if let Some(expected) = expected {
            *slot = None;
            return Err(ServeError::OutOfOrder {
                got: chunk.offset,
                expected,
            });
        }
        if !chunk.last {
            return Ok(SnapshotResponse::new(chunk.vote));
        }
        let Some(whole) = slot.take() else {
            return Ok(SnapshotResponse::new(chunk.vote));
        };
        drop(slot);
        // The engine would stop for good over a snapshot that cannot be installed.
        let image = tokio::task::spawn_blocking(move || Image::read(Bytes::from(whole.data)))
            .await
            .map_err(|error| ServeError::Stopped(error.to_string()))?
            .map_err(|error| ServeError::Malformed {
                call: RaftCall::Snapshot,
                cause: error.to_string(),
            })?;
        let snapshot = SnapshotOf::<Types, Image> {
            meta: whole.meta,
            snapshot: image,
        };
        self.raft
            .install_full_snapshot(whole.vote, snapshot)
            .await
            .map_err(|error| ServeError::Stopped(error.to_string()))
    }
}

fn encode<T: Serialize>(call: RaftCall, answer: &T) -> Result<Vec<u8>, ServeError> {
    codec::encode(answer).map_err(|error| ServeError::Malformed {
        call,
        cause: error.to_string(),
    })
}
