//! Bodies of requests that are answered here.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use weft_types::validate;

use crate::{
    go_types::{self, Struct},
    reply::{ApiError, BodyError},
};

/// Largest body, in bytes, read whole: specs, secrets, lists of the engine. What is passed
/// through has no limit.
const MAX_BYTES: usize = 64 << 20;

/// Reads a body whole.
///
/// # Errors
/// When it breaks off or is larger than [`MAX_BYTES`].
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, ApiError>
where
    B: hyper::body::Body,
    B::Error: Into<BodyError>,
{
    match Limited::new(body, MAX_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::bad(format!(
            "request body is larger than {MAX_BYTES} bytes"
        ))),
        Err(error) => Err(ApiError::bad(format!("request body broke off: {error}"))),
    }
}

/// The value that a request's JSON spells.
///
/// # Errors
/// 400, when it spells none.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(text).map_err(|error| ApiError::bad(describe(text, &error)))
}

/// The JSON of a request as Go would have understood it.
///
/// # Errors
/// 400, when it is none.
pub(crate) fn parse_go(text: &[u8]) -> Result<serde_json::Value, ApiError> {
    if text.is_empty() {
        return Err(ApiError::bad("got EOF while reading request body"));
    }
    parse(text).map(crate::go_json::normal)
}

/// The JSON of a request, which must be a `due`, as Go would have understood it.
///
/// # Errors
/// 400, when it is none.
pub(crate) fn parse_due(text: &[u8], due: &'static Struct) -> Result<serde_json::Value, ApiError> {
    let mut value = parse_go(text)?;
    if value.is_null() {
        // Go leaves as it is, and so empty, what is told nothing.
        value = serde_json::Map::new().into();
    }
    go_types::check(&value, due)?;
    Ok(value)
}

/// The value that a request's JSON spells, which Go knows as a `due`, read as Go would.
///
/// # Errors
/// 400, when it spells none.
pub(crate) fn parse_spec<T: DeserializeOwned>(
    text: &[u8],
    due: &'static Struct,
) -> Result<T, ApiError> {
    read_spec(parse_due(text, due)?, due)
}

/// What `value`, which Go knows as a `due`, says.
///
/// # Errors
/// When it says nothing, or more than a `due` can.
pub(crate) fn read_spec<T: DeserializeOwned>(
    value: serde_json::Value,
    due: &'static Struct,
) -> Result<T, ApiError> {
    go_types::heard(&value, due)?;
    serde_json::from_value(value).map_err(|error| ApiError::bad(error.to_string()))
}

/// Refuses fields of `sent` that say something and that `read`, what was understood of it, has not.
///
/// # Errors
/// 400, naming the first of them.
pub(crate) fn understood(
    sent: &serde_json::Value,
    read: &serde_json::Value,
) -> Result<(), ApiError> {
    match validate::unread(sent, read) {
        Some((field, value)) => Err(ApiError::bad(format!(
            "{field} {value} is not supported by weft"
        ))),
        None => Ok(()),
    }
}

/// Go's words for the commonest faults, serde's for the others.
fn describe(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return if text.iter().all(u8::is_ascii_whitespace) {
            "EOF".to_owned()
        } else {
            "unexpected EOF".to_owned()
        };
    }
    let message = error.to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    let plain = &message[..end];
    if plain == "expected ident"
        && let Some(message) = broken_literal(text, error)
    {
        return message;
    }
    if plain == "invalid escape"
        && let Some(message) = broken_escape(text, error)
    {
        return message;
    }
    let expecting = match plain {
        "key must be a string" => "looking for beginning of object key string",
        "expected value" | "expected ident" => "looking for beginning of value",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "trailing characters" => "after top-level value",
        _ if plain.starts_with("control character") => "in string literal",
        _ => return plain.to_owned(),
    };
    match byte_at(text, error.line(), error.column()) {
        Some(byte) => format!("invalid character {} {expecting}", quote(byte)),
        None => plain.to_owned(),
    }
}

