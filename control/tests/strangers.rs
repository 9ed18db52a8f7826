//! Who calls with words that mean nothing, or in a role that is not its own, is told so, and
//! nothing changes.

mod cluster;

use bytes::{Buf, BufMut};
use cluster::*;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use weft_proto::{
    ControlApi, ControlRequest, LogSelector,
    ca::IssueRequest,
    codec, dial,
    raft::{JoinRequest, LeaveRequest, RaftCall, RaftMessage},
    service::CALLS,
};
use weft_types::NodeId;

/// Bodies as they come, whatever they mean.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

async fn refusal(channel: &Channel, call: &'static str, body: Vec<u8>) -> Status {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    let path = PathAndQuery::from_static(call);
    let answer = client.unary(Request::new(body), path, Raw).await;
    answer.expect_err("it means nothing")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_mean_nothing_are_refused_on_every_call() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let before = settled(&manager).await;
    let channel = connected(host.addr, &host.credentials()).await;
    // A real request that breaks off, another type's words, and bytes that are no words at all.
    let leave = LeaveRequest {
        node: host.credentials().identity().node,
    };
    let whole = codec::encode(&leave).expect("written");
    let bodies = [
        whole[..whole.len() - 3].to_vec(),
        codec::encode(&vec![1, 2, 3]).expect("written"),
        vec![0xc1; 100],
        Vec::new(),
    ];
    // Anybody may ask for the root, in whatever words; a session is told one after the other.
    let others = ["/weft.v1.Ca/Root", "/weft.v1.Dispatcher/Session"];
    for call in CALLS.iter().filter(|call| !others.contains(call)) {
        for body in &bodies {
            let refused = refusal(&channel, call, body.clone()).await;
            assert_eq!(refused.code(), Code::InvalidArgument, "{call}: {refused}");
            let words = refused.message();
            assert!(words.starts_with("cannot decode: "), "{call}: {words}");
        }
    }
    let unknown = refusal(&channel, "/weft.v1.Control/Reboot", whole).await;
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown}");
    assert_eq!(settled(&manager).await, before);
    assert!(manager.standing().await.leads, "it leads no more");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_told_on_every_call_that_it_is_no_manager() {
    let host = Host::new();
    let (manager, credentials) = with_worker(&host).await;
    let before = settled(&manager).await;
    let node = credentials.identity().node;
    let channel = connected(host.addr, &credentials).await;
    let remove = ControlRequest::RemoveNode {
        node: node.to_string(),
        force: true,
    };
    let worker = format!("node {node} is a worker; this call is for managers");
    let own =
        format!("node {node} may ask this only for itself, and only about attachments of its own");
    for call in CALLS {
        let (body, words) = match *call {
            "/weft.v1.Control/Call" => (codec::encode(&remove), &worker),
            "/weft.v1.Control/Logs" => (codec::encode(&LogSelector::default()), &worker),
            "/weft.v1.Raft/Message" => {
                let message = RaftMessage {
                    call: RaftCall::Vote,
                    body: Vec::new(),
                };
                (codec::encode(&message), &worker)
            }
            "/weft.v1.Raft/Join" => {
                let join = JoinRequest {
                    node,
                    addr: "127.0.0.1:2377".to_owned(),
                };
                (codec::encode(&join), &worker)
            }
            "/weft.v1.Raft/Leave" => {
                let leave = LeaveRequest {
                    node: host.credentials().identity().node,
                };
                (codec::encode(&leave), &worker)
            }
            "/weft.v1.Dispatcher/Ask" => (codec::encode(&remove), &own),
            // A worker's own: it gets no certificate but for itself, and says nothing of others.
            "/weft.v1.Dispatcher/Session" | "/weft.v1.Ca/Root" | "/weft.v1.Ca/Issue" => continue,
            new => panic!("say who may call {new}"),
        };
        let refused = refusal(&channel, call, body.expect("written")).await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{call}: {refused}");
        assert_eq!(refused.message(), words, "{call}");
    }
    assert_eq!(settled(&manager).await, before);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_poses_as_a_manager_is_talked_to_by_nobody() {
    let host = Host::new();
    let (manager, credentials) = with_worker(&host).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let poses = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a caller");
        let acceptor = TlsAcceptor::from(credentials.server_config());
        acceptor.accept(stream).await.is_ok()
    });
    let refused = dial::connect(addr, &host.credentials()).await;
    let refused = refused.expect_err("it is no manager").to_string();
    assert!(refused.contains("swarm-manager"), "{refused}");
    assert!(!poses.await.expect("an end"), "it was believed");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_nobody_here() {
    log_to_stderr();
    let (host, elsewhere) = (Host::new(), Host::new());
    let manager = host.init().await;
    let other = elsewhere.init().await;
    let before = settled(&manager).await;
    let refused = dial::connect(host.addr, &elsewhere.credentials()).await;
    let refused = refused.expect_err("a stranger").to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    // Its token names another root: it is not sent to whoever answers.
    let token = cluster_of(&other).await.join_tokens.worker;
    let wish = dial::JoinWish {
        token,
        availability: Default::default(),
        advertise_addr: String::new(),
    };
    let refused = dial::join(host.addr, &wish).await.expect_err("a stranger");
    let words = refused.to_string();
    assert!(
        words.contains("remote CA does not match fingerprint"),
        "{words}"
    );
    // Without a certificate and with no token at all.
    let channel = connected(host.addr, &host.credentials()).await;
    let (_, csr) = dial::new_key().expect("a key");
    let ask = IssueRequest {
        csr: csr.replace('A', "B"),
        token: String::new(),
        availability: Default::default(),
        advertise_addr: String::new(),
        on_behalf_of: Some(NodeId::numbered(77)),
        certified: None,
    };
    let body = codec::encode(&ask).expect("written");
    let refused = refusal(&channel, "/weft.v1.Ca/Issue", body).await;
    assert!(!refused.message().is_empty(), "{refused}");
    assert_eq!(settled(&manager).await, before);
    other.shutdown().await;
    manager.shutdown().await;
}
