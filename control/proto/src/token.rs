//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`.
//!
//! Both halves are base 36. The digest lets a joining node know the root certificate when it sees
//! it; the secret lets the managers know which role the node may have.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const DIGEST_LEN: usize = 50;
const SECRET_LEN: usize = 25;

/// A token that lets a node join a cluster.
///
/// Compared in constant time; never printed by `Debug`.
#[derive(Clone)]
pub struct JoinToken {
    digest: [u8; 32],
    secret: [u8; SECRET_LEN],
}

/// Text that is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid join token")]
pub struct ParseTokenError;

impl JoinToken {
    /// The token for the cluster whose root certificate is `root_pem`, with a secret made of 16
    /// `random` bytes.
    #[must_use]
    pub fn new(root_pem: &str, random: [u8; 16]) -> Self {
        let mut secret = [0; SECRET_LEN];
        secret.copy_from_slice(&base36::<SECRET_LEN>(&random));
        Self {
            digest: digest_of(root_pem),
            secret,
        }
    }

    /// Whether `root_pem` is the root certificate that this token was made for.
    #[must_use]
    pub fn knows(&self, root_pem: &str) -> bool {
        self.digest.ct_eq(&digest_of(root_pem)).into()
    }

    /// The digest in hexadecimal, for people.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        self.digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// SHA-256 over the PEM text, final newline included.
fn digest_of(root_pem: &str) -> [u8; 32] {
    Sha256::digest(root_pem.as_bytes()).into()
}

/// `bytes` as a big-endian number in base 36, `N` digits, padded with zeros on the left.
fn base36<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut number = bytes.to_vec();
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        let mut rest: u32 = 0;
        for byte in &mut number {
            let value = (rest << 8) | u32::from(*byte);
            *byte = (value / 36) as u8;
            rest = value % 36;
        }
        *digit = ALPHABET[rest as usize];
    }
    digits
}

/// The number that `text` spells in base 36, if it fits into `N` bytes.
fn from_base36<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for letter in text {
        let digit = ALPHABET.iter().position(|known| known == letter)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

impl PartialEq for JoinToken {
    fn eq(&self, other: &Self) -> bool {
        (self.digest.ct_eq(&other.digest) & self.secret.ct_eq(&other.secret)).into()
    }
}
impl Eq for JoinToken {}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let rest = text.strip_prefix("SWMTKN-1-").ok_or(ParseTokenError)?;
        let (digest, secret) = rest.split_once('-').ok_or(ParseTokenError)?;
        let secret: [u8; SECRET_LEN] = secret.as_bytes().try_into().map_err(|_| ParseTokenError)?;
        if digest.len() != DIGEST_LEN || !secret.iter().all(|letter| ALPHABET.contains(letter)) {
            return Err(ParseTokenError);
        }
        let digest = from_base36(digest.as_bytes()).ok_or(ParseTokenError)?;
        Ok(Self { digest, secret })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36::<DIGEST_LEN>(&self.digest);
        write!(
            f,
            "SWMTKN-1-{}-{}",
            String::from_utf8_lossy(&digest),
            String::from_utf8_lossy(&self.secret)
        )
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_survives_text(root in ".*", random: [u8; 16]) {
            let token = JoinToken::new(&root, random);
            let text = token.to_string();
            prop_assert_eq!(text.len(), "SWMTKN-1-".len() + DIGEST_LEN + 1 + SECRET_LEN);
            let back: JoinToken = text.parse().unwrap();
            prop_assert!(back == token);
            prop_assert!(back.knows(&root));
            let longer = root + "\n";
            prop_assert!(!back.knows(&longer));
        }

        #[test]
        fn a_truncated_token_is_no_token(random: [u8; 16], cut in 0usize..84) {
            let text = JoinToken::new("root", random).to_string();
            prop_assert!(text[..cut].parse::<JoinToken>().is_err());
        }

        #[test]
        fn a_token_that_lost_a_letter_is_no_token(random: [u8; 16], at in 0usize..85) {
            let mut text = JoinToken::new("root", random).to_string();
            text.remove(at);
            prop_assert!(text.parse::<JoinToken>().is_err());
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("SWMTKN-1-{text}").parse::<JoinToken>();
        }

        #[test]
        fn another_secret_is_another_token(one: [u8; 16], two: [u8; 16]) {
            prop_assume!(one != two);
            prop_assert!(JoinToken::new("root", one) != JoinToken::new("root", two));
        }
    }

    #[test]
    fn a_digest_beyond_32_bytes_is_refused() {
        let text = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        assert_eq!(text.parse::<JoinToken>(), Err(ParseTokenError));
    }
}
