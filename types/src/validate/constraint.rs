//! Placement constraints: `key==value`, `key!=value`.

use super::Refusal;

/// Whether all of `expressions` are constraints.
///
/// # Errors
/// Docker's refusal of the first that is none.
pub fn constraints(expressions: &[String]) -> Result<(), Refusal> {
    for expression in expressions {
        let split = ["==", "!="]
            .into_iter()
            .find_map(|operator| expression.split_once(operator));
        let Some((key, value)) = split else {
            return Err(Refusal::unknown(
                "constraint expected one operator from ==, !=",
            ));
        };
        let key = key.trim();
        if !is_key(key) {
            return Err(Refusal::unknown(format!("key '{key}' is invalid")));
        }
        let value = value.trim();
        if !is_value(value) {
            return Err(Refusal::unknown(format!("value '{value}' is invalid")));
        }
    }
    Ok(())
}

/// `[a-z_][a-z0-9\-_.]+`, in any case.
fn is_key(key: &str) -> bool {
    let Some((first, rest)) = key.as_bytes().split_first() else {
        return false;
    };
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (first.is_ascii_alphabetic() || *first == b'_') && !rest.is_empty() && rest.iter().all(fits)
}

/// `[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+`, in any case.
fn is_value(value: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || byte.is_ascii_whitespace()
            || b":-_.*()?+[]\\^$|/".contains(&byte)
    };
    !value.is_empty() && value.bytes().all(fits)
}
