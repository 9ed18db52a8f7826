//! Whether this node is in a swarm, and in which role: inactive, joining, active.
//!
//! Changes (`init`, `join`, `leave`, a role) happen one at a time under [`Membership::change`];
//! looks at the state never wait for them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{
    sync::{Mutex, mpsc},
    task::AbortHandle,
};
use weft_agent::{
    Notice,
    executor::{
        Executor,
        engine::{Engine, GATE_FILE},
    },
    guest::Wish,
};
use weft_control::{
    raft::Seal,
    runtime::{InitOptions, Manager},
};
use weft_docker::{
    AttachRequest, DetachRequest, InitRequest, JoinRequest, LocalState, LocalStatus, NodeControl,
    NotManager,
};
use weft_proto::{
    ControlApi, ControlError,
    identity::{Credentials, Identity},
};
use weft_types::{
    NodeId, TaskId,
    netstate::NetState,
    node::{NodeDescription, Role},
};

use crate::{
    place::{Place, Settings},
    reach::addresses,
    role,
    seat::Seat,
};

/// How long `init` and `join` wait for the node's first session.
pub(crate) const WELCOME_LIMIT: Duration = Duration::from_secs(10);

/// How long the engine may take to say what it is before `init` goes on without it.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(3);
/// Between two looks at the certificate's age.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(60);

/// The node's membership.
pub(crate) struct Membership {
    pub(crate) place: Place,
    now: RwLock<Standing>,
    pub(crate) change: Mutex<()>,
}

/// Where the node stands. Cheap to copy out.
#[derive(Clone, Default)]
pub(crate) struct Standing {
    pub(crate) state: LocalState,
    seat: Option<Arc<Seat>>,
    manager: Option<Arc<Manager>>,
    pub(crate) error: String,
    /// Carries out notices of the agent, or goes on joining; ends with the seat.
    pub(crate) watcher: Option<AbortHandle>,
    /// While it joins: with which settings, through which managers.
    pub(crate) joining: Option<Settings>,
}

