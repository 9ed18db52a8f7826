//! Figures of the front door with a real manager behind it, as rows of a table: run it built for release,
//! `cargo run --release -p weft-docker --example bench_door`, or by `cargo xtask bench door`.
//!
//! Manager and door are one process, on a real disk with real syncs, the container engine is pretended; the clients
//! are another process, so that the memory told is the door's and the manager's alone. `serve` and a folder as
//! arguments begin the first, which the second does by itself. `load` and a number of seconds ask for the mixed load
//! alone, for that long.

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests use all of it, and end where their world is broken"
)]
#[path = "../tests/door/engine.rs"]
mod engine;
#[path = "bench_door/memory.rs"]
mod memory;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use cap::Cap;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use memory::{LEFT, left_told, memory_told};
use mimalloc::MiMalloc;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use weft_control::runtime::{InitOptions, Manager, ManagerConfig};
use weft_docker::{
    DoorConfig, InitRequest, JoinRequest, LocalState, LocalStatus, NodeControl, NotManager, serve,
};

use weft_proto::{ControlApi, ControlError};
use weft_types::NodeId;

/// As the agent's, and counting what is taken and not given back.
#[global_allocator]
static ALLOCATOR: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

/// As the agent's.
const BLOCKING_THREADS: usize = 16;

/// Services there are while anything is measured.
const SERVICES: usize = 1_000;

/// Clients at once.
const CLIENTS: usize = 200;

/// How long they ask.
const LOAD: Duration = Duration::from_secs(180);

/// When memory is looked at first: all services are there then.
const WARM: Duration = Duration::from_secs(20);

/// How often it is from then on.
const LOOK: Duration = Duration::from_secs(5);

/// How often bytes in use are looked at: each look at memory shows the least of those since the one before.
const GLANCE: Duration = Duration::from_millis(20);

/// The file in the served folder that says how many that was.
const IN_USE: &str = "in-use";

/// Lists asked one after the other.
const LISTS: usize = 500;

/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let mut words = std::env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (Some("serve"), Some(folder)) => runtime.block_on(door(Path::new(&folder))),
        (Some("load"), Some(seconds)) => {
            let load = Duration::from_secs(seconds.parse()?);
            ensure!(load >= 3 * WARM, "too short a load to tell of memory");
            runtime.block_on(measure(load, 0))
        }
        (None, None) => runtime.block_on(measure(LOAD, LISTS)),
        _ => bail!("takes nothing, or `load` and seconds"),
    }
}

/// A node whose only part is its manager.
struct Node(Arc<Manager>);

#[async_trait]
impl NodeControl for Node {
    async fn init(&self, _: InitRequest) -> Result<NodeId, ControlError> {
        Err(ControlError::unknown("this node is in a swarm"))
    }

    async fn join(&self, _: JoinRequest) -> Result<(), ControlError> {
        Err(ControlError::unknown("this node is in a swarm"))
    }

    async fn leave(&self, _: bool) -> Result<(), ControlError> {
        Err(ControlError::unknown("this node stays"))
    }

    async fn unlock(&self, _: &str) -> Result<(), ControlError> {
        Err(ControlError::unknown("this node is not locked"))
    }

    async fn status(&self) -> LocalStatus {
        LocalStatus {
            state: LocalState::Active,
            control_available: true,
            ..LocalStatus::default()
        }
    }

    async fn control(&self) -> Result<Arc<dyn ControlApi>, NotManager> {
        Ok(Arc::<Manager>::clone(&self.0))
    }
}

/// Writes down the least bytes in use of each while, until the process ends.
fn watch_use(folder: &Path) -> Result<()> {
    loop {
        let begun = Instant::now();
        let mut least = usize::MAX;
        while begun.elapsed() < LOOK {
            least = least.min(ALLOCATOR.allocated());
            std::thread::sleep(GLANCE);
        }
        let new = folder.join("in-use.new");
        std::fs::write(&new, least.to_string())?;
        std::fs::rename(new, folder.join(IN_USE))?;
    }
}

