//! Random ids as Swarm writes them.

use std::{cmp::Ordering, fmt, hash, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A random id as Swarm writes it: 25 characters of `[0-9a-z]`, about 129 bits.
///
/// `T` is the kind of thing named, so that a task's id cannot be passed for a network's.
pub struct Id<T>([u8; LEN], PhantomData<fn() -> T>);

/// Characters in an id.
pub const LEN: usize = 25;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl<T> Id<T> {
    /// The id that 17 random bytes spell: base 36 of the number with its top bit set, leading
    /// digit dropped, so that every id has the same length (Docker's rule).
    #[must_use]
    pub fn from_random(mut random: [u8; 17]) -> Self {
        random[0] |= 0x80;
        let mut digits = [b'0'; 27];
        for digit in digits.iter_mut().rev() {
            let mut rest: u32 = 0;
            for byte in &mut random {
                let value = (rest << 8) | u32::from(*byte);
                *byte = (value / 36) as u8;
                rest = value % 36;
            }
            *digit = ALPHABET[rest as usize];
        }
        let mut text = [b'0'; LEN];
        text.copy_from_slice(&digits[1..=LEN]);
        Self(text, PhantomData)
    }

    /// A predictable id for tests and simulations: `number` in base 36, padded with zeros.
    #[must_use]
    pub fn numbered(mut number: u128) -> Self {
        let mut text = [b'0'; LEN];
        for digit in text.iter_mut().rev() {
            *digit = ALPHABET[(number % 36) as usize];
            number /= 36;
        }
        Self(text, PhantomData)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The same id naming another kind: used where Swarm itself mixes kinds (a job's lookups).
    #[must_use]
    pub fn cast<U>(self) -> Id<U> {
        Id(self.0, PhantomData)
    }
}

/// Text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: 25 characters of 0-9a-z")]
pub struct ParseIdError(pub String);

impl<T> FromStr for Id<T> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes: [u8; LEN] = text
            .as_bytes()
            .try_into()
            .map_err(|_| ParseIdError(text.to_owned()))?;
        if bytes.iter().all(|byte| ALPHABET.contains(byte)) {
            Ok(Self(bytes, PhantomData))
        } else {
            Err(ParseIdError(text.to_owned()))
        }
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<T> hash::Hash for Id<T> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl<T> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
impl<'de, T> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);
        impl<T> de::Visitor<'_> for Text<T> {
            type Value = Id<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id of 25 characters of 0-9a-z")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id<T>, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text(PhantomData))
    }
}

/// Kinds of things that have ids; uninhabited, they only tell ids apart.
pub mod kind {
    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $($(#[$doc])* #[derive(Debug)] pub enum $name {})* };
    }
    kinds! {
        /// The cluster itself.
        Cluster,
        /// One machine.
        Node,
        /// A wish for tasks.
        Service,
        /// One attempt at a slot.
        Task,
        /// A reach of addresses.
        Network,
        /// A secret.
        Secret,
        /// A config.
        Config,
        /// A node's talk with a manager.
        Session,
    }
}

/// Names a cluster.
pub type ClusterId = Id<kind::Cluster>;
/// Names a node.
pub type NodeId = Id<kind::Node>;
/// Names a service.
pub type ServiceId = Id<kind::Service>;
/// Names a task.
pub type TaskId = Id<kind::Task>;
/// Names a network.
pub type NetworkId = Id<kind::Network>;
/// Names a secret.
pub type SecretId = Id<kind::Secret>;
/// Names a config.
pub type ConfigId = Id<kind::Config>;
/// Names a session.
pub type SessionId = Id<kind::Session>;

/// One attachment of a task to a network, cluster-wide: the last four bytes of its MAC address.
///
/// Given out by the allocator in series and not reused before the series wraps, so that a stale
/// table entry names nobody instead of somebody else. Zero is nobody.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BackendId(pub u32);

impl BackendId {
    /// The MAC address of this attachment's interface: `02:00` and the id, big-endian.
    #[must_use]
    pub fn mac(self) -> [u8; 6] {
        let [a, b, c, d] = self.0.to_be_bytes();
        [0x02, 0x00, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_spell_25_characters_of_base_36() {
        for seed in 0..=255u8 {
            let id = TaskId::from_random([seed; 17]);
            assert_eq!(id.as_str().len(), 25);
            assert_eq!(id.as_str().parse::<TaskId>(), Ok(id));
        }
        assert_ne!(TaskId::from_random([1; 17]), TaskId::from_random([2; 17]));
    }

    #[test]
    fn other_text_is_no_id() {
        assert!("web".parse::<TaskId>().is_err());
        assert!("0123456789ABCDEF012345678".parse::<TaskId>().is_err());
    }
}
