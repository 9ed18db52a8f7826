//! One command to a Redis server: words out, one simple answer back.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};

use crate::dial::dial;

/// Says `words` to the server at `host:6379`; answers its text, empty for nil.
///
/// # Errors
/// When the name has no address, the connection fails or stalls for 5 s, or the server answers with an error.
pub fn call(host: &str, words: &[&str]) -> Result<String> {
    let mut stream = dial(host, 6379)?;
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(command.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    match (line.get(..1), line.get(1..)) {
        (Some("+" | ":"), Some(text)) => Ok(text.to_owned()),
        (Some("$"), Some("-1")) => Ok(String::new()),
        (Some("$"), Some(length)) => {
            let mut bytes = vec![
                0;
                length.parse().map_err(|_| Error::new(
                    ErrorKind::InvalidData,
                    "bad length"
                ))?
            ];
            reader.read_exact(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => Err(Error::other(format!("{host} answered `{line}`"))),
    }
}
