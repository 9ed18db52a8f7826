//! One resolver asked once.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpStream, UdpSocket};

use crate::{
    framed::{read_framed, write_framed},
    wire::{self, Transport},
};

/// A way to ask a resolver.
#[async_trait::async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// The answer of `server` to the packet `query`, with the query's id. Waits as long as it takes.
    ///
    /// # Errors
    /// When the server cannot be asked.
    async fn ask(&self, server: SocketAddr, query: &[u8], over: Transport) -> io::Result<Vec<u8>>;
}

/// A resolver inside a sandbox that knows names of its own: the engine's, where a container is on
/// networks of the engine's too. It is asked instead of those outside, whom it asks itself.
#[async_trait::async_trait]
pub trait Neighbour: Send + Sync + 'static {
    /// Its answer to the packet `query`; `None` while there is none. Waits as long as it takes.
    ///
    /// # Errors
    /// When it cannot be asked.
    async fn ask(&self, query: &[u8], over: Transport) -> io::Result<Option<Vec<u8>>>;
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
    over_udp(&socket, query).await
}

/// The answer to `query` over a socket that is connected to a resolver.
///
/// # Errors
/// When the socket gives one.
pub async fn over_udp(socket: &UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
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
    over_tcp(&mut stream, query).await
}

/// The answer to `query` over a connection to a resolver.
///
/// # Errors
/// When the connection breaks, or the answer is to another question.
pub async fn over_tcp(stream: &mut TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    write_framed(stream, query).await?;
    let reply = read_framed(stream).await?;
    if wire::answers(query, &reply) {
        Ok(reply)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it answered another question",
        ))
    }
}
