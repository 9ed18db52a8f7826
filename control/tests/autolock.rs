//! A locked manager starts only with the unlock key.

mod cluster;

use cluster::*;
use weft_control::{
    raft::{KeyError, Seal},
    runtime::{Manager, StartError},
};
use weft_proto::{ControlApi, ControlReply, ControlRequest, dial};

async fn lock(manager: &Manager, locks: bool) {
    // The manager writes the cluster too: the newest version, until it fits.
    eventually("the update to be taken", || async {
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
        manager.call(update).await.ok()
    })
    .await;
}

async fn is_locked(host: &Host, locked: bool) {
    let directory = host.path().join("raft");
    eventually("the key file to change", || async {
        (Seal::is_locked(&directory).ok()? == locked).then_some(())
    })
    .await;
}

/// Whether the node's private key can be read from disk.
fn lies_open(host: &Host) -> bool {
    let text = std::fs::read_to_string(host.path().join("identity.json")).expect("there");
    text.contains("PRIVATE KEY")
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
    eventually("the node's own key to be locked", || async {
        (!lies_open(&host)).then_some(())
    })
    .await;
    // A renewed certificate's key is locked as well.
    let credentials = manager.credentials();
    let identity = dial::renew(host.addr, &credentials).await.expect("renewed");
    let renewed = identity.certificate.clone();
    credentials.keep(host.path(), identity).expect("kept");
    assert!(!lies_open(&host), "the renewed key lies open");
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

    // Without its key the node proves nothing to anybody.
    let credentials = host.credentials();
    assert_eq!(credentials.identity().certificate, renewed);
    assert!(credentials.identity().key.is_empty());

    let manager = Manager::unlock(host.config(), credentials.clone(), &key)
        .await
        .expect("unlocked");
    assert!(!credentials.identity().key.is_empty());
    dial::connect(host.addr, &credentials)
        .await
        .expect("its own certificate opens");
    assert_eq!(nodes(&manager).await.len(), 1);
    lock(&manager, false).await;
    is_locked(&host, false).await;
    eventually("the node's own key to be open again", || async {
        lies_open(&host).then_some(())
    })
    .await;
    manager.shutdown().await;
    host.restart().await.shutdown().await;
}
