//! A locked manager starts only with the unlock key.

mod cluster;

use cluster::*;
use weft_control::{
    raft::{KeyError, Seal},
    runtime::{Manager, StartError},
};
use weft_proto::{ControlApi, ControlReply, ControlRequest};

async fn lock(manager: &Manager, locks: bool) {
    let cluster = cluster_of(manager).await;
    let mut spec = cluster.spec;
    spec.encryption_config.auto_lock_managers = locks;
    let update = ControlRequest::UpdateCluster {
        version: cluster.meta.version.index,
        spec: Box::new(spec),
        rotate_worker_token: false,
        rotate_manager_token: false,
        rotate_unlock_key: false,
    };
    manager.call(update).await.expect("an update");
}

async fn is_locked(host: &Host, locked: bool) {
    let directory = host.path().join("raft");
    eventually("the key file to change", || async {
        (Seal::is_locked(&directory).ok()? == locked).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_manager_starts_only_with_the_unlock_key() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    lock(&manager, true).await;
    let Ok(ControlReply::Key(key)) = manager.call(ControlRequest::GetUnlockKey).await else {
        panic!("no key");
    };
    is_locked(&host, true).await;
    manager.shutdown().await;

    let refusal = Manager::start(host.config(), host.credentials(), vec![]).await;
    assert!(
        matches!(refusal, Err(StartError::Key(KeyError::Locked))),
        "{refusal:?}"
    );
    let wrong = format!("SWMKEY-1-{}", "A".repeat(43));
    let refusal = Manager::unlock(host.config(), host.credentials(), &wrong).await;
    assert!(
        matches!(refusal, Err(StartError::Key(KeyError::WrongUnlockKey))),
        "{refusal:?}"
    );

    let manager = Manager::unlock(host.config(), host.credentials(), &key)
        .await
        .expect("unlocked");
    assert_eq!(nodes(&manager).await.len(), 1);
    lock(&manager, false).await;
    is_locked(&host, false).await;
    manager.shutdown().await;
    host.restart().await.shutdown().await;
}
