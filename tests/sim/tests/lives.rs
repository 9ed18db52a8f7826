//! Lives that must go well: some seeds, and those that once failed.

use std::{fs, path::Path, thread};

use weft_sim::{Script, run};

/// Seeds in the test command; `cargo xtask sim` lives through as many as one likes.
const SEEDS: u64 = 200;

#[test]
fn two_hundred_seeds_live_well() {
    let halves = [1, 0].map(|rest| {
        thread::spawn(move || {
            let seeds = (1..=SEEDS).filter(|seed| seed % 2 == rest);
            let failed =
                seeds.filter_map(|seed| Some((seed, run(&Script::of(seed), false).err()?)));
            failed.collect::<Vec<_>>()
        })
    });
    let failed: Vec<_> = halves
        .into_iter()
        .flat_map(|half| half.join().expect("a half of the seeds"))
        .collect();
    assert!(
        failed.is_empty(),
        "again: cargo xtask sim --seed {}\n{failed:#?}",
        failed[0].0
    );
}

#[test]
fn a_seed_decides_everything() {
    for seed in [3, 17] {
        let script = Script::of(seed);
        assert_eq!(run(&script, false), run(&script, false), "seed {seed}");
    }
}

#[test]
fn lives_that_once_failed_go_well() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    let mut count = 0;
    for entry in fs::read_dir(kept).expect("the folder of kept lives") {
        let path = entry.expect("a kept life").path();
        let text = fs::read_to_string(&path).expect("a kept life");
        let script: Script = serde_json::from_str(&text).expect("a kept life");
        count += 1;
        if let Err(failure) = run(&script, false) {
            panic!("{}, at {} ms: {}", path.display(), failure.at, failure.what);
        }
    }
    assert!(count > 0, "no life is kept");
}