impl Membership {
    pub(crate) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self {
            place,
            now: RwLock::default(),
            change: Mutex::default(),
        })
    }

    fn standing(&self) -> Standing {
        self.now
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// What runs here while the node is in a swarm.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        self.standing().seat
    }

    pub(crate) fn amend(&self, change: impl FnOnce(&mut Standing)) {
        change(
            &mut self
                .now
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
    }

    fn managers(&self, seat: &Seat) -> Vec<SocketAddr> {
        let glance = seat.agent.glance().borrow().clone();
        let known = glance.managers.iter().map(|(_, addr)| *addr);
        let mut all: Vec<SocketAddr> = known
            .chain(seat.settings.managers.iter().copied())
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|addr| seen.insert(*addr));
        all
    }

    /// Takes up the membership of an earlier life, if there was one.
    pub(crate) async fn resume(self: &Arc<Self>) {
        let _one = self.change.lock().await;
        let found = Identity::load(self.place.state_dir())
            .map_err(anyhow::Error::new)
            .and_then(|identity| Ok(identity.zip(self.place.load_settings()?)));
        let resumed = found.and_then(|found| {
            let Some((identity, settings)) = found else {
                return Ok(());
            };
            let credentials = Credentials::new(identity)?;
            self.sit(settings, credentials, None)?;
            Ok(())
        });
        if let Err(error) = resumed {
            tracing::error!(
                error = format!("{error:#}"),
                "cannot take up this node's membership"
            );
            let hint = format!("{error:#}; run `docker swarm leave --force` to start anew");
            self.amend(|now| {
                now.state = LocalState::Error;
                now.error = hint;
            });
        }
    }

    /// Starts everything that a member runs.
    pub(crate) fn sit(
        self: &Arc<Self>,
        settings: Settings,
        credentials: Credentials,
        manager: Option<Arc<Manager>>,
    ) -> anyhow::Result<Arc<Seat>> {
        let (seat, notices) = Seat::take(&self.place, settings, credentials)?;
        let seat = Arc::new(seat);
        let this = Arc::clone(self);
        let watched = Arc::clone(&seat);
        let watcher = tokio::spawn(async move { this.follow(watched, notices).await });
        self.amend(|now| {
            *now = Standing {
                state: LocalState::Active,
                seat: Some(Arc::clone(&seat)),
                manager,
                error: String::new(),
                watcher: Some(watcher.abort_handle()),
                joining: None,
            };
        });
        Ok(seat)
    }

    /// Keeps the role at what the managers wish, and starts the manager of a node that is one.
    async fn follow(self: Arc<Self>, seat: Arc<Seat>, mut notices: mpsc::Receiver<Notice>) {
        let mut wished: Option<Role> = None;
        loop {
            let settled = {
                let _one = self.change.lock().await;
                self.settle_role(&seat, wished).await
            };
            let pause = match settled {
                Ok(()) => {
                    wished = None;
                    self.amend(|now| now.error.clear());
                    CERTIFICATE_PERIOD
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    tracing::warn!(error = text, "cannot take up the role wished; trying again");
                    self.amend(|now| now.error = text);
                    role::RETRY
                }
            };
            let notice = tokio::select! {
                notice = notices.recv() => match notice {
                    None => return,
                    notice => notice,
                },
                () = self.manager_failed() => None,
                () = tokio::time::sleep(pause) => None,
            };
            match notice {
                Some(Notice::Role(role)) => wished = Some(role),
                Some(Notice::TrustRoot(root)) => self.trust(&seat, root),
                Some(Notice::Removed) => {
                    self.amend(|now| {
                        now.state = LocalState::Error;
                        now.error = "this node was removed from the swarm; run `docker swarm leave` and join again".to_owned();
                    });
                }
                None => {}
            }
        }
    }

    /// Comes back when the manager of this node has stopped by itself, and is put away: the next step
    /// starts it again.
    async fn manager_failed(&self) {
        let Some(manager) = self.standing().manager else {
            return std::future::pending().await;
        };
        let why = manager.failed().await;
        let _one = self.change.lock().await;
        let is_held = |held: &Arc<Manager>| Arc::ptr_eq(held, &manager);
        if self.standing().manager.as_ref().is_some_and(is_held) {
            tracing::error!(why, "the manager of this node has stopped");
            manager.shutdown().await;
            self.amend(|now| {
                now.manager = None;
                now.error = why;
            });
        }
    }

    /// One step towards the role wished: certificate first, then the manager.
    async fn settle_role(&self, seat: &Arc<Seat>, wished: Option<Role>) -> anyhow::Result<()> {
        let standing = self.standing();
        if !standing
            .seat
            .as_ref()
            .is_some_and(|held| Arc::ptr_eq(held, seat))
        {
            return Ok(());
        }
        let dir = self.place.state_dir();
        let held = seat.credentials.identity().role;
        if held == Role::Manager
            && standing.manager.is_none()
            && Seal::is_locked(&dir.join("raft"))?
        {
            // Only the user can go on from here: not even the node's own key is open.
            self.amend(|now| now.state = LocalState::Locked);
            return Ok(());
        }
        let mut managers = self.managers(seat);
        let role = match wished {
            // Asked for the role it has, the node gets a new certificate all the same: that is how
            // managers ask for a renewal.
            Some(wished) => {
                if held == Role::Manager && wished == Role::Worker {
                    // Its own manager is the one being taken away.
                    managers.retain(|addr| *addr != seat.settings.advertise);
                }
                role::renew(dir, &seat.credentials, &managers).await?
            }
            _ if role::renewal_due(&seat.credentials)? <= SystemTime::now() => {
                tracing::info!("renewing the certificate of this node");
                role::renew(dir, &seat.credentials, &managers).await?
            }
            _ => held,
        };
        match (role, &standing.manager) {
            (Role::Manager, None) => {
                let manager =
                    role::start(dir, &seat.settings, &seat.credentials, &managers).await?;
                self.amend(|now| now.manager = Some(manager));
            }
            (Role::Worker, Some(manager)) => {
                self.amend(|now| now.manager = None);
                role::stop(dir, manager).await?;
            }
            (Role::Worker, None) => role::remove_log(dir)?,
            (Role::Manager, Some(_)) => {}
        }
        Ok(())
    }

    fn trust(&self, seat: &Seat, root: String) {
        let held = seat.credentials.identity();
        if held.trust_root == root {
            return;
        }
        let mut identity = (*held).clone();
        identity.trust_root = root;
        if let Err(error) = seat.credentials.keep(self.place.state_dir(), identity) {
            tracing::error!(%error, "cannot take up the cluster's new root certificate");
        }
    }

    /// Ends everything that runs, keeping containers, network and membership.
    pub(crate) async fn shutdown(&self) {
        let _one = self.change.lock().await;
        let standing = self.standing();
        if let Some(watcher) = standing.watcher {
            watcher.abort();
        }
        self.amend(|now| *now = Standing::default());
        if let Some(manager) = standing.manager {
            manager.shutdown().await;
        }
    }

    async fn describe(&self) -> NodeDescription {
        let flags = &self.place.flags;
        let described = match Engine::new(flags.engine.clone(), flags.state_dir.clone()) {
            Ok(engine) => tokio::time::timeout(DESCRIBE_LIMIT, engine.describe())
                .await
                .ok(),
            Err(_) => None,
        };
        let mut description = described.and_then(Result::ok).unwrap_or_default();
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        description.hostname = hostname.to_string_lossy().into_owned();
        description
    }

    pub(crate) fn refuse_member(&self) -> Result<(), ControlError> {
        if self.standing().state == LocalState::Inactive {
            return Ok(());
        }
        Err(ControlError::unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        ))
    }
}

