//! A manager whose disk is full: it says so and stops, nothing is half there, and with space again
//! it goes on. The disk is a small one in memory.

mod cluster;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use cluster::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use weft_control::runtime::Manager;
use weft_proto::{ControlApi, ControlReply, ControlRequest};
use weft_types::secret::{Base64, ConfigSpec};

/// A disk of a few megabytes, gone with its owner.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path) -> Self {
        let size = Some("size=8m,mode=700");
        mount(Some("weft-test"), at, Some("tmpfs"), MsFlags::empty(), size).expect("a disk");
        Self(at.to_owned())
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("ballast")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A manager that failed in the test may still have its files open.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn config(name: &str) -> ControlRequest {
    ControlRequest::CreateConfig(Box::new(ConfigSpec {
        name: name.to_owned(),
        data: Base64(vec![b'x'; 100_000]),
        ..ConfigSpec::default()
    }))
}

/// Writes until the disk takes no more; what was acknowledged, and what was said of the last write.
async fn write_to_the_brim(manager: &Manager) -> (Vec<String>, String) {
    let mut acknowledged = Vec::new();
    for number in 0..1000 {
        let name = format!("c{number}");
        match manager.call(config(&name)).await {
            Ok(ControlReply::Created(_)) => acknowledged.push(name),
            Ok(other) => panic!("not created: {other:?}"),
            Err(refusal) => return (acknowledged, refusal.message),
        }
    }
    panic!("a full disk took 100 MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_nothing_acknowledged_is_lost() {
    log_to_stderr();
    let place = tempfile::tempdir().expect("a place");
    let disk = Disk::new(place.path());
    let host = Host::within(place.path());
    let manager = host.init().await;
    manager.call(config("before")).await.expect("room");
    disk.fill();
    let (acknowledged, refusal) = write_to_the_brim(&manager).await;
    // Refused by the log itself, or by the manager that has noticed a moment earlier.
    assert!(
        refusal.contains("may or may not have been done")
            || refusal.contains("the manager has stopped, because its log cannot be kept"),
        "{refusal}"
    );
    let why = tokio::time::timeout(LIMIT, manager.failed())
        .await
        .expect("it says that it has stopped");
    assert!(why.contains("No space left on device"), "{why}");
    assert_eq!(manager.standing().await.error, why);
    assert!(!manager.standing().await.leads);
    let refusal = manager.call(ControlRequest::ListConfigs).await;
    assert!(refusal.is_err(), "{refusal:?}");
    manager.shutdown().await;

    // Without space it does not start, and says why; with space all is as it was acknowledged.
    let refusal = Manager::restart(host.config(), host.credentials()).await;
    if let Err(error) = refusal {
        assert!(error.to_string().contains("No space left"), "{error}");
    } else if let Ok(again) = refusal {
        // There may be room for what it writes at its start.
        again.shutdown().await;
    }
    disk.clear();
    let manager = host.restart().await;
    let known = configs(&manager).await;
    for name in acknowledged.iter().map(String::as_str).chain(["before"]) {
        assert!(known.iter().any(|known| known == name), "{name} is lost");
    }
    assert!(known.len() <= acknowledged.len() + 2, "{known:?}");
    manager.call(config("after")).await.expect("room again");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_without_the_manager_whose_disk_is_full() {
    log_to_stderr();
    let place = tempfile::tempdir().expect("a place");
    let disk = Disk::new(place.path());
    let full = Host::within(place.path());
    let others = [Host::new(), Host::new()];
    // The one with the small disk makes the cluster, so it leads.
    let first = full.init().await;
    let token = cluster_of(&first).await.join_tokens.manager;
    let mut managers: Vec<Arc<Manager>> = Vec::new();
    for other in &others {
        managers.push(other.join_manager(full.addr, &token).await);
    }
    disk.fill();
    let (acknowledged, _) = write_to_the_brim(&first).await;
    let why = tokio::time::timeout(LIMIT, first.failed())
        .await
        .expect("it says that it has stopped");
    assert!(why.contains("No space left on device"), "{why}");
    let written = eventually("a write through the others", || async {
        managers[0].call(config("after")).await.ok()
    })
    .await;
    assert!(matches!(written, ControlReply::Created(_)), "{written:?}");
    for manager in &managers {
        let known = configs(manager).await;
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|name| !known.contains(name))
            .collect();
        assert!(lost.is_empty(), "acknowledged writes are lost: {lost:?}");
    }
    first.shutdown().await;
    disk.clear();
    let again = full.restart().await;
    eventually("the one that was full to know the rest", || async {
        configs(&again)
            .await
            .contains(&"after".to_owned())
            .then_some(())
    })
    .await;
    again.shutdown().await;
    for manager in managers {
        manager.shutdown().await;
    }
}
