//! The log on a disk that fails.

use std::{fs, io};

use proptest::prelude::*;
use weft_control::raft::LogStore;

use crate::{
    directory,
    disk::{Dice, Disk},
    runtime, seal,
    suite::{Op, Told, corners, ops},
};

fn open(disk: &Disk) -> io::Result<LogStore> {
    LogStore::open_on(disk.clone(), seal())
}

/// What may be found after a failure.
struct Expected {
    /// What was acknowledged.
    told: Told,
    /// What was under way when it failed; the same as `told` if nothing was.
    under_way: Told,
    /// Commit marks since the last synced one: any of them will do.
    marks: Vec<Told>,
}

impl Expected {
    fn new() -> Self {
        Self {
            told: Told::default(),
            under_way: Told::default(),
            marks: vec![Told::default()],
        }
    }

    /// Does `ops` until one is refused; why it was.
    async fn run(&mut self, disk: &Disk, ops: &[Op]) -> io::Result<()> {
        let mut log = open(disk)?;
        for op in ops {
            let next = self.told.after(op);
            self.under_way = next.clone();
            if matches!(op, Op::Reopen) {
                drop(log);
                log = open(disk)?;
            } else {
                self.told.run(op, &mut log).await?;
            }
            if !matches!(op, Op::Committed(_) | Op::Reopen) {
                self.marks.clear();
            }
            self.marks.push(next.clone());
            self.told = next;
        }
        Ok(())
    }

    /// Whether `found` holds all that was acknowledged, and the thing under way whole or not at all.
    fn allows(&self, found: &Told) -> bool {
        let without_mark = |told: &Told| Told {
            committed: None,
            ..told.clone()
        };
        let mut marks = self.marks.iter().chain([&self.told, &self.under_way]);
        let found_rest = without_mark(found);
        (found_rest == without_mark(&self.told) || found_rest == without_mark(&self.under_way))
            && marks.any(|told| told.committed == found.committed)
    }
}

