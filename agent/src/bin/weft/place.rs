//! The directories of one node, held by one agent at a time.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

use weft_agent::network::keys::KEYS;

use crate::AgentFlags;

/// The places that the command line named. Holds the lock of the state directory.
pub(crate) struct Place {
    pub(crate) flags: AgentFlags,
    _lock: Flock<fs::File>,
}

/// How this node takes part in its swarm; kept beside its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Where its manager listens, if it is one.
    pub(crate) listen: SocketAddr,
    /// Where others reach it.
    pub(crate) advertise: SocketAddr,
    /// Which of its addresses carries task traffic.
    pub(crate) data_path: IpAddr,
    /// Managers that it joined through, then those that they named.
    pub(crate) managers: Vec<SocketAddr>,
}

/// File name of [`Settings`].
const SETTINGS: &str = "node.json";

impl Place {
    /// Makes the directories and takes the lock.
    pub(crate) fn open(flags: AgentFlags) -> Result<Self> {
        let dir = &flags.state_dir;
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir);
        made.with_context(|| {
            format!(
                "cannot make the state directory {}; another is named with --state-dir",
                dir.display()
            )
        })?;
        let lock = lock(&dir.join("lock"))?;
        Ok(Self { flags, _lock: lock })
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.flags.state_dir
    }

    pub(crate) fn load_settings(&self) -> Result<Option<Settings>> {
        let path = self.state_dir().join(SETTINGS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let settings = serde_json::from_slice(&bytes);
        settings.with_context(|| format!("{} is not understood", path.display()))
    }

    pub(crate) fn save_settings(&self, settings: &Settings) -> Result<()> {
        let path = self.state_dir().join(SETTINGS);
        let bytes = serde_json::to_vec_pretty(settings)?;
        let written = weft_proto::identity::write_private(&path, &bytes);
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets settings, identity, journal and the manager's log.
    pub(crate) fn forget(&self) -> Result<()> {
        let dir = self.state_dir();
        weft_proto::identity::Identity::forget(dir)?;
        for name in ["raft", "journal", SETTINGS, KEYS] {
            let path = dir.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Takes the lock and leaves the number of this process in it, for whom it keeps out.
fn lock(path: &Path) -> Result<Flock<fs::File>> {
    let named = || format!("cannot write {}", path.display());
    let mut options = fs::OpenOptions::new();
    let opened = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = opened.with_context(named)?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            // Who it is only helps: an empty number says nothing wrong.
            let _told = file.read_to_string(&mut holder);
            anyhow::bail!(
                "another weft agent (process {}) holds {}: stop it first, or name another state directory with --state-dir",
                holder.trim(),
                path.display()
            );
        }
        Err((_, error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    };
    lock.set_len(0).with_context(named)?;
    write!(lock, "{}", std::process::id()).with_context(named)?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_kept_out_and_told_by_whom() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        fs::write(&path, "a longer text of another life")?;
        let held = lock(&path)?;
        let refusal = lock(&path).map(drop).expect_err("it is held").to_string();
        let process = format!("(process {})", std::process::id());
        assert!(refusal.contains(&process), "{refusal}");
        assert!(refusal.contains("--state-dir"), "{refusal}");
        drop(held);
        lock(&path).map(drop)
    }
}
