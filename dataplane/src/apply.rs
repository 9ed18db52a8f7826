//! The data plane of one node.

use std::{
    collections::BTreeSet,
    fmt,
    net::{TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use weft_types::{BackendId, TaskId};

use crate::{
    Config, DataplaneError, Desired, DropCount, FlowRow, KeyState, NetnsRef, PathReport, Question,
    Repairs, ResolverSockets, Sandbox, SandboxSpec, Status, Step, keeper,
    kernel::{linux::Linux, netns, prober::Wake, resolver, watch::Watch},
};

/// The keeper of the real kernel.
type Keeper = keeper::Keeper<Linux>;

type Job = Box<dyn FnOnce(&mut Option<Keeper>) + Send>;

/// The data plane of one node: a handle, cheap to clone, usable from any task. Work that blocks is
/// done on threads of its own.
#[derive(Clone)]
pub struct Dataplane {
    jobs: Arc<mpsc::Sender<Job>>,
}

impl fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dataplane")
    }
}

/// What the kernel holds after [`Dataplane::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Revision of the state, read back.
    pub revision: u64,
    /// Entries, routes, links written because the desire changed.
    pub changes: u64,
    /// Differences mended that no change of desire explains.
    pub repairs: Repairs,
}

impl Dataplane {
    /// Loads or re-adopts programs, links and maps, makes the overlay device, and begins to follow
    /// this host's links and addresses.
    ///
    /// # Errors
    /// When the kernel refuses a part; what was made stays pinned for the next try.
    pub async fn start(config: Config) -> Result<Self, DataplaneError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let jobs = Arc::new(jobs);
        let (probes, links) = (
            wake(&jobs, Keeper::heed_probes),
            wake(&jobs, Keeper::heed_links),
        );
        let (started, begun) = oneshot::channel();
        let tick = config.look_every;
        let run = move || match Linux::open(&config, probes)
            .and_then(|kernel| Keeper::start(config, kernel))
        {
            Ok(keeper) => {
                // Nobody may be waiting any more; then the queue is closed too.
                let _ = started.send(Ok(()));
                let watch = Watch::start(links).inspect_err(|error| {
                    tracing::warn!(%error, "changes of links and addresses are seen only from time to time");
                });
                serve(keeper, &queue, tick);
                drop(watch);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new()
            .name("dataplane".to_owned())
            .spawn(run);
        thread.map_err(|error| DataplaneError::Refused(format!("start a thread: {error}")))?;
        begun.await.unwrap_or_else(|_| Err(stopped()))?;
        Ok(Self { jobs })
    }

    /// Runs `work` on the keeper's thread.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> Result<T, DataplaneError> + Send + 'static,
    ) -> Result<T, DataplaneError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |keeper| {
            let result = keeper.as_mut().map_or_else(|| Err(stopped()), work);
            // Whoever asked may have given up.
            let _ = answer.send(result);
        });
        self.jobs.send(job).map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Makes the kernel hold `desired`, reading back what it holds now. Also mends what drifted, so
    /// call it again from time to time with the same desire.
    ///
    /// # Errors
    /// When the kernel refuses a part; the rest is applied nevertheless.
    pub async fn apply(&self, desired: Desired) -> Result<Applied, DataplaneError> {
        self.ask(|keeper| keeper.apply(desired)).await
    }

    /// Makes a task's interfaces and returns when they are up and its programs are attached.
    /// Repeatable: a sandbox that is there is checked and mended.
    ///
    /// # Errors
    /// When the namespace is gone or the kernel refuses.
    pub async fn create_sandbox(
        &self,
        spec: SandboxSpec,
        netns: NetnsRef,
    ) -> Result<Sandbox, DataplaneError> {
        let netns = netns::open(netns)?;
        self.ask(move |keeper| {
            let task = spec.task;
            keeper.create_sandbox(&spec, netns).inspect_err(|_| {
                if let Err(error) = keeper.remove_sandbox(task) {
                    tracing::warn!(%error, %task, "cannot remove a half-made sandbox");
                }
            })
        })
        .await
    }

    /// Removes a task's interfaces and flows. Unknown tasks are fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_sandbox(&self, task: TaskId) -> Result<(), DataplaneError> {
        self.ask(move |keeper| keeper.remove_sandbox(task)).await
    }

    /// Forgets sandboxes found at start that belong to none of `tasks`. Call once after a restart,
    /// when all living tasks were given to [`Self::create_sandbox`] again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn retain_sandboxes(&self, tasks: BTreeSet<TaskId>) -> Result<(), DataplaneError> {
        self.ask(move |keeper| keeper.retain_sandboxes(&tasks))
            .await
    }

    /// Flows that this backend of this node holds now: a drain is over at 0.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn flows(&self, backend: BackendId) -> Result<usize, DataplaneError> {
        self.ask(move |keeper| keeper.flows(backend)).await
    }

    /// Every reason for which a packet was dropped, with the last sample.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub async fn drops(&self) -> Result<Vec<DropCount>, DataplaneError> {
        self.ask(|keeper| keeper.drops()).await
    }

    /// What this node's programs decide about a packet, step by step, without sending it: the programs
    /// themselves run, over the live maps, and change none of them. Where the packet is tunnelled, the
    /// last step says to which node; asked there, that node says how it goes on.
    ///
    /// # Errors
    /// When client and server are of different families, or the kernel refuses the test run.
    pub async fn explain(&self, question: Question) -> Result<Vec<Step>, DataplaneError> {
        self.ask(move |keeper| keeper.explain(&question)).await
    }

    /// Every flow that tasks of this node have with a client that came by a published port or a
    /// service's address packet by packet. What a socket hook led to a task needs no flow.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn flow_rows(&self) -> Result<Vec<FlowRow>, DataplaneError> {
        self.ask(|keeper| keeper.flow_rows()).await
    }

    /// What is known of the paths to the other nodes: looked at when a node is new, and from time to
    /// time.
    ///
    /// # Errors
    /// When the data plane was stopped.
    pub async fn paths(&self) -> Result<Vec<PathReport>, DataplaneError> {
        self.ask(|keeper| Ok(keeper.paths())).await
    }

    /// How far this node is with its keys for encrypted networks; not at all while nothing is known.
    pub async fn key_state(&self) -> KeyState {
        self.ask(|keeper| Ok(keeper.key_state()))
            .await
            .unwrap_or_default()
    }

    /// The state at a glance.
    pub async fn status(&self) -> Status {
        self.ask(|keeper| Ok(keeper.status()))
            .await
            .unwrap_or_default()
    }

    /// Removes everything that was ever made here: programs, links, maps, pins, devices, routes,
    /// firewall table. Sandboxes lose their interfaces.
    ///
    /// # Errors
    /// When a part cannot be removed; the rest is removed nevertheless.
    pub async fn uninstall(self) -> Result<(), DataplaneError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |keeper| {
            let result = keeper.take().map_or(Ok(()), Keeper::uninstall);
            let _ = answer.send(result);
        });
        self.jobs.send(job).map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> DataplaneError {
    DataplaneError::Refused("the data plane was stopped".to_owned())
}

