//! How a manager comes to be.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use weft_proto::{
    ControlError, dial,
    identity::{Credentials, CredentialsError, Identity},
};
use weft_types::{ClusterId, NodeId, node::Role};

use super::{InitOptions, LogHub, Manager, ManagerConfig, Sessions, Tunnels, bootstrap, clock};
use crate::{
    ca::{Authority, CaError, NodeTitle, Validity},
    raft::{self, Inbox, KeyError, LogStore, Machine, Member, Peers, Proposal, Raft, Seal, revive},
    rpc::{self, Connections},
    store::{IdSource, Transaction},
};

/// How long the first leader of a cluster may take.
const FIRST_LIMIT: Duration = Duration::from_secs(10);

/// Reports of nodes waiting to be written.
const REPORTS: usize = 1024;

/// A manager that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {addr}: {source}{}", way_out(source))]
    Listen {
        /// Which address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The state on disk cannot be read or written.
    #[error("cannot use the manager's state in {directory}: {source}")]
    State {
        /// Where.
        directory: String,
        /// Why.
        source: io::Error,
    },
    /// The data key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Certificates cannot be made or used.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The node's identity cannot be kept or used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// There is no membership in the state directory.
    #[error("{directory} holds no membership")]
    NoMember {
        /// Where.
        directory: String,
    },
    /// The node's certificate is a worker's.
    #[error("node {0} has the certificate of a worker")]
    NotManager(NodeId),
    /// The consensus engine does not start.
    #[error("consensus does not start: {0}")]
    Consensus(String),
    /// No manager took this one in, or the group did not get ready in time.
    #[error("Timeout was reached before node joined. {0}")]
    Join(String),
    /// The first commit failed.
    #[error(transparent)]
    First(#[from] ControlError),
}

/// What to do about an address that cannot be listened on.
fn way_out(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there (`ss -ltnp` names it): stop it, or give another port with --listen-addr"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; it is no address of this host: give one that is with --listen-addr"
        }
        _ => "",
    }
}

impl From<StartError> for ControlError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::First(error) => error,
            StartError::Key(error) => error.into(),
            StartError::Join(_) => Self::unavailable(error.to_string()),
            other => Self::unknown(other.to_string()),
        }
    }
}

/// What is open before consensus starts.
pub(super) struct Opened {
    seal: Seal,
    listener: TcpListener,
    pub(super) log: LogStore,
    machine: Machine,
    /// The number of this member, if it is one.
    number: Option<u64>,
    /// When it was made the only one of what was a larger group, if it was.
    revived_at: Option<Instant>,
}

/// Where a manager keeps its files.
pub(super) fn directory(config: &ManagerConfig) -> PathBuf {
    config.state_dir.join("raft")
}

pub(super) fn state_error(directory: &Path) -> impl Fn(io::Error) -> StartError + '_ {
    move |source| StartError::State {
        directory: directory.display().to_string(),
        source,
    }
}

/// Opens address, log and state machine; with the unlock key if it is given.
pub(super) async fn open(
    config: &ManagerConfig,
    unlock_key: Option<&str>,
) -> Result<Opened, StartError> {
    let listener = rpc::bind(config.listen).map_err(|source| StartError::Listen {
        addr: config.listen,
        source,
    })?;
    let directory = directory(config);
    let opened = tokio::task::spawn_blocking({
        let (directory, unlock_key) = (directory.clone(), unlock_key.map(str::to_owned));
        move || {
            fs::create_dir_all(&directory).map_err(state_error(&directory))?;
            let seal = match unlock_key {
                Some(key) => Seal::unlock(&directory, &key)?,
                None => Seal::open(&directory)?,
            };
            let kept = state_error(&directory);
            let log = LogStore::open(&directory, seal.clone()).map_err(&kept)?;
            let machine = Machine::open(&directory, seal.clone()).map_err(&kept)?;
            let number = log.member_number().map_err(&kept)?;
            Ok(Opened {
                seal,
                listener,
                log,
                machine,
                number,
                revived_at: None,
            })
        }
    });
    opened
        .await
        .map_err(|error| state_error(&directory)(io::Error::other(error)))?
}

