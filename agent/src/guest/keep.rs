//! Keeping users' own containers on the networks that they wish for.
//!
//! Every change of a guest happens under its lock and ends in [`Guests::tend`], which looks how the
//! container is and makes the rest agree with that: level-triggered, so a start that the front door
//! saw, one that the engine's restart policy made and one that happened while no agent ran are the
//! same. What a manager could not be told is found by [`Guests::sweep`].

mod around;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Lock, watch},
    time::{interval, sleep},
};
use weft_proto::{ControlError, ControlReply, ControlRequest, ErrorCode};
use weft_types::{NodeId, TaskId, task::Task};

pub use self::around::{Addresses, Containers, Heard, Look, Managers};
use super::{Guest, Wish};
use crate::{journal::Journal, network::Wiring, runtime::Glance, task::Failure};

/// A good [`GuestsConfig::sweep_period`]: shorter than a gate's patience, longer than news take.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(5);
/// Between two tries to hear the engine.
const RETRY: Duration = Duration::from_millis(500);

/// What guests are kept with.
pub struct GuestsConfig {
    /// This node.
    pub node: NodeId,
    /// Remembers them.
    pub journal: Journal,
    /// Has the containers.
    pub containers: Arc<dyn Containers>,
    /// Makes the network.
    pub wiring: Arc<dyn Wiring>,
    /// Grant the wishes.
    pub managers: Arc<dyn Managers>,
    /// Between two looks for what was missed.
    pub sweep_period: Duration,
}

/// The guests of this node.
pub struct Guests {
    config: GuestsConfig,
    all: Mutex<BTreeMap<String, Arc<Lock<Held>>>>,
    /// Container by task, for who looks from outside.
    shown: watch::Sender<BTreeMap<TaskId, String>>,
    /// Sandbox by container.
    sandboxes: watch::Sender<Sandboxes>,
}

/// Sandboxes that belong to no task that runs here, by container.
pub type Sandboxes = BTreeMap<String, TaskId>;

/// What a sandbox was made for: when it is another, the sandbox is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    pid: i64,
    tasks: Vec<TaskId>,
    /// The first of them has the way out; where there is none, it is ours to give.
    networks: Vec<String>,
}

/// A guest, and what was made of it in this life.
struct Held {
    guest: Guest,
    /// What its sandbox was last made for.
    made: Option<Made>,
    /// Networks of the engine's that it is on.
    networks: Vec<String>,
    /// Resolvers that are to be asked for it instead of the host's.
    servers: Vec<String>,
    /// Its addresses as it knows them.
    told: Vec<IpAddr>,
    /// Seen lost once already.
    doubted: bool,
}

impl Guests {
    /// Takes up the journal; nothing is done before [`Guests::run`].
    #[must_use]
    pub fn new(config: GuestsConfig) -> Arc<Self> {
        let known = config.journal.load_guests();
        let sandboxes = known.iter();
        let sandboxes =
            sandboxes.filter_map(|guest| Some((guest.container.clone(), guest.sandbox?)));
        let sandboxes = watch::Sender::new(sandboxes.collect());
        let mut shown = BTreeMap::new();
        for guest in &known {
            shown.extend(guest.held().map(|task| (task, guest.container.clone())));
        }
        let all = known.into_iter().map(|guest| {
            let container = guest.container.clone();
            (container, Arc::new(Lock::new(Held::new(guest))))
        });
        Arc::new(Self {
            all: Mutex::new(all.collect()),
            shown: watch::Sender::new(shown),
            sandboxes,
            config,
        })
    }

    /// Sandboxes of guests, which belong to no task that runs here.
    #[must_use]
    pub fn sandboxes(&self) -> watch::Receiver<Sandboxes> {
        self.sandboxes.subscribe()
    }

    /// Containers by the tasks that hold their addresses.
    #[must_use]
    pub fn containers(&self) -> BTreeMap<TaskId, String> {
        self.shown.borrow().clone()
    }

