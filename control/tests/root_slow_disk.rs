//! A leader whose disk blocks for seconds: service goes on with the others, nothing that was
//! acknowledged is lost, and the manager names its disk. The disk is a file system in a file, and is
//! frozen.

mod cluster;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::*;
use weft_control::runtime::Manager;
use weft_proto::{ControlApi, ControlReply, ControlRequest};
use weft_types::secret::{Base64, ConfigSpec};

/// How long the disk takes no write: longer than a leader may be silent.
const FROZEN: Duration = Duration::from_secs(4);

fn run(program: &str, words: &[&str]) {
    let ended = Command::new(program).args(words).output();
    let ended = ended.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {words:?}: {said}");
}

/// A small disk of its own, gone with its owner.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &Path) -> Self {
        let (file, at) = (place.join("disk"), place.join("mounted"));
        std::fs::create_dir(&at).expect("a folder");
        let path = |path: &Path| path.display().to_string();
        let bytes = std::fs::File::create(&file).expect("a file");
        bytes.set_len(64 << 20).expect("its length");
        run("mkfs.ext4", &["-q", &path(&file)]);
        run("mount", &["-o", "loop", &path(&file), &path(&at)]);
        Self(at)
    }

    /// Every write waits until [`Disk::thaw`].
    fn freeze(&self) {
        run("fsfreeze", &["--freeze", &self.0.display().to_string()]);
    }

    fn thaw(&self) {
        run("fsfreeze", &["--unfreeze", &self.0.display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // One that is not frozen refuses to thaw; a manager that failed may still hold its files.
        let _ = Command::new("fsfreeze")
            .arg("--unfreeze")
            .arg(&self.0)
            .output();
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

fn config(name: &str) -> ControlRequest {
    ControlRequest::CreateConfig(Box::new(ConfigSpec {
        name: name.to_owned(),
        data: Base64(b"text".to_vec()),
        ..ConfigSpec::default()
    }))
}

async fn configs(manager: &Manager) -> Option<Vec<String>> {
    match manager.call(ControlRequest::ListConfigs).await {
        Ok(ControlReply::Configs(configs)) => {
            Some(configs.into_iter().map(|config| config.spec.name).collect())
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_stands_still_loses_no_acknowledged_write() {
    log_to_stderr();
    let place = tempfile::tempdir().expect("a place");
    let disk = Disk::new(place.path());
    let slow = Host::within(&disk.0);
    let others = [Host::new(), Host::new()];
    // The one with the slow disk makes the cluster, so it leads.
    let first = slow.init().await;
    let token = cluster_of(&first).await.join_tokens.manager;
    let mut managers: Vec<Arc<Manager>> = Vec::new();
    for other in &others {
        managers.push(other.join_manager(slow.addr, &token).await);
    }
    assert!(first.standing().await.leads);

    // Writers at every manager, before, while and after the disk stands still.
    let stands_still = Arc::new(AtomicBool::new(false));
    let (ends, meanwhile) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut writers = Vec::new();
    for (number, manager) in managers.iter().chain([&first]).enumerate() {
        let manager = Arc::clone(manager);
        let (stands_still, ends, meanwhile) = (
            Arc::clone(&stands_still),
            Arc::clone(&ends),
            Arc::clone(&meanwhile),
        );
        writers.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut write = 0;
            while !ends.load(Ordering::Relaxed) {
                let name = format!("w{number}-{write}");
                write += 1;
                let is_meanwhile = stands_still.load(Ordering::Relaxed);
                if manager.call(config(&name)).await.is_ok() {
                    acknowledged.push(name);
                    let counts = is_meanwhile && stands_still.load(Ordering::Relaxed);
                    meanwhile.fetch_add(usize::from(counts), Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            acknowledged
        }));
    }
    eventually("a first write", || async {
        let known = configs(&managers[0]).await?;
        (!known.is_empty()).then_some(())
    })
    .await;
    disk.freeze();
    stands_still.store(true, Ordering::Relaxed);
    tokio::time::sleep(FROZEN).await;
    eventually("a write while one disk of three stands still", || async {
        (meanwhile.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    // A busy machine's disk may have been slow by itself, yet not for so long.
    eventually("the slow disk to be named", || async {
        first.slow_disk().filter(|took| *took > FROZEN / 2)
    })
    .await;
    stands_still.store(false, Ordering::Relaxed);
    disk.thaw();
    let before = configs(&managers[0]).await.map_or(0, |known| known.len());
    eventually("writes with all disks at work again", || async {
        (configs(&managers[0]).await?.len() > before + 10).then_some(())
    })
    .await;
    ends.store(true, Ordering::Relaxed);

    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("no panic"));
    }
    for manager in managers.iter().chain([&first]) {
        let known = eventually("a manager to answer", || configs(manager)).await;
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|name| !known.contains(name))
            .collect();
        assert!(lost.is_empty(), "acknowledged writes are lost: {lost:?}");
    }
    for manager in managers {
        manager.shutdown().await;
    }
    first.shutdown().await;
}
