//! Whether this node is in a swarm, and in which role: inactive, joining, active.
//!
//! Changes (`init`, `join`, `leave`, a role) happen one at a time under [`Membership::change`];
//! looks at the state never wait for them.

use std::{
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Mutex, mpsc},
    task::AbortHandle,
};
use weft_agent::{
    Notice,
    executor::{
        Executor,
        engine::{Engine, FilesError},
    },
};
use weft_control::{raft::Seal, runtime::Manager};
use weft_docker::LocalState;
use weft_proto::{
    ControlError,
    identity::{Credentials, Identity},
};
use weft_types::node::{NodeDescription, Role};

use crate::{
    place::{Place, Settings},
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
    pub(crate) seat: Option<Arc<Seat>>,
    pub(crate) manager: Option<Arc<Manager>>,
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

    pub(crate) fn standing(&self) -> Standing {
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
            // All that was told meanwhile: of several roles the last one counts.
            let more = std::iter::from_fn(|| notices.try_recv().ok());
            for notice in notice.into_iter().chain(more) {
                match notice {
                    Notice::Role(role) => wished = Some(role),
                    Notice::TrustRoot(root) => self.trust(&seat, root),
                    Notice::Removed => self.amend(|now| {
                        now.state = LocalState::Error;
                        now.error = "this node was removed from the swarm; run `docker swarm leave` and join again".to_owned();
                    }),
                }
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
        if role != held {
            seat.agent.renewed().await;
        }
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

    pub(crate) async fn describe(&self) -> NodeDescription {
        let described = match self.engine() {
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

    /// Where this node keeps what it must remember.
    pub(crate) fn state_dir(&self) -> &std::path::Path {
        self.place.state_dir()
    }

    fn engine(&self) -> Result<Engine, FilesError> {
        let flags = &self.place.flags;
        Engine::new(flags.engine.clone(), flags.state_dir.clone())
    }

    /// Why the engine below does not answer now; `None` when it does.
    pub(crate) async fn engine_silence(&self) -> Option<String> {
        match self.engine() {
            Ok(engine) => engine.silence().await,
            Err(error) => Some(error.to_string()),
        }
    }

    /// What is wrong with the engine below, and what to do; `None` when it serves.
    pub(crate) async fn engine_trouble(&self) -> Option<String> {
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return Some(format!("cannot be driven: {error}")),
        };
        if let Some(why) = engine.silence().await {
            return Some(format!(
                "down: {why}; tasks wait for it: see its own log (`journalctl -u docker`)"
            ));
        }
        self.docker_swarm().await
    }

    /// Says so when the engine below is in a swarm of Docker's own. One that does not answer is taken for
    /// one that is not: it is described later, too.
    async fn docker_swarm(&self) -> Option<String> {
        let engine = self.engine().ok()?;
        let asked = tokio::time::timeout(DESCRIBE_LIMIT, engine.is_in_docker_swarm()).await;
        let socket = self.place.flags.engine.display();
        matches!(asked, Ok(Ok(true))).then(|| {
            format!(
                "the engine at unix://{socket} is in a swarm of Docker's own, whose ports and networks are in the way: take it out first with `docker -H unix://{socket} swarm leave --force`"
            )
        })
    }

    /// Refuses who begins or joins a swarm on a node that is in one, ours or Docker's.
    pub(crate) async fn refuse_member(&self) -> Result<(), ControlError> {
        if self.standing().state != LocalState::Inactive {
            return Err(ControlError::unavailable(
                "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
            ));
        }
        match self.docker_swarm().await {
            Some(why) => Err(ControlError::precondition(why)),
            None => Ok(()),
        }
    }
}

pub(crate) fn unknown(error: anyhow::Error) -> ControlError {
    ControlError::unknown(format!("{error:#}"))
}
