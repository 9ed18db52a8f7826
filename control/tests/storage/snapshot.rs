//! The snapshot on good and on bad disks.

use std::fs;

use openraft::{RaftSnapshotBuilder, storage::RaftStateMachine};
use weft_control::raft::Machine;

use crate::{directory, disk::Dice, runtime, seal};

#[test]
fn a_snapshot_is_kept_whole_and_a_damaged_one_refused() {
    runtime().block_on(async {
        let place = directory();
        let mut machine = Machine::open(place.path(), seal()).expect("opened");
        assert!(
            machine
                .get_current_snapshot()
                .await
                .expect("read")
                .is_none()
        );
        let mut builder = machine.get_snapshot_builder().await;
        let made = builder.build_snapshot().await.expect("made");
        drop(machine);
        let mut machine = Machine::open(place.path(), seal()).expect("opened again");
        let kept = machine.get_current_snapshot().await.expect("read");
        assert_eq!(kept.map(|kept| kept.meta), Some(made.meta));

        let path = place.path().join("snapshot");
        let whole = fs::read(&path).expect("a snapshot");
        let mut dice = Dice::new(1);
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).expect("written");
            let error = Machine::open(place.path(), seal()).expect_err("refused");
            assert!(error.to_string().contains("snapshot is damaged"), "{error}");
        };
        for _ in 0..100 {
            let mut flipped = whole.clone();
            let at = dice.below(whole.len() as u64) as usize;
            flipped[at] ^= 1 << dice.below(8);
            refused(&flipped);
            refused(&whole[..at]);
        }
        fs::write(&path, &whole).expect("written");
        Machine::open(place.path(), seal()).expect("whole again");
    });
}
