//! The loop that carries out what the pure parts decide.
//!
//! One task owns all state and never waits for the world: engine, kernel and managers are spoken to
//! by others, whose answers come back as [`Input`]s. Each turn takes the inputs at hand, then
//! settles: journal first, then sandboxes, then reports.

mod clock;
mod deed;
mod glance;
mod hear;
mod leave;
mod link;
mod log;
mod look;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};
use weft_proto::{WIRE_VERSION, dispatcher::NodeMessage};
use weft_types::{
    NodeId, TaskId,
    netstate::{NetState, WireGuardPeer},
    node::{Node, NodeDescription},
};

use self::clock::Clock;
pub use self::glance::{Glance, Notice};
use self::leave::Leaving;
use self::link::LinkEvent;
pub use self::link::{Dial, Grpc};
use crate::{
    deliver::Shelf,
    executor::{Change, Executor, Found, Place},
    guest::keep::Sandboxes,
    journal::{Journal, JournalError},
    network::Wiring,
    session::Session,
    task::{Event, Failure},
    worker::{Outcome, Worker},
};

/// Inputs taken in one turn before settling.
const BATCH: usize = 256;
/// How long the engine may take to say what it is before the node speaks to managers without it.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(3);

/// What an agent is made from.
pub struct AgentConfig {
    /// This node.
    pub node: NodeId,
    /// Where it keeps its journal.
    pub state_dir: PathBuf,
    /// Managers to turn to besides those of the journal.
    pub managers: Vec<SocketAddr>,
    /// Underlay address that carries task traffic; `None` lets the manager take the address that
    /// the node connects from.
    pub data_path_addr: Option<IpAddr>,
    /// How other nodes reach this one on encrypted networks, until [`Wiring::keys`] says otherwise.
    pub wireguard: Option<WireGuardPeer>,
    /// Makes containers.
    pub executor: Arc<dyn Executor>,
    /// Makes the network.
    pub wiring: Arc<dyn Wiring>,
    /// Reaches managers.
    pub dial: Arc<dyn Dial>,
    /// Sandboxes of users' own containers, which are kept though no task has them.
    pub guests: watch::Receiver<Sandboxes>,
}

/// A running agent. Dropping it stops the loop and leaves containers and network as they are.
pub struct Agent {
    inputs: mpsc::Sender<Input>,
    glance: watch::Receiver<Glance>,
    work: JoinHandle<()>,
}

/// What the loop is told.
pub(crate) enum Input {
    /// Of the connection of this number.
    Link(u64, LinkEvent),
    Deed {
        task: TaskId,
        number: u64,
        event: Event,
    },
    Engine(Change),
    Listed(Result<Vec<Found>, Failure>),
    Applied(u64),
    /// The network as last told cannot be had, and why.
    Unapplied(String),
    Described(Box<NodeDescription>),
    Addresses(BTreeSet<IpAddr>),
    /// What others must be told of this node's keys now. Comes again and again.
    Keys(Option<WireGuardPeer>),
    /// Flows that draining tasks still have.
    Flows(Vec<(TaskId, u64)>),
    /// This part of the answer to this request.
    LogEnded(u64, u64),
    /// The node's certificate says another role now.
    Renewed,
    /// Stop and remove every task, and tell the manager that the node leaves.
    Leave,
}

