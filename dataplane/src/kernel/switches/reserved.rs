//! Ports that the kernel must not choose by itself: published ones.
//!
//! A process of the host that asks for any port, or connects without one, would else get a port at which a service
//! answers. The switch `ip_local_reserved_ports` is others' too: what they reserved stays theirs.

use std::{collections::BTreeSet, path::Path};

use super::{
    super::{error::DataplaneError, map::Map, sysctl},
    memory,
};

const KEY: &str = "ipv4/ip_local_reserved_ports";
const PIN: &str = "reserved";
/// Runs of ports.
const ENTRIES: u32 = 32_768;

/// From the first to the last, both included.
pub(crate) type Run = (u16, u16);

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
struct Ports(Vec<bool>);

impl Ports {
    fn of(runs: impl IntoIterator<Item = Run>) -> Self {
        let mut ports = vec![false; 1 << 16];
        for (first, last) in runs {
            if let Some(run) = ports.get_mut(usize::from(first)..=usize::from(last)) {
                run.fill(true);
            }
        }
        Self(ports)
    }

    /// Reads what the kernel writes: `80,8000-8009`.
    fn read(text: &str) -> Self {
        let run = |piece: &str| {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        };
        Self::of(text.split(',').filter_map(run))
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for port in (0..=u16::MAX).filter(|port| self.0[usize::from(*port)]) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == port => *last = port,
                _ => runs.push((port, port)),
            }
        }
        runs
    }

    fn write(&self) -> String {
        let run = |(first, last): Run| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        };
        self.runs()
            .into_iter()
            .map(run)
            .collect::<Vec<_>>()
            .join(",")
    }

    fn each(&self, other: &Self, f: impl Fn(bool, bool) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(a, b)| f(*a, *b))
                .collect(),
        )
    }
}

/// What the switch shall say, and which of it is then ours.
fn plan(now: &Ports, ours: &Ports, wanted: &Ports) -> (Ports, Ports) {
    let theirs = now.each(ours, |now, ours| now && !ours);
    (
        theirs.each(wanted, |theirs, wanted| theirs || wanted),
        wanted.each(&theirs, |wanted, theirs| wanted && !theirs),
    )
}

/// Reserves these ports, and no longer those of the last call that are not among them.
pub(crate) fn set(pin_dir: &Path, published: &[Run]) -> Result<(), DataplaneError> {
    let Some(now) = sysctl::get(KEY) else {
        return Ok(());
    };
    // Which ports are ours outlives this process, as the switch does.
    let memory: Map<u32, u32> = memory(pin_dir, PIN, ENTRIES)?;
    let held: BTreeSet<u32> = memory.keys()?.into_iter().collect();
    let ours = Ports::of(held.iter().map(|run| ((run >> 16) as u16, *run as u16)));
    let now = Ports::read(&now);
    let (next, next_ours) = plan(&now, &ours, &Ports::of(published.iter().copied()));
    let key = |(first, last): Run| (u32::from(first) << 16) | u32::from(last);
    let keep: BTreeSet<u32> = next_ours.runs().into_iter().map(key).collect();
    // First remembered, then done: a port that is ours no more must not stay for ever.
    for run in keep.difference(&held) {
        memory.put(run, &1)?;
    }
    if next != now {
        let text = next.write();
        sysctl::set(KEY, if text.is_empty() { "\n" } else { &text })?;
    }
    for run in held.difference(&keep) {
        memory.remove(run)?;
    }
    Ok(())
}

/// Gives back what was reserved, and forgets it.
pub(crate) fn restore(pin_dir: &Path) -> Result<(), DataplaneError> {
    if !pin_dir.join(PIN).exists() {
        return Ok(());
    }
    set(pin_dir, &[])?;
    super::super::bpf::remove_pin(&pin_dir.join(PIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_they_are_read() {
        for text in ["", "80", "80,8000-8009", "1-2,65534-65535"] {
            assert_eq!(Ports::read(text).write(), text);
        }
    }

    #[test]
    fn what_others_reserved_stays_theirs() {
        let now = Ports::read("22,8000");
        let none = Ports::read("");
        // 8000 is published, but others had it before.
        let (next, ours) = plan(&now, &none, &Ports::read("8000,9000-9009"));
        assert_eq!(next.write(), "22,8000,9000-9009");
        assert_eq!(ours.write(), "9000-9009");
        let (next, ours) = plan(&next, &ours, &Ports::read("9005"));
        assert_eq!(
            (next.write(), ours.write()),
            ("22,8000,9005".into(), "9005".into())
        );
        let (next, ours) = plan(&next, &ours, &none);
        assert_eq!(
            (next.write(), ours.write()),
            ("22,8000".into(), String::new())
        );
    }
}
