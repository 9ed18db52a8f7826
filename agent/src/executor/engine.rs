//! Containers of the Docker Engine below.
//!
//! A task's container has no engine network: the agent makes its interfaces once the gate runs
//! (see `agent/gate`). Only one that is to be on a network of the node itself (`host`, `bridge`)
//! has that, and then neither interfaces of ours nor a gate.
//!
//! Files that belong to a task lie in `<state>/containers/<task>`; secrets and configs on a tmpfs
//! at `<state>/files`.

mod body;
mod connection;
mod describe;
mod files;
mod gate;
mod guest;
mod image;
mod logs;
mod stream;
mod watch;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bollard::{
    Docker,
    models::{ContainerCreateBody, ContainerInspectResponse, HealthStatusEnum, LocalNodeState},
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, ListContainersOptions,
        RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
    },
};
use tokio::sync::{Semaphore, mpsc};
use weft_types::{TaskId, node::NodeDescription};

use self::{connection::Connection, files::TaskFiles, image::Images};
use super::{Change, Executor, Found, LogEntry, LogQuery, Order};
use crate::task::{Failure, Health, Observation};

pub use files::{FilesError, GATE_FILE};

/// Label that every task's container has.
const TASK_LABEL: &str = "com.docker.swarm.task";
/// Label with the task's id.
const TASK_ID_LABEL: &str = "com.docker.swarm.task.id";
/// Containers made or started at the same time: more only makes each slower.
const AT_ONCE: usize = 8;
/// How long the engine may take to say that it is there.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// The Docker Engine at a socket.
#[derive(Clone)]
pub struct Engine {
    connection: Connection,
    files: TaskFiles,
    images: Images,
    turns: Arc<Semaphore>,
}

impl Engine {
    /// The engine at `socket`. Writes the gate into `state_dir` and mounts a tmpfs there.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn new(socket: PathBuf, state_dir: PathBuf) -> Result<Self, FilesError> {
        let connection = Connection::new(socket);
        Ok(Self {
            images: Images::new(connection.clone()),
            files: TaskFiles::new(state_dir)?,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            connection,
        })
    }

    /// Removes everything that this executor keeps in the state directory. Containers must be gone.
    pub fn forget(&self) {
        self.files.clear_everything();
    }

    /// Why it does not answer now; `None` when it does.
    pub async fn silence(&self) -> Option<String> {
        let ask = async {
            let docker = self.docker().await?;
            let answer = docker.ping().await;
            answer.map_err(|error| connection::failure("ask", "the engine", &error))
        };
        match tokio::time::timeout(PING_LIMIT, ask).await {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some(failure.reason),
            Err(_) => Some(format!("no answer in {} s", PING_LIMIT.as_secs())),
        }
    }

    /// Whether the engine is in a swarm of Docker's own: its ports, networks and names would be in the
    /// way of ours.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn is_in_docker_swarm(&self) -> Result<bool, Failure> {
        let info = self.docker().await?.info().await;
        let info = info.map_err(|error| connection::failure("describe", "the engine", &error))?;
        let state = info.swarm.and_then(|swarm| swarm.local_node_state);
        Ok(!matches!(
            state,
            None | Some(LocalNodeState::EMPTY | LocalNodeState::INACTIVE)
        ))
    }

    async fn docker(&self) -> Result<Docker, Failure> {
        self.connection.docker().await
    }

    /// What the gate of a container said last, if it was the gate that ended it; else nothing.
    async fn gate_words(&self, container: &str) -> String {
        let query = LogQuery {
            stdout: false,
            stderr: true,
            follow: false,
            tail: Some(1),
            since: weft_types::Timestamp::ZERO,
        };
        let Ok(mut lines) = self.logs(container, query).await else {
            return String::new();
        };
        let last = match lines.recv().await {
            Some(Ok(entry)) => entry.line,
            _ => Vec::new(),
        };
        let last = String::from_utf8_lossy(&last);
        let is_gates = gate::WORDS.iter().any(|start| last.starts_with(start));
        if is_gates {
            last.trim().to_owned()
        } else {
            String::new()
        }
    }

    async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    async fn look(&self, container: &str) -> Result<Option<ContainerInspectResponse>, Failure> {
        let docker = self.docker().await?;
        let inspected = docker
            .inspect_container(container, None::<InspectContainerOptions>)
            .await;
        match inspected {
            Ok(found) => Ok(Some(found)),
            Err(error) if connection::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(connection::failure("inspect container", container, &error)),
        }
    }

    async fn discard(&self, container: &str) -> Result<(), Failure> {
        let docker = self.docker().await?;
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..RemoveContainerOptions::default()
        };
        match docker.remove_container(container, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if connection::status(&error) == Some(404) => Ok(()),
            Err(error) => Err(connection::failure("remove container", container, &error)),
        }
    }
}

