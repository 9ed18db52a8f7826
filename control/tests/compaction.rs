//! The log is kept short by itself.

mod cluster;

use cluster::*;
use weft_control::{
    raft::{LogStore, Machine, Seal},
    runtime::Manager,
};
use weft_proto::{ControlApi, ControlRequest};
use weft_types::secret::{Base64, ConfigSpec};

/// Entries between snapshots, and behind one.
const EVERY: u64 = 40;
const BEHIND: u64 = 5;

/// How many configs are written after a snapshot is due for the first time.
const MORE: usize = 60;

async fn write(manager: &Manager, name: String) {
    let config = ConfigSpec {
        name,
        data: Base64(b"text".to_vec()),
        ..ConfigSpec::default()
    };
    let made = manager
        .call(ControlRequest::CreateConfig(Box::new(config)))
        .await;
    made.expect("a config");
}

/// How many configs the snapshot of a stopped manager holds, and how many entries its log.
fn kept(host: &Host) -> (usize, usize) {
    let directory = host.path().join("raft");
    let seal = Seal::open(&directory).expect("a key");
    let log = LogStore::open(&directory, seal.clone()).expect("a log");
    let machine = Machine::open(&directory, seal).expect("a snapshot");
    let view = machine.replica().view();
    (view.configs().count(), log.entries().expect("read").len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cut_by_itself_and_who_joins_later_catches_up_by_snapshot() {
    log_to_stderr();
    let host = Host::new();
    let (config, mut init) = host.to_init();
    init.spec.raft.snapshot_interval = Some(EVERY);
    init.spec.raft.log_entries_for_slow_followers = Some(BEHIND);
    let manager = Manager::bootstrap(config, init).await.expect("init");
    for number in 0..MORE {
        write(&manager, format!("c{number}")).await;
    }
    eventually("a log that was cut", || async {
        (manager.log_entries() < EVERY + BEHIND).then_some(())
    })
    .await;

    // Whoever joins makes no snapshot of its own from here on: what it has, it was sent.
    let mut cluster = cluster_of(&manager).await;
    cluster.spec.raft.snapshot_interval = Some(1_000_000);
    let update = ControlRequest::UpdateCluster {
        version: cluster.meta.version.index,
        spec: Box::new(cluster.spec),
        rotate_worker_token: false,
        rotate_manager_token: false,
        rotate_unlock_key: false,
    };
    manager.call(update).await.expect("an update");
    let second = Host::new();
    let token = cluster.join_tokens.manager;
    let joined = second.join_manager(host.addr, &token).await;
    assert_eq!(configs(&joined).await.len(), MORE);
    joined.shutdown().await;
    manager.shutdown().await;
    let (configs, entries) = kept(&second);
    assert!(configs > 0, "it was sent no snapshot");
    assert!(entries < MORE, "it was sent {entries} entries");
    // Started again, both are what they were.
    assert!(kept(&host).0 > 0, "the snapshot is gone");
    let manager = host.restart().await;
    let joined = second.restart().await;
    assert_eq!(self::configs(&joined).await.len(), MORE);
    assert_eq!(self::configs(&manager).await.len(), MORE);
    joined.shutdown().await;
    manager.shutdown().await;
}
