//! Query strings.

use crate::reply::ApiError;

/// The parameters of a query string, decoded, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode_form(key), decode_form(value))
                })
                .collect(),
        )
    }

    /// What Go refuses of a query string, in its words.
    pub(crate) fn fault(text: &str) -> Option<String> {
        text.split('&').find_map(|pair| {
            if pair.contains(';') {
                return Some("invalid semicolon separator in query".to_owned());
            }
            // Escapes end where a name does.
            let parts = pair.splitn(2, '=');
            let escapes = parts.flat_map(|part| part.split('%').skip(1));
            let whole = |escape: &&str| {
                let digits = escape.as_bytes().get(..2);
                digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            };
            let broken = { escapes }.find(|escape| !whole(escape))?;
            let shown: String = broken.chars().take(2).collect();
            Some(format!("invalid URL escape {:?}", format!("%{shown}")))
        })
    }

    /// The first value of `key`; empty when there is none, as Go has it.
    pub(crate) fn get(&self, key: &str) -> &str {
        let first = self.0.iter().find(|(name, _)| name == key);
        first.map_or("", |(_, value)| value)
    }

    /// All parameters, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether `key` says yes: anything but nothing, `0`, `no`, `false` and `none`, Docker's rule.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.get(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// Whether `key` says yes; where Docker knows no more words than Go does.
    ///
    /// # Errors
    /// 400 for other words.
    pub(crate) fn truth(&self, key: &str) -> Result<bool, ApiError> {
        match self.get(key) {
            "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
            other => Err(ApiError::bad(format!(
                "invalid value for {key}: {other}: strconv.ParseBool: parsing {other:?}: invalid syntax"
            ))),
        }
    }

    /// The object version of an update of a `kind`.
    pub(crate) fn version(&self, kind: &str) -> Result<u64, ApiError> {
        let text = self.get("version");
        text.parse().map_err(|_| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let why = if digits {
                "value out of range"
            } else {
                "invalid syntax"
            };
            ApiError::bad(format!(
                "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: {why}"
            ))
        })
    }
}

/// A query string of `pairs`.
pub(crate) fn encode(pairs: &[(String, String)]) -> String {
    let one = |text: &str| {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        });
        bytes.collect::<String>()
    };
    let pairs = pairs
        .iter()
        .map(|(key, value)| format!("{}={}", one(key), one(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A path whose characters are escaped where they must be.
pub(crate) fn encode_path(path: &str) -> String {
    let bytes = path.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ if b"-_.~$&+,/:;=@".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// Percent-decodes a path. Broken escapes stay as they are; broken UTF-8 is replaced.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3);
        let hex = pair.and_then(|pair| std::str::from_utf8(pair).ok());
        let value = hex
            .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], value) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn decode_form(text: &str) -> String {
    decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("a=1&b=x%20y+z&c&a=2&%64=%zz%4");
        assert_eq!(query.get("a"), "1");
        assert_eq!(query.get("b"), "x y z");
        assert_eq!(query.get("c"), "");
        assert_eq!(query.get("d"), "%zz%4");
        assert!(query.flag("a") && !query.flag("c") && !query.flag("e"));
    }

    #[test]
    fn what_go_cannot_read_is_refused_in_its_words() {
        for (text, due) in [
            ("filters=%zz", "invalid URL escape \"%zz\""),
            ("a=1&%2=b", "invalid URL escape \"%2\""),
            ("a=%", "invalid URL escape \"%\""),
            ("a;b=c", "invalid semicolon separator in query"),
        ] {
            assert_eq!(Query::fault(text).as_deref(), Some(due), "{text}");
        }
        for text in ["", "a", "a=%7B%7d&b=+", "&&", "a==b"] {
            assert_eq!(Query::fault(text), None, "{text}");
        }
    }

    #[test]
    fn queries_are_written_as_they_are_read() {
        let pairs = vec![
            ("a b".to_owned(), "x&y=z+%".to_owned()),
            ("c".to_owned(), "{\"ä\":[1]}".to_owned()),
        ];
        let query = Query::parse(&encode(&pairs));
        let read: Vec<_> = query
            .pairs()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(read, pairs);
    }

    #[test]
    fn a_bad_version_is_refused_as_docker_does() {
        let refusal = |text: &str| Query::parse(text).version("service").unwrap_err().message;
        assert_eq!(
            refusal(""),
            "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax"
        );
        assert_eq!(
            refusal("version=abc"),
            "invalid service version 'abc': strconv.ParseUint: parsing \"abc\": invalid syntax"
        );
        assert_eq!(Query::parse("version=7").version("x"), Ok(7));
    }
}