async fn door(folder: &Path) -> Result<()> {
    let place = folder.to_owned();
    // Beside the runtime, whose threads are counted; it ends with the process, or its folder.
    std::thread::spawn(move || watch_use(&place));
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = ManagerConfig {
        state_dir: folder.to_owned(),
        listen: free,
        advertise: free,
    };
    let manager = Manager::bootstrap(config, InitOptions::default()).await?;
    let engine_socket = folder.join("engine.sock");
    let _engine = engine::FakeEngine::at(&engine_socket);
    let config = DoorConfig {
        socket: folder.join("docker.sock"),
        group: Some("0".to_owned()),
        engine_socket,
        tcp: vec![],
    };
    serve(config, Arc::new(Node(manager)), std::future::pending()).await?;
    Ok(())
}

/// The other process; ends with this.
struct Served {
    child: Child,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    async fn begin() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("docker.sock");
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(folder.path())
            .spawn()
            .context("cannot start the door")?;
        let served = Self {
            child,
            socket,
            folder,
        };
        let begun = Instant::now();
        while UnixStream::connect(&served.socket).await.is_err() {
            ensure!(begun.elapsed() < PATIENCE, "the door did not open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(served)
    }

    /// Its resident memory, in MiB, and its threads.
    fn size(&self) -> Result<(f64, u32)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &'static str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_whitespace().nth(1));
            value.context(name)
        };
        let kib: f64 = field("VmRSS:")?.parse()?;
        Ok((kib / 1024.0, field("Threads:")?.parse()?))
    }
}

impl Served {
    /// The least bytes that it had in use lately, in MiB.
    fn in_use(&self) -> Result<f64> {
        let bytes = std::fs::read_to_string(self.folder.path().join(IN_USE))?;
        Ok(bytes.parse::<f64>()? / f64::from(1 << 20))
    }
}

/// A client with a connection of its own.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn new(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn ask(&mut self, method: Method, path: &str, body: &Value) -> Result<(u16, Bytes)> {
        let body = match body {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "docker")
            .body(Full::new(body))?;
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    async fn get(&mut self, path: &str) -> Result<Value> {
        let (status, body) = self.ask(Method::GET, path, &Value::Null).await?;
        ensure!(status == 200, "{path}: {status}");
        Ok(serde_json::from_slice(&body)?)
    }
}

fn spec(name: &str) -> Value {
    json!({
        "Name": name, "Labels": {"tier": "front"},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "1000"],
                "Env": ["A=1", "B=2"], "Init": false, "StopGracePeriod": 10_000_000_000_u64},
            "Resources": {"Limits": {"MemoryBytes": 67_108_864}, "Reservations": {}},
            "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64},
            "Placement": {"Constraints": ["node.role==worker"]},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"},
    })
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    /// Times by kind of request.
    times: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
    /// Answers that nothing documents, with one case.
    strange: Mutex<BTreeMap<String, u64>>,
    /// Updates of the one service that everybody updates.
    shared: AtomicU64,
    /// Updates that were refused because somebody was faster.
    raced: AtomicU64,
    asked: AtomicU64,
}

impl Seen {
    async fn ask(
        &self,
        client: &mut Client,
        kind: &'static str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Value)> {
        let begun = Instant::now();
        let (status, body) = client.ask(method, path, body).await?;
        let took = begun.elapsed();
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut times = self
            .times
            .lock()
            .map_err(|_| anyhow::anyhow!("a client panicked"))?;
        times.entry(kind).or_default().push(took);
        drop(times);
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let raced = value["message"] == "rpc error: code = Unknown desc = update out of sequence";
        if raced {
            self.raced.fetch_add(1, Ordering::Relaxed);
        } else if status >= 400 {
            let case = format!("{kind}: {status} {}", value["message"]);
            let mut strange = self
                .strange
                .lock()
                .map_err(|_| anyhow::anyhow!("a client panicked"))?;
            *strange.entry(case).or_default() += 1;
        }
        Ok((status, value))
    }

