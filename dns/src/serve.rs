//! The sockets of the sandboxes.
//!
//! One [`Resolver`] per process holds what all sandboxes share: the zones, the way outside, the
//! counters. Each sandbox is an [`Attachment`]: two sleeping tasks of a few hundred bytes, no
//! thread and no buffer of its own. What our zones answer is answered in place, packet by packet;
//! only a forwarded query and a TCP connection cost a task while they last.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task, time,
};

use crate::{
    count::{Counters, Counts},
    forward::{ForwardError, Forwarder, read_framed, write_framed},
    resolve::{Answer, Asker, resolve},
    wire::{self, Code, Malformed, Request, Transport, UDP_BYTES},
    zone::Zones,
};

/// Queries of one sandbox being forwarded at once; more are refused.
const FORWARDS_MAX: usize = 1024;
/// TCP connections of one sandbox at once; more are closed.
const CONNECTIONS_MAX: usize = 256;
/// Packets answered before other tasks get a turn.
const BATCH: usize = 64;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long to leave a socket alone that only gives errors.
const BROKEN_PAUSE: Duration = Duration::from_millis(100);

/// The resolver of a node: shared by all its sandboxes.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    zones: ArcSwap<Zones>,
    forwarder: Forwarder,
    counters: Counters,
}

impl Resolver {
    /// A resolver without zones: everything is forwarded until [`Resolver::publish`].
    #[must_use]
    pub fn new(forwarder: Forwarder) -> Self {
        let shared = Shared {
            zones: ArcSwap::default(),
            forwarder,
            counters: Counters::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Makes `zones` the truth for every packet that is read from now on.
    pub fn publish(&self, zones: Zones) {
        self.shared.zones.store(Arc::new(zones));
    }

    /// The zones that are the truth now.
    #[must_use]
    pub fn zones(&self) -> Arc<Zones> {
        self.shared.zones.load_full()
    }

    /// What has been done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Serves a sandbox on sockets opened in its network namespace, until the attachment is dropped.
    ///
    /// Must be called inside a tokio runtime.
    pub fn attach(&self, udp: UdpSocket, tcp: TcpListener, asker: Asker) -> Attachment {
        let (stop, stopped) = watch::channel(());
        let sandbox = Arc::new(Sandbox {
            shared: Arc::clone(&self.shared),
            asker: ArcSwap::from_pointee(asker),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            stopped,
        });
        sandbox.spawn(Arc::clone(&sandbox).serve_udp(Arc::new(udp)));
        sandbox.spawn(Arc::clone(&sandbox).serve_tcp(tcp));
        Attachment {
            sandbox,
            _stop: stop,
        }
    }

    /// [`Resolver::attach`] for sockets of the standard library.
    ///
    /// # Errors
    /// When the sockets cannot be made non-blocking or registered with the runtime.
    pub fn attach_std(
        &self,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        asker: Asker,
    ) -> io::Result<Attachment> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(self.attach(
            UdpSocket::from_std(udp)?,
            TcpListener::from_std(tcp)?,
            asker,
        ))
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// A sandbox being served. Dropping it stops the serving and closes the sockets.
#[must_use = "dropping an attachment stops the sandbox's resolver"]
pub struct Attachment {
    sandbox: Arc<Sandbox>,
    _stop: watch::Sender<()>,
}

impl Attachment {
    /// Changes who asks: the sandbox joined or left a network.
    pub fn set_asker(&self, asker: Asker) {
        self.sandbox.asker.store(Arc::new(asker));
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment")
            .field("asker", &self.sandbox.asker.load())
            .finish_non_exhaustive()
    }
}

struct Sandbox {
    shared: Arc<Shared>,
    asker: ArcSwap<Asker>,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    stopped: watch::Receiver<()>,
}

/// What became of a packet.
enum Verdict {
    Reply(Vec<u8>),
    Forward(Box<Request>),
    Drop,
}

impl Sandbox {
    /// Runs `work` until it ends or the attachment is dropped.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut stopped = self.stopped.clone();
        task::spawn(async move {
            tokio::select! {
                _gone = stopped.changed() => {}
                () = work => {}
            }
        });
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        loop {
            if let Err(error) = socket.readable().await {
                tracing::warn!(%error, "cannot wait for DNS packets of a sandbox");
                time::sleep(BROKEN_PAUSE).await;
                continue;
            }
            match self.drain(&socket) {
                Ok(true) => task::yield_now().await,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot receive DNS packets of a sandbox");
                    time::sleep(BROKEN_PAUSE).await;
                }
            }
        }
    }

    /// Answers what waits on `socket`, at most a batch; says whether more may wait.
    fn drain(self: &Arc<Self>, socket: &Arc<UdpSocket>) -> io::Result<bool> {
        let mut packet = [0; UDP_BYTES as usize];
        let zones = self.shared.zones.load();
        let asker = self.asker.load();
        for _ in 0..BATCH {
            let (len, client) = match socket.try_recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // An earlier answer met a closed port; the socket is fine.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let packet = &packet[..len];
            match self.judge(packet, &asker, &zones, Transport::Udp) {
                Verdict::Reply(reply) => self.send(socket, &reply, client),
                Verdict::Forward(request) => self.forward_udp(socket, packet, *request, client),
                Verdict::Drop => {}
            }
        }
        Ok(true)
    }

    fn forward_udp(
        self: &Arc<Self>,
        socket: &Arc<UdpSocket>,
        packet: &[u8],
        request: Request,
        client: SocketAddr,
    ) {
        let Ok(slot) = Arc::clone(&self.forwards).try_acquire_owned() else {
            self.shared.counters.refused.up();
            return self.send(socket, &request.refuse(Code::Refused), client);
        };
        let (sandbox, socket, packet) = (Arc::clone(self), Arc::clone(socket), packet.to_vec());
        self.spawn(async move {
            let reply = sandbox.forward(&packet, &request, Transport::Udp).await;
            if socket.send_to(&reply, client).await.is_err() {
                sandbox.shared.counters.unsent.up();
            }
            drop(slot);
        });
    }

    fn send(&self, socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
        if socket.try_send_to(reply, client).is_err() {
            self.shared.counters.unsent.up();
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a DNS connection of a sandbox");
                    time::sleep(BROKEN_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&self.connections).try_acquire_owned() else {
                self.shared.counters.connections_refused.up();
                continue;
            };
            let sandbox = Arc::clone(&self);
            self.spawn(async move {
                // The client went away or is silent: either way the connection is over.
                let _over = sandbox.converse(stream).await;
                drop(slot);
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let packet = time::timeout(IDLE, read_framed(&mut stream)).await??;
            let verdict = self.judge(
                &packet,
                &self.asker.load(),
                &self.shared.zones.load(),
                Transport::Tcp,
            );
            let reply = match verdict {
                Verdict::Reply(reply) => reply,
                Verdict::Drop => return Ok(()),
                Verdict::Forward(request) => match Arc::clone(&self.forwards).try_acquire_owned() {
                    Ok(_slot) => self.forward(&packet, &request, Transport::Tcp).await,
                    Err(_) => {
                        self.shared.counters.refused.up();
                        request.refuse(Code::Refused)
                    }
                },
            };
            time::timeout(IDLE, write_framed(&mut stream, &reply)).await??;
        }
    }

    fn judge(&self, packet: &[u8], asker: &Asker, zones: &Zones, transport: Transport) -> Verdict {
        let counters = &self.shared.counters;
        let request = match wire::parse(packet) {
            Ok(request) => request,
            Err(Malformed::Mute) => {
                counters.dropped.up();
                return Verdict::Drop;
            }
            Err(Malformed::Told(reply)) => {
                counters.malformed.up();
                return Verdict::Reply(reply);
            }
        };
        counters.questions.up();
        match resolve(&request.question(), asker, zones, rand::random()) {
            Answer::Records(facts) => {
                counters.answered.up();
                Verdict::Reply(request.answer(&facts, transport))
            }
            Answer::NoData => {
                counters.no_data.up();
                Verdict::Reply(request.refuse(Code::NoData))
            }
            Answer::NxDomain => {
                counters.no_such_name.up();
                Verdict::Reply(request.refuse(Code::NxDomain))
            }
            Answer::Forward => {
                counters.forwarded.up();
                Verdict::Forward(Box::new(request))
            }
        }
    }

    async fn forward(&self, packet: &[u8], request: &Request, transport: Transport) -> Vec<u8> {
        let servers = self.asker.load().servers.clone();
        let counters = &self.shared.counters;
        match self
            .shared
            .forwarder
            .forward(packet, &servers, transport)
            .await
        {
            Ok(reply) => reply,
            Err(ForwardError::Busy) => {
                counters.refused.up();
                request.refuse(Code::Refused)
            }
            Err(error) => {
                tracing::debug!(name = request.name(), %error, "cannot answer a forwarded query");
                counters.forward_failed.up();
                request.refuse(Code::ServFail)
            }
        }
    }
}
