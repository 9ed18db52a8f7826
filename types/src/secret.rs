//! Secrets and configs.

use base64::{
    DecodeError, Engine, alphabet,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{ConfigId, Labels, Meta, Rest, SecretId, network::Driver};

/// As Go reads it: bits that belong to no byte may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Bytes that JSON carries as base64.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl std::fmt::Debug for Base64 {
    /// The length only: the bytes may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Base64 {
    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        // Go, and so Docker, takes text in lines.
        text.retain(|letter| !matches!(letter, '\r' | '\n'));
        LENIENT.decode(&text).map(Self).map_err(|fault| {
            // Go's words, and where it finds the fault.
            let at = match fault {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => {
                    text.len() - text.len() % 4
                }
            };
            de::Error::custom(format!("illegal base64 data at input byte {at}"))
        })
    }
}

/// A secret's or config's content and names.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SecretSpec {
    /// Unique among its kind.
    pub name: String,
    /// The user's own.
    #[serde(deserialize_with = "crate::service::null_as_default")]
    pub labels: Labels,
    /// The content. The API never returns a secret's.
    #[serde(skip_serializing_if = "Base64::is_empty")]
    pub data: Base64,
    /// An external store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// `golang`: the content is a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<Driver>,
    /// Fields that we do not interpret.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A config's content and names: a secret's shape, but the API returns its data.
pub type ConfigSpec = SecretSpec;

/// A secret, as the store holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Secret {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: SecretId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// Content and names.
    pub spec: SecretSpec,
}

/// A config, as the store holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: ConfigId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// Content and names.
    pub spec: ConfigSpec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_go_reads_them() {
        let read = |text: &str| serde_json::from_value::<Base64>(text.into());
        for text in ["YWI=", "YW\nI=\r\n", "YWJ="] {
            assert_eq!(read(text).unwrap().0, b"ab", "{text:?}");
        }
        for (text, at) in [
            ("!!", 0),
            ("YWI=YWI!", 3),
            ("YWJjYW!=", 6),
            ("YQ", 0),
            ("YWJjYQ", 4),
        ] {
            let why = read(text).unwrap_err().to_string();
            assert_eq!(
                why,
                format!("illegal base64 data at input byte {at}"),
                "{text}"
            );
        }
    }
}
