//! The data key, and how records are sealed with it.

use std::{fs, io, path::Path, sync::Arc};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};
use weft_proto::identity::{KeyLock, write_private};
use zeroize::{Zeroize, Zeroizing};

const FILE: &str = "key";
const NONCE_LEN: usize = 24;

/// A data key that cannot be used, or a record that it does not open.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file could not be read or written.
    #[error("cannot {verb} the data key {path}")]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key file says something else than a key.
    #[error("{path} holds no data key: {cause}")]
    Format {
        /// Which file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// The data key is wrapped by the cluster's unlock key, which was not given.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \
         \"docker swarm unlock\" to unlock it."
    )]
    Locked,
    /// The unlock key is no unlock key.
    #[error("invalid key string")]
    NoUnlockKey,
    /// The unlock key is another one's.
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongUnlockKey,
    /// There is nothing to unlock.
    #[error("swarm is not locked")]
    NotLocked,
    /// The record was changed since it was written, or written with another key.
    #[error("{0} is damaged: it does not open with the data key")]
    Damaged(String),
}

/// The key as it lies on disk.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    /// Form of this file. History: 1 (2026-11), first.
    form: u32,
    /// Whether `key` is wrapped by the unlock key.
    #[serde(default)]
    locked: bool,
    /// 32 bytes, base64; wrapped when `locked`.
    key: String,
}

/// What comes before an unlock key's 32 bytes.
const UNLOCK_PREFIX: &str = "SWMKEY-1-";

/// The place of the data key itself, when it is sealed with the unlock key.
const DATA_KEY: &[u8] = b"data key";

/// Seals records with the data key of this manager.
#[derive(Clone)]
pub struct Seal {
    cipher: XChaCha20Poly1305,
    key: Arc<Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

/// The seal that an unlock key (`SWMKEY-1-…`) makes.
fn unlocker(text: &str) -> Result<Seal, KeyError> {
    let bytes = text
        .strip_prefix(UNLOCK_PREFIX)
        .and_then(|bytes| STANDARD_NO_PAD.decode(bytes).ok())
        .map(Zeroizing::new)
        .ok_or(KeyError::NoUnlockKey)?;
    let key = bytes.as_slice().try_into();
    Ok(Seal::new(key.map_err(|_| KeyError::NoUnlockKey)?))
}

fn file_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.display().to_string();
    move |source| KeyError::File { verb, path, source }
}

fn read_file(path: &Path) -> Result<Option<KeyFile>, KeyError> {
    match fs::read(path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            let parsed = serde_json::from_slice(&bytes);
            parsed.map(Some).map_err(|error| KeyError::Format {
                path: path.display().to_string(),
                cause: error.to_string(),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error("read", path)(error)),
    }
}

impl KeyFile {
    /// The data key in it.
    fn open(mut self, path: &Path, unlock_key: Option<&str>) -> Result<Seal, KeyError> {
        let format = |cause: &str| KeyError::Format {
            path: path.display().to_string(),
            cause: cause.to_owned(),
        };
        let bytes = STANDARD.decode(&self.key).map(Zeroizing::new);
        self.key.zeroize();
        let bytes = bytes.map_err(|error| format(&error.to_string()))?;
        let key = match (self.locked, unlock_key) {
            (false, None) => bytes,
            (false, Some(_)) => return Err(KeyError::NotLocked),
            (true, None) => return Err(KeyError::Locked),
            (true, Some(text)) => unlocker(text)?
                .open_record(DATA_KEY, &bytes)
                .map(Zeroizing::new)
                .map_err(|_| KeyError::WrongUnlockKey)?,
        };
        let key = key.as_slice().try_into();
        Ok(Seal::new(
            key.map_err(|_| format("it is not 32 bytes long"))?,
        ))
    }
}

impl Seal {
    /// A seal with the given key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            cipher: XChaCha20Poly1305::new(&key.into()),
            key: Arc::new(Zeroizing::new(key)),
        }
    }

    /// The seal of the manager that keeps its state in `directory`; makes its key if there is none.
    ///
    /// # Errors
    /// When the key cannot be read, is locked, or a new one cannot be written.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        match read_file(&path)? {
            Some(file) => file.open(&path, None),
            None => {
                let seal = Self::new(rand::random());
                seal.write(&path, "")?;
                Ok(seal)
            }
        }
    }

    /// The seal of a manager whose key is locked, opened with the cluster's unlock key. The file
    /// stays locked.
    ///
    /// # Errors
    /// When the unlock key is malformed or another one's, or nothing is locked.
    pub fn unlock(directory: &Path, unlock_key: &str) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        let file = read_file(&path)?.ok_or(KeyError::NotLocked)?;
        file.open(&path, Some(unlock_key))
    }

    /// Whether the manager in `directory` needs the unlock key to start.
    ///
    /// # Errors
    /// When the key file cannot be read.
    pub fn is_locked(directory: &Path) -> Result<bool, KeyError> {
        Ok(read_file(&directory.join(FILE))?.is_some_and(|file| file.locked))
    }

    /// Makes the key file in `directory` such that `unlock_key` opens it; empty leaves it open.
    /// Writes nothing if it is so already.
    ///
    /// # Errors
    /// When the file cannot be written; it is as before then.
    pub fn keep(&self, directory: &Path, unlock_key: &str) -> Result<(), KeyError> {
        let path = directory.join(FILE);
        let given = (!unlock_key.is_empty()).then_some(unlock_key);
        let opened = match read_file(&path)? {
            Some(file) => file.open(&path, given),
            None => Err(KeyError::NotLocked),
        };
        match opened {
            Ok(_) => Ok(()),
            Err(_) => self.write(&path, unlock_key),
        }
    }

    fn write(&self, path: &Path, unlock_key: &str) -> Result<(), KeyError> {
        let locked = !unlock_key.is_empty();
        let key = if locked {
            STANDARD.encode(unlocker(unlock_key)?.seal(DATA_KEY, self.key.as_slice()))
        } else {
            STANDARD.encode(self.key.as_slice())
        };
        let mut file = KeyFile {
            form: 1,
            locked,
            key,
        };
        let text = serde_json::to_vec(&file).map(Zeroizing::new);
        file.key.zeroize();
        let text = text.map_err(|error| file_error("write", path)(error.into()))?;
        write_private(path, &text).map_err(file_error("write", path))
    }

    /// `plain` sealed for the place named `place`: nonce and ciphertext. A record moved to another
    /// place does not open there.
    #[must_use]
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let payload = Payload {
            msg: plain,
            aad: place,
        };
        // Encryption only fails for messages of hundreds of gigabytes.
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let mut record = nonce.to_vec();
        record.extend(sealed.unwrap_or_default());
        record
    }

    /// What was sealed for `place`.
    ///
    /// # Errors
    /// When the record was changed, moved, or sealed with another key.
    pub fn open_record(&self, place: &[u8], record: &[u8]) -> Result<Vec<u8>, KeyError> {
        let damaged = || KeyError::Damaged(String::from_utf8_lossy(place).into_owned());
        let (nonce, sealed) = record.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| damaged())?;
        let payload = Payload {
            msg: sealed,
            aad: place,
        };
        self.cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| damaged())
    }
}

