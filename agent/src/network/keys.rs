//! This node's own keys for encrypted networks: one for each generation that the cluster names, made here.
//! Only their public halves are ever told.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use weft_dataplane::{WireGuard, WireGuardKey};
use weft_types::netstate::KeyGenerations;

/// Directory of the private keys within the state directory: a file for each, named by its generation.
pub const KEYS: &str = "wireguard";

/// The keys of this node, in files that outlive the agent.
#[derive(Debug)]
pub struct KeyShelf {
    dir: PathBuf,
    /// UDP port of even generations; odd ones have the next.
    port: u16,
    /// Oldest first.
    held: Mutex<Vec<WireGuard>>,
}

/// What must happen to keys of the generations that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Step {
    make: Option<u64>,
    remove: Vec<u64>,
}

/// Only the newest is ever made: by older ones nobody knows this node.
fn step(there: impl Iterator<Item = u64> + Clone, wanted: KeyGenerations) -> Step {
    let KeyGenerations { newest, oldest } = wanted;
    let has_newest = there.clone().any(|generation| generation == newest);
    Step {
        make: (!has_newest).then_some(newest),
        remove: there
            .filter(|generation| !(oldest..=newest).contains(generation))
            .collect(),
    }
}

impl KeyShelf {
    /// The keys in `state_dir`, to be used at `port` and the next one.
    ///
    /// # Errors
    /// When the directory cannot be made, or a key in it cannot be read.
    pub fn open(state_dir: &Path, port: u16) -> io::Result<Self> {
        let dir = state_dir.join(KEYS);
        fs::create_dir_all(&dir)?;
        let mut held = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(generation) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            let read = fs::read(&path).and_then(|bytes| {
                <[u8; 32]>::try_from(bytes.as_slice())
                    .map_err(|_| io::Error::other("it is not a key of 32 bytes: remove it"))
            });
            let bytes = read.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot read {}: {error}", path.display()),
                )
            })?;
            held.push(own(generation, bytes, port));
        }
        held.sort_by_key(|own| own.generation);
        Ok(Self {
            dir,
            port,
            held: Mutex::new(held),
        })
    }

    /// The keys at hand, oldest first.
    #[must_use]
    pub fn held(&self) -> Vec<WireGuard> {
        self.lock().clone()
    }

    /// Makes the key of the newest generation when there is none, forgets those that do not count any more,
    /// and answers what is at hand then. Where the disk refuses, that is what was there before.
    #[must_use]
    pub fn follow(&self, wanted: KeyGenerations) -> Vec<WireGuard> {
        let mut held = self.lock();
        let step = step(held.iter().map(|own| own.generation), wanted);
        if let Some(generation) = step.make {
            match self.make(generation) {
                Ok(own) => {
                    tracing::info!(generation, "made a key for encrypted networks");
                    held.push(own);
                    held.sort_by_key(|own| own.generation);
                }
                Err(error) => {
                    let dir = self.dir.display();
                    tracing::warn!(generation, %dir, %error, "cannot make a key for encrypted networks; tried again soon");
                    return held.clone();
                }
            }
        }
        for generation in step.remove {
            if let Err(error) = fs::remove_file(self.path(generation)) {
                tracing::warn!(generation, %error, "an old key for encrypted networks stays on the disk");
            }
            held.retain(|own| own.generation != generation);
        }
        held.clone()
    }

    fn make(&self, generation: u64) -> io::Result<WireGuard> {
        let mut bytes = [0; 32];
        fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        weft_proto::identity::write_private(&self.path(generation), &bytes)?;
        Ok(own(generation, bytes, self.port))
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.dir.join(generation.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WireGuard>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn own(generation: u64, bytes: [u8; 32], port: u16) -> WireGuard {
    WireGuard {
        generation,
        key: WireGuardKey::from_bytes(bytes),
        port: WireGuard::port_of(port, generation),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn generations(newest: u64, oldest: u64) -> KeyGenerations {
        KeyGenerations { newest, oldest }
    }

    #[test]
    fn only_the_newest_is_made_and_only_what_counts_is_kept() {
        let step = |there: &[u64], newest, oldest| {
            let step = step(there.iter().copied(), generations(newest, oldest));
            (step.make, step.remove)
        };
        assert_eq!(step(&[], 0, 0), (Some(0), vec![]));
        assert_eq!(step(&[], 5, 4), (Some(5), vec![]), "nobody knows it by 4");
        assert_eq!(step(&[4], 5, 4), (Some(5), vec![]));
        assert_eq!(step(&[4, 5], 5, 4), (None, vec![]));
        assert_eq!(step(&[4, 5], 5, 5), (None, vec![4]));
        assert_eq!(step(&[2], 5, 5), (Some(5), vec![2]), "it was away for long");
        assert_eq!(
            step(&[7], 5, 5),
            (Some(5), vec![7]),
            "the cluster is an older one again"
        );
    }

    #[test]
    fn keys_outlive_the_agent_and_are_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = KeyShelf::open(dir.path(), 1000).unwrap();
        assert_eq!(shelf.held(), []);
        let [first] = &shelf.follow(generations(4, 4))[..] else {
            panic!("one key");
        };
        let both = shelf.follow(generations(5, 4));
        assert_eq!(both[0], *first);
        assert_ne!(both[0].key, both[1].key);
        assert_eq!((both[0].port, both[1].port), (1000, 1001));
        let file = dir.path().join(KEYS).join("5");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let again = KeyShelf::open(dir.path(), 1000).unwrap();
        assert_eq!(again.held(), both);
        assert_eq!(again.follow(generations(5, 5)), both[1..]);
        let left: Vec<_> = std::fs::read_dir(dir.path().join(KEYS)).unwrap().collect();
        assert_eq!(left.len(), 1, "the old private key is gone from the disk");
    }
}
