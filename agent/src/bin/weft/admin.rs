//! Questions to a running agent, over a socket in its state directory that only root may use.
//!
//! One question per connection: a word and a newline; the answer is text for people. The question may
//! be HTTP's `GET /metrics`, too.

mod metrics;
mod show;

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::AbortHandle,
    time::{sleep, timeout},
};
use weft_agent::Glance;
use weft_dataplane::{Status, flow_pairs};
use weft_docker::NodeControl;
use weft_proto::{ControlReply, ControlRequest};

use crate::{handle::Handle, membership::Membership};

/// How long a question may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest question.
const QUESTION_BYTES: u64 = 4096;

fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Asks the agent of `state_dir` and prints what it says.
pub(crate) async fn ask(state_dir: PathBuf, question: &str) -> Result<()> {
    let path = socket(&state_dir);
    let stream = UnixStream::connect(&path).await;
    let mut stream = stream.with_context(|| {
        format!(
            "cannot reach the agent at {}: is it running? name its state directory with --state-dir",
            path.display()
        )
    })?;
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    print!("{answer}");
    Ok(())
}

/// Answers questions until the handle is used.
pub(crate) fn serve(state_dir: &Path, membership: Arc<Membership>) -> Result<AbortHandle> {
    let path = socket(state_dir);
    let named = || format!("cannot open the admin socket {}", path.display());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(named);
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(named)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).with_context(named)?;
    let work = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let membership = Arc::clone(&membership);
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, membership).await {
                            tracing::debug!(%error, "a question to the agent broke off");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a question to the agent");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(work.abort_handle())
}

async fn answer(stream: UnixStream, membership: Arc<Membership>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut question = String::new();
    let mut reader = BufReader::new(reader.take(QUESTION_BYTES));
    timeout(PATIENCE, reader.read_line(&mut question)).await??;
    let words: Vec<&str> = question.split_whitespace().collect();
    let said = match words.as_slice() {
        ["status"] => status(&membership).await,
        ["drops"] => drops(&membership).await,
        ["flows"] => flows(&membership, false).await,
        ["flows", "all"] => flows(&membership, true).await,
        ["explain", client, server] => explain(&membership, client, server).await,
        ["metrics"] => metrics(&membership).await,
        ["GET", "/metrics", ..] => {
            let page = metrics(&membership).await;
            format!(
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            )
        }
        ["GET" | "HEAD" | "POST", ..] => {
            "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
        }
        ["rebalance", verb @ ("plan" | "apply"), budget] => {
            let budget = budget.parse().unwrap_or(0);
            rebalance(&membership, budget, *verb == "apply").await
        }
        other => format!("weft does not know the question {:?}\n", other.join(" ")),
    };
    writer.write_all(said.as_bytes()).await
}

async fn status(membership: &Arc<Membership>) -> String {
    let standing = Handle(Arc::clone(membership)).status().await;
    let mut text = format!("swarm      {}\n", standing.state.as_str());
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{name:<10} {value}");
    };
    if !standing.error.is_empty() {
        line("error", standing.error);
    }
    if let Some(why) = membership.engine_silence().await {
        line("engine", format!("down: {why}"));
    }
    let Some(seat) = membership.seat() else {
        return text;
    };
    let identity = seat.credentials.identity();
    let glance = seat.agent.glance().borrow().clone();
    line(
        "node",
        format!("{} ({:?})", identity.node, identity.role).to_lowercase(),
    );
    line("address", standing.node_addr);
    if let Some(took) = membership
        .standing()
        .manager
        .and_then(|held| held.slow_disk())
    {
        let took = took.as_secs_f64();
        let why = "the swarm's log waits for it: see what else writes under the state directory";
        line("disk", format!("slow: a write took {took:.1} s; {why}"));
    }
    let connected = if glance.is_connected {
        "connected"
    } else {
        "no manager answers"
    };
    let managers = standing
        .remote_managers
        .iter()
        .map(|(_, addr)| addr.as_str());
    let managers: Vec<&str> = managers.collect();
    line("managers", format!("{} ({connected})", managers.join(", ")));
    let revision = format!(
        "{} told, {} in the kernel",
        glance.net.revision, glance.applied_revision
    );
    line("revision", revision);
    line("tasks", glance.containers.len().to_string());
    if let Some(dataplane) = seat.wiring.started() {
        let plane = dataplane.status().await;
        line("uplinks", plane.uplinks.join(", "));
        line("sandboxes", plane.sandboxes.to_string());
        line("flows", plane.flows.to_string());
        line("repairs", plane.repairs.total().to_string());
        line("mtu", format!("{} bytes", plane.mtu_bytes));
        for fault in plane.faults {
            line("fault", fault);
        }
    }
    text
}

