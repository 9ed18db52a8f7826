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
