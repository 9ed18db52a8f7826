//! A connection to a name, with little patience.

use std::io::{Error, ErrorKind, Result};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long connecting may take, and each read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the first address of `host`.
///
/// # Errors
/// When the name has no address, or the connection fails or stalls.
pub fn dial(host: &str, port: u16) -> Result<TcpStream> {
    let address = (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{host} has no address")))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
