//! The engine's resolver in a container that is on networks of the engine's too.

use std::io;

use async_trait::async_trait;
use tokio::net::{TcpStream, UdpSocket};
use weft_dataplane::{DataplaneError, Sandbox};
use weft_dns::{
    forward::{Neighbour, over_tcp, over_udp},
    wire::Transport,
};

/// Asks the engine's resolver in a sandbox. Whether there is one is looked for with each question: it
/// comes with the first network of the engine's that has names.
pub(super) struct EngineResolver(pub(super) Sandbox);

fn told(error: DataplaneError) -> io::Error {
    io::Error::other(error)
}

#[async_trait]
impl Neighbour for EngineResolver {
    async fn ask(&self, query: &[u8], over: Transport) -> io::Result<Option<Vec<u8>>> {
        match over {
            Transport::Udp => {
                let Some(socket) = self.0.engine_udp().await.map_err(told)? else {
                    return Ok(None);
                };
                let socket = UdpSocket::from_std(socket)?;
                over_udp(&socket, query).await.map(Some)
            }
            Transport::Tcp => {
                let Some(stream) = self.0.engine_tcp().await.map_err(told)? else {
                    return Ok(None);
                };
                let mut stream = TcpStream::from_std(stream)?;
                over_tcp(&mut stream, query).await.map(Some)
            }
        }
    }
}
