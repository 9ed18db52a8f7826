//! Processes of the bed, told from everybody else's by the exact script they run or the namespace they live in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plan::{self, Host};
use crate::run::run;

/// Process 1 of a host, as seen from here, if the host runs.
pub(crate) fn init_of(host: Host) -> Option<Pid> {
    runners_of(host, &plan::dir())
        .into_iter()
        .find(|pid| innermost_pid(*pid) == Some(1))
}

/// Every process whose command line ends in the init script of this host of the bed in that folder and its two arguments, wherever it lives.
///
/// That is process 1 of the host and the `unshare` or `nsenter` before it; an editor that has the script open does not match.
pub(crate) fn runners_of(host: Host, bed: &Path) -> Vec<Pid> {
    let script = host.init_in(bed).into_os_string().into_encoded_bytes();
    let tail: Vec<Vec<u8>> = vec![b"sh".to_vec(), script, host.name().into_bytes()];
    all()
        .into_iter()
        .filter(|pid| command_line(*pid).ends_with(&tail))
        .collect()
}

/// Processes of a host by the name of their program, oldest first.
pub(crate) fn inside(host: Host, program: &str) -> Vec<Pid> {
    let Some(namespace) = init_of(host).and_then(process_namespace) else {
        return Vec::new();
    };
    all()
        .into_iter()
        .filter(|pid| process_namespace(*pid).as_ref() == Some(&namespace))
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim_end() == program)
        })
        .collect()
}

/// Whether the process still runs (a zombie does not).
pub(crate) fn lives(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with(['Z', 'X'])
    })
}

/// When the process began, in ticks since the machine's start: with its number, a name that is never given twice.
pub(crate) fn begun(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The 22nd field; those before the name's closing bracket may hold anything.
    stat.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// Processes that live in a network namespace, by its name.
pub(crate) fn in_namespace(name: &str) -> Vec<Pid> {
    let pids = run(&format!("ip netns pids {name}"))
        .read()
        .unwrap_or_default();
    pids.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Sends a signal; a process that has already gone is no error.
pub(crate) fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("cannot send {signal} to process {pid}")),
    }
}

fn all() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().map(Pid::from_raw).collect()
}

fn command_line(pid: Pid) -> Vec<Vec<u8>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .strip_suffix(b"\0")
        .unwrap_or(&bytes)
        .split(|byte| *byte == 0)
        .map(<[u8]>::to_vec)
        .collect()
}

fn process_namespace(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn innermost_pid(pid: Pid) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let seen = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    // Only processes of a namespace below ours have a second number.
    seen.split_whitespace().skip(1).last()?.parse().ok()
}
