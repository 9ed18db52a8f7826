//! Everything on the machine that a testbed could leave behind, counted before and after.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use crate::command::command;

/// What there is, each kind as a set of names.
#[derive(Debug, PartialEq, Eq)]
pub struct Census {
    /// Network namespaces that have a name.
    pub namespaces: BTreeSet<String>,
    /// Links of our own namespace.
    pub links: BTreeSet<String>,
    /// BPF programs in the kernel, by id.
    pub programs: BTreeSet<String>,
    /// BPF maps in the kernel, by id.
    pub maps: BTreeSet<String>,
    /// BPF links in the kernel, by id.
    pub attachments: BTreeSet<String>,
    /// Mount points. Pins live in mounts of their own, so none of those means no pin.
    pub mounts: BTreeSet<String>,
    /// Processes that belong to engines, agents or the bed's own scripts.
    pub processes: BTreeSet<String>,
    /// Control groups of the bed.
    pub groups: BTreeSet<String>,
    /// Files that tell of a bed.
    pub traces: BTreeSet<String>,
}

impl Census {
    /// Looks at the machine as it is now.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    pub fn take() -> Result<Self> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let links = command("ip", ["-o", "link", "show"], &[], b"")?.ok()?;
        Ok(Census {
            namespaces: names_in("/run/netns"),
            links: links
                .lines()
                .filter_map(|line| line.split(": ").nth(1))
                .map(str::to_owned)
                .collect(),
            programs: aya::programs::loaded_programs()
                .map(|one| {
                    one.map(|one| format!("{} {}", one.id(), one.name_as_str().unwrap_or("?")))
                })
                .collect::<Result<_, _>>()
                .context("cannot list BPF programs")?,
            maps: aya::maps::loaded_maps()
                .map(|one| {
                    one.map(|one| format!("{} {}", one.id(), one.name_as_str().unwrap_or("?")))
                })
                .collect::<Result<_, _>>()
                .context("cannot list BPF maps")?,
            attachments: aya::programs::loaded_links()
                .map(|one| one.map(|one| one.id().to_string()))
                .collect::<Result<_, _>>()
                .context("cannot list BPF links")?,
            mounts: mounts
                .lines()
                .filter_map(|line| line.split(' ').nth(1))
                .map(str::to_owned)
                .collect(),
            processes: processes(),
            groups: groups(),
            traces: names_in("/run")
                .into_iter()
                .filter(|name| name.starts_with("weft"))
                .collect(),
        })
    }
}

impl Census {
    /// What is there now and was not in `before`. What others took away meanwhile is their affair.
    pub fn added_since(&self, before: &Census) -> Vec<String> {
        let kinds = [
            ("namespace", &self.namespaces, &before.namespaces),
            ("link", &self.links, &before.links),
            ("program", &self.programs, &before.programs),
            ("map", &self.maps, &before.maps),
            ("attachment", &self.attachments, &before.attachments),
            ("mount", &self.mounts, &before.mounts),
            ("process", &self.processes, &before.processes),
            ("control group", &self.groups, &before.groups),
            ("file", &self.traces, &before.traces),
        ];
        let added = kinds.into_iter().flat_map(|(kind, now, then)| {
            now.difference(then).map(move |one| format!("{kind} {one}"))
        });
        added.collect()
    }
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn processes() -> BTreeSet<String> {
    const OURS: [&str; 6] = [
        "dockerd",
        "containerd",
        "weft",
        "init.sh",
        "docker-proxy",
        "runc",
    ];
    let pids = names_in("/proc")
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let program = words.first()?.rsplit('/').next()?.to_owned();
        let named = OURS.iter().any(|ours| program.starts_with(ours))
            || words.iter().any(|word| word.ends_with("/init.sh"));
        named.then(|| format!("{pid} {}", words.join(" ")))
    })
    .collect()
}

fn groups() -> BTreeSet<String> {
    let tops = names_in("/sys/fs/cgroup")
        .into_iter()
        .map(|name| format!("/sys/fs/cgroup/{name}/weft-testbed"));
    tops.chain(["/sys/fs/cgroup/weft-testbed".to_owned()])
        .filter(|path| fs::exists(path).unwrap_or(false))
        .collect()
}
