//! What a source file may be and hold.

use super::Fault;
use super::manifest::EMPTY_NAMES;

/// Files aim at 300 lines; above this one a reason is asked for.
const MOST_LINES: usize = 600;
/// The line that gives the reason.
const LONG_BECAUSE: &str = "// tidy: long because";
/// Only here may code step outside the compiler's guarantees.
const UNSAFE_ROOMS: [&str; 3] = ["ebpf/", "dataplane/src/kernel/", "dataplane/src/kernel.rs"];
/// Modules that decide and touch nothing: time and chance come in as arguments, effects go out as values.
const PURE_ROOMS: [&str; 17] = [
    "types/src/",
    "ipam/src/",
    "dns/src/zone",
    "dns/src/resolve",
    "dns/src/wire",
    "ebpf/abi/src/",
    "dataplane/src/desired",
    "dataplane/src/observed",
    "dataplane/src/plan",
    "dataplane/src/sandbox",
    "dataplane/src/overlay",
    "dataplane/src/mesh",
    "control/src/orchestrator",
    "control/src/allocator",
    "control/src/scheduler",
    "control/src/dispatcher",
    "agent/src/worker",
];
/// Doors to the world, and what comes in by them instead.
const DOORS: [(&str, &str); 9] = [
    ("tokio::", "an async runtime"),
    ("Instant::now", "the clock"),
    ("SystemTime::now", "the clock"),
    ("OffsetDateTime::now_utc", "the clock"),
    ("std::fs::", "files"),
    ("std::thread", "threads"),
    ("std::process", "processes"),
    ("std::env::", "the environment"),
    ("rand::rng()", "randomness"),
];

/// Checks one file; `name` is its path from the clone's top.
pub(super) fn check(name: &str, text: &str, faults: &mut Vec<Fault>) {
    let mut fault = |line: Option<usize>, what: String| {
        let at = line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
        faults.push(Fault { at, what });
    };
    if name.starts_with("xtask/src/tidy/") {
        // The rules' own words would break them.
        return;
    }
    let lines = text.lines().count();
    if lines > MOST_LINES && !text.contains(LONG_BECAUSE) {
        fault(
            None,
            format!(
                "{lines} lines; a reader holds about 300 at once: split it by idea, or give the reason in a line `{LONG_BECAUSE} …`"
            ),
        );
    }
    for part in name.trim_end_matches(".rs").split('/') {
        if EMPTY_NAMES.contains(&part) {
            fault(
                None,
                format!(
                    "`{part}` says nothing about what is inside; name the idea, or move each item to the module that uses it"
                ),
            );
        }
    }
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    // A module's own tests speak for themselves.
    let is_tests = name.ends_with("/tests.rs");
    if !is_tests && !first.is_some_and(|line| line.starts_with("//!")) {
        fault(None, "does not begin with `//!`; say in a sentence what this module means and what it never does".into());
    }
    let may_be_unsafe = UNSAFE_ROOMS.iter().any(|room| name.starts_with(room));
    let is_pure = PURE_ROOMS.iter().any(|room| name.starts_with(room)) && !name.contains("test");
    let mut in_tests = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        in_tests |= line.starts_with("#[cfg(test)]");
        if line.starts_with("//") {
            continue;
        }
        let number = Some(number + 1);
        if !may_be_unsafe
            && ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| line.contains(word))
        {
            fault(number, "unsafe lives in ebpf/, ebpf/abi/ and dataplane/src/kernel/ only; put the call behind a safe function there".into());
        }
        if line.contains("[allow(") && !text_after(text, number).contains("reason") {
            fault(number, "a lint is silenced without a reason; write #[expect(…, reason = \"…\")], which also says when it is no longer needed".into());
        }
        if is_pure && !in_tests {
            for (door, what) in DOORS {
                if line.contains(door) {
                    fault(
                        number,
                        format!(
                            "this module only decides, yet it reaches for {what} (`{door}`); take it as an argument and leave the effect to the runtime"
                        ),
                    );
                }
            }
        }
    }
    if name.starts_with("agent/src/")
        && !name.starts_with("agent/src/bin/weft/")
        && text.contains("weft_control")
    {
        fault(None, "only the agent's program (agent/src/bin) wires the manager role in; take what you need as a trait of control/proto".into());
    }
}

/// The attribute that begins on this line, to its end.
fn text_after(text: &str, number: Option<usize>) -> String {
    let from = number.unwrap_or(1) - 1;
    text.lines()
        .skip(from)
        .take(4)
        .collect::<Vec<_>>()
        .join(" ")
        .split(")]")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(name: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check(name, text, &mut faults);
        faults.into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn a_quiet_file_has_no_fault() {
        assert!(faults_of("types/src/id.rs", "//! Ids.\nfn a() {}\n").is_empty());
    }

    #[test]
    fn unsafe_outside_its_rooms_is_named_with_its_line() {
        let mut faults = Vec::new();
        check(
            "agent/src/main.rs",
            "//! x\nfn a() { unsafe { b() } }\n",
            &mut faults,
        );
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].at, "agent/src/main.rs:2");
        assert!(
            faults_of(
                "dataplane/src/kernel/bpf.rs",
                "//! x\nfn a() { unsafe { b() } }\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn a_deciding_module_reads_no_clock_but_its_tests_may() {
        let text = "//! x\nfn a() { Instant::now(); }\n#[cfg(test)]\nmod tests { fn b() { Instant::now(); } }\n";
        assert_eq!(faults_of("control/src/scheduler/filter.rs", text).len(), 1);
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        assert_eq!(faults_of("dns/src/utils.rs", "//! x\n").len(), 1);
    }

    #[test]
    fn a_long_file_needs_its_reason() {
        let long = format!("//! x\n{}", "fn a() {}\n".repeat(700));
        assert_eq!(faults_of("dns/src/zone.rs", &long).len(), 1);
        assert!(
            faults_of(
                "dns/src/zone.rs",
                &format!("{long}// tidy: long because one table\n")
            )
            .is_empty()
        );
    }
}
