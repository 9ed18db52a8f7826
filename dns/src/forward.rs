//! Asking the host's resolvers what is not ours.
//!
//! A query goes on as the bytes that came, with an id of our own, from a fresh port; the answer
//! comes back as the bytes that the resolver gave. Sockets are opened in the network namespace of
//! the process, the host's, so a resolver on the host's loopback (127.0.0.53) works.
//!
//! Resolvers are asked in order. The next one is asked when one fails or refuses, at once, or says
//! nothing for [`Patience::hurry`], while the first is still listened to; the first good answer wins.

mod upstream;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet, time};

use crate::{
    resolv_conf::{ResolvConf, SANDBOX_RESOLVER},
    wire::{self, ReplyCode, Transport},
};

pub use upstream::{HostSockets, Neighbour, Upstream, over_tcp, over_udp};

const DNS_PORT: u16 = 53;

/// Resolvers asked for one query at most, as in Docker and libc.
const SERVERS_MAX: usize = 3;

/// Queries being forwarded at once in the whole process: a file descriptor each.
const AT_ONCE_MAX: usize = 4096;

/// How long the file of resolvers is believed before it is read again.
const FILE_BELIEVED_FOR: Duration = Duration::from_secs(5);

/// How long to wait for resolvers.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one resolver's answer; then it is given up.
    pub give_up: Duration,
    /// For one resolver's answer before the next one is asked as well.
    pub hurry: Duration,
}

impl Default for Patience {
    /// Docker's 4 s, and half of it: clients themselves give up after 5.
    fn default() -> Self {
        Self {
            give_up: Duration::from_secs(4),
            hurry: Duration::from_secs(2),
        }
    }
}

/// Which resolvers the host has.
#[derive(Debug)]
pub enum Servers {
    /// These.
    Listed(Vec<SocketAddr>),
    /// Those in this `resolv.conf`, read again when it is older than a few seconds.
    File(ResolversFile),
}

impl Servers {
    /// Those in the `resolv.conf` at `path`.
    #[must_use]
    pub fn from_file(path: &Path) -> Self {
        Self::File(ResolversFile {
            path: path.to_owned(),
            read: Mutex::new(None),
        })
    }

    async fn now(&self) -> Vec<SocketAddr> {
        match self {
            Self::Listed(servers) => servers.clone(),
            Self::File(file) => file.now().await,
        }
    }
}

/// A `resolv.conf` and what it said last.
#[derive(Debug)]
pub struct ResolversFile {
    path: PathBuf,
    read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl ResolversFile {
    async fn now(&self) -> Vec<SocketAddr> {
        let known = self
            .read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, servers)) = &known
            && at.elapsed() < FILE_BELIEVED_FOR
        {
            return servers.clone();
        }
        let servers = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => {
                let conf = ResolvConf::parse(&text);
                conf.servers
                    .into_iter()
                    .map(|server| SocketAddr::new(server, DNS_PORT))
                    .collect()
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot read the host's resolvers");
                known.map(|(_, servers)| servers).unwrap_or_default()
            }
        };
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), servers.clone()));
        servers
    }
}

/// Why a query has no answer from outside.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is no resolver to ask.
    #[error("cannot forward a query: no resolver is configured")]
    NoServers,
    /// All were asked.
    #[error("cannot forward a query: none of {asked} resolvers answered")]
    Unanswered {
        /// How many were asked.
        asked: usize,
        /// What the last one that could not be asked said; `None` if all failed or refused.
        #[source]
        last: Option<io::Error>,
    },
    /// The resolver beside ours in the sandbox did not answer.
    #[error("cannot forward a query to the engine's resolver in the container")]
    Neighbour(#[source] io::Error),
    /// Too many are waiting already.
    #[error("cannot forward a query: {AT_ONCE_MAX} are waiting")]
    Busy,
}

