//! Lives that go well, and badly as soon as one thing is left out: each fault reaches what stands
//! against it, and some invariant looks.

use std::{collections::BTreeSet, fs, path::Path};

use weft_sim::{Script, lapse::Lapse, run, shrink};

#[test]
fn what_is_left_out_is_missed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lapses");
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the folder of lapses") {
        let path = entry.expect("a life").path();
        let name = path.display();
        let text = fs::read_to_string(&path).expect("a life");
        let script: Script = serde_json::from_str(&text).expect("a life");
        let lapse = script.lapse.expect("something that is left out");
        seen.insert(format!("{lapse:?}"));
        let Err(failure) = run(&script, false) else {
            panic!("{name}: nobody misses it");
        };
        let sentence = shrink::kind(&failure.what);
        assert_eq!(sentence, missed_by(lapse), "{name}");
        let whole = Script {
            lapse: None,
            ..script
        };
        if let Err(failure) = run(&whole, false) {
            panic!("{name}, with it: at {} ms: {}", failure.at, failure.what);
        }
    }
    let all = Lapse::ALL.map(|lapse| format!("{lapse:?}"));
    assert_eq!(seen, BTreeSet::from(all));
}

/// What does not hold any more.
fn missed_by(lapse: Lapse) -> &'static str {
    match lapse {
        Lapse::SpeaksTooSoon
        | Lapse::CountsTooSoon
        | Lapse::ForgetsVotes
        | Lapse::HidesThatItIsFull => "an acknowledged write is never lost",
        Lapse::ReadsOnAfterTorn => "the same entries give the same state on every manager",
        Lapse::GoesOnWhenFull => "after faults stop all converges",
        Lapse::FollowsTheClock => {
            "no backend gets its stop signal while a live node may still choose it"
        }
    }
}
