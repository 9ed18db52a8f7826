//! Taking the bed away, whatever state it is in: whole, half made, or left by a run that was killed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::plan::{CGROUP, CLIENT, Host, MOST_HOSTS, SWITCH, dir, namespace_file};
use super::{owner, process};
use crate::run::run;
use crate::wait;

/// Ends every process of the bed and removes its namespaces, mounts and control groups. Logs and images stay.
///
/// Nothing is taken from memory or from a file that a killed run may not have written: what is left is found by the bed's own names and paths.
pub(crate) fn down() -> Result<()> {
    owner::take_over()?;
    clear(&dir())
}

/// Takes away the bed that was made in this folder, by this clone or another.
pub(super) fn clear(bed: &Path) -> Result<()> {
    let mut faults = Vec::new();
    let hosts: Vec<Host> = (1..=MOST_HOSTS)
        .map(Host)
        .filter(|host| {
            host.dir_in(bed).exists() || namespace_file(&host.station().namespace).exists()
        })
        .collect();
    for host in &hosts {
        faults.extend(end_processes(*host, bed).err());
    }
    faults.extend(unmount_below(bed).err());
    let names = hosts
        .iter()
        .map(|host| host.station().namespace)
        .chain([CLIENT.to_owned(), SWITCH.to_owned()]);
    for name in names {
        faults.extend(end_leftovers(&name).err());
        faults.extend(remove_namespace(&name).err());
    }
    faults.extend(remove_control_groups().err());
    for host in &hosts {
        // The next bed starts from nothing, yet logs stay readable after this one.
        for sub in ["run", "bpf", "state", "engine", "etc"] {
            faults.extend(remove_folder(&host.dir_in(bed).join(sub)).err());
        }
        for socket in ["docker.sock", "engine.sock"] {
            let _ = fs::remove_file(host.dir_in(bed).join(socket));
        }
    }
    owner::forget();
    // Fails, as it should, when others keep namespaces there.
    let _ = fs::remove_dir("/run/netns");
    match faults.len() {
        0 => Ok(()),
        _ => bail!(
            "the testbed is not wholly down:\n  {}",
            faults
                .iter()
                .map(|fault| format!("{fault:#}"))
                .collect::<Vec<_>>()
                .join("\n  ")
        ),
    }
}

/// Ends process 1 of the host; the kernel ends the rest of its process namespace with it.
fn end_processes(host: Host, bed: &Path) -> Result<()> {
    let runners = process::runners_of(host, bed);
    for pid in &runners {
        process::signal(*pid, Signal::SIGKILL)?;
    }
    wait::until(
        Duration::from_secs(60),
        &format!("processes of {} to end", host.name()),
        || !runners.iter().any(|pid| process::lives(*pid)),
    )
}

/// Ends what else runs in a namespace of ours: a client's load, a capture, a test's server.
fn end_leftovers(namespace: &str) -> Result<()> {
    if !namespace_file(namespace).exists() {
        return Ok(());
    }
    for pid in process::in_namespace(namespace) {
        process::signal(pid, Signal::SIGKILL)?;
    }
    wait::until(
        Duration::from_secs(60),
        &format!("processes in {namespace} to end"),
        || {
            run(&format!("ip netns pids {namespace}"))
                .read()
                .is_ok_and(|pids| pids.is_empty())
        },
    )
}

fn remove_namespace(name: &str) -> Result<()> {
    let file = namespace_file(name);
    if !file.exists() {
        return Ok(());
    }
    // A run killed between the file and the mount leaves a plain file.
    while run("umount").arg(&file).succeeds() {}
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
}

fn unmount_below(folder: &Path) -> Result<()> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mut points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| Path::new(point).starts_with(folder) && Path::new(point).exists())
        .collect();
    points.reverse();
    for point in points {
        run("umount").arg(point).quiet()?;
    }
    Ok(())
}

fn remove_control_groups() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let mut tops = vec![root.join(CGROUP)];
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        tops.push(entry.path().join(CGROUP));
    }
    for top in tops.iter().filter(|top| top.is_dir()) {
        // A group stays busy for the instant in which its last process is being buried.
        wait::until(
            Duration::from_secs(60),
            &format!("control group {} to empty", top.display()),
            || remove_group(top).is_ok(),
        )?;
    }
    Ok(())
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
