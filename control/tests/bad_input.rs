//! What is malformed, replayed, expired, damaged or nobody's business is refused, and changes
//! nothing.

mod cluster;

use std::{fs, path::Path, sync::Arc, time::Duration};

use cluster::*;
use redb::ReadableTable;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use weft_control::{
    ca::{Authority, NodeTitle, Validity},
    raft::{LogStore, Machine, Seal},
    runtime::Manager,
};
use weft_proto::{
    ControlApi, ControlReply, ControlRequest,
    dial::{self, new_key},
    dispatcher::ManagerMessage,
    identity::{Credentials, Identity},
    raft::{JoinRequest, LeaveRequest, RaftCall, RaftMessage},
};
use weft_types::{ClusterId, NodeId, Timestamp, network::NetworkSpec, node::Role};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_and_in_messages_is_refused() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let before = settled(&manager).await;

    for length in [1, 100, 10_000] {
        let mut stream = TcpStream::connect(host.addr).await.expect("a connection");
        let bytes: Vec<u8> = (0..length).map(|_| rand_byte()).collect();
        // The other end may close at any moment.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
    }

    let channel = connected(host.addr, &host.credentials()).await;
    for call in [
        RaftCall::AppendEntries,
        RaftCall::Vote,
        RaftCall::PreVote,
        RaftCall::Snapshot,
        RaftCall::TransferLeader,
    ] {
        for length in [0, 1, 7, 300] {
            let body = (0..length).map(|_| rand_byte()).collect();
            let refusal = dial::raft(channel.clone())
                .message(RaftMessage { call, body })
                .await
                .expect_err("nonsense");
            assert_eq!(
                refusal.code(),
                tonic::Code::InvalidArgument,
                "{call:?}: {refusal}"
            );
        }
    }
    let refusal = dial::raft(channel)
        .join(JoinRequest {
            node: NodeId::numbered(1),
            addr: "nowhere".to_owned(),
        })
        .await
        .expect_err("no address");
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument, "{refusal}");

    assert_eq!(settled(&manager).await, before);
    manager.shutdown().await;
}

fn rand_byte() -> u8 {
    use std::hash::{BuildHasher, Hasher};
    let hasher = std::collections::hash_map::RandomState::new().build_hasher();
    (hasher.finish() & 0xff) as u8
}

/// An identity of a manager that the cluster's own authority signed, as we like it.
async fn forged(
    manager: &Manager,
    host: &Host,
    cluster: ClusterId,
    validity: Validity,
) -> Credentials {
    let root = cluster_of(manager).await.tls_info.trust_root;
    manager.shutdown().await;
    let key = authority_key(host);
    let authority = Authority::from_pem(&root, &key);
    let (key, csr) = new_key().expect("a key");
    let title = NodeTitle {
        node: NodeId::numbered(77),
        cluster,
        role: Role::Manager,
    };
    Credentials::new(Identity {
        node: title.node,
        cluster: title.cluster,
        role: title.role,
        certificate: authority.sign(&csr, title, validity).expect("signed"),
        key,
        trust_root: root,
    })
    .expect("usable")
}

/// The authority's key, out of the store on disk.
fn authority_key(host: &Host) -> String {
    let directory = host.path().join("raft");
    let seal = Seal::open(&directory).expect("a key");
    let log = LogStore::open(&directory, seal).expect("a log");
    let entries = log.entries().expect("entries");
    entries
        .iter()
        .find_map(|entry| match &entry.payload {
            openraft::EntryPayload::Normal(proposal) => {
                proposal.0.changes.iter().find_map(|change| match change {
                    weft_control::store::Change::Put(weft_control::store::Object::Cluster(
                        cluster,
                    )) => Some(cluster.ca_key.clone()),
                    _ => None,
                })
            }
            _ => None,
        })
        .expect("the first commit")
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    Timestamp(i64::try_from(since.as_nanos()).expect("before 2262"))
}

