//! Questions to a running agent, over a socket in its state directory that only root may use.
//!
//! One question per connection: a word and a newline; the answer is text for people, and begins with
//! [`REFUSAL`] where the question cannot be answered. It may be HTTP's `GET /metrics`, too.

mod advice;
mod covered;
mod metrics;
mod room;
mod show;
mod taken;

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

/// How an answer begins that is none.
const REFUSAL: &str = "error: ";

fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Asks the agent of `state_dir` and prints what it says.
///
/// # Errors
/// When it is not there, or cannot answer the question.
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
    if let Some(refusal) = answer.strip_prefix(REFUSAL) {
        anyhow::bail!("{}", refusal.trim_end());
    }
    anyhow::ensure!(
        !answer.is_empty(),
        "the agent at {} went away before it answered: see its log",
        path.display()
    );
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
        ["status"] => Ok(status(&membership).await),
        ["drops"] => drops(&membership).await,
        ["flows"] => flows(&membership, false).await,
        ["flows", "all"] => flows(&membership, true).await,
        ["explain", client, server] => explain(&membership, client, server).await,
        ["metrics"] => Ok(metrics(&membership).await),
        ["GET", "/metrics", ..] => {
            let page = metrics(&membership).await;
            Ok(format!(
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            ))
        }
        ["GET" | "HEAD" | "POST", ..] => Ok(
            "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        ),
        ["rebalance", verb @ ("plan" | "apply"), budget] => {
            let budget = budget.parse().unwrap_or(0);
            rebalance(&membership, budget, *verb == "apply").await
        }
        other => Err(format!(
            "the agent does not know the question {:?}: is it of another version than this program?",
            other.join(" ")
        )),
    };
    let said = said.unwrap_or_else(|refusal| format!("{REFUSAL}{refusal}\n"));
    writer.write_all(said.as_bytes()).await
}

async fn status(membership: &Arc<Membership>) -> String {
    let standing = Handle(Arc::clone(membership)).status().await;
    let mut text = format!("swarm      {}\n", standing.state.as_str());
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{name:<10} {value}");
    };
    if !standing.error.is_empty() {
        let next = advice::advice(&standing.error);
        line("error", standing.error);
        if let Some(next) = next {
            line("do", next.to_owned());
        }
    }
    if let Some(why) = membership.engine_trouble().await {
        line("engine", why);
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
    if let Some(why) = room::lacks(membership.state_dir()) {
        line("disk", why);
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
    if let Some(why) = &glance.refusal {
        line("fault", format!("the network cannot be had: {why}"));
    }
    for fault in covered::faults(&glance.net) {
        line("fault", fault);
    }
    line("tasks", glance.containers.len().to_string());
    if let Some(dataplane) = seat.wiring.started() {
        let plane = dataplane.status().await;
        line("uplinks", plane.uplinks.join(", "));
        line("sandboxes", plane.sandboxes.to_string());
        line("flows", plane.flows.to_string());
        line("repairs", plane.repairs.total().to_string());
        line("mtu", format!("{} bytes", plane.mtu_bytes));
        let taken = taken::faults(&glance.net, identity.node);
        for fault in plane.faults.into_iter().chain(taken) {
            line("fault", fault);
        }
    } else if glance.net.revision > 0 && glance.refusal.is_none() {
        let why =
            "starting: the kernel verifies the programs, which takes seconds of one processor";
        line("network", why.to_owned());
    }
    text
}

/// Said where no data plane runs.
const NO_PLANE: &str = "the data plane of this node does not run: `weft status` says why";

/// What is shown, or why it cannot be.
type Shown = Result<String, String>;

async fn drops(membership: &Arc<Membership>) -> Shown {
    let seat = membership.seat();
    let dataplane = seat.as_ref().and_then(|seat| seat.wiring.started());
    let counted = dataplane.ok_or(NO_PLANE)?.drops().await;
    let counted = counted.map_err(|error| format!("cannot read the drop counters: {error}"))?;
    Ok(show::drops(counted))
}

async fn flows(membership: &Arc<Membership>, all: bool) -> Shown {
    let seat = membership.seat();
    let dataplane = seat.as_ref().and_then(|seat| seat.wiring.started());
    let rows = dataplane.ok_or(NO_PLANE)?.flow_rows().await;
    let rows = rows.map_err(|error| format!("cannot read the flows: {error}"))?;
    Ok(if all {
        show::flows(&rows)
    } else {
        show::pairs(&flow_pairs(&rows))
    })
}

async fn explain(membership: &Arc<Membership>, client: &str, server: &str) -> Shown {
    let seat = membership.seat().ok_or(NO_PLANE)?;
    let dataplane = seat.wiring.started().ok_or(NO_PLANE)?;
    let net = Arc::clone(&seat.agent.glance().borrow().net);
    let question = show::question(client, server, &net)?;
    let steps = dataplane.explain(question).await;
    let steps = steps.map_err(|error| format!("cannot explain {client} to {server}: {error}"))?;
    Ok(show::steps(&steps))
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

async fn rebalance(membership: &Arc<Membership>, budget: usize, apply: bool) -> Shown {
    let manager = Handle(Arc::clone(membership)).control().await;
    let manager =
        manager.map_err(|error| format!("only a manager can say what would move: {error}"))?;
    let names = manager.call(ControlRequest::ListNodes).await;
    let moves = manager.call(ControlRequest::Rebalance { budget, apply });
    let (nodes, moves) = match (names, moves.await) {
        (Ok(ControlReply::Nodes(nodes)), Ok(ControlReply::Moves(moves))) => (nodes, moves),
        (Err(error), _) | (_, Err(error)) => return Err(format!("cannot plan moves: {error}")),
        _ => return Err("cannot plan moves: the managers answered something else".to_owned()),
    };
    if moves.is_empty() {
        return Ok("nothing would move: services are spread as evenly as they can be\n".to_owned());
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
    Ok(text)
}