/// The place of a node's private key.
const NODE_KEY: &[u8] = b"node key";

impl KeyLock for Seal {
    fn lock(&self, key: &str) -> String {
        STANDARD.encode(self.seal(NODE_KEY, key.as_bytes()))
    }

    fn open(&self, locked: &str) -> Option<String> {
        let record = STANDARD.decode(locked).ok()?;
        String::from_utf8(self.open_record(NODE_KEY, &record).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_opens_where_it_was_sealed_and_nowhere_else(plain: Vec<u8>, flip: usize) {
            let seal = Seal::new([7; 32]);
            let record = seal.seal(b"log 1", &plain);
            prop_assert_eq!(seal.open_record(b"log 1", &record).unwrap(), plain);
            prop_assert!(seal.open_record(b"log 2", &record).is_err());
            prop_assert!(Seal::new([8; 32]).open_record(b"log 1", &record).is_err());
            let mut flipped = record.clone();
            let bit = flip % (record.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(seal.open_record(b"log 1", &flipped).is_err());
            prop_assert!(seal.open_record(b"log 1", &record[..flip % record.len()]).is_err());
        }
    }

    #[test]
    fn the_key_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let record = Seal::open(directory.path()).unwrap().seal(b"x", b"text");
        let again = Seal::open(directory.path()).unwrap();
        assert_eq!(again.open_record(b"x", &record).unwrap(), b"text");
        fs::write(directory.path().join("key"), b"{}").unwrap();
        assert!(Seal::open(directory.path()).is_err());
    }

    #[test]
    fn a_locked_key_opens_with_the_unlock_key_only() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let seal = Seal::open(place).unwrap();
        let record = seal.seal(b"x", b"text");
        let key = |fill: u8| format!("SWMKEY-1-{}", STANDARD_NO_PAD.encode([fill; 32]));
        assert!(matches!(
            Seal::unlock(place, &key(1)),
            Err(KeyError::NotLocked)
        ));
        seal.keep(place, &key(1)).unwrap();
        assert!(Seal::is_locked(place).unwrap());
        assert!(matches!(Seal::open(place), Err(KeyError::Locked)));
        assert!(matches!(
            Seal::unlock(place, &key(2)),
            Err(KeyError::WrongUnlockKey)
        ));
        assert!(matches!(
            Seal::unlock(place, "key"),
            Err(KeyError::NoUnlockKey)
        ));
        let again = Seal::unlock(place, &key(1)).unwrap();
        assert_eq!(again.open_record(b"x", &record).unwrap(), b"text");
        again.keep(place, &key(2)).unwrap();
        assert!(Seal::unlock(place, &key(1)).is_err());
        Seal::unlock(place, &key(2))
            .unwrap()
            .keep(place, "")
            .unwrap();
        assert!(Seal::open(place).is_ok());
    }
}