    /// Reads a service, adds one to its label, and writes it back; whether it was written.
    async fn count_up(&self, client: &mut Client, name: &str) -> Result<bool> {
        let path = format!("/v1.41/services/{name}");
        let (status, service) = self
            .ask(client, "inspect", Method::GET, &path, &Value::Null)
            .await?;
        if status != 200 {
            return Ok(false);
        }
        let mut spec = service["Spec"].clone();
        let count = spec["Labels"]["count"]
            .as_str()
            .and_then(|count| count.parse::<u64>().ok());
        spec["Labels"]["count"] = (count.unwrap_or(0) + 1).to_string().into();
        let path = format!("{path}/update?version={}", service["Version"]["Index"]);
        let (status, _) = self
            .ask(client, "update", Method::POST, &path, &spec)
            .await?;
        Ok(status == 200)
    }
}

/// Asks and changes until `end`; answers how often its own service was updated.
async fn one(seen: Arc<Seen>, socket: PathBuf, number: usize, end: Instant) -> Result<u64> {
    let mut client = Client::new(&socket).await?;
    let name = format!("own-{number}");
    let created = seen
        .ask(
            &mut client,
            "create",
            Method::POST,
            "/v1.41/services/create",
            &spec(&name),
        )
        .await?;
    ensure!(created.0 == 201, "{created:?}");
    let filter =
        |key: &str, value: &str| format!("filters=%7B%22{key}%22%3A%7B%22{value}%22%3Atrue%7D%7D");
    let mut own = 0;
    let mut turn = number;
    while Instant::now() < end {
        turn += 1;
        let reads = [
            (
                "list one",
                format!("/v1.41/services?{}", filter("name", &name)),
            ),
            (
                "tasks of one",
                format!("/v1.41/tasks?{}", filter("service", &name)),
            ),
            ("nodes", "/v1.41/nodes".to_owned()),
            ("info", "/v1.41/info".to_owned()),
        ];
        let (kind, path) = &reads[turn % reads.len()];
        seen.ask(&mut client, kind, Method::GET, path, &Value::Null)
            .await?;
        match turn % 8 {
            0 => {
                let written = seen.count_up(&mut client, "shared").await?;
                seen.shared.fetch_add(u64::from(written), Ordering::Relaxed);
            }
            1 | 5 => own += u64::from(seen.count_up(&mut client, &name).await?),
            2 => {
                let secret = json!({"Name": format!("s-{number}"), "Data": "YQ=="});
                seen.ask(
                    &mut client,
                    "create",
                    Method::POST,
                    "/v1.41/secrets/create",
                    &secret,
                )
                .await?;
                let path = format!("/v1.41/secrets/s-{number}");
                seen.ask(&mut client, "remove", Method::DELETE, &path, &Value::Null)
                    .await?;
            }
            4 if turn % 64 == 4 => {
                let path = "/v1.41/services?status=true";
                seen.ask(&mut client, "list all", Method::GET, path, &Value::Null)
                    .await?;
            }
            _ => {}
        }
    }
    Ok(own)
}

