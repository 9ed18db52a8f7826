//! Whose testbed is up on this machine: names of namespaces are the machine's, not the clone's, so only one can be.
//!
//! A bed that another clone brought up by hand is somebody's, and left alone.
//! One that nobody can be using any more is taken away: no process of it lives, or the test run that made it was killed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use super::plan::{self, CLIENT, OWNER, SWITCH};
use super::{down, process};
use crate::place;

/// Tells the verbs that a test run's children start which run that is.
pub(crate) const RUN: &str = "WEFT_TEST_RUN";

/// The test run that this process is.
static THIS: OnceLock<Run> = OnceLock::new();

/// Beds made from here on, by this process and its children that are given [`RUN`], end with it: the name to give them.
pub(crate) fn begin_run() -> String {
    match Run::this() {
        Some(run) => THIS.get_or_init(|| run).to_string(),
        None => String::new(),
    }
}

/// A process by number and beginning, so that a number given again is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    pid: i32,
    begun: u64,
}

impl Run {
    fn this() -> Option<Self> {
        let pid = Pid::this();
        Some(Run {
            pid: pid.as_raw(),
            begun: process::begun(pid)?,
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, begun) = text.trim().split_once(' ')?;
        Some(Run {
            pid: pid.parse().ok()?,
            begun: begun.parse().ok()?,
        })
    }

    fn lives(self) -> bool {
        let pid = Pid::from_raw(self.pid);
        process::lives(pid) && process::begun(pid) == Some(self.begun)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.begun)
    }
}

/// What [`OWNER`] says: the clone, and the test run when it was one that made the bed.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    clone: PathBuf,
    run: Option<Run>,
}

impl Owner {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let clone = lines.next().filter(|line| !line.is_empty())?;
        Some(Owner {
            clone: PathBuf::from(clone),
            run: lines.next().and_then(Run::parse),
        })
    }

    /// Why nobody can be using this bed, if so.
    fn abandoned(&self, inhabited: bool) -> Option<&'static str> {
        if !inhabited {
            return Some("no process of it lives");
        }
        self.run
            .is_some_and(|run| !run.lives())
            .then_some("the test run that made it was killed")
    }
}

/// Writes down that the bed is this clone's.
pub(super) fn claim() -> Result<()> {
    let run = match THIS.get() {
        Some(run) => run.to_string(),
        None => std::env::var(RUN).unwrap_or_default(),
    };
    fs::write(OWNER, format!("{}\n{run}", place::root().display()))
        .with_context(|| format!("cannot write {OWNER}"))
}

/// The bed is nobody's.
pub(super) fn forget() {
    let _ = fs::remove_file(OWNER);
}

/// Makes sure that no other clone's bed is in the way: takes an abandoned one down.
///
/// # Errors
/// When the bed of another clone is in use, or cannot be taken down.
pub(super) fn take_over() -> Result<()> {
    let Some(owner) = fs::read_to_string(OWNER)
        .ok()
        .and_then(|text| Owner::parse(&text))
        .filter(|owner| owner.clone != place::root())
    else {
        return Ok(());
    };
    let clone = owner.clone.display();
    let bed = plan::dir_of(&owner.clone);
    match owner.abandoned(inhabited(&bed)) {
        None => bail!(
            "the testbed on this machine belongs to {clone}; take it down there: (cd {clone} && cargo xtask testbed down)"
        ),
        Some(why) => {
            println!("taking down what {clone} left of its testbed: {why}");
            down::clear(&bed)
        }
    }
}

fn inhabited(bed: &Path) -> bool {
    plan::hosts().into_iter().any(|host| {
        !process::runners_of(host, bed).is_empty()
            || !process::in_namespace(&host.station().namespace).is_empty()
    }) || [CLIENT, SWITCH]
        .iter()
        .any(|name| !process::in_namespace(name).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(run: Option<Run>) -> Owner {
        Owner {
            clone: "/a/clone".into(),
            run,
        }
    }

    #[test]
    fn an_owner_is_read_as_it_is_written() {
        let run = Run {
            pid: 17,
            begun: 4711,
        };
        assert_eq!(
            Owner::parse(&format!("/a/clone\n{run}")),
            Some(owner(Some(run)))
        );
        assert_eq!(Owner::parse("/a/clone\n"), Some(owner(None)));
        assert_eq!(Owner::parse(""), None);
    }

    #[test]
    fn only_what_nobody_can_use_is_abandoned() {
        let this = Run::this();
        assert!(this.is_some(), "a process knows when it began");
        let killed = this.map(|run| Run {
            begun: run.begun + 1,
            ..run
        });
        assert_eq!(owner(None).abandoned(true), None, "brought up by hand");
        assert_eq!(owner(this).abandoned(true), None, "its run goes on");
        assert!(owner(killed).abandoned(true).is_some(), "its run is gone");
        assert!(owner(this).abandoned(false).is_some(), "nobody is in it");
    }
}