/// Said where no data plane runs.
const NO_PLANE: &str = "the data plane of this node does not run: it is in no swarm\n";

async fn drops(membership: &Arc<Membership>) -> String {
    let seat = membership.seat();
    let Some(dataplane) = seat.as_ref().and_then(|seat| seat.wiring.started()) else {
        return NO_PLANE.to_owned();
    };
    match dataplane.drops().await {
        Ok(drops) => show::drops(drops),
        Err(error) => format!("cannot read the drop counters: {error}\n"),
    }
}

async fn flows(membership: &Arc<Membership>, all: bool) -> String {
    let seat = membership.seat();
    let Some(dataplane) = seat.as_ref().and_then(|seat| seat.wiring.started()) else {
        return NO_PLANE.to_owned();
    };
    match dataplane.flow_rows().await {
        Ok(rows) if all => show::flows(&rows),
        Ok(rows) => show::pairs(&flow_pairs(&rows)),
        Err(error) => format!("cannot read the flows: {error}\n"),
    }
}

async fn explain(membership: &Arc<Membership>, client: &str, server: &str) -> String {
    let seat = membership.seat();
    let Some((seat, dataplane)) = seat
        .as_ref()
        .and_then(|seat| Some((seat, seat.wiring.started()?)))
    else {
        return NO_PLANE.to_owned();
    };
    let net = Arc::clone(&seat.agent.glance().borrow().net);
    let question = match show::question(client, server, &net) {
        Ok(question) => question,
        Err(refusal) => return format!("{refusal}\n"),
    };
    match dataplane.explain(question).await {
        Ok(steps) => show::steps(&steps),
        Err(error) => format!("cannot explain {client} to {server}: {error}\n"),
    }
}

async fn metrics(membership: &Arc<Membership>) -> String {
    let standing = Handle(Arc::clone(membership)).status().await;
    let mut taken = metrics::Taken {
        state: standing.state,
        engine_answers: membership.engine_silence().await.is_none(),
        manages: standing.control_available,
        glance: Glance::default(),
        plane: Status::default(),
        drops: Vec::new(),
        pairs: Vec::new(),
    };
    if let Some(seat) = membership.seat() {
        taken.glance = seat.agent.glance().borrow().clone();
        if let Some(dataplane) = seat.wiring.started() {
            taken.plane = dataplane.status().await;
            // A table that cannot be read now has no lines in this page.
            taken.drops = dataplane.drops().await.unwrap_or_default();
            let rows = dataplane.flow_rows().await.unwrap_or_default();
            taken.pairs = flow_pairs(&rows);
        }
    }
    metrics::page(&taken)
}

async fn rebalance(membership: &Arc<Membership>, budget: usize, apply: bool) -> String {
    let manager = match Handle(Arc::clone(membership)).control().await {
        Ok(manager) => manager,
        Err(error) => return format!("only a manager can say what would move: {error}\n"),
    };
    let names = manager.call(ControlRequest::ListNodes).await;
    let moves = manager.call(ControlRequest::Rebalance { budget, apply });
    let (nodes, moves) = match (names, moves.await) {
        (Ok(ControlReply::Nodes(nodes)), Ok(ControlReply::Moves(moves))) => (nodes, moves),
        (Err(error), _) | (_, Err(error)) => return format!("cannot plan moves: {error}\n"),
        _ => return "the managers answered something else\n".to_owned(),
    };
    if moves.is_empty() {
        return "nothing would move: services are spread as evenly as they can be\n".to_owned();
    }
    let hostname = |id: weft_types::NodeId| {
        let node = nodes.iter().find(|node| node.id == id);
        node.map_or_else(|| id.to_string(), |node| node.description.hostname.clone())
    };
    let mut text = format!("{:<32} {:<20} TO\n", "TASK", "FROM");
    for step in &moves {
        let (from, to) = (hostname(step.from), hostname(step.to));
        let _infallible = writeln!(text, "{:<32} {from:<20} {to}", step.name);
    }
    text.push_str(if apply {
        "moving: each task stops when its replacement runs\n"
    } else {
        "nothing was moved: --apply does it\n"
    });
    text
}
