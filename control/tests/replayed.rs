//! Messages of managers that are replayed, meant for somebody else, damaged or out of order: each is
//! refused with the reason, and the state stays as it was.

mod cluster;

use std::sync::Arc;

use cluster::*;
use openraft::{
    Vote,
    alias::{LogIdOf, SnapshotMetaOf, VoteOf},
    entry::RaftEntry,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse},
    vote::RaftLeaderId,
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Code, Status, transport::Channel};
use weft_control::{raft::Types, runtime::Manager, store::Store};
use weft_proto::{
    ControlApi, ControlRequest,
    ca::IssueRequest,
    codec, dial,
    raft::{RaftCall, RaftMessage},
    service::ca_client::CaClient,
};
use weft_types::{
    NodeId,
    node::{NodeSpec, Role},
};

/// What managers write to each other.
#[derive(Serialize)]
struct Letter<T> {
    to: u64,
    body: T,
}

/// A piece of a snapshot, as managers send it.
#[derive(Serialize)]
struct Chunk {
    vote: VoteOf<Types>,
    meta: SnapshotMetaOf<Types>,
    offset: u64,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
    last: bool,
}

async fn send<A: DeserializeOwned>(
    channel: &Channel,
    call: RaftCall,
    to: u64,
    body: impl Serialize,
) -> Result<A, Status> {
    let body = codec::encode(&Letter { to, body }).expect("written");
    let answer = dial::raft(channel.clone())
        .message(RaftMessage { call, body })
        .await?;
    Ok(codec::decode(&answer.into_inner().body).expect("an answer"))
}

/// A manager, a connection to it as a manager has it, and its number as it says itself.
async fn peer(host: &Host) -> (Arc<Manager>, Channel, u64) {
    let manager = host.init().await;
    let channel = connected(host.addr, &host.credentials()).await;
    let request = VoteRequest::<Types>::new(Vote::new(1, 1), None);
    let refusal = send::<VoteResponse<Types>>(&channel, RaftCall::Vote, 1, request)
        .await
        .expect_err("it is somebody else");
    assert_eq!(refusal.code(), Code::NotFound, "{refusal}");
    let text = "consensus message for member 1, this is member ";
    let number = refusal.message().strip_prefix(text).expect("who it is");
    (manager, channel, number.parse().expect("a number"))
}

async fn unchanged(manager: &Manager, before: &[(NodeId, NodeSpec, Role)]) {
    assert_eq!(settled(manager).await, before);
    assert!(manager.standing().await.leads, "it leads no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_a_term_that_is_over_change_nothing() {
    log_to_stderr();
    let host = Host::new();
    let (manager, channel, number) = peer(&host).await;
    let before = settled(&manager).await;

    let old = Vote::new(0, 77);
    let request = VoteRequest::<Types>::new(old, None);
    let answer: VoteResponse<Types> = send(&channel, RaftCall::Vote, number, request)
        .await
        .expect("an answer");
    assert!(!answer.vote_granted, "{answer:?}");

    // An entry of a leader of long ago, for a place in the log that is taken.
    let id = LogIdOf::<Types>::new(RaftLeaderId::new(0, 77), 2);
    let request = AppendEntriesRequest::<Types> {
        vote: Vote::new_committed(0, 77),
        prev_log_id: None,
        entries: vec![RaftEntry::new_blank(id)],
        leader_commit: Some(id),
    };
    for _ in 0..2 {
        let answer: AppendEntriesResponse<Types> =
            send(&channel, RaftCall::AppendEntries, number, request.clone())
                .await
                .expect("an answer");
        assert!(
            matches!(answer, AppendEntriesResponse::HigherVote(_)),
            "{answer:?}"
        );
    }
    unchanged(&manager, &before).await;
    manager.shutdown().await;
    let manager = host.restart().await;
    assert_eq!(settled(&manager).await, before);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_and_the_manager_lives() {
    log_to_stderr();
    let host = Host::new();
    let (manager, channel, number) = peer(&host).await;
    let before = settled(&manager).await;
    let piece = |offset, data: &[u8], last| Chunk {
        // The words of a leader to come: only the damage may keep it from being believed.
        vote: Vote::new_committed(1000, 77),
        meta: SnapshotMetaOf::<Types>::default(),
        offset,
        data: data.to_vec(),
        last,
    };
    let ask = async |chunk: Chunk| {
        send::<openraft::raft::SnapshotResponse<Types>>(&channel, RaftCall::Snapshot, number, chunk)
            .await
    };

    let refusal = ask(piece(5, b"rest", true))
        .await
        .expect_err("no beginning");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert_eq!(
        refusal.message(),
        "snapshot chunk at byte 5, expected byte 0"
    );
    ask(piece(0, b"abc", false)).await.expect("a beginning");
    let refusal = ask(piece(7, b"rest", true)).await.expect_err("a gap");
    assert_eq!(
        refusal.message(),
        "snapshot chunk at byte 7, expected byte 3"
    );

    let whole = Store::new().snapshot().expect("a snapshot");
    let mut flipped = whole.clone();
    flipped[0] ^= 0x10;
    for damaged in [&whole[..whole.len() - 1], &flipped[..], b""] {
        let refusal = ask(piece(0, damaged, true)).await.expect_err("damaged");
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        assert!(
            refusal.message().contains("snapshot is not readable"),
            "{refusal}"
        );
    }
    unchanged(&manager, &before).await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_gets_no_certificate_in_anothers_name() {
    let host = Host::new();
    let (manager, credentials) = with_worker(&host).await;
    let channel = connected(host.addr, &credentials).await;
    let (_, csr) = dial::new_key().expect("a key");
    let reply = CaClient::new(channel)
        .issue(IssueRequest {
            csr,
            token: String::new(),
            availability: Default::default(),
            advertise_addr: String::new(),
            on_behalf_of: Some(host.credentials().identity().node),
            certified: None,
        })
        .await
        .expect("a certificate")
        .into_inner();
    assert_eq!(reply.node, credentials.identity().node);
    assert_eq!(reply.role, Role::Worker);
    let _ = manager.call(ControlRequest::ListNodes).await;
    manager.shutdown().await;
}
