//! The accept loop: TCP, TLS with the newest certificate, then gRPC or a node's tunnel.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, Router};
use tracing::debug;
use weft_proto::{identity::Credentials, last_words::hear_out, tunnel};
use weft_types::NodeId;

use crate::{ca::Caller, runtime::Tunnels};

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// Handshakes and accepted connections waiting at once.
const BACKLOG: usize = 256;

/// Who is at the other end of a connection; found in every request's extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// By its certificate; `None` when it showed none.
    pub caller: Option<Caller>,
    /// From where.
    pub addr: SocketAddr,
}

/// The connections that stand, so that those of one node can be closed.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<HashMap<NodeId, Vec<CancellationToken>>>>);

impl Connections {
    fn add(&self, node: NodeId, token: CancellationToken) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = open.entry(node).or_default();
        tokens.retain(|token| !token.is_cancelled());
        tokens.push(token);
    }

    /// Closes all connections of `node`: its certificate says something that holds no more.
    pub fn close(&self, node: NodeId) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for token in open.remove(&node).unwrap_or_default() {
            token.cancel();
        }
    }
}

/// A TLS connection that can be cut from outside.
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    token: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connection {
    fn is_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_cut(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Takes the address `listen` for ourselves.
///
/// # Errors
/// When it is taken, or not ours.
pub fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = if listen.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(1024)
}

/// What every new connection is taken in with.
#[derive(Clone)]
pub(crate) struct Reception {
    /// Who we are.
    pub(crate) credentials: Credentials,
    /// Those that stand.
    pub(crate) connections: Connections,
    /// Who waits for a node's tunnel.
    pub(crate) tunnels: Tunnels,
}

/// Serves `router` on `listener` until `stop`; then every connection is cut.
pub(crate) async fn serve(
    listener: TcpListener,
    reception: Reception,
    router: Router,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (sender, accepted) = mpsc::channel(BACKLOG);
    let door = tokio::spawn(accept(listener, reception, sender, stop.clone()));
    let incoming = ReceiverStream::new(accepted);
    let served = tokio::select! {
        served = router.serve_with_incoming(incoming) => served,
        () = stop.cancelled() => Ok(()),
    };
    // The address is free when this ends: whoever starts again listens on it at once.
    door.abort();
    let _ = door.await;
    served
}

async fn accept(
    listener: TcpListener,
    reception: Reception,
    sender: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the loop must live on, but not spin.
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let reception = reception.clone();
        let (sender, stop) = (sender.clone(), stop.clone());
        tokio::spawn(async move {
            match handshake(stream, addr, &reception.credentials, &stop).await {
                Ok(connection) => {
                    if let Some(caller) = connection.peer.caller {
                        let token = connection.token.clone();
                        reception.connections.add(caller.node, token);
                    }
                    if connection.stream.get_ref().1.alpn_protocol() == Some(tunnel::ALPN) {
                        receive(connection, &reception.tunnels).await;
                        return;
                    }
                    // The server is gone when this fails, and the connection goes with it.
                    let _ = sender.send(Ok(connection)).await;
                }
                Err(error) => debug!(%addr, %error, "connection refused"),
            }
        });
    }
}

/// Hands a node's tunnel to whoever asked for it.
async fn receive(mut connection: Connection, tunnels: &Tunnels) {
    let Some(caller) = connection.peer.caller else {
        debug!(addr = %connection.peer.addr, "a tunnel without a certificate refused");
        return;
    };
    let token = tokio::time::timeout(HANDSHAKE_LIMIT, tunnel::read_token(&mut connection)).await;
    match token {
        Ok(Ok(token)) => {
            if let Err(error) = tunnel::watch_over(connection.stream.get_ref().0) {
                debug!(%error, "the end of a tunnel may be noticed late");
            }
            tunnels.deliver(caller.node, token, Box::new(connection));
        }
        Ok(Err(_)) | Err(_) => debug!(node = %caller.node, "a tunnel that did not say its wish"),
    }
}

async fn handshake(
    stream: TcpStream,
    addr: SocketAddr,
    credentials: &Credentials,
    stop: &CancellationToken,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let acceptor = TlsAcceptor::from(credentials.server_config());
    let accept = acceptor.accept(stream).into_fallible();
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, accept).await? {
        Ok(stream) => stream,
        Err((error, stream)) => {
            hear_out(stream).await;
            return Err(error);
        }
    };
    let certificate = stream.get_ref().1.peer_certificates();
    let caller = match certificate.and_then(|chain| chain.first()) {
        Some(certificate) => Some(Caller::parse(certificate).map_err(io::Error::other)?),
        None => None,
    };
    let token = stop.child_token();
    Ok(Connection {
        stream,
        peer: Peer { caller, addr },
        cut: Box::pin(token.clone().cancelled_owned()),
        token,
    })
}
