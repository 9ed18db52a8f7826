//! The kernel's network and the node's resolver.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{OnceCell, watch},
    time::{Instant, sleep, timeout},
};
use weft_dataplane::{
    Config, Dataplane, DataplaneError, Desired, NetnsRef, ResolverSockets, Sandbox, SandboxSpec,
    WireGuard,
};
use weft_dns::{Asker, Attachment, Resolver, forward::Neighbour};
use weft_types::{
    NodeId, TaskId,
    netstate::{NetState, WireGuardPeer},
    task::Task,
};

use super::{Wiring, asker, keys::KeyShelf, neighbour::EngineResolver, sandbox};
use crate::task::Failure;

/// How long a task waits for its networks to be told to this node. Less than its gate waits.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long sockets of a resolver that was closed may live on.
const CLOSING: Duration = Duration::from_millis(500);

/// The real wiring.
pub struct Kernel {
    node: NodeId,
    config: Config,
    keys: KeyShelf,
    /// Started when the cluster's VXLAN port is known, which is when the first state is.
    dataplane: OnceCell<Dataplane>,
    resolver: Resolver,
    state: watch::Sender<Arc<NetState>>,
    /// Resolvers of sandboxes; dropping one closes its sockets.
    resolvers: Mutex<BTreeMap<TaskId, Served>>,
}

/// The resolver of a sandbox.
struct Served {
    /// Of the namespace.
    cookie: u64,
    attachment: Attachment,
    /// A container that goes on without us when this is closed: a user's own.
    guest: Option<Sandbox>,
}

impl Kernel {
    /// The wiring of node `node`; the VXLAN port in `config` is replaced by the cluster's.
    #[must_use]
    pub fn new(node: NodeId, config: Config, keys: KeyShelf, resolver: Resolver) -> Self {
        Self {
            node,
            config,
            keys,
            dataplane: OnceCell::new(),
            resolver,
            state: watch::Sender::default(),
            resolvers: Mutex::default(),
        }
    }

    /// The data plane, once the first network state has started it.
    #[must_use]
    pub fn started(&self) -> Option<&Dataplane> {
        self.dataplane.get()
    }

    async fn dataplane(&self) -> Result<&Dataplane, Failure> {
        let started = self.dataplane.get_or_try_init(|| {
            let mut config = self.config.clone();
            let port = self.state.borrow().data_path_port;
            if port != 0 {
                config.vxlan_port = port;
            }
            Dataplane::start(config)
        });
        started
            .await
            .map_err(|error| failure("start", "the data plane", &error))
    }

    async fn await_networks(&self, task: &Task) -> Result<SandboxSpec, Failure> {
        let mut states = self.state.subscribe();
        let known = async {
            loop {
                {
                    let state = states.borrow_and_update();
                    let spec = sandbox(&state, task).filter(|_| state.revision != 0);
                    if spec.is_some() {
                        return spec;
                    }
                }
                states.changed().await.ok()?;
            }
        };
        let known = timeout(PATIENCE, known).await.ok().flatten();
        known.ok_or_else(|| {
            Failure::lasting(format!(
                "the networks of task {} were not told to this node within {} s",
                task.id,
                PATIENCE.as_secs()
            ))
        })
    }
}

impl Kernel {
    fn resolvers(&self) -> MutexGuard<'_, BTreeMap<TaskId, Served>> {
        self.resolvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the resolver that a sandbox has already on which networks it is now; one of an earlier
    /// namespace is closed. Says whether there was one.
    fn ask_anew(&self, task: TaskId, cookie: u64, asker: &Asker) -> bool {
        let mut resolvers = self.resolvers();
        match resolvers.get(&task) {
            Some(served) if served.cookie == cookie => {
                served.attachment.set_asker(asker.clone());
                true
            }
            _ => {
                resolvers.remove(&task);
                false
            }
        }
    }

    /// Serves the resolver's sockets in a sandbox, which `open` opens there.
    async fn serve<F: Future<Output = Result<ResolverSockets, DataplaneError>>>(
        &self,
        task: TaskId,
        open: impl Fn() -> F,
        asker: Asker,
        neighbour: Option<Arc<dyn Neighbour>>,
    ) -> Result<Attachment, Failure> {
        let begun = Instant::now();
        let sockets = loop {
            match open().await {
                Ok(sockets) => break sockets,
                // One that was just closed may hold the address for a moment.
                Err(_) if begun.elapsed() < CLOSING => sleep(CLOSING / 20).await,
                Err(error) => return Err(failure("open the resolver of task", task, &error)),
            }
        };
        let refused = |error| failure("serve the resolver of task", task, &error);
        let udp = UdpSocket::from_std(sockets.udp).map_err(refused)?;
        let tcp = TcpListener::from_std(sockets.tcp).map_err(refused)?;
        Ok(self.resolver.attach_beside(udp, tcp, asker, neighbour))
    }

    async fn try_answering(&self, task: &Task, pid: u32) -> Result<(), Failure> {
        let known = timeout(CLOSING, self.await_networks(task)).await;
        let known = known.unwrap_or_else(|_| Err(Failure::passing("its networks are not known")));
        let asker = asker(task, &known?);
        let cookie = weft_dataplane::cookie(NetnsRef::Pid(pid)).await;
        let cookie = cookie.map_err(|error| failure("enter the sandbox of", task.id, &error))?;
        if !self.ask_anew(task.id, cookie, &asker) {
            let open = || weft_dataplane::open_resolver(NetnsRef::Pid(pid));
            let attachment = self.serve(task.id, open, asker, None).await?;
            let served = Served {
                cookie,
                attachment,
                guest: None,
            };
            self.resolvers().insert(task.id, served);
        }
        Ok(())
    }
}