pub(crate) fn unknown(error: anyhow::Error) -> ControlError {
    ControlError::unknown(format!("{error:#}"))
}

/// The membership as the front door asks for it.
pub(crate) struct Handle(pub(crate) Arc<Membership>);

impl std::ops::Deref for Handle {
    type Target = Arc<Membership>;

    fn deref(&self) -> &Arc<Membership> {
        &self.0
    }
}

#[async_trait]
impl NodeControl for Handle {
    async fn init(&self, request: InitRequest) -> Result<NodeId, ControlError> {
        let _one = self.change.lock().await;
        if request.force_new_cluster && self.standing().seat.is_some() {
            return self.found_again().await;
        }
        self.refuse_member()?;
        let mut settings = addresses(
            &request.listen_addr,
            &request.advertise_addr,
            &request.data_path_addr,
            None,
        )?;
        settings.managers = vec![settings.advertise];
        let invalid = |text: &str| ControlError::invalid(format!("invalid address pool {text:?}"));
        let pools = request.default_addr_pool.iter();
        let pools = pools.map(|pool| pool.parse().map_err(|_| invalid(pool)));
        let mut spec = request.spec;
        spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
        let options = InitOptions {
            spec,
            default_addr_pool: pools.collect::<Result<_, _>>()?,
            subnet_size: u8::try_from(request.subnet_size).unwrap_or_default(),
            data_path_port: u16::try_from(request.data_path_port).unwrap_or_default(),
            data_path_addr: Some(settings.data_path),
            availability: request.availability,
            description: self.describe().await,
        };
        self.place.save_settings(&settings).map_err(unknown)?;
        let config = role::config(self.place.state_dir(), &settings);
        let manager = match Manager::bootstrap(config, options).await {
            Ok(manager) => manager,
            Err(error) => {
                let _kept_from_nothing = self.place.forget();
                return Err(error.into());
            }
        };
        let credentials = manager.credentials();
        let node = credentials.identity().node;
        let seat = self
            .sit(settings, credentials, Some(manager))
            .map_err(unknown)?;
        if !seat.await_welcome(WELCOME_LIMIT).await {
            tracing::warn!("this node's own manager has not welcomed it yet; going on");
        }
        Ok(node)
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ControlError> {
        self.0.join_swarm(request).await
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        let _one = self.change.lock().await;
        let standing = self.standing();
        if let Some(watcher) = &standing.watcher {
            watcher.abort();
        }
        if let Some(seat) = &standing.seat
            && let Err(error) = seat.clear().await
        {
            tracing::error!(
                error = format!("{error:#}"),
                "leaving, but something stays behind"
            );
            if !force {
                return Err(unknown(
                    error.context("use `--force` to leave all the same"),
                ));
            }
        }
        if let Some(manager) = &standing.manager {
            if let Err(error) = manager.leave().await {
                tracing::warn!(%error, "the other managers could not be told; remove this node there with `docker node demote` and `docker node rm`");
            }
            manager.shutdown().await;
        }
        self.amend(|now| *now = Standing::default());
        self.place.forget().map_err(unknown)
    }

    async fn unlock(&self, key: &str) -> Result<(), ControlError> {
        let _one = self.change.lock().await;
        let standing = self.standing();
        let Some(seat) = standing
            .seat
            .filter(|_| standing.state == LocalState::Locked)
        else {
            return Err(ControlError::new(
                weft_proto::ErrorCode::AlreadyExists,
                "swarm is not locked",
            ));
        };
        let config = role::config(self.place.state_dir(), &seat.settings);
        let manager = Manager::unlock(config, seat.credentials.clone(), key).await?;
        self.amend(|now| {
            now.state = LocalState::Active;
            now.manager = Some(manager);
            now.error.clear();
        });
        Ok(())
    }

    async fn status(&self) -> LocalStatus {
        let standing = self.standing();
        let Some(seat) = &standing.seat else {
            let joining = standing.joining.as_ref();
            let tried = joining.iter().flat_map(|settings| &settings.managers);
            return LocalStatus {
                state: standing.state,
                error: standing.error,
                node_addr: joining
                    .map_or_else(String::new, |settings| settings.advertise.ip().to_string()),
                remote_managers: tried.map(|addr| (None, addr.to_string())).collect(),
                ..LocalStatus::default()
            };
        };
        if standing.state == LocalState::Locked {
            return LocalStatus {
                state: standing.state,
                node_addr: seat.settings.advertise.ip().to_string(),
                error: NotManager::Locked.to_string(),
                ..LocalStatus::default()
            };
        }
        let glance = seat.agent.glance().borrow().clone();
        let identity = seat.credentials.identity();
        let managers = glance
            .managers
            .iter()
            .map(|(id, addr)| (*id, addr.to_string()));
        LocalStatus {
            state: standing.state,
            node_id: Some(identity.node),
            node_addr: seat.settings.advertise.ip().to_string(),
            control_available: standing.manager.is_some(),
            remote_managers: managers.collect(),
            error: match &standing.manager {
                Some(manager) => manager.standing().await.error,
                None => standing.error,
            },
        }
    }

    async fn control(&self) -> Result<Arc<dyn ControlApi>, NotManager> {
        let standing = self.standing();
        let Some(seat) = &standing.seat else {
            return Err(NotManager::Inactive);
        };
        match standing.manager {
            Some(manager) => Ok(manager),
            None if standing.state == LocalState::Locked => Err(NotManager::Locked),
            None if seat.credentials.identity().role == Role::Manager => Err(NotManager::Starting),
            None => Err(NotManager::Worker),
        }
    }

    async fn net_state(&self) -> Arc<NetState> {
        match &self.standing().seat {
            Some(seat) => Arc::clone(&seat.agent.glance().borrow().net),
            None => Arc::default(),
        }
    }

    async fn local_containers(&self) -> BTreeMap<TaskId, String> {
        let Some(seat) = self.standing().seat else {
            return BTreeMap::new();
        };
        let mut containers = seat.agent.glance().borrow().containers.clone();
        containers.extend(seat.guests.containers());
        containers
    }

    fn gate(&self) -> Option<PathBuf> {
        let gate = self.place.state_dir().join(GATE_FILE);
        std::path::absolute(gate).ok()
    }

    async fn attach(&self, request: AttachRequest) -> Result<(), ControlError> {
        let seat = self.standing().seat.ok_or_else(not_a_member)?;
        let glance = seat.agent.glance().borrow().clone();
        let wish = Wish {
            network: request.network,
            aliases: request.aliases,
            addresses: request.addresses,
            held: None,
        };
        seat.guests
            .attach(&request.container_id, wish, &glance)
            .await
    }

    async fn detach(&self, request: DetachRequest) -> Result<(), ControlError> {
        let seat = self.standing().seat.ok_or_else(not_a_member)?;
        let glance = seat.agent.glance().borrow().clone();
        seat.guests
            .detach(&request.container_id, &request.network, &glance)
            .await
    }
}

fn not_a_member() -> ControlError {
    ControlError::unavailable(NotManager::Inactive.to_string())
}

impl Membership {
    /// Goes on alone with the store at hand: the majority of managers is lost for good.
    async fn found_again(&self) -> Result<NodeId, ControlError> {
        let standing = self.standing();
        let seat = standing
            .seat
            .filter(|seat| seat.credentials.identity().role == Role::Manager)
            .ok_or_else(|| {
                ControlError::precondition(
                    "only a manager can force a new cluster: run this on one",
                )
            })?;
        if let Some(manager) = standing.manager {
            self.amend(|now| now.manager = None);
            manager.shutdown().await;
        }
        let config = role::config(self.place.state_dir(), &seat.settings);
        let manager = Manager::force_new_cluster(config, seat.credentials.clone()).await?;
        self.amend(|now| now.manager = Some(manager));
        if !seat.await_welcome(WELCOME_LIMIT).await {
            tracing::warn!("this node's own manager has not welcomed it yet; going on");
        }
        Ok(seat.credentials.identity().node)
    }
}