    /// Puts a container on a network; at once if it runs, else when it starts.
    ///
    /// # Errors
    /// The managers' refusal, or why this container cannot be on such a network.
    pub async fn attach(
        &self,
        container: &str,
        wish: Wish,
        glance: &Glance,
    ) -> Result<(), ControlError> {
        let held = self.held(container);
        let mut held = held.lock().await;
        let attached = self.attach_held(&mut held, wish, glance).await;
        self.save(&held.guest);
        attached
    }

    async fn attach_held(
        &self,
        held: &mut Held,
        wish: Wish,
        glance: &Glance,
    ) -> Result<(), ControlError> {
        let look = self.look(&held.guest.container).await?;
        if let Some(refusal) = &look.refusal {
            return Err(ControlError::precondition(refusal));
        }
        held.look_like(&look);
        held.guest.begin(look.wishes.clone(), &glance.net);
        let network = wish.network.clone();
        let Some(pid) = look.pid else {
            return self.amend_held(held, wish, glance).await;
        };
        held.guest.wish(wish, &glance.net)?;
        let granted = self.grant(held, pid, glance).await;
        if granted.is_err()
            && let Some(wish) = held.guest.give_up(&network, &glance.net)
        {
            self.remake(held, look.pid).await;
            self.release(wish.held.iter().map(|task| task.id).collect())
                .await;
        }
        granted
    }

    /// Remembers for a container that does not run what it shall have when it starts.
    async fn amend_held(
        &self,
        held: &mut Held,
        wish: Wish,
        glance: &Glance,
    ) -> Result<(), ControlError> {
        // It ran, perhaps, and has ended before anybody asked.
        if held.guest.has(&wish, &glance.net) {
            return Ok(());
        }
        let network = wish.network.clone();
        let before = held.guest.amend(wish, &glance.net);
        let granted = self.try_out(&held.guest, &network, glance).await;
        if granted.is_err() {
            held.guest.give_up(&network, &glance.net);
            held.guest.wishes.extend(before);
            return granted;
        }
        let freed = before.and_then(|wish| wish.held);
        self.release(freed.iter().map(|task| task.id).collect())
            .await;
        Ok(())
    }

    /// Waits until a container that was started is on the networks that it wishes to be on by now: those that it was
    /// made with, as they were amended since.
    ///
    /// # Errors
    /// The managers' refusal, or why this container cannot be on such a network.
    pub async fn start(&self, container: &str, glance: &Glance) -> Result<(), ControlError> {
        let held = self.held(container);
        let mut held = held.lock().await;
        let look = self.look(container).await?;
        if let Some(refusal) = &look.refusal {
            return Err(ControlError::precondition(refusal));
        }
        held.look_like(&look);
        held.guest.begin(look.wishes, &glance.net);
        let granted = match look.pid {
            Some(pid) => self.grant(&mut held, pid, glance).await,
            // It ran, perhaps, and has ended before anybody asked.
            None => Ok(()),
        };
        self.save(&held.guest);
        granted
    }

    /// Waits until a container that was started, or whose networks of the engine's were changed, has what it wishes for.
    /// One that wishes for nothing is left alone.
    ///
    /// # Errors
    /// As [`Guests::start`].
    pub async fn settle(&self, container: &str, glance: &Glance) -> Result<(), ControlError> {
        if !self.known().iter().any(|known| known == container) {
            return Ok(());
        }
        self.start(container, glance).await
    }

