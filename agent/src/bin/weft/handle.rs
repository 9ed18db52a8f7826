//! The membership as the front door asks for it and changes it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use weft_agent::{executor::engine::GATE_FILE, guest::Wish};
use weft_control::runtime::{InitOptions, Manager};
use weft_docker::{
    AttachRequest, DetachRequest, InitRequest, JoinRequest, LocalState, LocalStatus, NodeControl,
    NotManager,
};
use weft_proto::{ControlApi, ControlError};
use weft_types::{NodeId, TaskId, netstate::NetState, node::Role};

use crate::{
    membership::{Membership, Standing, WELCOME_LIMIT, unknown},
    reach::addresses,
    role,
};

/// The membership, for who asks from outside.
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
        self.refuse_member().await?;
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
        let seat = match self.sit(settings, credentials, Some(Arc::clone(&manager))) {
            Ok(seat) => seat,
            Err(error) => {
                manager.shutdown().await;
                let _kept_from_nothing = self.place.forget();
                return Err(unknown(error));
            }
        };
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
        if let Some(seat) = &standing.seat
            && let Err(error) = seat.clear().await
        {
            tracing::error!(
                error = format!("{error:#}"),
                "leaving, but something stays behind"
            );
            if !force {
                return Err(unknown(
                    error.context("tasks or network of this node cannot be taken away (`docker swarm leave --force` leaves all the same)"),
                ));
            }
        }
        // Not before: a node whose leaving is refused stays a member that keeps its role.
        if let Some(watcher) = &standing.watcher {
            watcher.abort();
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
        if request.starting {
            return seat.guests.start(&request.container_id, &glance).await;
        }
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

    async fn settle(&self, container_id: &str) -> Result<(), ControlError> {
        // Of a swarm that the node left meanwhile nothing is wished for: a container that was started is not to end
        // for that.
        let Some(seat) = self.standing().seat else {
            return Ok(());
        };
        let glance = seat.agent.glance().borrow().clone();
        seat.guests.settle(container_id, &glance).await
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
