//! The sockets of the sandboxes.
//!
//! One [`Resolver`] per process holds what all sandboxes share: the zones, the way outside, the
//! counters. Each sandbox is an [`Attachment`]: a `hickory-server` on the sandbox's sockets, which
//! is two sleeping tasks, no thread and no buffer. It reads and writes packets and connections;
//! what a question means and what to answer is ours.
//!
//! A request costs a task while it lasts. Packets that are not DNS messages never come here: the
//! server answers "format error", or drops them where there is nobody to answer (shorter than a
//! head, or themselves answers).

mod answer;

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use hickory_server::Server;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
};

use crate::{
    count::{Counters, Counts},
    forward::Forwarder,
    resolve::Asker,
    zone::Zones,
};
use answer::{Answering, Sandbox};

/// Queries of one sandbox being forwarded at once; more are refused.
const FORWARDS_MAX: usize = 1024;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Answers waiting to be written to one TCP connection: its requests are taken one by one.
const REPLIES_WAITING_MAX: usize = 1;

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
        let sandbox = Arc::new(Sandbox {
            shared: Arc::clone(&self.shared),
            asker: ArcSwap::from_pointee(asker),
            forwards: Semaphore::new(FORWARDS_MAX),
        });
        let mut server = Server::new(Answering(Arc::clone(&sandbox)));
        server.register_socket(udp);
        server.register_listener(tcp, IDLE, REPLIES_WAITING_MAX);
        Attachment {
            sandbox,
            _server: server,
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

/// A sandbox being served. Dropping it stops the serving and closes the sockets, connections and
/// forwarded queries under way included.
#[must_use = "dropping an attachment stops the sandbox's resolver"]
pub struct Attachment {
    sandbox: Arc<Sandbox>,
    _server: Server<Answering>,
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