    /// Takes a container off a network.
    ///
    /// # Errors
    /// When it is not on it.
    pub async fn detach(
        &self,
        container: &str,
        network: &str,
        glance: &Glance,
    ) -> Result<(), ControlError> {
        let held = self.held(container);
        let mut held = held.lock().await;
        let look = self.config.containers.look(container).await.ok().flatten();
        let Look {
            pid,
            wishes,
            refusal,
            ..
        } = look.unwrap_or_default();
        held.guest.begin(wishes, &glance.net);
        let given_up = held.guest.give_up(network, &glance.net);
        if let Some(wish) = &given_up {
            self.remake(&mut held, pid).await;
            self.release(wish.held.iter().map(|task| task.id).collect())
                .await;
        }
        self.save(&held.guest);
        match (given_up, refusal) {
            (Some(_), _) => Ok(()),
            (None, Some(refusal)) => Err(ControlError::precondition(refusal)),
            (None, None) => {
                let mut known = glance.net.networks.iter();
                let known = known.find(|(id, _)| id.as_str() == network);
                let network = known.map_or(network, |(_, known)| &known.name);
                Err(ControlError::unknown(format!(
                    "container {container} is not connected to network {network}"
                )))
            }
        }
    }

    /// Follows the engine, and finds what was missed, until dropped.
    pub async fn run(self: Arc<Self>, glance: watch::Receiver<Glance>) {
        let hearing = self.hear(&glance);
        let sweeping = async {
            let mut due = interval(self.config.sweep_period);
            let mut doubted = BTreeSet::new();
            loop {
                due.tick().await;
                let now = glance.borrow().clone();
                doubted = self.sweep(&now, &doubted).await;
            }
        };
        tokio::join!(hearing, sweeping);
    }

