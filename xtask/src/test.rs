//! All tests: the host's, the loaded programs', the stories, the demo; and one line at the end that counts them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::clock::Clock;
use crate::run::run;
use crate::testbed::{self, Verb, owner};
use crate::{build, demo, ebpf, place, rights, setup, tidy};

/// Runs everything and counts.
///
/// # Errors
/// When anything cannot be built or any test fails.
pub(crate) fn test() -> Result<()> {
    rights::require_root("test", rights::HOSTS)?;
    let clock = Clock::start();
    let run_name = owner::begin_run();
    clock.says("looking at what this machine has");
    setup::setup()?;
    clock.says("building the eBPF object and the gate");
    ebpf::build()?;
    build::gate()?;
    let mut count = Count::of(run_name);
    clock.says("house rules");
    count.judge(&tidy::tidy());
    clock.says("building every test");
    run("cargo test --workspace --quiet --no-run")
        .dir(place::root())
        .show()?;
    clock.says("on the host, and with programs loaded");
    // One crate's failure must not hide the next one's.
    count.add("cargo test --workspace --exclude weft-tests --no-fail-fast")?;
    clock.says("stories on the testbed");
    build::agent()?;
    let told = count.add("cargo test -p weft-tests --no-fail-fast -- --test-threads=1");
    testbed::act(Verb::Down)?;
    told?;
    clock.says("the demo, unattended");
    count.judge(&demo::unattended());
    for words in &count.failures.words {
        println!("{words}");
    }
    clock.says(&format!("{} passed, {} failed", count.passed, count.failed));
    if count.failed > 0 || !count.content {
        bail!(
            "not every test passed; evidence of failed stories is in {}",
            place::evidence().display()
        );
    }
    Ok(())
}

struct Count {
    /// Given to every runner, so that a bed whose run was killed is known for one.
    run_name: String,
    passed: u32,
    failed: u32,
    /// Whether every runner said that all is well: a test that aborts its process is in no tally.
    content: bool,
    failures: Failures,
}

impl Count {
    fn of(run_name: String) -> Self {
        Count {
            run_name,
            passed: 0,
            failed: 0,
            content: true,
            failures: Failures::default(),
        }
    }

    /// Counts a check of our own as one test.
    fn judge(&mut self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("{error:#}");
                self.failures.words.push(format!("{error:#}"));
                self.failed += 1;
            }
        }
    }

    /// Runs a test command, shows what it says, and adds up its `test result:` lines.
    fn add(&mut self, line: &str) -> Result<()> {
        let mut command = run(line).dir(place::root()).into_command();
        let mut child = command
            .env(owner::RUN, &self.run_name)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        if let Some(out) = child.stdout.take() {
            for said in BufReader::new(out).lines() {
                let said = said.context("lost the tests' output")?;
                println!("{said}");
                self.failures.hear(&said);
                if let Some(tally) = said.trim().strip_prefix("test result: ") {
                    self.passed += number_before(tally, " passed");
                    self.failed += number_before(tally, " failed");
                }
            }
        }
        let status = child.wait().with_context(|| format!("lost `{line}`"))?;
        self.content &= status.success();
        Ok(())
    }
}

/// What failed tests said when they did, told again at the end: in a long run's output hundreds of lines follow it.
#[derive(Default)]
struct Failures {
    words: Vec<String>,
    at: Place,
}

/// Where in a runner's output a line stands.
#[derive(Default)]
enum Place {
    /// Not in what a failed test said.
    #[default]
    Elsewhere,
    /// In it, before its failure.
    Before,
    /// In its failure, after so many lines.
    Within(usize),
}

impl Failures {
    /// Lines of one failure that are told again.
    const LINES: usize = 20;

    fn hear(&mut self, line: &str) {
        let name = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = name {
            self.words.push(format!("FAILED {name}"));
            self.at = Place::Before;
            return;
        }
        let told = match self.at {
            Place::Before if line.starts_with("thread '") && line.contains("panicked at") => 0,
            Place::Within(told) => told,
            _ => return,
        };
        let is_over = line.starts_with("stack backtrace:")
            || line.starts_with("note: ")
            || line == "failures:"
            || told == Self::LINES;
        self.at = if is_over {
            Place::Elsewhere
        } else {
            self.words.push(line.to_owned());
            Place::Within(told + 1)
        };
    }
}

/// `ok. 12 passed; 0 failed; …`, asked for ` passed`, answers 12.
fn number_before(tally: &str, word: &str) -> u32 {
    let before = tally.split(word).next().unwrap_or_default();
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Failures, number_before};

    #[test]
    fn what_failed_is_told_again_without_what_lies_around_it() {
        let said = "test a::works ... ok\ntest b::breaks ... FAILED\n\nfailures:\n\n---- b::breaks stdout ----\n--- the end of n1/weft.log:\nall is well\n\nthread 'b::breaks' (7) panicked at b.rs:1:2:\n2 of 8 requests failed: [\n    \"refused\",\n]\nstack backtrace:\n   0: rust_begin_unwind\nnote: Some details are omitted\n\n\nfailures:\n    b::breaks\n\ntest result: FAILED. 1 passed; 1 failed;";
        let mut failures = Failures::default();
        said.lines().for_each(|line| failures.hear(line));
        assert_eq!(
            failures.words,
            [
                "FAILED b::breaks",
                "thread 'b::breaks' (7) panicked at b.rs:1:2:",
                "2 of 8 requests failed: [",
                "    \"refused\",",
                "]"
            ]
        );
        let mut failures = Failures::default();
        failures.hear("---- c::talks stdout ----");
        failures.hear("thread 'c::talks' panicked at c.rs:1:2:");
        (0..1000).for_each(|_| failures.hear("much"));
        assert_eq!(failures.words.len(), 1 + Failures::LINES);
    }

    #[test]
    fn a_tally_is_read() {
        let tally =
            "FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            (
                number_before(tally, " passed"),
                number_before(tally, " failed")
            ),
            (12, 3)
        );
    }
}
