//! The connection to a manager.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::copy_bidirectional,
    net::UnixStream,
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use weft_proto::{
    TunnelAsk, dial,
    dispatcher::{AssignmentSet, ManagerMessage, NodeMessage},
    identity::Credentials,
    tunnel,
};
use weft_types::netstate::NetDelta;

use super::{Companion, Input, Notice, Runtime};
use crate::{executor::Change, worker::Assignment};

/// How long a manager may take to welcome a node.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);
/// How long steps of the network gather in the journal before it is written there as a whole.
const SAVE_PERIOD: Duration = Duration::from_secs(5);
/// Messages to a manager that wait to be sent.
const OUTBOX: usize = 4096;
/// Tunnels to this node's front door at once, for all managers together.
const TUNNELS: usize = 512;

/// Opens streams to managers.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Opens a session at `addr` that carries `from_node`. The receiver ends with the session.
    ///
    /// # Errors
    /// In words, when the manager cannot be reached or refuses.
    async fn open(
        &self,
        addr: SocketAddr,
        from_node: mpsc::Receiver<NodeMessage>,
    ) -> Result<mpsc::Receiver<ManagerMessage>, String>;

    /// Offers a manager the tunnel that it asks for; comes back when that has ended.
    async fn tunnel(&self, ask: TunnelAsk) {
        tracing::debug!(manager = ask.manager, "no tunnels are offered here");
    }
}

/// Sessions over gRPC with mutual TLS.
pub struct Grpc {
    credentials: Credentials,
    /// Socket of this node's front door.
    door: PathBuf,
    tunnels: Semaphore,
}

impl Grpc {
    /// Dials with these credentials, whatever they are at the time of the dial. Managers may ask for
    /// tunnels to the front door whose socket is at `door`.
    #[must_use]
    pub fn new(credentials: Credentials, door: PathBuf) -> Self {
        Self {
            credentials,
            door,
            tunnels: Semaphore::new(TUNNELS),
        }
    }

    async fn carry(&self, ask: &TunnelAsk) -> Result<(), String> {
        // One too many is not offered: the manager's clients are told so when it does not come.
        let _slot = self
            .tunnels
            .try_acquire()
            .map_err(|error| error.to_string())?;
        let addr = ask.manager.parse::<SocketAddr>();
        let addr = addr.map_err(|_| format!("{:?} is no address", ask.manager))?;
        let mut door = UnixStream::connect(&self.door)
            .await
            .map_err(|error| format!("the front door at {}: {error}", self.door.display()))?;
        let mut manager = tunnel::offer(addr, &self.credentials, ask.token)
            .await
            .map_err(|error| error.to_string())?;
        // How it ends is the business of those who talk through it.
        let _ended = copy_bidirectional(&mut manager, &mut door).await;
        Ok(())
    }
}

