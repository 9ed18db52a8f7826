//! The directories of one node, held by one agent at a time.

use std::{fs, io::Read as _, os::unix::fs::DirBuilderExt, path::Path};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

use weft_dataplane::{WireGuard, WireGuardKey};

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

/// File name of the private key for encrypted networks.
const WIREGUARD_KEY: &str = "wireguard.key";

impl Place {
    /// Makes the directories and takes the lock.
    pub(crate) fn open(flags: AgentFlags) -> Result<Self> {
        let dir = &flags.state_dir;
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir);
        made.with_context(|| format!("cannot make the state directory {}", dir.display()))?;
        let path = dir.join("lock");
        let file =
            fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            anyhow::anyhow!(
                "cannot lock {}: {error}; another weft agent runs with this state directory: stop it first, or name another with --state-dir",
                path.display()
            )
        })?;
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

    /// This node's key for encrypted networks, made when there is none yet.
    pub(crate) fn wireguard(&self) -> Result<WireGuard> {
        let path = self.state_dir().join(WIREGUARD_KEY);
        let key = match fs::read(&path) {
            Ok(bytes) => {
                let bytes = <[u8; 32]>::try_from(bytes.as_slice());
                bytes.with_context(|| format!("{} is not a key of 32 bytes", path.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                fs::File::open("/dev/urandom")
                    .and_then(|mut random| random.read_exact(&mut key))
                    .context("cannot make a key from /dev/urandom")?;
                let written = weft_proto::identity::write_private(&path, &key);
                written.with_context(|| format!("cannot write {}", path.display()))?;
                key
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let key = WireGuardKey::from_bytes(key);
        Ok(WireGuard {
            key,
            port: self.flags.wireguard_port,
        })
    }

    /// Forgets settings, identity, journal and the manager's log.
    pub(crate) fn forget(&self) -> Result<()> {
        let dir = self.state_dir();
        weft_proto::identity::Identity::forget(dir)?;
        for name in ["raft", "journal", SETTINGS, WIREGUARD_KEY] {
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