fn percentile(times: &mut [Duration], part: f64) -> f64 {
    times.sort();
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn row(what: &str, figure: &str, method: &str) {
    println!("| {what} | {figure} | {method} |");
}

async fn measure(load: Duration, lists: usize) -> Result<()> {
    let served = Served::begin().await?;
    let mut client = Client::new(&served.socket).await?;
    for number in 0..SERVICES - 1 {
        let body = spec(&format!("web-{number}"));
        let made = client
            .ask(Method::POST, "/v1.41/services/create", &body)
            .await?;
        ensure!(made.0 == 201, "{made:?}");
    }
    let made = client
        .ask(Method::POST, "/v1.41/services/create", &spec("shared"))
        .await?;
    ensure!(made.0 == 201, "{made:?}");

    println!("| What | Figure | Method |\n| --- | --- | --- |");
    for (what, path) in [
        ("`GET /services`", "/v1.41/services"),
        ("`GET /services?status=true`", "/v1.41/services?status=true"),
    ] {
        if lists == 0 {
            break;
        }
        let mut times = Vec::new();
        let mut size = 0;
        for _ in 0..lists {
            let begun = Instant::now();
            let (status, body) = client.ask(Method::GET, path, &Value::Null).await?;
            times.push(begun.elapsed());
            ensure!(status == 200, "{path}: {status}");
            size = body.len();
        }
        let (middle, late) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        let method = format!(
            "{lists} times one after the other at {SERVICES} services of one task each, {} KiB an answer",
            size >> 10
        );
        row(
            &format!("{what}, p99"),
            &format!("**{late:.1} ms** (median {middle:.1})"),
            &method,
        );
    }

    let seen = Arc::new(Seen::default());
    let begun = Instant::now();
    let end = begun + load;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(one(Arc::clone(&seen), served.socket.clone(), number, end)))
        .collect();
    let mut memory = Vec::new();
    let mut in_use = Vec::new();
    let mut threads = 0;
    let mut look = begun + WARM;
    while look <= end {
        tokio::time::sleep_until(look.into()).await;
        let (mib, now) = served.size()?;
        memory.push(mib);
        in_use.push(served.in_use()?);
        threads = threads.max(now);
        look += LOOK;
    }
    let mut lost = 0;
    for (number, own) in clients.into_iter().enumerate() {
        let own = own.await??;
        let service = client.get(&format!("/v1.41/services/own-{number}")).await?;
        let count = service["Spec"]["Labels"]["count"]
            .as_str()
            .unwrap_or("0")
            .to_owned();
        lost += own.abs_diff(count.parse()?);
    }
    let service = client.get("/v1.41/services/shared").await?;
    let count: u64 = service["Spec"]["Labels"]["count"]
        .as_str()
        .unwrap_or("0")
        .parse()?;
    let shared = seen.shared.load(Ordering::Relaxed);
    lost += shared.abs_diff(count);

    let seconds = load.as_secs();
    let method = format!(
        "{CLIENTS} clients, each with a connection of its own, for {seconds} s: reads and writes mixed, beside {SERVICES} services"
    );
    let asked = seen.asked.load(Ordering::Relaxed);
    row(
        "Requests",
        &format!("**{:.0} /s**", asked as f64 / load.as_secs_f64()),
        &method,
    );
    let times = std::mem::take(
        &mut *seen
            .times
            .lock()
            .map_err(|_| anyhow::anyhow!("a client panicked"))?,
    );
    let raced = seen.raced.load(Ordering::Relaxed);
    let written = ["create", "remove", "update"].map(|kind| times.get(kind).map_or(0, Vec::len));
    let written = written.into_iter().sum::<usize>() as f64 - raced as f64;
    for (kind, mut times) in times {
        let (middle, late) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        row(
            &format!("… {kind}, p99"),
            &format!("**{late:.0} ms** (median {middle:.0})"),
            &format!("{} of them", times.len()),
        );
    }
    row(
        "Lost updates",
        &format!("**{lost}**"),
        &format!(
            "each client counts up a label of its own service, all of them one of a shared service ({shared} times), each by the version it read; the labels in the end against the updates that were answered 200"
        ),
    );
    row(
        "Updates refused because another was faster",
        &raced.to_string(),
        "`update out of sequence`, the documented 500",
    );
    let strange = std::mem::take(
        &mut *seen
            .strange
            .lock()
            .map_err(|_| anyhow::anyhow!("a client panicked"))?,
    );
    row(
        "Other answers of 400 and above",
        &format!("**{}**", strange.values().sum::<u64>()),
        &strange
            .keys()
            .take(3)
            .cloned()
            .collect::<Vec<_>>()
            .join("; "),
    );
    let (figure, looks) = memory_told(&memory);
    let method = format!(
        "resident, of the process that serves, which had {threads} threads at most, every {} s from {} s on: {looks}",
        LOOK.as_secs(),
        WARM.as_secs()
    );
    row("Memory of manager and door", &figure, &method);
    let looked = (load - WARM).as_secs_f64() / load.as_secs_f64();
    let (figure, looks) = left_told(&in_use, written * looked / 3.0);
    let method = format!(
        "bytes in use, of the same process; what a write leaves is told from {LEFT} bytes on, and the log's cache is emptied with every 10,000 writes: {looks}"
    );
    row(&format!("What {written} writes leave"), &figure, &method);
    ensure!(lost == 0, "{lost} updates were lost");
    ensure!(strange.is_empty(), "strange answers: {strange:?}");
    Ok(())
}
