//! The house rules as code. Every message says what is wrong, why it matters here, and what to do instead.

mod manifest;
mod promises;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::place;

/// One broken rule.
struct Fault {
    /// File, from the clone's top, with a line number where one helps.
    at: String,
    what: String,
}

/// A crate of the workspace.
struct Crate {
    /// Its folder from the clone's top: a folder is a crate is a path prefix.
    dir: String,
    /// Text of its manifest.
    manifest: String,
}

/// Checks every rule; prints each broken one.
///
/// # Errors
/// When a rule is broken, or the tree cannot be read.
pub(crate) fn tidy() -> Result<()> {
    let root = place::root();
    let crates = crates(&root)?;
    let mut faults = Vec::new();
    for one in &crates {
        manifest::check(one, &mut faults);
    }
    for one in &crates {
        for file in sources(&root.join(&one.dir), &crates, &root)? {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let name = file
                .strip_prefix(&root)
                .unwrap_or(&file)
                .to_string_lossy()
                .into_owned();
            source::check(&name, &text, &mut faults);
        }
    }
    promises::check(&root, &mut faults)?;
    for fault in &faults {
        println!("{}: {}", fault.at, fault.what);
    }
    match faults.len() {
        0 => Ok(()),
        1 => bail!("tidy: one house rule is broken"),
        count => bail!("tidy: {count} house rules are broken"),
    }
}

fn crates(root: &Path) -> Result<Vec<Crate>> {
    let workspace = fs::read_to_string(root.join("Cargo.toml"))
        .context("cannot read the workspace's Cargo.toml")?;
    let members = workspace
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list)
        .context("the workspace's Cargo.toml lists no members")?;
    members
        .split(',')
        .map(|word| word.trim().trim_matches('"'))
        .filter(|word| !word.is_empty())
        .map(|dir| {
            let path = root.join(dir).join("Cargo.toml");
            let manifest = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Crate {
                dir: dir.to_owned(),
                manifest,
            })
        })
        .collect()
}

/// Rust files of a crate, without those of crates that live inside its folder.
fn sources(dir: &Path, crates: &[Crate], root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if path.is_dir() {
            let is_other_crate = crates.iter().any(|other| root.join(&other.dir) == path);
            if !is_other_crate && name.as_deref() != Some("target") {
                found.extend(sources(&path, crates, root)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
