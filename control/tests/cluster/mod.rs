//! Managers and scripted agents in one process, on loopback.

#![expect(dead_code, reason = "each test target uses a part")]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use weft_control::runtime::{InitOptions, Manager, ManagerConfig};
use weft_proto::{
    ControlApi, ControlReply, ControlRequest, WIRE_VERSION,
    dial::{self, JoinWish},
    dispatcher::{ManagerMessage, NodeMessage},
    identity::{Credentials, Identity},
};
use weft_types::{
    NodeId, TaskId, TaskState, Timestamp,
    cluster::{Cluster, ClusterSpec},
    netstate::{NetDelta, NetState},
    node::{Availability, Node, NodeDescription, NodeSpec, Role},
    task::{Task, TaskStatus},
};

/// How long anything may take here, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `condition` answers, and says what was waited for if it never does.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An address on loopback that nobody has, and that the kernel gives to nobody who does not ask for
/// it by its number: a host is stopped and started again on it.
pub(crate) fn free_addr() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mine = u16::try_from(std::process::id() % 200).expect("a small number") * 100;
    loop {
        let port = 12_000 + (mine + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

pub(crate) fn log_to_stderr() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .try_init();
}

/// A host's place: its state directory and its address.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) addr: SocketAddr,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a state directory"),
            addr: free_addr(),
        }
    }

    /// A place with its state under `path`.
    pub(crate) fn within(path: &Path) -> Self {
        Self {
            dir: tempfile::tempdir_in(path).expect("a state directory"),
            addr: free_addr(),
        }
    }

    /// A place on a machine of its own, at `addr` there.
    pub(crate) fn at(addr: SocketAddr) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a state directory"),
            addr,
        }
    }

    pub(crate) fn config(&self) -> ManagerConfig {
        ManagerConfig {
            state_dir: self.dir.path().to_owned(),
            listen: self.addr,
            advertise: self.addr,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The credentials kept in the state directory.
    pub(crate) fn credentials(&self) -> Credentials {
        let identity = Identity::load(self.path())
            .expect("readable")
            .expect("there");
        Credentials::new(identity).expect("usable")
    }

    /// What it takes to make a cluster here.
    pub(crate) fn to_init(&self) -> (ManagerConfig, InitOptions) {
        let init = InitOptions {
            spec: ClusterSpec::default(),
            default_addr_pool: Vec::new(),
            subnet_size: 0,
            data_path_port: 0,
            data_path_addr: None,
            availability: Availability::Active,
            description: description("n1"),
        };
        (self.config(), init)
    }

    pub(crate) async fn init(&self) -> Arc<Manager> {
        let (config, init) = self.to_init();
        Manager::bootstrap(config, init).await.expect("init")
    }

    pub(crate) async fn restart(&self) -> Arc<Manager> {
        Manager::restart(self.config(), self.credentials())
            .await
            .expect("restart")
    }

    /// Gets an identity with `token` from the manager at `at`, and keeps it.
    pub(crate) async fn join(&self, at: SocketAddr, token: &str) -> Credentials {
        self.to_join(at, token).await
    }

    /// As [`Host::join`], for other threads.
    pub(crate) fn to_join(
        &self,
        at: SocketAddr,
        token: &str,
    ) -> impl Future<Output = Credentials> + Send + 'static {
        let wish = JoinWish {
            token: token.to_owned(),
            availability: Availability::Active,
            advertise_addr: self.addr.to_string(),
        };
        let path = self.path().to_owned();
        async move {
            let identity = dial::join(at, &wish).await.expect("join").identity;
            identity.save(&path).expect("saved");
            Credentials::new(identity).expect("usable")
        }
    }

    /// Joins as a manager.
    pub(crate) async fn join_manager(&self, at: SocketAddr, token: &str) -> Arc<Manager> {
        let credentials = self.join(at, token).await;
        Manager::join(self.config(), credentials, vec![at])
            .await
            .expect("join as a manager")
    }
}