/// A container as Docker's inspection shows it.
fn observation(found: &ContainerInspectResponse) -> Observation {
    let state = found.state.clone().unwrap_or_default();
    if state.running == Some(true) {
        return Observation::Running {
            pid: state.pid.unwrap_or_default(),
            health: health(found),
        };
    }
    let started = state.started_at.as_deref().unwrap_or_default();
    if started.is_empty() || started.starts_with("0001-") {
        return Observation::Created;
    }
    let error = state.error.unwrap_or_default();
    Observation::Exited {
        code: state.exit_code.unwrap_or_default(),
        error: if state.oom_killed == Some(true) && error.is_empty() {
            "OOMKilled".to_owned()
        } else {
            error
        },
    }
}

/// Whether the gate stands before the program: where the network is ours to make.
fn is_gated(found: &ContainerInspectResponse) -> bool {
    let config = found.host_config.as_ref();
    config.and_then(|config| config.network_mode.as_deref()) == Some("none")
}

fn health(found: &ContainerInspectResponse) -> Health {
    let health = found.state.as_ref().and_then(|state| state.health.as_ref());
    match health.and_then(|health| health.status) {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => Health::Unprobed,
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
    }
}

#[async_trait]
impl Executor for Engine {
    async fn describe(&self) -> Result<NodeDescription, Failure> {
        let docker = self.docker().await?;
        let info = docker.info().await;
        let info = info.map_err(|error| connection::failure("describe", "the engine", &error))?;
        Ok(describe::node(info))
    }

    async fn prepare(&self, order: Order) -> Result<String, Failure> {
        let Some(task) = &order.task else {
            return Err(Failure::lasting("no task to prepare a container for"));
        };
        let Some(spec) = &task.spec.container_spec else {
            return Err(Failure::lasting(body::Refusal::NoContainer.to_string()));
        };
        if let Some(found) = self.look(&task.name).await? {
            let id = found.id.clone().unwrap_or_default();
            if observation(&found) == Observation::Created {
                return Ok(id);
            }
            self.discard(&id).await?;
        }
        let image = self.images.ensure(&spec.image, &task.registry_auth).await?;
        let _turn = self.turn().await;
        let host_files = self.files.lay(task, spec, &order.files)?;
        let body = body::body(task, &order.place, &image, &host_files)
            .map_err(|refusal| Failure::lasting(refusal.to_string()))?;
        let body: ContainerCreateBody = serde_json::from_value(body)
            .map_err(|error| Failure::lasting(format!("invalid container spec: {error}")))?;
        let options = CreateContainerOptions {
            name: Some(task.name.clone()),
            ..CreateContainerOptions::default()
        };
        let docker = self.docker().await?;
        let made = docker.create_container(Some(options), body).await;
        let made =
            made.map_err(|error| connection::failure("create container", &task.name, &error))?;
        let hostname = match self.look(&made.id).await? {
            Some(found) => found.config.and_then(|config| config.hostname),
            None => None,
        };
        self.files
            .write_hosts(task, spec, &hostname.unwrap_or_default())?;
        Ok(made.id)
    }