    async fn hear(self: &Arc<Self>, glance: &watch::Receiver<Glance>) {
        loop {
            let mut heard = self.config.containers.listen().await;
            while let Some(change) = heard.recv().await {
                let changed = match change {
                    Heard::Resync => self.known(),
                    Heard::Container { id, wishes } if wishes || self.known().contains(&id) => {
                        vec![id]
                    }
                    Heard::Container { .. } => continue,
                };
                for id in changed {
                    self.begin_to_tend(id, glance.borrow().clone());
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Tends one beside the rest: one whose network does not come must not hold up the others.
    fn begin_to_tend(self: &Arc<Self>, container: String, glance: Glance) {
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Some(this) = this.upgrade() {
                this.tend(&container, &glance).await;
            }
        });
    }

    /// Makes everything agree with how the container is.
    async fn tend(&self, container: &str, glance: &Glance) {
        let held = self.held(container);
        let mut held = held.lock().await;
        match self.config.containers.look(container).await {
            Err(failure) => {
                tracing::debug!(container, %failure, "cannot look at a container on swarm networks");
            }
            Ok(None) => {
                self.end(&mut held).await;
                held.guest = Guest::new(container);
            }
            Ok(Some(Look { pid: None, .. })) => self.end(&mut held).await,
            Ok(Some(look @ Look { pid: Some(pid), .. })) => {
                held.look_like(&look);
                held.guest.begin(look.wishes, &glance.net);
                if let Some(refusal) = look.refusal {
                    tracing::warn!(container, refusal, "a container cannot be on its networks");
                } else if let Err(error) = self.grant(&mut held, pid, glance).await {
                    tracing::warn!(container, %error, "cannot put a container on its networks yet");
                }
            }
        }
        self.save(&held.guest);
    }

    /// Gets addresses for all wishes, then makes the sandbox.
    async fn grant(&self, held: &mut Held, pid: i64, glance: &Glance) -> Result<(), ControlError> {
        for at in 0..held.guest.wishes.len() {
            let wish = &held.guest.wishes[at];
            if wish.held.is_some() {
                continue;
            }
            let task = self.ask_for(&held.guest, wish, glance).await?;
            held.guest.wishes[at].held = Some(Box::new(task));
            // A restart must know whose they are.
            self.save(&held.guest);
        }
        let made = self.make(held, pid).await;
        made.map_err(|failure| ControlError::unknown(failure.reason))
    }

    async fn ask_for(
        &self,
        guest: &Guest,
        wish: &Wish,
        glance: &Glance,
    ) -> Result<Task, ControlError> {
        let request = guest.request(wish, self.config.node);
        let mut reply = self.config.managers.ask(request.clone()).await;
        if let Err(error) = &reply
            && error.code == ErrorCode::AlreadyExists
        {
            // An answer was lost, or a restart came between: nobody here holds what was given.
            let held: BTreeSet<TaskId> = guest.held().collect();
            let given = glance.attachments.iter();
            let strays = given
                .filter(|(task, owner)| **owner == guest.container && !held.contains(task))
                .map(|(task, _)| *task);
            self.release(strays.collect()).await;
            reply = self.config.managers.ask(request).await;
        }
        match reply? {
            ControlReply::Tasks(mut tasks) if !tasks.is_empty() => {
                Ok(Arc::unwrap_or_clone(tasks.swap_remove(0)))
            }
            other => Err(ControlError::unknown(format!(
                "the managers gave no address on network {} but {other:?}",
                wish.network
            ))),
        }
    }

    /// Whether a wish would be granted, for a container that does not run.
    async fn try_out(
        &self,
        guest: &Guest,
        network: &str,
        glance: &Glance,
    ) -> Result<(), ControlError> {
        let mut wishes = guest.wishes.iter();
        if let Some(wish) = wishes.find(|wish| wish.is_about(network, &glance.net)) {
            let task = self.ask_for(guest, wish, glance).await?;
            self.release(vec![task.id]).await;
        }
        Ok(())
    }

    async fn make(&self, held: &mut Held, pid: i64) -> Result<(), Failure> {
        let wanted = Some(Made {
            pid,
            tasks: held.guest.held().collect(),
            networks: held.networks.clone(),
        });
        let Some(mut task) = held.guest.joined().filter(|_| held.made != wanted) else {
            return Ok(());
        };
        if !held.servers.is_empty() {
            let container = task.spec.container_spec.get_or_insert_default();
            container.dns_config.get_or_insert_default().nameservers = Some(held.servers.clone());
        }
        // First: whoever removes sandboxes of nobody must know whose it is.
        self.save(&held.guest);
        let container = &held.guest.container;
        self.config.containers.lead_to_resolver(container).await?;
        let attachments = task.networks_attachments.iter();
        let now = attachments.flat_map(|attachment| &attachment.addresses);
        let addresses = Addresses {
            before: held.told.clone(),
            now: now.map(|address| address.ip()).collect(),
        };
        // Before the network is there, for the gate opens with it.
        let container = &held.guest.container;
        let told = self.config.containers.tell_addresses(container, &addresses);
        told.await?;
        held.told = addresses.now;
        self.config.wiring.connect(&task, pid).await?;
        held.made = wanted;
        Ok(())
    }

    /// Makes the sandbox what is left of the wishes.
    async fn remake(&self, held: &mut Held, pid: Option<i64>) {
        if held.guest.held().next().is_none() {
            self.close(held).await;
            let container = &held.guest.container;
            if let Err(failure) = self.config.containers.lead_away(container).await {
                tracing::warn!(container, %failure, "a container that left the swarm's networks has no names");
            }
            let addresses = Addresses {
                before: held.told.clone(),
                now: Vec::new(),
            };
            let container = &held.guest.container;
            let told = self.config.containers.tell_addresses(container, &addresses);
            match told.await {
                Ok(()) => held.told = addresses.now,
                Err(failure) => {
                    tracing::warn!(container, %failure, "a container still finds itself where it was");
                }
            }
        } else if let Some(pid) = pid
            && let Err(failure) = self.make(held, pid).await
        {
            tracing::warn!(container = held.guest.container, %failure, "cannot take an interface from a container");
        }
    }

    async fn close(&self, held: &mut Held) {
        held.made = None;
        if let Some(sandbox) = held.guest.sandbox.take() {
            self.config.wiring.disconnect(sandbox).await;
        }
    }

    /// The container does not run: its sandbox and its addresses go.
    async fn end(&self, held: &mut Held) {
        self.close(held).await;
        let tasks = held.guest.let_go();
        self.release(tasks).await;
    }

    /// Gives addresses back. What no manager hears now is found by the next sweep.
    async fn release(&self, tasks: Vec<TaskId>) {
        for task in tasks {
            let request = ControlRequest::DetachNetwork(task);
            match self.config.managers.ask(request).await {
                Ok(_) => {}
                Err(error) if error.code == ErrorCode::NotFound => {}
                Err(error) => {
                    tracing::debug!(%task, %error, "an address is given back later");
                }
            }
        }
    }

    /// Gives back what the managers hold here for nobody, asks again for what they have lost, and
    /// tries again what has failed. `doubted` is what the last sweep found; only what is found twice
    /// is believed, because news are under way. Answers what was found.
    async fn sweep(
        self: &Arc<Self>,
        glance: &Glance,
        doubted: &BTreeSet<TaskId>,
    ) -> BTreeSet<TaskId> {
        let mut claimed = BTreeSet::new();
        let known: BTreeSet<TaskId> = glance.attachments.keys().copied().collect();
        for container in self.known() {
            let held = self.held(&container);
            let Ok(mut held) = held.try_lock() else {
                // At work: whatever is held for it is spoken for.
                let mine = glance.attachments.iter();
                let mine = mine.filter(|(_, owner)| **owner == container);
                claimed.extend(mine.map(|(task, _)| *task));
                continue;
            };
            claimed.extend(held.guest.held());
            let is_lost = glance.knows_all && held.guest.held().any(|task| !known.contains(&task));
            let believed = is_lost && std::mem::replace(&mut held.doubted, is_lost);
            held.doubted = is_lost;
            if believed {
                held.guest.forget_lost(&known);
                held.made = None;
                self.save(&held.guest);
            }
            let waits = held.guest.wishes.iter().any(|wish| wish.held.is_none());
            drop(held);
            if waits || believed {
                self.begin_to_tend(container, glance.clone());
            }
        }
        let unclaimed: BTreeSet<TaskId> = known.difference(&claimed).copied().collect();
        let stray = unclaimed.intersection(doubted).copied().collect();
        self.release(stray).await;
        unclaimed
    }

    async fn look(&self, container: &str) -> Result<Look, ControlError> {
        let look = self.config.containers.look(container).await;
        let look = look.map_err(|failure| ControlError::unavailable(failure.reason))?;
        look.ok_or_else(|| ControlError::not_found(format!("No such container: {container}")))
    }

    fn known(&self) -> Vec<String> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.keys().cloned().collect()
    }

    fn held(&self, container: &str) -> Arc<Lock<Held>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let held = all
            .entry(container.to_owned())
            .or_insert_with(|| Arc::new(Lock::new(Held::new(Guest::new(container)))));
        Arc::clone(held)
    }