pub(crate) fn description(hostname: &str) -> NodeDescription {
    let mut description = NodeDescription {
        hostname: hostname.to_owned(),
        ..NodeDescription::default()
    };
    description.platform.architecture = "x86_64".to_owned();
    description.platform.os = "linux".to_owned();
    description.resources.nano_cpus = 4_000_000_000;
    description.resources.memory_bytes = 8 << 30;
    description
}

pub(crate) async fn cluster_of(manager: &Manager) -> Cluster {
    match read(manager, ControlRequest::GetCluster).await {
        ControlReply::Cluster(cluster) => *cluster,
        other => panic!("not a cluster: {other:?}"),
    }
}

/// A manager at `host`, and who a worker is that joined it.
pub(crate) async fn with_worker(host: &Host) -> (Arc<Manager>, Credentials) {
    log_to_stderr();
    let manager = host.init().await;
    let token = cluster_of(&manager).await.join_tokens.worker;
    let worker = Host::new().join(host.addr, &token).await;
    (manager, worker)
}

/// A manager at `host`, and its own node's agent, whose heart beats.
pub(crate) async fn with_agent(host: &Host) -> (Arc<Manager>, Agent) {
    log_to_stderr();
    let manager = host.init().await;
    let agent = Agent::open(host.addr, &host.credentials(), "n1").await;
    agent.keep_alive();
    (manager, agent)
}

/// What a node reports of a task that runs.
pub(crate) fn running() -> TaskStatus {
    TaskStatus {
        timestamp: Timestamp(1),
        state: TaskState::Running,
        message: "started".to_owned(),
        ..TaskStatus::default()
    }
}

/// A connection to the manager at `at`.
pub(crate) async fn connected(at: SocketAddr, credentials: &Credentials) -> Channel {
    dial::connect(at, credentials).await.expect("a connection")
}

/// Which of `managers` leads, as soon as one does.
pub(crate) async fn leader_of(managers: &[Arc<Manager>]) -> usize {
    eventually("a leader", || async {
        for (number, manager) in managers.iter().enumerate() {
            if manager.standing().await.leads {
                return Some(number);
            }
        }
        None
    })
    .await
}

/// The answer to a question, asked again while a busy machine's managers have no leader to give it.
async fn read(manager: &Manager, question: ControlRequest) -> ControlReply {
    let what = format!("an answer to {question:?}");
    eventually(&what, || async {
        let answer = manager.call(question.clone()).await;
        answer
            .inspect_err(|refusal| eprintln!("not yet: {refusal}"))
            .ok()
    })
    .await
}

/// The names of all configs.
pub(crate) async fn configs(manager: &Manager) -> Vec<String> {
    match read(manager, ControlRequest::ListConfigs).await {
        ControlReply::Configs(configs) => {
            configs.into_iter().map(|config| config.spec.name).collect()
        }
        other => panic!("not configs: {other:?}"),
    }
}

pub(crate) async fn nodes(manager: &Manager) -> Vec<Node> {
    match read(manager, ControlRequest::ListNodes).await {
        ControlReply::Nodes(nodes) => nodes,
        other => panic!("not nodes: {other:?}"),
    }
}

/// What a caller could change of the nodes. Their states change by themselves: no agent speaks for
/// them here.
pub(crate) async fn settled(manager: &Manager) -> Vec<(NodeId, NodeSpec, Role)> {
    let nodes = nodes(manager).await.into_iter();
    nodes.map(|node| (node.id, node.spec, node.role)).collect()
}

pub(crate) async fn tasks(manager: &Manager) -> Vec<Task> {
    let request = ControlRequest::ListTasks {
        services: Vec::new(),
        nodes: Vec::new(),
        desired: Vec::new(),
        up_to_date: false,
    };
    match read(manager, request).await {
        ControlReply::Tasks(tasks) => tasks.into_iter().map(Arc::unwrap_or_clone).collect(),
        other => panic!("not tasks: {other:?}"),
    }
}