#[async_trait]
impl Dial for Grpc {
    async fn open(
        &self,
        addr: SocketAddr,
        from_node: mpsc::Receiver<NodeMessage>,
    ) -> Result<mpsc::Receiver<ManagerMessage>, String> {
        let channel = dial::connect_session(addr, &self.credentials).await;
        let channel = channel.map_err(|error| error.to_string())?;
        let opened = dial::dispatcher(channel)
            .session(ReceiverStream::new(from_node))
            .await;
        let mut stream = opened
            .map_err(|status| {
                format!(
                    "manager {addr} refused the session: {}",
                    dial::reason(&status)
                )
            })?
            .into_inner();
        let (messages, receiver) = mpsc::channel(256);
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    () = messages.closed() => return,
                };
                match message {
                    Ok(Some(message)) => {
                        if messages.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(status) => {
                        tracing::info!(manager = %addr, reason = dial::reason(&status), "session broken");
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }

    async fn tunnel(&self, ask: TunnelAsk) {
        if let Err(reason) = self.carry(&ask).await {
            tracing::warn!(
                manager = ask.manager,
                reason,
                "cannot offer a manager a way to this node's front door"
            );
        }
    }
}

/// What became of a connection.
pub(crate) enum LinkEvent {
    Message(ManagerMessage),
    Lost(String),
}

impl Runtime {
    /// Dials the next manager, after the pause that is due.
    pub(super) fn open_link(&mut self) {
        let Some(next) = self.session.dial() else {
            return;
        };
        let (outbox, from_node) = mpsc::channel(OUTBOX);
        // The first message of every session; the channel is new and has room.
        let _sent = outbox.try_send(self.hello());
        self.outbox = Some(outbox);
        let dial = Arc::clone(&self.config.dial);
        let inputs = self.inputs.clone();
        self.links_begun += 1;
        let number = self.links_begun;
        let follower = Companion::spawn(async move {
            sleep(next.pause).await;
            let reason = follow(&*dial, next.addr, from_node, number, &inputs).await;
            // The loop has ended: nobody wants to know.
            let _sent = inputs
                .send(Input::Link(number, LinkEvent::Lost(reason)))
                .await;
        });
        self.link = Some((number, follower));
    }

    pub(super) fn drop_link(&mut self) {
        if self.session.is_up() {
            tracing::info!("not connected to a manager; tasks and network stay as they are");
        }
        self.session.lost();
        self.forget_link();
    }

    /// Opens the session anew, with the certificate that is held now.
    pub(super) fn renew_link(&mut self) {
        tracing::debug!("turning to the manager with another certificate");
        self.session.renewed();
        self.forget_link();
    }

    fn forget_link(&mut self) {
        self.link = None;
        self.outbox = None;
        self.heartbeat = None;
        self.awaited.clear();
        for (_, log) in self.logs.drain() {
            log.abort();
        }
    }

    pub(super) fn take_link(&mut self, number: u64, event: LinkEvent) {
        let is_at_hand = |(held, _): &(u64, Companion)| *held == number;
        if !self.link.as_ref().is_some_and(is_at_hand) {
            // From a connection that was given up already.
            return;
        }
        match event {
            LinkEvent::Lost(reason) => {
                tracing::debug!(reason, "connection to the manager ended");
                self.drop_link();
            }
            LinkEvent::Message(message) => self.take_message(message),
        }
    }

    fn take_message(&mut self, message: ManagerMessage) {
        match message {
            ManagerMessage::Welcome {
                session,
                heartbeat_millis,
            } => {
                tracing::info!(%session, heartbeat_millis, "connected to a manager");
                self.session.established();
                let period = Duration::from_millis(heartbeat_millis.max(50));
                self.heartbeat = Some((period, Instant::now() + period));
            }
            ManagerMessage::Node(node) => {
                self.place.node = Some(node.id);
                self.node = Some(Arc::new(*node));
            }
            ManagerMessage::Managers(managers) => self.take_managers(&managers),
            ManagerMessage::TrustRoot(root) => self.notice(Notice::TrustRoot(root)),
            ManagerMessage::Role(role) => self.notice(Notice::Role(role)),
            ManagerMessage::Assignments(set) => self.take_assignments(*set),
            ManagerMessage::NetState(delta) => self.take_net(*delta),
            ManagerMessage::StatusStored(sequence) => self.session.stored(sequence),
            ManagerMessage::LogRequest { request, selector } => self.serve_log(request, &selector),
            ManagerMessage::LogCancel(request) => self.end_log(request),
            ManagerMessage::Tunnel(ask) => self.offer_tunnel(ask),
            ManagerMessage::Redirect(lead) => {
                tracing::debug!(?lead, "sent to another manager");
                self.drop_link();
                self.session.redirected(lead.as_deref());
            }
            ManagerMessage::Removed => {
                tracing::warn!(
                    "this node was removed from the cluster: stopping its tasks; run `docker swarm leave` here to join again"
                );
                self.forget_all_tasks();
                self.notice(Notice::Removed);
            }
        }
    }

    /// Tunnels outlive the session over which they were asked for, but not this node's membership.
    fn offer_tunnel(&mut self, ask: TunnelAsk) {
        let dial = Arc::clone(&self.config.dial);
        while self.tunnels.try_join_next().is_some() {}
        self.tunnels.spawn(async move { dial.tunnel(ask).await });
    }

    fn notice(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            tracing::error!("the owner of the agent does not take its notices");
        }
    }

    fn take_managers(&mut self, managers: &[(weft_types::NodeId, String)]) {
        self.session.set_managers(managers);
        let known: Vec<_> = self
            .session
            .managers()
            .iter()
            .map(|(id, addr)| (*id, addr.to_string()))
            .collect();
        if let Err(error) = self.journal.save_managers(&known) {
            tracing::error!(%error, "a restart of the agent will not know the managers");
        }
    }

    fn take_assignments(&mut self, set: AssignmentSet) {
        let shelf = &mut self.shelf;
        if set.complete {
            shelf.secrets.clear();
            shelf.configs.clear();
        }
        for secret in set.secrets {
            shelf.secrets.insert(secret.id, secret);
        }
        for config in set.configs {
            shelf.configs.insert(config.id, config);
        }
        for id in set.removed_secrets {
            shelf.secrets.remove(&id);
        }
        for id in set.removed_configs {
            shelf.configs.remove(&id);
        }
        let attachments = Arc::make_mut(&mut self.attachments);
        if set.complete {
            attachments.clear();
        }
        for task in &set.tasks {
            if let Some(spec) = &task.spec.network_attachment_spec {
                attachments.insert(task.id, spec.container_id.clone());
            }
        }
        attachments.retain(|task, _| !set.removed_tasks.contains(task));
        let mut assignment = Assignment {
            complete: set.complete,
            tasks: set.tasks,
            removed: set.removed_tasks,
        };
        if self.leaving.is_some() {
            // Nothing new is begun here, but what runs may be told that it can stop.
            assignment
                .tasks
                .retain(|task| self.worker.machine(&task.id).is_some());
        }
        let outcome = self.worker.assign(assignment, self.clock.now());
        self.carry_out(outcome);
        if set.complete && !self.knows_all {
            self.knows_all = true;
            // Containers of tasks that nobody knows any more can be told apart from now on.
            self.take(Input::Engine(Change::Resync));
        }
    }

    fn take_net(&mut self, delta: NetDelta) {
        let held = self.session.net().revision;
        let is_step = delta.base != 0 && delta.base == held;
        let noted = is_step.then(|| self.journal.add_net_step(&delta));
        if let Err(gap) = self.session.net_step(delta) {
            tracing::info!(%gap, "network state out of step");
            self.send(NodeMessage::NetStateGap);
            return;
        }
        // In the journal before the kernel is told: an agent that is killed now would otherwise come back
        // with less than the kernel holds, and take ports and tasks away that are in use.
        if matches!(noted, Some(Ok(()))) {
            self.save_net_at
                .get_or_insert_with(|| Instant::now() + SAVE_PERIOD);
        } else {
            self.save_net();
        }
        // Another manager, or the same one in a new session, may tell what the kernel holds already:
        // it waits for the answer all the same.
        self.applied_told = false;
        self.net.send_replace(Arc::new(self.session.net().clone()));
    }

    /// Remembers the network as a whole.
    pub(super) fn save_net(&mut self) {
        self.save_net_at = None;
        if let Err(error) = self.journal.save_net(self.session.net()) {
            tracing::error!(%error, "a restart of the agent will not know the network");
        }
    }

    pub(super) fn take_applied(&mut self, revision: u64) {
        let is_news = revision != self.applied || !self.applied_told;
        self.applied = revision;
        self.refusal = None;
        if is_news {
            self.applied_told = true;
            self.send(NodeMessage::Applied { revision });
        }
    }
}

async fn follow(
    dial: &dyn Dial,
    addr: SocketAddr,
    from_node: mpsc::Receiver<NodeMessage>,
    number: u64,
    inputs: &mpsc::Sender<Input>,
) -> String {
    let mut messages = match timeout(WELCOME_LIMIT, dial.open(addr, from_node)).await {
        Ok(Ok(messages)) => messages,
        Ok(Err(reason)) => {
            tracing::debug!(manager = %addr, reason, "cannot open a session");
            return reason;
        }
        Err(_) => return format!("manager {addr} did not answer"),
    };
    let mut is_first = true;
    loop {
        let next = if is_first {
            match timeout(WELCOME_LIMIT, messages.recv()).await {
                Ok(next) => next,
                Err(_) => return format!("manager {addr} did not welcome this node"),
            }
        } else {
            messages.recv().await
        };
        is_first = false;
        let Some(message) = next else {
            return format!("manager {addr} ended the session");
        };
        if inputs
            .send(Input::Link(number, LinkEvent::Message(message)))
            .await
            .is_err()
        {
            return String::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use weft_types::{Id, NodeId, node::Role};

    use super::*;
    use crate::{
        AgentConfig, executor::fake::FakeExecutor, journal::Journal, network::fake::FakeWiring,
    };

    struct Nobody;

    #[async_trait]
    impl Dial for Nobody {
        async fn open(
            &self,
            _: SocketAddr,
            _: mpsc::Receiver<NodeMessage>,
        ) -> Result<mpsc::Receiver<ManagerMessage>, String> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn what_was_said_over_an_earlier_connection_is_not_taken_for_the_next_ones_words() {
        let state = tempfile::tempdir().expect("a directory");
        let config = AgentConfig {
            node: NodeId::numbered(1),
            state_dir: state.path().to_owned(),
            managers: vec![SocketAddr::from(([192, 0, 2, 1], 2377))],
            data_path_addr: None,
            wireguard: None,
            executor: Arc::<FakeExecutor>::default(),
            wiring: Arc::<FakeWiring>::default(),
            dial: Arc::new(Nobody),
            guests: watch::channel(Default::default()).1,
        };
        let journal = Journal::open(state.path()).expect("a journal");
        let (inputs, _inbox) = mpsc::channel(8);
        let (notices, mut told) = mpsc::channel(8);
        let mut runtime = Runtime::new(
            config,
            journal,
            inputs,
            notices,
            watch::channel(Default::default()).0,
        );
        let at_hand = |runtime: &Runtime| runtime.link.as_ref().map(|(number, _)| *number);
        let words = || {
            [
                LinkEvent::Message(ManagerMessage::Welcome {
                    session: Id::numbered(1),
                    heartbeat_millis: 600,
                }),
                LinkEvent::Message(ManagerMessage::Role(Role::Worker)),
                LinkEvent::Lost("its manager has ended".to_owned()),
            ]
        };
        runtime.open_link();
        let first = at_hand(&runtime).expect("a connection");
        runtime.renew_link();
        runtime.open_link();
        let second = at_hand(&runtime).expect("another connection");
        for event in words() {
            runtime.take_link(first, event);
        }
        assert!(!runtime.session.is_up());
        assert!(told.try_recv().is_err(), "a role that the first was told");
        assert_eq!(at_hand(&runtime), Some(second));
        for event in words() {
            runtime.take_link(second, event);
        }
        assert!(told.try_recv().is_ok());
        assert_eq!(at_hand(&runtime), None);
    }
}
