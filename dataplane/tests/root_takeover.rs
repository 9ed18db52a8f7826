//! An agent that goes, by itself or to make room for another version, and one that takes over: what
//! connections notice. Needs root.

mod lan;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramInfo;
use lan::{Lan, host4, steady::Steady};
use weft_dataplane::Repairs;

/// The directory of a host's programs.
fn programs_of(lan: &Lan, host: u32) -> Result<PathBuf> {
    let entries = std::fs::read_dir(lan.pin_dir(host))?.flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("programs-"))
        .map(|entry| entry.path())
        .collect();
    ensure!(found.len() == 1, "one version's programs, not {found:?}");
    found.pop().context("a directory of programs")
}

/// The kernel's numbers of a host's programs: another number is another verification.
fn ids(lan: &Lan, host: u32) -> Result<BTreeMap<String, u32>> {
    let entries = std::fs::read_dir(programs_of(lan, host)?)?.flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, ProgramInfo::from_pin(entry.path())?.id()))
        })
        .collect()
}

/// Both agents go; `between` is done; both come back.
async fn take_over(
    lan: &mut Lan,
    steady: &Steady,
    between: impl Fn(&Lan, u32) -> Result<()>,
) -> Result<()> {
    lan.hosts.clear();
    steady.more("with no agent").await?;
    for host in [1, 2] {
        between(lan, host)?;
        lan.start(host).await?;
    }
    steady.more("taken over").await?;
    lan.apply().await?;
    steady.more("applied").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_while_the_agent_goes_and_another_takes_over() -> Result<()> {
    let mut lan = Lan::published(2, 2).await?;
    let steady = Steady::start(&lan, (host4(1), 8000).into())?;
    steady.more("with both agents").await?;
    let quiet = steady.worst();
    let before = [ids(&lan, 1)?, ids(&lan, 2)?];
    ensure!(before[0].len() >= 14, "programs are {before:?}");
    for _ in 0..3 {
        take_over(&mut lan, &steady, |_, _| Ok(())).await?;
    }
    let worst = steady.worst();
    let after = [ids(&lan, 1)?, ids(&lan, 2)?];
    assert_eq!(after, before, "a restart verifies nothing");
    let answered = steady.finish()?;
    println!(
        "{answered} answered, none lost; the slowest took {quiet:?} before, {worst:?} meanwhile"
    );
    for host in [1, 2] {
        let found = lan.hosts[&host].status().await.repairs;
        assert_eq!(found, Repairs::default(), "a take-over is no drift");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_while_another_version_takes_over() -> Result<()> {
    let mut lan = Lan::published(2, 2).await?;
    let steady = Steady::start(&lan, (host4(1), 8000).into())?;
    steady.more("with both agents").await?;
    let quiet = steady.worst();
    let before = ids(&lan, 1)?;
    // What is pinned counts as another version's: its object had another content.
    take_over(&mut lan, &steady, |lan, host| {
        let other = lan.pin_dir(host).join("programs-0000000000000000");
        Ok(std::fs::rename(programs_of(lan, host)?, other)?)
    })
    .await?;
    let worst = steady.worst();
    let answered = steady.finish()?;
    println!(
        "{answered} answered, none lost; the slowest took {quiet:?} before, {worst:?} meanwhile"
    );
    let after = ids(&lan, 1)?;
    assert!(
        after.len() == before.len() && after.iter().all(|(name, id)| before[name] != *id),
        "the older version's programs are still in use: {before:?}, then {after:?}"
    );
    // A map that somebody unpinned cannot be found by its name: programs that use it are of no use.
    lan.hosts.clear();
    let mut entries = std::fs::read_dir(lan.pin_dir(1))?.flatten();
    let maps = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("maps-"));
    std::fs::remove_file(maps.context("a directory of maps")?.path().join("told"))?;
    for host in [1, 2] {
        lan.start(host).await?;
    }
    assert!(ids(&lan, 1)?.iter().all(|(name, id)| after[name] != *id));
    lan.apply().await?;
    lan.ask_tcp("c", (host4(1), 8000)).map(drop)
}