/// Closes a resolver. A container that goes on is asked to have its names from elsewhere again.
async fn close(served: Option<Served>) {
    let guest = served.and_then(|served| served.guest);
    if let Some(guest) = guest
        && let Err(error) = guest.leave_resolver().await
    {
        tracing::debug!(task = %guest.task, %error, "nothing is left around the resolver of a container that is gone");
    }
}

fn failure(verb: &str, object: impl std::fmt::Display, error: &dyn std::error::Error) -> Failure {
    let mut reason = format!("cannot {verb} {object}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        reason.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Failure::passing(reason)
}

#[async_trait]
impl Wiring for Kernel {
    async fn apply(&self, state: &NetState) -> Result<u64, Failure> {
        // Names first: a name that leads nowhere is worse than an address without a name, and who
        // waits for a network may be asked for names on it at once.
        let zones = self.resolver.zones().updated(&self.state.borrow(), state);
        self.resolver.publish(zones);
        self.state.send_replace(Arc::new(state.clone()));
        let revision = state.revision;
        let mut desired = Desired::of(state, self.node, &BTreeSet::new())
            .map_err(|error| failure("take network revision", revision, &error))?;
        desired.keys = self.keys.follow(state.keys);
        let applied = self.dataplane().await?.apply(desired).await;
        let applied =
            applied.map_err(|error| failure("apply network revision", revision, &error))?;
        Ok(applied.revision)
    }

    async fn ready(&self) {
        let mut states = self.state.subscribe();
        let told = timeout(PATIENCE, states.wait_for(|state| state.revision != 0)).await;
        if told.is_ok_and(|told| told.is_ok()) {
            // Held by whoever starts it: minutes on a busy machine, for the kernel verifies programs.
            // What keeps it from starting is said to who needs it.
            let _refused = self.dataplane().await;
        }
    }

    async fn connect(&self, task: &Task, pid: i64) -> Result<(), Failure> {
        let spec = self.await_networks(task).await?;
        let asker = asker(task, &spec);
        let netns = NetnsRef::Pid(u32::try_from(pid).unwrap_or_default());
        let made = self.dataplane().await?.create_sandbox(spec, netns).await;
        let made = made.map_err(|error| failure("make the sandbox of task", task.id, &error))?;
        if !self.ask_anew(task.id, made.cookie, &asker) {
            // A task's own container is on no network of the engine's.
            let is_guest = task.spec.network_attachment_spec.is_some();
            let guest = is_guest.then(|| made.clone());
            let neighbour = guest.clone().map(EngineResolver);
            let neighbour = neighbour.map(|neighbour| Arc::new(neighbour) as Arc<dyn Neighbour>);
            let open = || made.open_resolver();
            let attachment = self.serve(task.id, open, asker, neighbour).await?;
            let served = Served {
                cookie: made.cookie,
                attachment,
                guest,
            };
            self.resolvers().insert(task.id, served);
        }
        Ok(())
    }

    async fn answer_names(&self, task: &Task, pid: i64) {
        let pid = u32::try_from(pid).unwrap_or_default();
        if let Err(failure) = self.try_answering(task, pid).await {
            tracing::debug!(task = %task.id, %failure, "names are answered once the sandbox is");
        }
    }

    async fn disconnect(&self, task: TaskId) {
        let served = {
            let mut resolvers = self.resolvers();
            resolvers.remove(&task)
        };
        close(served).await;
        let Some(dataplane) = self.dataplane.get() else {
            return;
        };
        if let Err(error) = dataplane.remove_sandbox(task).await {
            tracing::warn!(%task, %error, "cannot remove the sandbox of a container");
        }
    }

    async fn retain(&self, tasks: &BTreeSet<TaskId>) {
        {
            let mut resolvers = self.resolvers();
            resolvers.retain(|task, _| tasks.contains(task));
        }
        let Some(dataplane) = self.dataplane.get() else {
            return;
        };
        if let Err(error) = dataplane.retain_sandboxes(tasks.clone()).await {
            tracing::warn!(%error, "cannot remove the sandboxes of ended tasks; tried again at the next change");
        }
    }

    async fn flows(&self, task: &Task) -> u64 {
        let mut flows = 0;
        let Some(dataplane) = self.dataplane.get() else {
            return flows;
        };
        for attachment in &task.networks_attachments {
            match dataplane.flows(attachment.backend).await {
                Ok(count) => flows += count as u64,
                Err(error) => tracing::debug!(task = %task.id, %error, "cannot count flows"),
            }
        }
        flows
    }

    async fn keys(&self) -> Option<WireGuardPeer> {
        let mut keys = self.keys.held();
        let Some(dataplane) = self.dataplane.get() else {
            return WireGuard::told(&keys, None);
        };
        let state = dataplane.key_state().await;
        // Nobody is told of a key that cannot be used yet.
        keys.retain(|own| state.usable.is_none_or(|usable| own.generation <= usable));
        WireGuard::told(&keys, state.settled)
    }

    async fn uninstall(&self) -> Result<(), Failure> {
        let all = std::mem::take(&mut *self.resolvers());
        for served in all.into_values() {
            close(Some(served)).await;
        }
        self.resolver.publish(weft_dns::Zones::default());
        let removed = self.dataplane().await?.clone().uninstall().await;
        removed.map_err(|error| failure("remove", "the data plane", &error))
    }
}
