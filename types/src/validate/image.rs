//! References of images.

/// Whether `text` can name an image: `[host[:port]/]path[:tag][@algorithm:digest]`, with paths in
/// lower case.
#[must_use]
pub fn image_reference(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return false;
    }
    // 64 hexadecimal digits would be read as an image's id.
    if digest.is_none() && rest.len() == 64 && rest.bytes().all(is_lower_hex) {
        return false;
    }
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return false;
    }
    let (host, path) = match name.split_once('/') {
        Some((first, path)) if is_host_like(first) => (Some(first), path),
        _ => (None, name),
    };
    host.is_none_or(is_host) && name.len() <= 255 && path.split('/').all(is_component)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-_".contains(&byte);
    let named = algorithm.starts_with(|first: char| first.is_ascii_alphabetic());
    named
        && algorithm.bytes().all(fits)
        && hex.len() >= 32
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `[\w][\w.-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let Some((first, rest)) = text.as_bytes().split_first() else {
        return false;
    };
    word(*first) && rest.len() <= 127 && rest.iter().all(|byte| word(*byte) || b".-".contains(byte))
}

/// Whether the part before the first slash is a registry's host.
fn is_host_like(text: &str) -> bool {
    let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
    text == "localhost" || text.contains(['.', ':', '[']) || upper
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// Runs of `[a-z0-9]` joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    if bytes.is_empty() || !ends.iter().flatten().all(|byte| alphanumeric(**byte)) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|joint| !joint.is_empty())
        .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-'))
}
