//! One resolver asked once.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::wire::{self, Transport};

/// A way to ask a resolver.
#[async_trait::async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// The answer of `server` to the packet `query`, with the query's id. Waits as long as it takes.
    ///
    /// # Errors
    /// When the server cannot be asked.
    async fn ask(&self, server: SocketAddr, query: &[u8], over: Transport) -> io::Result<Vec<u8>>;
}

/// Sockets of the process's own network namespace.
#[derive(Debug, Clone, Copy)]
pub struct HostSockets;

#[async_trait::async_trait]
impl Upstream for HostSockets {
    async fn ask(&self, server: SocketAddr, query: &[u8], over: Transport) -> io::Result<Vec<u8>> {
        match over {
            Transport::Udp => ask_udp(server, query).await,
            Transport::Tcp => ask_tcp(server, query).await,
        }
    }
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: packets from others do not arrive, and a closed port is an error at once.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; usize::from(u16::MAX)];
    loop {
        let len = socket.recv(&mut reply).await?;
        if wire::answers(query, &reply[..len]) {
            reply.truncate(len);
            reply.shrink_to_fit();
            return Ok(reply);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    let reply = read_framed(&mut stream).await?;
    if wire::answers(query, &reply) {
        Ok(reply)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{server} answered another question"),
        ))
    }
}

/// Writes one message with its length before it (RFC 1035 §4.2.2), in one segment where it fits.
async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a DNS message is longer than 65,535 bytes",
        )
    })?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// Reads one message with its length before it.
async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