    async fn start(&self, container: &str) -> Result<i64, Failure> {
        let _turn = self.turn().await;
        let docker = self.docker().await?;
        let started = docker
            .start_container(container, None::<StartContainerOptions>)
            .await;
        match started {
            Ok(()) => {}
            // Runs already.
            Err(error) if connection::status(&error) == Some(304) => {}
            Err(error) => return Err(connection::failure("start container", container, &error)),
        }
        let found = self.look(container).await?;
        match found.as_ref().map(observation) {
            Some(Observation::Running { pid, .. }) => Ok(pid),
            // Nothing held it back, so it may be done already: how it ended is asked next.
            Some(Observation::Exited { .. }) if !found.as_ref().is_some_and(is_gated) => Ok(0),
            Some(Observation::Exited { code, error }) => Err(Failure::lasting(format!(
                "container ended before its network was made, status {code} {error}"
            ))),
            _ => Err(Failure::lasting(format!("No such container: {container}"))),
        }
    }

    async fn await_program(&self, container: &str, pid: i64) -> Result<Health, Failure> {
        gate::await_passed(pid).await?;
        match self.look(container).await?.as_ref() {
            Some(found) => Ok(health(found)),
            None => Ok(Health::Unprobed),
        }
    }

    async fn inspect(&self, container: &str) -> Result<Observation, Failure> {
        let found = self.look(container).await?;
        let mut seen = found.as_ref().map_or(Observation::Missing, observation);
        if let Observation::Exited { code, error } = &mut seen
            && error.is_empty()
            && gate::STATUSES.contains(code)
        {
            *error = self.gate_words(container).await;
        }
        Ok(seen)
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<i64, Failure> {
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let docker = self.docker().await?;
        // The engine answers when the container has stopped.
        let docker = docker.with_timeout(grace + Duration::from_secs(60));
        let options = StopContainerOptions {
            t: Some(seconds),
            ..StopContainerOptions::default()
        };
        match docker.stop_container(container, Some(options)).await {
            Ok(()) => {}
            Err(error) if matches!(connection::status(&error), Some(304 | 404)) => {}
            Err(error) => return Err(connection::failure("stop container", container, &error)),
        }
        match self.inspect(container).await? {
            Observation::Exited { code, .. } => Ok(code),
            Observation::Missing | Observation::Created => Ok(0),
            Observation::Running { .. } => Err(Failure::passing(format!(
                "container {container} does not stop"
            ))),
        }
    }

    async fn remove(&self, task: TaskId, container: Option<&str>) -> Result<(), Failure> {
        if let Some(container) = container {
            self.discard(container).await?;
        } else {
            // A creation that was given up half-way leaves a container whose id nobody learnt.
            for found in self.list().await? {
                if found.task == task {
                    self.discard(&found.container).await?;
                }
            }
        }
        self.files.clear(task);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Found>, Failure> {
        let docker = self.docker().await?;
        let filters = HashMap::from([("label".to_owned(), vec![TASK_LABEL.to_owned()])]);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..ListContainersOptions::default()
        };
        let listed = docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|error| connection::failure("list", "containers", &error))?;
        let mut found = Vec::new();
        for summary in listed {
            let labels = summary.labels.unwrap_or_default();
            let task = labels.get(TASK_ID_LABEL).and_then(|id| id.parse().ok());
            let (Some(task), Some(container)) = (task, summary.id) else {
                continue;
            };
            if let Some(inspected) = self.look(&container).await? {
                let observation = observation(&inspected);
                found.push(Found {
                    task,
                    container,
                    observation,
                });
            }
        }
        Ok(found)
    }

    async fn watch(&self) -> mpsc::Receiver<Change> {
        watch::spawn(self.clone())
    }

    async fn logs(
        &self,
        container: &str,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<Result<LogEntry, Failure>>, Failure> {
        logs::open(&self.docker().await?, container, query).await
    }
}