/// A node as the manager sees it: speaks when the test says so, and remembers what it was told.
pub(crate) struct Agent {
    pub(crate) node: NodeId,
    pub(crate) say: mpsc::Sender<NodeMessage>,
    pub(crate) hear: Streaming<ManagerMessage>,
    pub(crate) net: NetState,
    pub(crate) tasks: std::collections::BTreeMap<TaskId, Task>,
}

impl Agent {
    /// Opens a session with the manager at `at`.
    pub(crate) async fn open(at: SocketAddr, credentials: &Credentials, hostname: &str) -> Self {
        let channel = connected(at, credentials).await;
        let (say, words) = mpsc::channel(64);
        say.send(NodeMessage::Hello {
            description: Box::new(description(hostname)),
            data_path_addr: None,
            addresses: [at.ip()].into_iter().collect(),
            wireguard: None,
            applied_revision: 0,
            wire_version: WIRE_VERSION,
        })
        .await
        .expect("room for a hello");
        let stream = ReceiverStream::new(words);
        let answer = dial::dispatcher(channel).session(stream).await;
        Self {
            node: credentials.identity().node,
            say,
            hear: answer.expect("a session").into_inner(),
            net: NetState::default(),
            tasks: Default::default(),
        }
    }

    /// As [`Agent::open`]; its heart beats, and it has been told what to run.
    pub(crate) async fn at_work(at: SocketAddr, credentials: &Credentials, hostname: &str) -> Self {
        let mut agent = Self::open(at, credentials, hostname).await;
        agent.keep_alive();
        agent
            .until("its first assignments", |_, message| {
                matches!(message, ManagerMessage::Assignments(_)).then_some(())
            })
            .await;
        agent
    }

    /// The task that this node is to run, as soon as it is told of one.
    pub(crate) async fn next_task(&mut self) -> TaskId {
        self.until("a task to run", |agent, _| {
            let mut tasks = agent.tasks.values();
            tasks
                .find(|task| task.desired_state == TaskState::Running)
                .map(|task| task.id)
        })
        .await
    }

    /// Reports `status` of `task`, and hears that it is stored.
    pub(crate) async fn report(&mut self, sequence: u64, task: TaskId, status: TaskStatus) {
        let report = NodeMessage::Status {
            sequence,
            updates: vec![(task, status)],
        };
        self.say.send(report).await.expect("a session");
        self.until("word that the report is stored", |_, message| {
            matches!(message, ManagerMessage::StatusStored(stored) if *stored == sequence)
                .then_some(())
        })
        .await;
    }

    /// Sends heartbeats from now on, as long as the session takes them and nobody ends the task.
    pub(crate) fn keep_alive(&self) -> tokio::task::JoinHandle<()> {
        let say = self.say.clone();
        tokio::spawn(async move {
            while say.send(NodeMessage::Heartbeat).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    }

    /// The next message, taken to heart.
    pub(crate) async fn next(&mut self) -> Option<ManagerMessage> {
        let message = tokio::time::timeout(LIMIT, self.hear.message())
            .await
            .expect("a message in time")
            .ok()??;
        match &message {
            ManagerMessage::NetState(delta) => {
                self.net
                    .apply(NetDelta::clone(delta))
                    .expect("a fitting delta");
            }
            ManagerMessage::Assignments(set) => {
                if set.complete {
                    self.tasks.clear();
                }
                for task in &set.removed_tasks {
                    self.tasks.remove(task);
                }
                for task in &set.tasks {
                    self.tasks.insert(task.id, task.clone());
                }
            }
            _ => {}
        }
        Some(message)
    }

    /// Reads on until a message is what was wanted.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Self, &ManagerMessage) -> Option<T>,
    ) -> T {
        loop {
            let Some(message) = self.next().await else {
                panic!("the session ended while waiting for {what}");
            };
            if let Some(answer) = wanted(self, &message) {
                return answer;
            }
        }
    }
}
