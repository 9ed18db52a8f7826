//! The log on good and on bad disks: one suite for the real file and for a disk in memory, then what
//! only the disk in memory can do.

mod disk;
mod faults;
mod snapshot;
mod suite;

use disk::Disk;
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use proptest::prelude::*;
use suite::{conforms, corners, ops};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weft_control::raft::{LogStore, Machine, Seal, Types};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
}

fn seal() -> Seal {
    Seal::new([7; 32])
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_log_in_a_file_keeps_what_it_is_told() {
    let place = directory();
    let open = || LogStore::open(place.path(), seal());
    runtime().block_on(conforms(open, &corners()));
}

#[test]
fn a_log_in_memory_keeps_what_it_is_told() {
    let disk = Disk::new();
    let open = || LogStore::open_on(disk.clone(), seal());
    runtime().block_on(conforms(open, &corners()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_run_is_kept_in_a_file_and_in_memory(ops in ops()) {
        let place = directory();
        runtime().block_on(conforms(|| LogStore::open(place.path(), seal()), &ops));
        let disk = Disk::new();
        runtime().block_on(conforms(|| LogStore::open_on(disk.clone(), seal()), &ops));
    }
}

/// The log in memory; the state machine in a directory.
struct InMemory;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for InMemory {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let directory = directory();
        let log = LogStore::open_on(Disk::new(), seal()).expect("a log");
        let machine = Machine::open(directory.path(), seal()).expect("a state machine");
        Ok((directory, log, machine))
    }
}

#[test]
fn a_log_in_memory_is_what_openraft_expects() {
    let runtime = Runtime::new().expect("a runtime");
    runtime
        .block_on(Suite::test_all(InMemory))
        .expect("openraft's storage suite");
}
