//! The sockets of the sandboxes.
//!
//! One [`Resolver`] per process holds what all sandboxes share: the zones, the way outside, the
//! counters. Each sandbox is an [`Attachment`]: two sleeping tasks, no thread and no buffer of its
//! own. What our zones answer is answered in place, packet by packet; only a forwarded query and a
//! TCP connection cost a task while they last.
//!
//! Reading requests and writing answers is `hickory-server`'s, in [`answer`]; the loops around it
//! are ours ([`datagrams`], [`connections`]), since only they can count what is no message and bound
//! what a sandbox may hold open.

mod answer;
mod connections;
mod datagrams;
mod sending;

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Semaphore, watch},
    task,
};

use crate::{
    count::{Counters, Counts},
    forward::{Forwarder, Neighbour},
    resolve::Asker,
    zone::Zones,
};

/// Queries of one sandbox being forwarded at once; more are refused.
const FORWARDS_MAX: usize = 1024;
/// TCP connections of one sandbox at once; more are closed.
const CONNECTIONS_MAX: usize = 256;
/// TCP connections of all sandboxes at once; more are closed. Leaves the process descriptors for its
/// other work.
const CONNECTIONS_ALL_MAX: usize = 4096;
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
    connections: Arc<Semaphore>,
}

/// One sandbox: who asks there, and how much of it is under way.
struct Sandbox {
    shared: Arc<Shared>,
    asker: ArcSwap<Asker>,
    neighbour: Option<Arc<dyn Neighbour>>,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    stopped: watch::Receiver<()>,
}

impl Resolver {
    /// A resolver without zones: everything is forwarded until [`Resolver::publish`].
    #[must_use]
    pub fn new(forwarder: Forwarder) -> Self {
        let shared = Shared {
            zones: ArcSwap::default(),
            forwarder,
            counters: Counters::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_ALL_MAX)),
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
        self.attach_beside(udp, tcp, asker, None)
    }

    /// [`Resolver::attach`] where another resolver in the sandbox may know what we do not.
    pub fn attach_beside(
        &self,
        udp: UdpSocket,
        tcp: TcpListener,
        asker: Asker,
        neighbour: Option<Arc<dyn Neighbour>>,
    ) -> Attachment {
        let (stop, stopped) = watch::channel(());
        let sandbox = Arc::new(Sandbox {
            shared: Arc::clone(&self.shared),
            asker: ArcSwap::from_pointee(asker),
            neighbour,
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            stopped,
        });
        sandbox.spawn(datagrams::serve(Arc::clone(&sandbox), Arc::new(udp)));
        sandbox.spawn(connections::serve(Arc::clone(&sandbox), tcp));
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