    /// Writes a guest to the journal, and shows it; one without wishes is forgotten.
    fn save(&self, guest: &Guest) {
        let journal = &self.config.journal;
        let saved = if guest.is_idle() {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.remove(&guest.container);
            journal.remove_guest(&guest.container)
        } else {
            journal.save_guest(guest)
        };
        if let Err(error) = saved {
            tracing::error!(container = guest.container, %error, "a restart of the agent will not know this container's networks");
        }
        self.shown.send_modify(|shown| {
            shown.retain(|_, container| *container != guest.container);
            shown.extend(guest.held().map(|task| (task, guest.container.clone())));
        });
        self.sandboxes.send_if_modified(|sandboxes| {
            let container = &guest.container;
            match guest.sandbox {
                Some(sandbox) => sandboxes.insert(container.clone(), sandbox) != Some(sandbox),
                None => sandboxes.remove(container).is_some(),
            }
        });
    }
}

impl Held {
    fn new(guest: Guest) -> Self {
        Self {
            guest,
            made: None,
            networks: Vec::new(),
            servers: Vec::new(),
            told: Vec::new(),
            doubted: false,
        }
    }

    /// Takes how the container is now.
    fn look_like(&mut self, look: &Look) {
        self.guest.name.clone_from(&look.name);
        self.networks.clone_from(&look.networks);
        self.servers.clone_from(&look.servers);
    }
}