/// A certificate of the manager's own cluster that ended nine days ago; and the manager, started
/// again.
async fn expired(host: &Host) -> (Arc<Manager>, Credentials) {
    let manager = host.init().await;
    let validity = Validity {
        now: Timestamp(now().0 - 10 * 24 * 3600 * 1_000_000_000),
        duration: Duration::from_secs(24 * 3600),
    };
    let cluster = host.credentials().identity().cluster;
    let expired = forged(&manager, host, cluster, validity).await;
    (host.restart().await, expired)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused() {
    log_to_stderr();
    let host = Host::new();
    let (manager, expired) = expired(&host).await;
    let before = settled(&manager).await;
    let refused = dial::connect(host.addr, &expired).await;
    let refused = refused.expect_err("an expired certificate").to_string();
    assert!(refused.contains("CertificateExpired"), "{refused}");
    assert_eq!(settled(&manager).await, before);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_names_another_cluster_is_refused_whoever_signed_it() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let own = host.credentials().identity().cluster;
    let other = ClusterId::numbered(9);
    let validity = Validity {
        now: now(),
        duration: Duration::from_secs(24 * 3600),
    };
    let forged = forged(&manager, &host, other, validity).await;
    let manager = host.restart().await;
    let before = settled(&manager).await;
    let channel = connected(host.addr, &forged).await;
    let leave = LeaveRequest {
        node: host.credentials().identity().node,
    };
    let refusal = dial::raft(channel).leave(leave).await;
    let refusal = refusal.expect_err("a stranger");
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied, "{refusal}");
    let node = forged.identity().node;
    let words = format!("node {node} belongs to cluster {other}, not to {own}");
    assert_eq!(refusal.message(), words);
    assert_eq!(settled(&manager).await, before);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_is_heard_out_and_reads_why() {
    log_to_stderr();
    let host = Host::new();
    let (manager, expired) = expired(&host).await;
    let stream = TcpStream::connect(host.addr).await.expect("a connection");
    let name = ServerName::try_from("swarm-manager").expect("a name");
    let connector = TlsConnector::from(expired.client_config());
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    // More than is read before its certificate is looked at.
    let (line, _) = stream.get_mut();
    line.write_all(&[0; 100_000]).await.expect("taken");
    let refused = stream.read_u8().await.expect_err("an alert").to_string();
    assert!(refused.contains("CertificateExpired"), "{refused}");
    let (mut line, _) = stream.into_inner();
    let rest = line.read(&mut [0]).await.expect("an end and no reset");
    assert_eq!(rest, 0);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_told_so_and_refused() {
    let host = Host::new();
    let (manager, credentials) = with_worker(&host).await;
    let mut agent = Agent::at_work(host.addr, &credentials, "n2").await;
    let request = |force| ControlRequest::RemoveNode {
        node: agent.node.to_string(),
        force,
    };
    let refusal = manager.call(request(false)).await.expect_err("it is ready");
    assert!(
        refusal.message.contains("is not down and can't be removed"),
        "{refusal}"
    );
    manager.call(request(true)).await.expect("removed");
    agent
        .until("word that it was removed", |_, message| {
            matches!(message, ManagerMessage::Removed).then_some(())
        })
        .await;
    // It comes again: told again, and given no certificate.
    let mut again = Agent::open(host.addr, &credentials, "n2").await;
    let answer = again.next().await;
    assert!(
        matches!(answer, Some(ManagerMessage::Removed)),
        "{answer:?}"
    );
    assert!(dial::renew(host.addr, &credentials).await.is_err());
    assert_eq!(nodes(&manager).await.len(), 1);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_on_disk_is_found() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    for number in 0..5 {
        let mut spec = NetworkSpec {
            name: format!("n{number}"),
            ..NetworkSpec::default()
        };
        spec.driver_configuration.name = "overlay".to_owned();
        let made = manager
            .call(ControlRequest::CreateNetwork(Box::new(spec)))
            .await;
        assert!(matches!(made, Ok(ControlReply::Created(_))), "{made:?}");
    }
    manager.compact().await;
    manager.shutdown().await;

    let path = host.path().join("raft/snapshot");
    let whole = fs::read(&path).expect("a snapshot");
    let text = String::from_utf8_lossy(&whole);
    assert!(!text.contains("PRIVATE KEY"), "the snapshot lies open");
    let log = fs::read(host.path().join("raft/log.redb")).expect("a log");
    let text = String::from_utf8_lossy(&log);
    assert!(!text.contains("PRIVATE KEY"), "the log lies open");

    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    fs::write(&path, &damaged).expect("written");
    let error = Manager::restart(host.config(), host.credentials())
        .await
        .expect_err("a damaged snapshot");
    assert!(format!("{error}").contains("damaged"), "{error}");
    fs::write(&path, &whole[..whole.len() - 1]).expect("written");
    assert!(
        Manager::restart(host.config(), host.credentials())
            .await
            .is_err(),
        "a torn snapshot was taken"
    );

    // Whole again, everything is there.
    fs::write(&path, &whole).expect("written");
    let manager = host.restart().await;
    let Ok(ControlReply::Networks(networks)) = manager.call(ControlRequest::ListNetworks).await
    else {
        panic!("no networks");
    };
    assert_eq!(networks.len(), 6);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_record_moved_to_another_place_is_found() {
    let host = Host::new();
    host.init().await.shutdown().await;
    let directory = host.path().join("raft");
    let seal = Seal::open(&directory).expect("a key");
    let entries = || LogStore::open(&directory, seal.clone())?.entries();
    assert!(entries().expect("a whole log").len() > 1);
    exchange_two_records(&directory.join("log.redb"));
    let refused = entries().expect_err("records in each other's place");
    let words = "log entry 0 is damaged: it does not open with the data key";
    assert_eq!(refused.to_string(), words);
}

/// Exchanges the first two records of a log; to the database that is a write like any other.
fn exchange_two_records(path: &Path) {
    let database = redb::Database::open(path).expect("a database");
    let write = database.begin_write().expect("a write");
    {
        let table = redb::TableDefinition::<u64, &[u8]>::new("log");
        let mut log = write.open_table(table).expect("the log");
        let records: Vec<(u64, Vec<u8>)> = log
            .iter()
            .expect("records")
            .take(2)
            .map(|row| row.expect("a record"))
            .map(|(index, record)| (index.value(), record.value().to_vec()))
            .collect();
        let [(first, one), (second, two)] = &records[..] else {
            panic!("{} records", records.len());
        };
        log.insert(first, two.as_slice()).expect("written");
        log.insert(second, one.as_slice()).expect("written");
    }
    write.commit().expect("written");
}

#[test]
fn a_record_of_another_key_is_not_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let seal = Seal::open(directory.path()).expect("a key");
    LogStore::open(directory.path(), seal).expect("a log");
    // Another key does not open it.
    fs::remove_file(directory.path().join("key")).expect("removed");
    let other = Seal::open(directory.path()).expect("a new key");
    let log = LogStore::open(directory.path(), other.clone()).expect("a log");
    log.set_member_number(1).expect("written");
    drop(log);
    fs::remove_file(directory.path().join("key")).expect("removed");
    let third = Seal::open(directory.path()).expect("a new key");
    let log = LogStore::open(directory.path(), third.clone()).expect("a log");
    assert!(
        log.member_number().is_err(),
        "a record of another key was read"
    );
    assert!(Machine::open(directory.path(), third).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_would_cut_the_first_node_off_is_refused() {
    let host = Host::new();
    for (pool, words) in [
        (
            "127.0.0.0/8",
            "invalid default address pool 127.0.0.0/8: no host can have its addresses; name another one",
        ),
        (
            "192.0.2.0/24",
            "invalid default address pool 192.0.2.0/24: it holds 192.0.2.11, by which other nodes reach this one; name another one",
        ),
    ] {
        let (config, mut init) = host.to_init();
        init.default_addr_pool = vec![pool.parse().expect("a pool")];
        init.data_path_addr = "192.0.2.11".parse().ok();
        let refused = Manager::bootstrap(config, init).await;
        assert_eq!(refused.expect_err("a pool").to_string(), words);
    }
    // Nothing is left of that.
    let manager = host.init().await;
    manager.shutdown().await;
}