/// Go's word for `nope` where only `null` could begin so.
fn broken_literal(text: &[u8], error: &serde_json::Error) -> Option<String> {
    let line = text
        .split(|byte| *byte == b'\n')
        .nth(error.line().checked_sub(1)?)?;
    let at = error.column().checked_sub(1)?;
    let found = *line.get(at)?;
    (1..=4).find_map(|back| {
        let start = at.checked_sub(back)?;
        let literals = ["null", "true", "false"];
        let literal = literals
            .into_iter()
            .find(|literal| literal.as_bytes().get(..back) == line.get(start..at))?;
        let due = *literal.as_bytes().get(back)?;
        Some(format!(
            "invalid character {} in literal {literal} (expecting {})",
            quote(found),
            quote(due)
        ))
    })
}

/// Go's word for an escape that is none, of which the last byte read is known.
fn broken_escape(text: &[u8], error: &serde_json::Error) -> Option<String> {
    let line = text
        .split(|byte| *byte == b'\n')
        .nth(error.line().checked_sub(1)?)?;
    let read = line.get(..error.column())?;
    if let Some((digits, r"\u")) = read.split_last_chunk::<4>().and_then(|(before, digits)| {
        let before = before.split_last_chunk::<2>()?.1;
        Some((digits, std::str::from_utf8(before).ok()?))
    }) && let Some(found) = digits.iter().find(|digit| !digit.is_ascii_hexdigit())
    {
        let found = quote(*found);
        return Some(format!(
            r"invalid character {found} in \u hexadecimal character escape"
        ));
    }
    let found = quote(*read.last()?);
    Some(format!("invalid character {found} in string escape code"))
}

fn byte_at(text: &[u8], line: usize, column: usize) -> Option<u8> {
    if column == 0 {
        // The end of the line before.
        return Some(b'\n');
    }
    let line = text
        .split(|byte| *byte == b'\n')
        .nth(line.checked_sub(1)?)?;
    line.get(column.checked_sub(1)?).copied()
}

/// A byte as Go quotes it.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        // Go takes each byte for the letter of that number.
        0x20..=0x7e | 0xa1..=0xac | 0xae.. => format!("'{}'", byte as char),
        0x80..=0xad => format!("'\\u00{byte:02x}'"),
        _ => format!("'\\x{byte:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_json_is_described_as_go_does() {
        let refusal = |text: &str| {
            parse::<serde_json::Value>(text.as_bytes())
                .unwrap_err()
                .message
        };
        assert_eq!(
            refusal("{bad"),
            "invalid character 'b' looking for beginning of object key string"
        );
        assert_eq!(
            refusal("hello"),
            "invalid character 'h' looking for beginning of value"
        );
        assert_eq!(refusal(""), "EOF");
        for (text, due) in [
            (
                r#"{"x":"\u12"}"#,
                r#"invalid character '"' in \u hexadecimal character escape"#,
            ),
            (
                r#"{"x":"\u12g4"}"#,
                r"invalid character 'g' in \u hexadecimal character escape",
            ),
            (
                r#"{"x":"\q"}"#,
                "invalid character 'q' in string escape code",
            ),
            (
                "{\"x\":\"a\u{1}\"}",
                r"invalid character '\x01' in string literal",
            ),
            (
                "{\"x\":\"a\n\"}",
                r"invalid character '\n' in string literal",
            ),
        ] {
            assert_eq!(refusal(text), due, "{text}");
        }
        let odd = parse::<serde_json::Value>(b"\xff").unwrap_err().message;
        assert_eq!(odd, "invalid character 'ÿ' looking for beginning of value");
        let none = parse_due(b"", &go_types::CLUSTER).unwrap_err().message;
        assert_eq!(none, "got EOF while reading request body");
        assert_eq!(
            parse_due(b"null", &go_types::CLUSTER),
            Ok(serde_json::json!({}))
        );
        assert_eq!(refusal("{\"a\":"), "unexpected EOF");
        assert_eq!(
            refusal("{} x"),
            "invalid character 'x' after top-level value"
        );
    }
}