/// Asks resolvers outside.
pub struct Forwarder {
    upstream: Arc<dyn Upstream>,
    servers: Servers,
    patience: Patience,
    slots: Semaphore,
}

impl Forwarder {
    /// A forwarder to the host's resolvers with Docker's waiting times.
    #[must_use]
    pub fn new(servers: Servers) -> Self {
        Self::with(Arc::new(HostSockets), servers, Patience::default())
    }

    /// A forwarder over any upstream.
    #[must_use]
    pub fn with(upstream: Arc<dyn Upstream>, servers: Servers, patience: Patience) -> Self {
        Self {
            upstream,
            servers,
            patience,
            slots: Semaphore::new(AT_ONCE_MAX),
        }
    }

    /// The answer of `servers`, or of the host's if empty, to the packet `query`.
    ///
    /// `client` is how the client asked: a cut answer is completed over TCP only for a client that
    /// came by TCP; another sees TC and comes again.
    ///
    /// # Errors
    /// When nobody answered, or too much waits.
    pub async fn forward(
        &self,
        query: &[u8],
        servers: &[SocketAddr],
        client: Transport,
    ) -> Result<Vec<u8>, ForwardError> {
        let Ok(_slot) = self.slots.try_acquire() else {
            return Err(ForwardError::Busy);
        };
        let mut servers = if servers.is_empty() {
            self.servers.now().await
        } else {
            servers.to_vec()
        };
        // In a user's own list: the sandbox's resolver is this one, and here it is nobody.
        servers.retain(|server| server.ip() != SANDBOX_RESOLVER);
        servers.truncate(SERVERS_MAX);
        if servers.is_empty() {
            return Err(ForwardError::NoServers);
        }

        let id = query.get(..2).map(<[u8]>::to_vec).unwrap_or_default();
        let mut question = query.to_vec();
        // An id that nobody but the resolver can know: it and the port keep forgers out.
        for (byte, fresh) in question.iter_mut().zip(rand::random::<[u8; 2]>()) {
            *byte = fresh;
        }
        let mut reply = self.ask_in_order(question.into(), &servers, client).await?;
        for (byte, own) in reply.iter_mut().zip(id) {
            *byte = own;
        }
        Ok(reply)
    }

    async fn ask_in_order(
        &self,
        question: Arc<[u8]>,
        servers: &[SocketAddr],
        client: Transport,
    ) -> Result<Vec<u8>, ForwardError> {
        let mut waiting = servers.iter();
        let mut asked = JoinSet::new();
        let mut last = None;
        loop {
            if asked.is_empty() {
                let Some(server) = waiting.next() else {
                    return Err(ForwardError::Unanswered {
                        asked: servers.len(),
                        last,
                    });
                };
                asked.spawn(self.ask(*server, question.clone(), client));
            }
            tokio::select! {
                Some(said) = asked.join_next() => match said {
                    Ok(Ok(reply)) if wire::code(&reply) == ReplyCode::Settled => return Ok(reply),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => last = Some(error),
                    Err(error) => last = Some(io::Error::other(error)),
                },
                () = time::sleep(self.patience.hurry), if waiting.len() > 0 => {
                    if let Some(server) = waiting.next() {
                        asked.spawn(self.ask(*server, question.clone(), client));
                    }
                }
            }
        }
    }

    fn ask(
        &self,
        server: SocketAddr,
        question: Arc<[u8]>,
        client: Transport,
    ) -> impl Future<Output = io::Result<Vec<u8>>> + Send + 'static {
        let upstream = Arc::clone(&self.upstream);
        let give_up = self.patience.give_up;
        let whole = async move {
            let reply = upstream.ask(server, &question, Transport::Udp).await?;
            if client == Transport::Tcp && wire::is_truncated(&reply) {
                return upstream.ask(server, &question, Transport::Tcp).await;
            }
            Ok(reply)
        };
        async move {
            let said = time::timeout(give_up, whole).await;
            said.unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{server} did not answer"),
                ))
            })
        }
    }
}
