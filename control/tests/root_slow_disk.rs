//! A leader whose disk blocks for seconds: service goes on with the others, nothing that was
//! acknowledged is lost, and the manager names its disk. The disk is a file system in a file, and is
//! frozen.

mod cluster;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
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
    assert_eq!(first.slow_disk(), None);

    // Writers at every manager, before, while and after the disk stands still.
    let begun = Instant::now();
    let mut writers = Vec::new();
    for (number, manager) in managers.iter().chain([&first]).enumerate() {
        let manager = Arc::clone(manager);
        writers.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut write = 0;
            while begun.elapsed() < FROZEN + Duration::from_secs(2) {
                let name = format!("w{number}-{write}");
                write += 1;
                if manager.call(config(&name)).await.is_ok() {
                    acknowledged.push((begun.elapsed(), name));
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
    let frozen = begun.elapsed();
    tokio::time::sleep(FROZEN).await;
    let named = first.slow_disk();
    disk.thaw();
    let thawed = begun.elapsed();

    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("no panic"));
    }
    assert!(named.is_some(), "nobody says that the disk is slow");
    let meanwhile = acknowledged
        .iter()
        .filter(|(at, _)| (frozen + Duration::from_secs(1)..thawed).contains(at));
    assert!(
        meanwhile.count() > 0,
        "no write was acknowledged while one disk of three stood still"
    );
    for manager in managers.iter().chain([&first]) {
        let known = eventually("a manager to answer", || configs(manager)).await;
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|(_, name)| !known.contains(name))
            .collect();
        assert!(lost.is_empty(), "acknowledged writes are lost: {lost:?}");
    }
    for manager in managers {
        manager.shutdown().await;
    }
    first.shutdown().await;
}
