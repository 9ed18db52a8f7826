//! Byte streams from a manager to a node's front door.
//!
//! Nodes listen nowhere. A manager that wants to talk to a node's front door has the node asked, over
//! its session, to dial the manager ([`TunnelAsk`]); the node does so with its own certificate and
//! says which wish it answers. Such a connection shares the managers' port with gRPC and is told
//! from it by [`ALPN`]; after [`TOKEN_BYTES`] bytes it is the node's front door, byte for byte. One
//! connection per tunnel: a reader that stands still holds up nobody else, and either end may close
//! its half.

use std::{fmt, io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    dial::{self, CONNECT_LIMIT, DialError},
    identity::Credentials,
};

/// How a tunnel is told from gRPC in the TLS handshake.
pub const ALPN: &[u8] = b"weft-tunnel/1";

/// Length of what the node says first.
pub const TOKEN_BYTES: usize = 16;

/// Silence after which the other end is asked whether it lives; between two questions; how many stay
/// unanswered before the connection counts as lost.
const KEEP_ALIVE_SECONDS: (u32, u32, u32) = (5, 3, 3);

/// A stream of bytes both ways.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection to a node's front door.
pub type Tunnel = Box<dyn Bytes>;

/// Names one wish for a tunnel; cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TunnelToken(pub [u8; TOKEN_BYTES]);

impl fmt::Debug for TunnelToken {
    /// Not the token itself: whoever knows it and is the node may answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TunnelToken")
    }
}

/// A manager's wish for a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelAsk {
    /// Which wish the node is to say that it answers.
    pub token: TunnelToken,
    /// Where the manager listens that wants it: `ip:port`.
    pub manager: String,
}

/// Dials the manager at `addr` and answers the wish `token`; the stream is the manager's from then on.
///
/// # Errors
/// When no connection stands in time, or the other end is no manager of this cluster.
pub async fn offer(
    addr: SocketAddr,
    credentials: &Credentials,
    token: TunnelToken,
) -> Result<TlsStream<TcpStream>, DialError> {
    let mut config = rustls::ClientConfig::clone(&credentials.client_config());
    config.alpn_protocols = vec![ALPN.to_vec()];
    let fail = |cause: String| DialError::Connect { addr, cause };
    let dialled = async {
        let mut stream = dial::tls(addr, Arc::new(config)).await?;
        stream.write_all(&token.0).await?;
        stream.flush().await?;
        watch_over(stream.get_ref().0)?;
        Ok::<_, io::Error>(stream)
    };
    match tokio::time::timeout(CONNECT_LIMIT, dialled).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Err(_) => Err(fail(format!("no answer in {} s", CONNECT_LIMIT.as_secs()))),
    }
}

/// The token that a node says first.
///
/// # Errors
/// When the stream ends before.
pub async fn read_token(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<TunnelToken> {
    let mut token = [0; TOKEN_BYTES];
    stream.read_exact(&mut token).await?;
    Ok(TunnelToken(token))
}

/// Has the kernel notice that the other end is gone: tunnels may rightly be silent for days.
///
/// # Errors
/// When the socket does not take the options.
pub fn watch_over(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, count) = KEEP_ALIVE_SECONDS;
    let socket = stream.as_fd();
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(&socket, sockopt::TcpKeepCount, &count)?;
    let patience = Duration::from_secs((idle + interval * count).into());
    let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&socket, sockopt::TcpUserTimeout, &millis)?;
    Ok(())
}