impl Agent {
    /// Takes up the journal and starts.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn start(config: AgentConfig) -> Result<(Self, mpsc::Receiver<Notice>), JournalError> {
        let journal = Journal::open(&config.state_dir)?;
        let (inputs, inbox) = mpsc::channel(1024);
        let (notices, notices_out) = mpsc::channel(16);
        let (glance_in, glance) = watch::channel(Glance::default());
        let runtime = Runtime::new(config, journal, inputs.clone(), notices, glance_in);
        let work = tokio::spawn(runtime.run(inbox));
        Ok((
            Self {
                inputs,
                glance,
                work,
            },
            notices_out,
        ))
    }

    /// What can be seen now, and when it changes.
    #[must_use]
    pub fn glance(&self) -> watch::Receiver<Glance> {
        self.glance.clone()
    }

    /// The node's certificate says another role now: the session with the manager is opened anew, for
    /// it is judged by the certificate that it was opened with.
    pub async fn renewed(&self) {
        // A loop that has ended has no session.
        let _sent = self.inputs.send(Input::Renewed).await;
    }

    /// Stops and removes every task; [`Glance::is_empty`] tells when it is done.
    pub async fn leave(&self) {
        // A loop that has ended has nothing left to stop.
        let _sent = self.inputs.send(Input::Leave).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// All state of a running agent.
struct Runtime {
    config: AgentConfig,
    journal: Journal,
    worker: Worker,
    session: Session,
    shelf: Shelf,
    place: Place,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    notices: mpsc::Sender<Notice>,
    glance: watch::Sender<Glance>,
    /// What is being done for each task, numbered so that late answers are known.
    deeds: HashMap<TaskId, (u64, AbortHandle)>,
    deeds_begun: u64,
    /// To the manager at hand.
    outbox: Option<mpsc::Sender<NodeMessage>>,
    /// The connection at hand, numbered so that late words of earlier ones are known.
    link: Option<(u64, Companion)>,
    links_begun: u64,
    heartbeat: Option<(Duration, Instant)>,
    drain_at: Option<Instant>,
    /// The journal has steps of the network, and has it as a whole then.
    save_net_at: Option<Instant>,
    net: watch::Sender<Arc<NetState>>,
    applied: u64,
    refusal: Option<String>,
    /// Whether the manager at hand was told so since it last told a state.
    applied_told: bool,
    sandboxes: Option<BTreeSet<TaskId>>,
    sandboxes_wished: watch::Sender<BTreeSet<TaskId>>,
    description: Option<NodeDescription>,
    addresses: BTreeSet<IpAddr>,
    /// No session is opened before the engine has said what it is, or this moment has come.
    dial_from: Instant,
    node: Option<Arc<Node>>,
    /// What is read for which request, in parts: managers ask again for tasks that come later.
    logs: HashMap<(u64, u64), AbortHandle>,
    logs_begun: u64,
    awaited: Vec<log::Awaited>,
    tunnels: JoinSet<()>,
    /// Users' own containers that the managers hold addresses for, by task.
    attachments: Arc<BTreeMap<TaskId, String>>,
    /// A full assignment set has been seen in this life: what is not in it is nobody's.
    knows_all: bool,
    leaving: Option<Leaving>,
    /// Long-lived work beside the loop; ends with it.
    companions: Vec<Companion>,
}

/// A spawned task that ends when this is dropped.
struct Companion(AbortHandle);

impl Companion {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Runtime {
    fn new(
        config: AgentConfig,
        journal: Journal,
        inputs: mpsc::Sender<Input>,
        notices: mpsc::Sender<Notice>,
        glance: watch::Sender<Glance>,
    ) -> Self {
        let mut managers: Vec<(Option<NodeId>, SocketAddr)> = journal
            .load_managers()
            .into_iter()
            .filter_map(|(id, addr)| Some((id, addr.parse().ok()?)))
            .collect();
        for addr in &config.managers {
            if !managers.iter().any(|(_, known)| known == addr) {
                managers.push((None, *addr));
            }
        }
        let net = journal.load_net();
        // What follows is added behind it, not behind half a step.
        if let Err(error) = journal.save_net(&net) {
            tracing::error!(%error, "a restart of the agent will not know the network");
        }
        let place = Place {
            node: Some(config.node),
            hostname: tell::hostname(),
            ..Place::default()
        };
        Self {
            session: Session::new(managers, net.clone()),
            net: watch::Sender::new(Arc::new(net)),
            worker: Worker::default(),
            shelf: Shelf::default(),
            place,
            clock: Clock::start(),
            inputs,
            notices,
            glance,
            deeds: HashMap::new(),
            deeds_begun: 0,
            outbox: None,
            link: None,
            links_begun: 0,
            heartbeat: None,
            drain_at: None,
            save_net_at: None,
            applied: 0,
            refusal: None,
            applied_told: false,
            sandboxes: None,
            sandboxes_wished: watch::Sender::default(),
            description: None,
            addresses: tell::addresses(),
            dial_from: Instant::now() + DESCRIBE_LIMIT,
            node: None,
            logs: HashMap::new(),
            logs_begun: 0,
            awaited: Vec::new(),
            tunnels: JoinSet::new(),
            attachments: Arc::default(),
            knows_all: false,
            leaving: None,
            companions: Vec::new(),
            config,
            journal,
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        let adopted = self
            .worker
            .adopt(self.journal.load_tasks(), self.clock.now());
        self.companions = self.companions();
        self.carry_out(adopted);
        self.settle();
        loop {
            let wake = self.wake_at();
            tokio::select! {
                input = inbox.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                    for _ in 1..BATCH {
                        let Ok(input) = inbox.try_recv() else { break };
                        self.take(input);
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.let_time_pass();
            self.settle();
        }
    }

    /// Work beside the loop, for as long as it runs.
    fn companions(&self) -> Vec<Companion> {
        let (executor, wiring) = (&self.config.executor, &self.config.wiring);
        vec![
            Companion::spawn(hear::engine(Arc::clone(executor), self.inputs.clone())),
            Companion::spawn(tell::describe(Arc::clone(executor), self.inputs.clone())),
            Companion::spawn(hear::keep_network(
                Arc::clone(wiring),
                self.net.subscribe(),
                self.inputs.clone(),
            )),
            Companion::spawn(tell::keys(Arc::clone(wiring), self.inputs.clone())),
            Companion::spawn(hear::keep_sandboxes(
                Arc::clone(wiring),
                self.sandboxes_wished.subscribe(),
                self.config.guests.clone(),
            )),
        ]
    }

    fn wake_at(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(60);
        let worker = self.worker.wake_at().map(|at| self.clock.instant(at));
        let heartbeat = self.heartbeat.map(|(_, at)| at);
        let leaving = self.leaving.as_ref().and_then(Leaving::due);
        let dial = (!self.may_dial()).then_some(self.dial_from);
        [
            worker,
            heartbeat,
            self.drain_at,
            leaving,
            dial,
            self.save_net_at,
        ]
        .into_iter()
        .flatten()
        .fold(far, Instant::min)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Link(number, event) => self.take_link(number, event),
            Input::Deed {
                task,
                number,
                event,
            } => {
                if self
                    .deeds
                    .get(&task)
                    .is_some_and(|(held, _)| *held == number)
                {
                    self.deeds.remove(&task);
                    self.event(task, event);
                }
            }
            Input::Engine(Change::Container(task, observation)) => {
                self.event(task, Event::Observed(Ok(observation)));
            }
            Input::Engine(Change::Resync) => self.look_at_everything(),
            Input::Listed(listed) => self.take_list(listed),
            Input::Applied(revision) => self.take_applied(revision),
            Input::Unapplied(why) => self.refusal = Some(why),
            Input::Described(description) => self.take_description(*description),
            Input::Addresses(addresses) => {
                if addresses != self.addresses {
                    self.addresses = addresses;
                    self.send(NodeMessage::Addresses(self.addresses.clone()));
                }
            }
            Input::Keys(keys) => self.take_keys(keys),
            Input::Flows(flows) => {
                for (task, open) in flows {
                    self.event(task, Event::Flows(open));
                }
            }
            Input::LogEnded(request, part) => drop(self.logs.remove(&(request, part))),
            Input::Renewed => self.renew_link(),
            Input::Leave => self.begin_to_leave(),
        }
    }

    fn event(&mut self, task: TaskId, event: Event) {
        let outcome = self.worker.event(task, event, self.clock.now());
        self.carry_out(outcome);
    }

    fn let_time_pass(&mut self) {
        let outcome = self.worker.tick(self.clock.now());
        self.carry_out(outcome);
        let now = Instant::now();
        if self.save_net_at.is_some_and(|at| now >= at) {
            self.save_net_at = None;
            // The journal of a node that leaves is forgotten, and may be another membership's by now.
            if self.leaving.is_none() {
                self.save_net();
            }
        }
        if let Some((period, at)) = self.heartbeat
            && now >= at
        {
            self.heartbeat = Some((period, now + period));
            self.send(NodeMessage::Heartbeat);
        }
        self.leave_when_due(now);
        if self.drain_at.is_some_and(|at| now >= at) {
            self.drain_at = None;
            self.count_flows();
        }
    }

    fn carry_out(&mut self, outcome: Outcome) {
        for (task, status) in outcome.reports {
            tracing::debug!(%task, state = %status.state, err = status.err, "task seen");
            self.session.report(task, status);
        }
        for (task, action) in outcome.actions {
            self.begin(task, action);
        }
    }

    /// Makes journal, sandboxes and manager agree with what the turn led to.
    fn settle(&mut self) {
        for task in self.worker.take_unsaved() {
            let written = match self.worker.machine(&task) {
                Some(machine) => self.journal.save_task(machine.task(), machine.status()),
                None => self.journal.remove_task(task),
            };
            if let Err(error) = written {
                tracing::error!(%task, %error, "a restart of the agent will not know this task's last state");
            }
        }
        let sandboxes = self.worker.sandboxes();
        if self.sandboxes.as_ref() != Some(&sandboxes) {
            self.sandboxes_wished.send_replace(sandboxes.clone());
            self.sandboxes = Some(sandboxes);
        }
        self.read_awaited();
        while let Some(report) = self.session.take_report() {
            self.send(report);
        }
        self.plan_next_count();
        if self.leaving.is_some() {
            self.hurry_leaving();
        } else if self.link.is_none() && self.may_dial() {
            self.open_link();
        }
        self.show();
    }

    fn may_dial(&self) -> bool {
        self.description.is_some() || Instant::now() >= self.dial_from
    }

    fn show(&self) {
        let containers = self.worker.machines().filter_map(|(task, machine)| {
            let container = machine.container()?.to_owned();
            machine.holds_sandbox().then_some((*task, container))
        });
        let glance = Glance {
            is_connected: self.session.is_up(),
            managers: self.session.managers().to_vec(),
            node: self.node.clone(),
            net: self.net.borrow().clone(),
            applied_revision: self.applied,
            refusal: self.refusal.clone(),
            containers: containers.collect(),
            attachments: Arc::clone(&self.attachments),
            knows_all: self.knows_all,
            is_empty: self.worker.machines().next().is_none(),
        };
        self.glance.send_replace(glance);
    }

    /// Sends to the manager at hand. What does not get through is told again: reports by the
    /// session, the rest by the next Hello.
    fn send(&mut self, message: NodeMessage) {
        let Some(outbox) = &self.outbox else { return };
        if outbox.try_send(message).is_err() {
            tracing::warn!("the manager does not take what this node says; dialling again");
            self.drop_link();
        }
    }

    fn hello(&self) -> NodeMessage {
        NodeMessage::Hello {
            description: Box::new(self.description.clone().unwrap_or_else(|| NodeDescription {
                hostname: self.place.hostname.clone(),
                ..NodeDescription::default()
            })),
            data_path_addr: self.config.data_path_addr,
            addresses: self.addresses.clone(),
            wireguard: self.config.wireguard,
            applied_revision: self.applied,
            wire_version: WIRE_VERSION,
        }
    }
}