/// Reads the log on `disk`, then works with it: what was found there.
async fn found_and_goes_on(disk: &Disk) -> io::Result<Told> {
    let mut log = open(disk)?;
    let found = Told::read(&mut log).await?;
    let op = Op::Append(2, 100);
    found.run(&op, &mut log).await?;
    drop(log);
    let read = Told::read(&mut open(disk)?).await?;
    assert_eq!(read, found.after(&op));
    Ok(found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there_after_a_power_cut(
        ops in ops(), fuse in 0..250_u64, torn: u64,
    ) {
        runtime().block_on(async {
            let disk = Disk::new();
            // A file is there only once it is made: see below.
            drop(open(&disk).expect("made"));
            disk.cut_after(fuse);
            let mut expected = Expected::new();
            // Refused or not: at the end, if not before, the power is cut.
            let end = expected.run(&disk, &ops).await;
            let after = disk.after_power_cut(torn);
            let found = found_and_goes_on(&after).await.expect("it starts again");
            prop_assert!(expected.allows(&found), "{end:?}: {found:?}");
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_full_disk_is_said_and_nothing_is_lost(room in 0..120_u64, copies: bool) {
        runtime().block_on(async {
            let disk = Disk::new();
            let mut expected = Expected::new();
            expected.run(&disk, &corners()).await.expect("there is room");
            let mut log = open(&disk).expect("there is room");
            disk.leave_room(room, copies);
            let error = loop {
                let op = Op::Append(1, 4_000);
                expected.under_way = expected.told.after(&op);
                if let Err(error) = expected.told.run(&op, &mut log).await {
                    break error;
                }
                expected.told = expected.under_way.clone();
            };
            prop_assert!(error.to_string().contains("No space left"), "{error}");
            // What it still reads is right, and it takes nothing that it cannot keep.
            if let Ok(found) = Told::read(&mut log).await {
                prop_assert!(expected.allows(&found), "{found:?}");
            }
            let more = expected.told.run(&Op::Vote, &mut log).await;
            prop_assert!(more.is_err());
            drop(log);
            match open(&disk) {
                Ok(mut log) => {
                    let found = Told::read(&mut log).await.expect("read");
                    prop_assert!(expected.allows(&found), "{found:?}");
                }
                Err(error) => prop_assert!(error.to_string().contains("No space left"), "{error}"),
            }
            disk.make_room();
            let found = found_and_goes_on(&disk).await.expect("it goes on");
            prop_assert!(expected.allows(&found), "{found:?}");
            Ok(())
        })?;
    }
}

#[test]
fn a_log_that_was_half_made_at_a_power_cut_is_made_again() {
    let place = directory();
    fs::write(place.path().join("log.redb.new"), [0; 5_000]).expect("written");
    let mut log = LogStore::open(place.path(), seal()).expect("opened");
    let read = runtime().block_on(Told::read(&mut log)).expect("read");
    assert_eq!(read, Told::default());
    assert!(!place.path().join("log.redb.new").exists());
}

/// A disk with a log on it, and what the log keeps.
async fn written() -> (Disk, Told) {
    let disk = Disk::new();
    let mut expected = Expected::new();
    let mut ops = corners();
    ops.extend([
        Op::Append(4, 3_000),
        Op::Append(30, 50),
        Op::Committed(2),
        Op::Vote,
    ]);
    expected.run(&disk, &ops).await.expect("a good disk");
    (disk, expected.told)
}

/// Opens the log and reads all of it: what it says, if it does not refuse.
async fn taken(disk: &Disk) -> io::Result<Told> {
    Told::read(&mut open(disk)?).await
}

#[test]
fn a_bit_flipped_on_disk_is_found() {
    runtime().block_on(async {
        let (disk, told) = written().await;
        let mut refused = 0;
        for seed in 0..80 {
            let bad = disk.copy();
            bad.flip_somewhere(&mut Dice::new(seed));
            // A second start must not take what the first one has refused.
            for start in ["first", "second"] {
                match taken(&bad).await {
                    Ok(found) => assert_eq!(found, told, "seed {seed}, {start} start"),
                    Err(error) => {
                        assert!(!error.to_string().is_empty());
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 40, "only {refused} of 160 starts were refused");
    });
}

/// The seals tell nothing of a record that is not found under its name any more.
#[test]
fn a_mark_whose_name_is_damaged_is_missed() {
    runtime().block_on(async {
        let (disk, _) = written().await;
        for name in ["vote", "purged", "member"] {
            let bad = disk.copy();
            assert!(
                bad.flip_in(name.as_bytes()) > 0,
                "{name} is not on the disk"
            );
            for start in ["first", "second"] {
                let found = taken(&bad).await;
                let error = found.expect_err(&format!("{name}, {start} start"));
                let error = error.to_string();
                assert!(
                    error.contains("corrupt") || error.contains("damaged"),
                    "{error}"
                );
            }
        }
    });
}

#[test]
fn a_bit_flipped_after_a_kill_is_found_or_taken_for_the_torn_last_write() {
    runtime().block_on(async {
        let (disk, told) = written().await;
        let mut log = open(&disk).expect("opened");
        let (mut states, mut refused) = (vec![told], 0);
        for op in [Op::Vote, Op::Append(3, 100), Op::Append(2, 50)] {
            let last = states.last().expect("a state");
            last.run(&op, &mut log).await.expect("done");
            states.push(last.after(&op));
        }
        // Copied while it is open: so it looks when the process is killed.
        for seed in 0..80 {
            let bad = disk.copy();
            bad.flip_somewhere(&mut Dice::new(seed));
            match taken(&bad).await {
                // Without a clean stop, a last write that does not match its checksums is one that
                // was torn. Anything older than that is never taken.
                Ok(found) => {
                    let last_two = &states[states.len() - 2..];
                    assert!(last_two.contains(&found), "seed {seed}: {found:?}");
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 15, "only {refused} of 80 starts were refused");
    });
}

#[test]
fn a_bit_flipped_on_its_way_from_the_disk_is_found() {
    runtime().block_on(async {
        let (disk, told) = written().await;
        let mut refused = 0;
        for seed in 0..60 {
            let bad = disk.copy();
            bad.flip_one_read_of(20, Dice::new(seed));
            match taken(&bad).await {
                Ok(found) => assert_eq!(found, told, "seed {seed}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 10, "only {refused} of 60 starts were refused");
    });
}
