//! The `weft` program: one per node. The manager is a role inside it.

mod admin;
mod asking;
mod cluster;
mod handle;
mod interface;
mod joining;
mod membership;
mod place;
mod reach;
mod role;
mod seat;
mod tcp;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use mimalloc::MiMalloc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use weft_docker::DoorConfig;

use self::{handle::Handle, membership::Membership, place::Place};

/// Requests are freed by another thread than made them, which glibc's arenas answer by growing: decision 0018.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Threads for work that blocks, at most: the disk, the kernel, a manager's long thoughts. One that was started lives as
/// long as there is work now and then, and keeps 2 to 3 MiB of the allocator's memory.
const BLOCKING_THREADS: usize = 16;

/// Docker Swarm mode, rebuilt networking-first.
#[derive(Debug, Parser)]
#[command(name = "weft", version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run this node: front door, tasks, network, and the manager when it is one.
    Agent(AgentFlags),
    /// Remove what the agent of this node has made: containers of tasks, network, state.
    Reset(AgentFlags),
    /// Show where this node stands: swarm, managers, network revision, data plane.
    Status(AdminFlags),
    /// Show which packets were dropped here, and why.
    Drops(AdminFlags),
    /// Show who talks to whom here: flows, packets, bytes, age.
    Flows(FlowsFlags),
    /// Show what this node's programs would decide about a packet, without sending it.
    Explain(ExplainFlags),
    /// Print this node's figures as Prometheus reads them; also `GET /metrics` on admin.sock.
    Metrics(AdminFlags),
    /// Show which tasks would move for services to be spread evenly again; move them if told to.
    Rebalance(RebalanceFlags),
    /// Say which weft this is.
    Version,
}

/// Which flows are shown.
#[derive(Debug, Args)]
struct FlowsFlags {
    #[command(flatten)]
    admin: AdminFlags,
    /// Each flow by itself, with its state, rather than sums.
    #[arg(long)]
    all: bool,
}

/// Which packet is explained.
#[derive(Debug, Args)]
struct ExplainFlags {
    #[command(flatten)]
    admin: AdminFlags,
    /// Who sends it.
    #[arg(value_name = "CLIENT:PORT")]
    client: String,
    /// To whom: a published port on a node, a service's address, a task. The protocol is tcp, udp or
    /// sctp; hosts may be nodes by name.
    #[arg(value_name = "HOST:PORT/PROTO")]
    server: String,
}

/// How much is to move.
#[derive(Debug, Args)]
struct RebalanceFlags {
    #[command(flatten)]
    admin: AdminFlags,
    /// Move them, each one started in its new place before it is stopped in the old.
    #[arg(long, conflicts_with = "plan")]
    apply: bool,
    /// Only show them, as without any flag.
    #[arg(long)]
    plan: bool,
    /// So many moves at most.
    #[arg(long, value_name = "MOVES", default_value_t = 10)]
    budget: usize,
}

/// Places that one node's agent needs.
#[derive(Debug, Clone, Args)]
pub(crate) struct AgentFlags {
    /// Where this node keeps what it must remember.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    state_dir: PathBuf,
    /// Socket of the front door: point `DOCKER_HOST` at it.
    #[arg(long, value_name = "PATH", default_value = "/run/weft/docker.sock")]
    socket: PathBuf,
    /// Socket of the container engine below.
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    engine: PathBuf,
    /// Directory on a bpf file system for pinned programs and maps, one per node.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/weft")]
    pin_dir: PathBuf,
    /// Root of the cgroup2 tree; found by itself when it is mounted in its usual place.
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Group that may use the front door.
    #[arg(long, value_name = "NAME")]
    socket_group: Option<String>,
    #[command(flatten)]
    tcp: tcp::TcpFlags,
    #[command(flatten)]
    cluster: cluster::ClusterFlags,
    /// Addresses for tasks without a network; seen by this node only.
    #[arg(long, value_name = "SUBNET", default_value = "172.29.0.0/16")]
    egress_pool: ipnetwork::Ipv4Network,
    /// UDP port on which encrypted networks travel, and while keys change the next one too; may differ from
    /// node to node.
    #[arg(long, value_name = "PORT", default_value_t = weft_dataplane::WIREGUARD_PORT)]
    wireguard_port: u16,
}