/// Calls the keeper to `heed` something. Whoever wakes it does not keep it alive.
fn wake(jobs: &Arc<mpsc::Sender<Job>>, heed: fn(&mut Keeper)) -> Wake {
    let weak = Arc::downgrade(jobs);
    Arc::new(move || {
        let job: Job = Box::new(move |keeper| {
            if let Some(keeper) = keeper {
                heed(keeper);
            }
        });
        // A keeper that is gone heeds nothing.
        let _ = weak.upgrade().map(|jobs| jobs.send(job));
    })
}

/// Does jobs as they come and looks around between them, until nobody can send any more.
fn serve(keeper: Keeper, queue: &mpsc::Receiver<Job>, tick: Duration) {
    let mut keeper = Some(keeper);
    let mut next = Instant::now() + tick;
    loop {
        match queue.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(job) => job(&mut keeper),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= next {
            if let Some(keeper) = &mut keeper {
                keeper.tick();
            }
            next = Instant::now() + tick;
        }
    }
}

impl Sandbox {
    /// Opens UDP and TCP sockets at 127.0.0.11:53 inside the sandbox. Do it last: the gate in the
    /// task waits for the TCP one.
    ///
    /// # Errors
    /// When the namespace is gone or the address is taken.
    pub async fn open_resolver(&self) -> Result<ResolverSockets, DataplaneError> {
        let open = || {
            resolver::guard()?;
            resolver::open()
        };
        self.within(open).await
    }

    /// Undoes what [`Sandbox::open_resolver`] put around its sockets, which are closed: the container
    /// goes on with the engine's resolver, or none.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub async fn leave_resolver(&self) -> Result<(), DataplaneError> {
        self.within(resolver::unguard).await
    }

    /// A socket connected to the resolver that the engine runs in this namespace for a container on
    /// networks of its own; `None` while there is none.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub async fn engine_udp(&self) -> Result<Option<UdpSocket>, DataplaneError> {
        self.within(resolver::engine_udp).await
    }

    /// As [`Sandbox::engine_udp`], by TCP.
    ///
    /// # Errors
    /// When the namespace is gone, or the resolver does not take the connection.
    pub async fn engine_tcp(&self) -> Result<Option<TcpStream>, DataplaneError> {
        self.within(resolver::engine_tcp).await
    }

    async fn within<T: Send + 'static>(
        &self,
        work: fn() -> Result<T, DataplaneError>,
    ) -> Result<T, DataplaneError> {
        let sandbox = self.netns.clone();
        inside(move || netns::within(sandbox.as_fd(), work)).await
    }
}

/// As [`Sandbox::open_resolver`], where the sandbox of an earlier life has not been taken up yet: what
/// stands around its sockets is there since then.
///
/// # Errors
/// As there.
pub async fn open_resolver(sandbox: NetnsRef) -> Result<ResolverSockets, DataplaneError> {
    inside(move || netns::within(netns::open(sandbox)?.as_fd(), resolver::open)).await
}

/// The cookie of a namespace, as [`Sandbox::cookie`] has it.
///
/// # Errors
/// When the namespace is gone.
pub async fn cookie(sandbox: NetnsRef) -> Result<u64, DataplaneError> {
    inside(move || netns::within(netns::open(sandbox)?.as_fd(), netns::cookie)).await
}

async fn inside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataplaneError> + Send + 'static,
) -> Result<T, DataplaneError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(DataplaneError::Refused(format!(
            "work inside a sandbox: {error}"
        )))
    })
}
