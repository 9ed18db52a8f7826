//! What a node in a swarm has running: tasks, network, and the manager when it is one.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};
use weft_agent::{
    Agent, AgentConfig, Notice,
    executor::{Executor, engine::Engine},
    guest::keep::{Containers, Guests, GuestsConfig, SWEEP_PERIOD},
    journal::Journal,
    network::{Wiring, kernel::Kernel, keys::KeyShelf},
    runtime::Grpc,
};
use weft_dataplane::WireGuard;
use weft_dns::{Forwarder, Resolver, Servers};
use weft_proto::identity::Credentials;

use crate::{
    asking::Asking,
    place::{Place, Settings},
};

/// How long tasks may take to stop when a node leaves: most grace periods, and some.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);

/// A node's part in a swarm, running.
pub(crate) struct Seat {
    pub(crate) settings: Settings,
    pub(crate) credentials: Credentials,
    pub(crate) agent: Agent,
    engine: Arc<Engine>,
    pub(crate) wiring: Arc<Kernel>,
    pub(crate) guests: Arc<Guests>,
    guarding: AbortHandle,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guarding.abort();
    }
}

fn dataplane_config(place: &Place, settings: &Settings) -> weft_dataplane::Config {
    let flags = &place.flags;
    let mut config = weft_dataplane::Config::new(flags.pin_dir.clone(), settings.data_path);
    config.cgroup = flags.cgroup.clone();
    config.egress_pool = flags.egress_pool;
    config
}

impl Seat {
    /// Takes up tasks and network of the node that `credentials` name.
    pub(crate) fn take(
        place: &Place,
        settings: Settings,
        credentials: Credentials,
    ) -> Result<(Self, mpsc::Receiver<Notice>)> {
        let flags = &place.flags;
        let engine = Engine::new(flags.engine.clone(), flags.state_dir.clone())?;
        let engine = Arc::new(engine);
        let forwarder = Forwarder::new(Servers::from_file(Path::new("/etc/resolv.conf")));
        let node = credentials.identity().node;
        let keys = KeyShelf::open(&flags.state_dir, flags.wireguard_port)
            .context("cannot take up the keys for encrypted networks")?;
        let wireguard = WireGuard::told(&keys.held(), None);
        let config = dataplane_config(place, &settings);
        let wiring = Arc::new(Kernel::new(node, config, keys, Resolver::new(forwarder)));
        let (told, glance) = watch::channel(None);
        let guests = Guests::new(GuestsConfig {
            node,
            journal: Journal::open(&flags.state_dir)?,
            containers: Arc::clone(&engine) as Arc<dyn Containers>,
            wiring: Arc::clone(&wiring) as Arc<dyn Wiring>,
            managers: Arc::new(Asking {
                credentials: credentials.clone(),
                known: settings.managers.clone(),
                glance,
            }),
            sweep_period: SWEEP_PERIOD,
        });
        let (agent, notices) = Agent::start(AgentConfig {
            node,
            state_dir: flags.state_dir.clone(),
            managers: settings.managers.clone(),
            data_path_addr: Some(settings.data_path),
            wireguard,
            executor: Arc::clone(&engine) as Arc<dyn Executor>,
            wiring: Arc::clone(&wiring) as Arc<dyn Wiring>,
            dial: Arc::new(Grpc::new(credentials.clone(), flags.socket.clone())),
            guests: guests.sandboxes(),
        })?;
        told.send_replace(Some(agent.glance()));
        let guarding = tokio::spawn(Arc::clone(&guests).run(agent.glance())).abort_handle();
        let seat = Self {
            settings,
            credentials,
            agent,
            engine,
            wiring,
            guests,
            guarding,
        };
        Ok((seat, notices))
    }

    /// Waits until a manager has welcomed this node; false when `limit` passed before.
    pub(crate) async fn await_welcome(&self, limit: Duration) -> bool {
        let mut glance = self.agent.glance();
        let welcome = glance.wait_for(|glance| glance.is_connected);
        tokio::time::timeout(limit, welcome)
            .await
            .is_ok_and(|waited| waited.is_ok())
    }

    /// Stops and removes all tasks and the network.
    pub(crate) async fn clear(&self) -> Result<()> {
        self.agent.leave().await;
        let mut glance = self.agent.glance();
        let empty = glance.wait_for(|glance| glance.is_empty);
        if tokio::time::timeout(LEAVE_LIMIT, empty).await.is_err() {
            tracing::warn!(
                "tasks of this node did not stop in {} s; removing their containers",
                LEAVE_LIMIT.as_secs()
            );
        }
        remove_containers(&self.engine).await?;
        self.engine.forget();
        let removed = self.wiring.uninstall().await;
        removed.map_err(|failure| anyhow::anyhow!("{failure}"))
    }
}

async fn remove_containers(engine: &Engine) -> Result<()> {
    let listed = engine
        .list()
        .await
        .map_err(|failure| anyhow::anyhow!("{failure}"))?;
    for found in listed {
        let removed = engine.remove(found.task, Some(&found.container)).await;
        removed
            .map_err(|failure| anyhow::anyhow!("{failure}"))
            .with_context(|| format!("cannot remove container {}", found.container))?;
    }
    Ok(())
}

/// Removes everything that an agent with this state directory has made.
pub(crate) async fn remove_everything(place: &Place) -> Result<()> {
    let flags = &place.flags;
    let engine = Engine::new(flags.engine.clone(), flags.state_dir.clone())?;
    remove_containers(&engine)
        .await
        .context("cannot remove the containers of tasks; start the engine and run this again")?;
    engine.forget();
    if let Some(settings) = place.load_settings()? {
        let dataplane =
            weft_dataplane::Dataplane::start(dataplane_config(place, &settings)).await?;
        dataplane.uninstall().await?;
    }
    place.forget()
}
