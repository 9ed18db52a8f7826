//! Time alone: what programs do for years while no agent looks.

use weft_ebpf::work::Work;

use crate::host_rows::{run, run_at};
use crate::rows::list;

const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// Rows in which time itself decides, as it should, and needs no agent for it.
const TIMELY: [&str; 8] = [
    // What a service may use comes again with time.
    "a bandwidth cap",
    // A count is believed for ten seconds.
    "fewest connections",
    // Two clients that differ only in the address they asked: the tuple of one that was not accepted is free again
    // after three minutes of silence.
    "collision",
    "a collision in a crowd",
    "a port of a flow whose client's entry is new again",
    "a port at some addresses only",
    "a port at another node's interface",
    "no free client port",
];

/// Nothing that an agent wrote expires, and no flow does: an agent alone takes away what is over. So every packet has
/// the same way a year after the one before it.
#[test]
fn a_year_between_two_packets_changes_nothing() {
    let (mut steady, mut yearly) = (Work::NONE, Work::NONE);
    let mut failures = Vec::new();
    let mut rows = 0;
    for (row, other) in list::all().into_iter().zip(list::all()) {
        if TIMELY.iter().any(|name| row.name.starts_with(name)) {
            continue;
        }
        rows += 1;
        let mut now = YEAR;
        for (step, again) in row.steps.iter().zip(&other.steps) {
            let (verdict, at_once) = run(step, &row.world, &mut steady);
            let (later, after) = run_at(again, &other.world, &mut yearly, now);
            now += YEAR;
            if verdict != later || at_once.bytes != after.bytes {
                failures.push(format!(
                    "{}: {}: {later:?} instead of {verdict:?}",
                    row.name, step.name
                ));
            }
        }
    }
    assert!(rows > 100, "only {rows} rows");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