impl Manager {
    /// Makes a new cluster with this node as its first manager, and keeps the node's identity in
    /// the state directory.
    ///
    /// # Errors
    /// When anything needed for that fails; the node is then in no cluster.
    pub async fn bootstrap(
        config: ManagerConfig,
        init: InitOptions,
    ) -> Result<Arc<Self>, StartError> {
        bootstrap::check_pools(&config, &init)?;
        let directory = directory(&config);
        // Without an identity, what may lie there is of an attempt that was not finished.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(state_error(&directory)(error));
            }
            _ => {}
        }
        let mut ids = IdSource::new(rand::random());
        let (cluster, node): (ClusterId, NodeId) = (ids.id(), ids.id());
        let now = clock::now();
        let authority = Authority::generate(now)?;
        let (key, csr) = dial::new_key()?;
        let title = NodeTitle {
            node,
            cluster,
            role: Role::Manager,
        };
        let duration = init.spec.ca_config.validity();
        let identity = Identity {
            node,
            cluster,
            role: Role::Manager,
            certificate: authority.sign(&csr, title, Validity { now, duration })?,
            key,
            trust_root: authority.certificate().to_owned(),
        };
        let changes = bootstrap::objects(&config, &init, &authority, (cluster, node), &mut ids)?;
        let opened = open(&config, None).await?;
        let number: u64 = rand::random();
        opened
            .log
            .set_member_number(number)
            .map_err(state_error(&directory))?;
        let member = Member {
            node,
            addr: config.advertise.to_string(),
        };
        let credentials = Credentials::new(identity.clone())?;
        let state_dir = config.state_dir.clone();
        let manager = Self::run(config, credentials, opened, number).await?;
        let first = manager.found(member, number, Transaction { now, changes });
        let founded = match timeout(FIRST_LIMIT, first).await {
            Ok(founded) => founded,
            Err(_) => Err(StartError::Consensus("no leader in 10 s".to_owned())),
        };
        let kept = founded.and_then(|()| Ok(identity.save(&state_dir)?));
        if let Err(error) = kept {
            manager.shutdown().await;
            return Err(error);
        }
        info!(%cluster, %node, "cluster made");
        Ok(manager)
    }

    /// Makes the group of one and its first commit.
    async fn found(
        &self,
        member: Member,
        number: u64,
        transaction: Transaction,
    ) -> Result<(), StartError> {
        self.raft
            .initialize(BTreeMap::from([(number, member)]))
            .await
            .map_err(|error| StartError::Consensus(error.to_string()))?;
        while self.confirm().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let written = self.raft.client_write(Proposal(Arc::new(transaction)));
        match written.await {
            Ok(written) => written
                .data
                .map_err(|error| StartError::from(ControlError::unknown(error.to_string())))?,
            Err(error) => return Err(StartError::Consensus(error.to_string())),
        }
        self.term_begun().await;
        Ok(())
    }

    /// Starts the manager of a node that has the certificate of one: again if it was a member
    /// before, else by asking one of `managers` to be taken in.
    ///
    /// # Errors
    /// As [`Manager::restart`] and [`Manager::join`].
    pub async fn start(
        config: ManagerConfig,
        credentials: Credentials,
        managers: Vec<SocketAddr>,
    ) -> Result<Arc<Self>, StartError> {
        let opened = open(&config, None).await?;
        match opened.number {
            Some(number) => Self::run(config, credentials, opened, number).await,
            None => Self::enter(config, credentials, opened, managers).await,
        }
    }

    /// Starts a manager whose data key is locked, with the cluster's unlock key.
    ///
    /// # Errors
    /// When the key is not the right one, else as [`Manager::restart`]. [`Seal::is_locked`] says
    /// whether it is needed.
    pub async fn unlock(
        config: ManagerConfig,
        credentials: Credentials,
        unlock_key: &str,
    ) -> Result<Arc<Self>, StartError> {
        let opened = open(&config, Some(unlock_key)).await?;
        credentials.unlock(&config.state_dir, Arc::new(opened.seal.clone()))?;
        Self::again(config, credentials, opened).await
    }

    /// Starts a manager again from its state directory.
    ///
    /// # Errors
    /// When there is no membership in it, the state is damaged, or the address is taken.
    pub async fn restart(
        config: ManagerConfig,
        credentials: Credentials,
    ) -> Result<Arc<Self>, StartError> {
        let opened = open(&config, None).await?;
        Self::again(config, credentials, opened).await
    }

    async fn again(
        config: ManagerConfig,
        credentials: Credentials,
        opened: Opened,
    ) -> Result<Arc<Self>, StartError> {
        let Some(number) = opened.number else {
            return Err(StartError::NoMember {
                directory: directory(&config).display().to_string(),
            });
        };
        Self::run(config, credentials, opened, number).await
    }

    /// Starts again as the only manager, with all that this one knows: for when the majority is
    /// lost for good.
    ///
    /// # Errors
    /// As [`Manager::restart`].
    pub async fn force_new_cluster(
        config: ManagerConfig,
        credentials: Credentials,
    ) -> Result<Arc<Self>, StartError> {
        let directory = directory(&config);
        let member = Member {
            node: credentials.identity().node,
            addr: config.advertise.to_string(),
        };
        let revived = tokio::task::spawn_blocking({
            let directory = directory.clone();
            move || {
                let seal = Seal::open(&directory)?;
                revive(&directory, &seal, member).map_err(state_error(&directory))
            }
        });
        revived
            .await
            .map_err(|error| state_error(&directory)(io::Error::other(error)))
            .and_then(|result: Result<_, StartError>| result)?;
        let opened = Opened {
            revived_at: Some(Instant::now()),
            ..open(&config, None).await?
        };
        Self::again(config, credentials, opened).await
    }

    /// Starts everything that runs in a manager.
    pub(super) async fn run(
        config: ManagerConfig,
        credentials: Credentials,
        opened: Opened,
        number: u64,
    ) -> Result<Arc<Self>, StartError> {
        let identity = credentials.identity();
        if identity.role != Role::Manager {
            return Err(StartError::NotManager(identity.node));
        }
        let (cluster, node) = (identity.cluster, identity.node);
        let consensus = |error: String| StartError::Consensus(error);
        let engine =
            raft::config(cluster.as_str()).map_err(|error| consensus(error.to_string()))?;
        let peers = Peers::new(credentials.clone());
        let (replica, pace) = (opened.machine.replica(), opened.log.pace());
        let raft = Raft::new(number, engine, peers.clone(), opened.log, opened.machine)
            .await
            .map_err(|error| consensus(error.to_string()))?;
        let stop = CancellationToken::new();
        let (reports, incoming) = mpsc::channel(REPORTS);
        let manager = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            inbox: Inbox::new(raft.clone()),
            connections: Connections::default(),
            sessions: Sessions::default(),
            reports,
            logs: LogHub::default(),
            tunnels: Tunnels::default(),
            ids: Mutex::new(IdSource::new(rand::random())),
            turn: tokio::sync::Mutex::default(),
            reigns: watch::Sender::new(false),
            wake: Notify::new(),
            stop: stop.clone(),
            ended: CancellationToken::new(),
            cluster,
            node,
            credentials: credentials.clone(),
            raft,
            replica,
            pace,
            revived_at: opened.revived_at,
            seal: opened.seal,
            peers,
            config,
        });
        let router = rpc::router(&manager);
        let reception = rpc::Reception {
            credentials,
            connections: manager.connections.clone(),
            tunnels: manager.tunnels.clone(),
        };
        let served = rpc::serve(opened.listener, reception, router, stop);
        let loops = [
            tokio::spawn(Arc::clone(&manager).lead()),
            tokio::spawn(Arc::clone(&manager).write_reports(incoming)),
            tokio::spawn(Arc::clone(&manager).tend_disk()),
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    debug!(%error, "the listener ended");
                }
            }),
        ];
        let ended = manager.ended.clone();
        tokio::spawn(async move {
            for task in loops {
                // A loop that panicked has ended too, and has said so.
                let _ = task.await;
            }
            ended.cancel();
        });
        Ok(manager)
    }
}
