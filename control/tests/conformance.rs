//! Our storage under openraft's own suite.

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use weft_control::raft::{LogStore, Machine, Seal, Types};

struct OnDisk;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let directory = tempfile::tempdir().expect("a directory for the store");
        let seal = Seal::open(directory.path()).expect("a key");
        let log = LogStore::open(directory.path(), seal.clone()).expect("a log");
        let machine = Machine::open(directory.path(), seal).expect("a state machine");
        Ok((directory, log, machine))
    }
}

#[test]
fn our_storage_is_what_openraft_expects() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime
        .block_on(Suite::test_all(OnDisk))
        .expect("openraft's storage suite");
}