/// Which agent is asked.
#[derive(Debug, Clone, Args)]
struct AdminFlags {
    /// State directory of the agent that is asked.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    state_dir: PathBuf,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let wished = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let mut filter = EnvFilter::new(&wished);
    // Libraries that say a lot at every level: heard only when asked for by name.
    // Consensus warns of every heartbeat that a dead manager misses, five times a second.
    for quiet in ["openraft=error"].iter().chain(&weft_dns::QUIET) {
        let target = quiet.split('=').next().unwrap_or_default();
        if let (false, Ok(directive)) = (wished.contains(target), quiet.parse()) {
            filter = filter.add_directive(directive);
        }
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let done = match command.verb {
        Verb::Version => {
            println!("weft {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Verb::Status(flags) => in_runtime(admin::ask(flags.state_dir, "status")),
        Verb::Drops(flags) => in_runtime(admin::ask(flags.state_dir, "drops")),
        Verb::Metrics(flags) => in_runtime(admin::ask(flags.state_dir, "metrics")),
        Verb::Flows(flags) => {
            let question = if flags.all { "flows all" } else { "flows" };
            in_runtime(admin::ask(flags.admin.state_dir, question))
        }
        Verb::Explain(flags) => {
            let question = format!("explain {} {}", flags.client, flags.server);
            in_runtime(admin::ask(flags.admin.state_dir, &question))
        }
        Verb::Rebalance(flags) => {
            let verb = if flags.apply { "apply" } else { "plan" };
            let question = format!("rebalance {verb} {}", flags.budget);
            in_runtime(admin::ask(flags.admin.state_dir, &question))
        }
        Verb::Agent(flags) => in_runtime(run(flags)),
        Verb::Reset(flags) => in_runtime(reset(flags)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "this verb needs root, for the agent's directory and the kernel: run it with sudo"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(work);
    // Work that blocks (a slow disk) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    done
}

async fn run(flags: AgentFlags) -> Result<()> {
    raise_file_limit();
    let tcp = flags.tcp.doors()?;
    let place = Place::open(flags.clone())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        state_dir = %flags.state_dir.display(),
        "weft agent"
    );
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let membership = Membership::new(place);
    membership.resume().await;
    let admin = admin::serve(&flags.state_dir, Arc::clone(&membership))?;
    let door = DoorConfig {
        socket: flags.socket.clone(),
        group: flags.socket_group,
        engine_socket: flags.engine,
        tcp,
    };
    let handle = || Arc::new(Handle(Arc::clone(&membership)));
    let cluster = flags.cluster.serve(door.clone(), handle(), stop.clone());
    let front = async {
        let served = weft_docker::serve(door, handle(), stop.cancelled()).await;
        // Neither door stays open without the other.
        stop.cancel();
        served
    };
    let (served, cluster) = tokio::join!(front, cluster);
    admin.abort();
    membership.shutdown().await;
    served.with_context(|| format!("the front door at {} failed", flags.socket.display()))?;
    cluster.context("the cluster socket failed")
}

/// Each sandbox and each client of its resolver costs file descriptors.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files; many tasks may exceed it");
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    let signals = signal(SignalKind::terminate()).and_then(|terminate| {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok((terminate, interrupt))
    });
    match signals {
        Ok((mut terminate, mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping; tasks and network stay as they are");
            stop.cancel();
        }
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals; only SIGKILL will end this agent")
        }
    }
}

async fn reset(flags: AgentFlags) -> Result<()> {
    let place = Place::open(flags)?;
    seat::remove_everything(&place).await?;
    println!("weft: containers of tasks, network and state of this node are gone");
    Ok(())
}
