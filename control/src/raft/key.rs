//! The data key, and how records are sealed with it.

use std::{fs, io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};
use weft_proto::identity::write_private;
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
    /// The data key is wrapped by the cluster's unlock key.
    #[error("the data key is locked")]
    Locked,
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

/// Seals records with the data key of this manager.
#[derive(Clone)]
pub struct Seal(XChaCha20Poly1305);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// A seal with the given key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(&key.into()))
    }

    /// The seal of the manager that keeps its state in `directory`; makes its key if there is none.
    ///
    /// # Errors
    /// When the key cannot be read, is locked, or a new one cannot be written.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        let name = path.display().to_string();
        let fail = |verb| {
            let path = name.clone();
            move |source| KeyError::File { verb, path, source }
        };
        match fs::read(&path) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let format = |cause: String| KeyError::Format {
                    path: name.clone(),
                    cause,
                };
                let mut file: KeyFile =
                    serde_json::from_slice(&bytes).map_err(|error| format(error.to_string()))?;
                if file.locked {
                    return Err(KeyError::Locked);
                }
                let key = Zeroizing::new(
                    STANDARD
                        .decode(&file.key)
                        .map_err(|error| format(error.to_string()))?,
                );
                file.key.zeroize();
                let key: [u8; 32] = key
                    .as_slice()
                    .try_into()
                    .map_err(|_| format("it is not 32 bytes long".to_owned()))?;
                Ok(Self::new(key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
                let file = KeyFile {
                    form: 1,
                    locked: false,
                    key: STANDARD.encode(*key),
                };
                let text = serde_json::to_vec(&file)
                    .map(Zeroizing::new)
                    .map_err(|error| fail("write")(error.into()))?;
                write_private(&path, &text).map_err(fail("write"))?;
                Ok(Self::new(*key))
            }
            Err(error) => Err(fail("read")(error)),
        }
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
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload);
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
        self.0
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| damaged())
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
}
