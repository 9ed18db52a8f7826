//! The listening sockets.

mod line;
mod tls;
mod unix;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::UnixListener,
    sync::{mpsc, watch},
};
use weft_proto::last_words::hear_out;

use crate::{door::Door, engine::Engine, node::NodeControl, reply::Body};

/// Where the front door is and what is behind it.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// Path of the socket to listen on; made with mode 0660.
    pub socket: PathBuf,
    /// Group (name or number) that may use it. `None`: `docker` if there is such a group, else
    /// root's alone.
    pub group: Option<String>,
    /// Path of the container engine's socket.
    pub engine_socket: PathBuf,
    /// Further doors over TCP; none as a rule.
    pub tcp: Vec<TcpDoor>,
}

/// A door over TCP: only for clients with a certificate of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpDoor {
    /// Where to listen.
    pub address: SocketAddr,
    /// PEM file of the authority that clients' certificates are of.
    pub authority: PathBuf,
    /// PEM file of this host's own certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// Why the front door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The socket cannot be made.
    #[error("cannot listen on {}: {cause}", socket.display())]
    Listen {
        /// Where.
        socket: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Somebody listens there.
    #[error("cannot listen on {}: another process answers there; stop it, or name another socket", .0.display())]
    Taken(PathBuf),
    /// There is no such group.
    #[error("cannot give {} to group {group:?}: there is no such group; make it with groupadd, or name another", socket.display())]
    NoGroup {
        /// Of which socket.
        socket: PathBuf,
        /// Which.
        group: String,
    },
    /// A door over TCP cannot be made.
    #[error("cannot listen on tcp://{address}: {cause}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: String,
    },
}

/// A connection that is no HTTP any more: what is said to the client first, and the engine's end.
pub(crate) struct Takeover {
    pub(crate) head: Bytes,
    pub(crate) engine: Upgraded,
}

/// Opens the front door and serves until `shutdown`; connections are broken off then and the
/// socket is removed.
///
/// # Errors
/// When a socket cannot be made; none is open then.
pub async fn serve(
    config: DoorConfig,
    node: Arc<dyn NodeControl>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DoorError> {
    let mut far = Vec::new();
    for door in &config.tcp {
        far.push(tls::Listener::open(door).await?);
    }
    let listening = Listening::open(&config.socket, config.group.as_deref()).await?;
    let (running, stop) = watch::channel(());
    let engine = Engine::at(&config.engine_socket);
    let door = Arc::new(Door::new(engine, node, stop));
    tracing::info!(socket = %config.socket.display(), "front door open");
    let far = far
        .into_iter()
        .map(|listener| listener.accept(Arc::clone(&door)));
    tokio::select! {
        () = listening.accept(&door) => {}
        () = async { futures::future::join_all(far).await; std::future::pending().await } => {}
        () = shutdown => {}
    }
    drop(running);
    Ok(())
}

/// Who answers the requests that come in at a door.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Closed when the door closes.
    fn stop(&self) -> watch::Receiver<()>;

    /// Answers a request; `taken` is told when the connection that it came on is to be a raw one.
    fn answer(
        &self,
        request: Request<Incoming>,
        taken: &mpsc::Sender<Takeover>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

impl Answers for Door {
    fn stop(&self) -> watch::Receiver<()> {
        Self::stop(self)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        taken: &mpsc::Sender<Takeover>,
    ) -> Response<Body> {
        Self::answer(self, request, Some(taken)).await
    }
}

/// A socket on this host that is listened on; its name goes when this is dropped.
pub(crate) struct Listening {
    listener: UnixListener,
    socket: PathBuf,
    file: Option<u64>,
}

impl Listening {
    pub(crate) async fn open(socket: &Path, group: Option<&str>) -> Result<Self, DoorError> {
        let listener = unix::listen(socket, group).await?;
        Ok(Self {
            listener,
            socket: socket.to_owned(),
            file: fs::metadata(socket).ok().map(|file| file.ino()),
        })
    }

    /// Takes clients in for as long as it is polled.
    pub(crate) async fn accept(&self, door: &Arc<impl Answers>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(converse(stream, Arc::clone(door)));
                }
                Err(error) => pause(&error).await,
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Somebody else may listen under this name by now.
        let still = fs::metadata(&self.socket).ok().map(|file| file.ino());
        if self.file.is_some()
            && still == self.file
            && let Err(error) = fs::remove_file(&self.socket)
        {
            tracing::debug!(%error, "socket already gone");
        }
    }
}

/// Out of descriptors: others must end first.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// One client's connection. A client that goes away ends what was done for it.
async fn converse<S>(stream: S, door: Arc<impl Answers>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stop = door.stop();
    let (taken, mut takes) = mpsc::channel::<Takeover>(1);
    let service = service_fn(move |request| {
        let (door, taken) = (Arc::clone(&door), taken.clone());
        async move { Ok::<_, std::convert::Infallible>(door.answer(request, &taken).await) }
    });
    let (reader, writer) = tokio::io::split(stream);
    let stream = tokio::io::join(line::Lenient::new(reader), writer);
    let mut connection = http1::Builder::new()
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let takeover = tokio::select! {
        biased;
        takeover = takes.recv() => takeover,
        end = &mut connection => {
            if let Err(error) = end {
                tracing::debug!(%error, "client connection ended");
            }
            None
        }
        _ = stop.changed() => None,
    };
    let Some(parts) = connection.into_parts() else {
        return;
    };
    let client = parts.io.into_inner();
    let end = async {
        match takeover {
            Some(takeover) => splice(client, &parts.read_buf, takeover).await,
            // Its request may have been answered before all of it had come.
            None => {
                hear_out(client).await;
                Ok(())
            }
        }
    };
    tokio::select! {
        end = end => {
            if let Err(error) = end {
                tracing::debug!(%error, "raw connection broke");
            }
        }
        _ = stop.changed() => {}
    }
}

/// Both ways until both ends are closed; `early` is what the client has said already.
async fn splice<S>(mut client: S, early: &[u8], takeover: Takeover) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut engine = TokioIo::new(takeover.engine);
    client.write_all(&takeover.head).await?;
    client.flush().await?;
    engine.write_all(early).await?;
    tokio::io::copy_bidirectional(&mut client, &mut engine).await?;
    Ok(())
}
