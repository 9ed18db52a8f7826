//! Established connections while their ingress address moves to another host, the host that had it
//! dies, and the ring changes, all at once. Needs root.
//!
//! `WEFT_FULL=1` holds ten thousand connections and is strict about the time that the worst one stood
//! still; else a thousand, and time is not judged.

mod lan;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lan::{Lan, eventually, host4, ingress, run};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{interval, sleep, timeout},
};
use weft_types::{BackendId, netstate::EndpointPhase, service::Protocol};

/// The address that moves, of each family.
const FLOATING4: &str = "192.0.2.200";
const FLOATING6: &str = "2001:db8::200";
/// How long a connection may stand still before it counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What all connections have lived through.
#[derive(Default)]
struct Seen {
    open: AtomicUsize,
    /// Words answered, or received of a download, of each connection since the counters were last set to zero.
    words: Vec<AtomicUsize>,
    worst: Mutex<Duration>,
    failures: Mutex<Vec<String>>,
    enough: AtomicBool,
}

impl Seen {
    fn waited(&self, time: Duration) {
        if let Ok(mut worst) = self.worst.lock() {
            *worst = (*worst).max(time);
        }
    }

    fn of(count: usize) -> Self {
        Self {
            words: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            ..Self::default()
        }
    }

    /// Connections that have said less than twice.
    fn silent(&self) -> Vec<usize> {
        let words = self.words.iter().map(|words| words.load(Ordering::Relaxed));
        let silent = words.enumerate().filter(|(_, words)| *words < 2);
        silent.map(|(number, _)| number).collect()
    }

    fn failures(&self) -> Vec<String> {
        self.failures
            .lock()
            .map(|list| list.clone())
            .unwrap_or_default()
    }
}

/// Runs a future in a namespace, on a thread of its own with a runtime of its own.
fn detach<F>(lan: &Lan, name: &str, work: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    let path = lan.netns_path(name);
    let name = name.to_owned();
    std::thread::spawn(move || {
        let run = || -> Result<()> {
            nix::sched::setns(
                std::fs::File::open(&path)?,
                nix::sched::CloneFlags::CLONE_NEWNET,
            )?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(work())
        };
        if let Err(error) = run() {
            eprintln!("in {name}: {error:#}");
        }
    });
}

/// Serves words: back what comes (`e`), or one every `pause` (`d`).
async fn serve(pause: Duration) -> Result<()> {
    let listener = TcpListener::bind("[::]:80").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // Clients end by going away.
            let _ = answer(stream, pause).await;
        });
    }
}

async fn answer(mut stream: TcpStream, pause: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut word = [0; 8];
    let kind = stream.read_u8().await?;
    let mut ticks = interval(pause);
    loop {
        if kind == b'e' {
            stream.read_exact(&mut word).await?;
        } else {
            ticks.tick().await;
        }
        stream.write_all(&word).await?;
    }
}

/// Where a process of this very program is to serve instead of testing, and how.
const SERVE_IN: &str = "WEFT_SERVE_IN";
const SERVE_PAUSE: &str = "WEFT_SERVE_PAUSE_MS";

/// A server in a process of its own: no process may have as many files as both ends of all connections.
struct Server(std::process::Child);

impl Server {
    fn start(lan: &Lan, name: &str, pause: Duration) -> Result<Self> {
        let child = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", "serves_where_it_is_asked_to"])
            .env(SERVE_IN, lan.netns_path(name))
            .env(SERVE_PAUSE, pause.as_millis().to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .context("start a server")?;
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test: what [`Server`] starts.
#[test]
fn serves_where_it_is_asked_to() -> Result<()> {
    let (Some(netns), Ok(pause)) = (std::env::var_os(SERVE_IN), std::env::var(SERVE_PAUSE)) else {
        return Ok(());
    };
    raise_limit()?;
    let pause = Duration::from_millis(pause.parse()?);
    nix::sched::setns(
        std::fs::File::open(netns)?,
        nix::sched::CloneFlags::CLONE_NEWNET,
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(pause))
}

/// One connection, until it is enough: talks, or only listens.
async fn hold(to: SocketAddr, number: usize, pause: Duration, seen: &Seen) -> Result<()> {
    let talks = number.is_multiple_of(2);
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    let mut stream = timeout(STUCK, socket.connect(to))
        .await
        .context("connect")??;
    stream.set_nodelay(true)?;
    // Spread over the pause, so that some speak at any moment.
    sleep(pause * (number % 100) as u32 / 100).await;
    stream.write_u8(if talks { b'e' } else { b'd' }).await?;
    let mut word = [0; 8];
    let mut first = true;
    while !seen.enough.load(Ordering::Relaxed) {
        if talks {
            sleep(pause).await;
            stream.write_all(b"a word..").await?;
        }
        let begun = Instant::now();
        timeout(STUCK, stream.read_exact(&mut word))
            .await
            .context("it is stuck")??;
        // A download's words come by themselves: only what it waits beyond them counts.
        let usual = if talks { Duration::ZERO } else { pause };
        if std::mem::replace(&mut first, false) {
            seen.open.fetch_add(1, Ordering::Relaxed);
        } else {
            seen.waited(begun.elapsed().saturating_sub(usual));
        }
        seen.words[number].fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Opens all connections, some at a time, and holds them.
async fn clients(to: SocketAddr, count: usize, pause: Duration, seen: Arc<Seen>) -> Result<()> {
    let mut all = tokio::task::JoinSet::new();
    for number in 0..count {
        let shared = Arc::clone(&seen);
        all.spawn(async move {
            if let Err(error) = hold(to, number, pause, &shared).await
                && let Ok(mut failures) = shared.failures.lock()
            {
                let kind = if number % 2 == 0 {
                    "talking"
                } else {
                    "download"
                };
                failures.push(format!("{kind} connection {number}: {error:#}"));
            }
        });
        while number + 1 > seen.open.load(Ordering::Relaxed) + 1000 && seen.failures().is_empty() {
            sleep(Duration::from_millis(2)).await;
        }
    }
    while all.join_next().await.is_some() {}
    Ok(())
}

/// As many open files as may be.
fn raise_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

/// One family at a time: the time that a connection stands still is judged.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_survive_their_ingress_address_moving_and_its_host_dying() -> Result<()> {
    let _alone = ONE.lock().await;
    survive(FLOATING4.parse()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_connections_survive_their_ingress_address_moving_and_its_host_dying() -> Result<()> {
    let _alone = ONE.lock().await;
    survive(FLOATING6.parse()?).await
}

async fn survive(floating: IpAddr) -> Result<()> {
    let is_full = std::env::var_os("WEFT_FULL").is_some();
    let (count, pause) = if is_full {
        (10_000, Duration::from_secs(2))
    } else {
        (1_000, Duration::from_millis(500))
    };
    raise_limit()?;
    let mut lan = Lan::new(3)?;
    lan.start_all().await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80)]);
    let mut servers = Vec::new();
    for (number, node, addresses) in [
        (1, 2, ["10.0.0.5/24", "fd00:1::5/64"]),
        (2, 3, ["10.0.0.6/24", "fd00:1::6/64"]),
        (3, 2, ["10.0.0.7/24", "fd00:1::7/64"]),
    ] {
        lan.add_task(number, Some(web), node, &[(ingress(), &addresses)])
            .await?;
        servers.push(Server::start(&lan, &format!("t{number}"), pause)?);
    }
    move_address(&mut lan, 1, floating).await?;
    let to = SocketAddr::new(floating, 8000);
    // Servers start one after the other: so many connections in a row are not let in by some of them alone.
    eventually("all tasks of the service to let in", async || {
        let all = lan.within("c", move || {
            (0..60).try_for_each(|_| Ok(std::net::TcpStream::connect(to).map(drop)?))
        });
        Ok(all.is_ok())
    })
    .await?;
    let seen = Arc::new(Seen::of(count));
    let shared = Arc::clone(&seen);
    detach(&lan, "c", move || clients(to, count, pause, shared));
    let deadline = Instant::now() + Duration::from_secs(120);
    while seen.open.load(Ordering::Relaxed) < count {
        let failures = seen.failures();
        ensure!(
            failures.is_empty(),
            "before anything happened: {:?}",
            failures.first()
        );
        if Instant::now() > deadline {
            bail!(
                "only {} of {count} connections are open",
                seen.open.load(Ordering::Relaxed)
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
    *seen
        .worst
        .lock()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))? = Duration::ZERO;

    let through = async |host: u32| -> Result<usize> {
        let mut rows = lan.hosts[&2].flow_rows().await?;
        rows.extend(lan.hosts[&3].flow_rows().await?);
        let ingress = Some(host4(host).into());
        Ok(rows.iter().filter(|row| row.ingress == ingress).count())
    };
    let before = through(1).await?;
    ensure!(
        before >= count,
        "only {before} of {count} flows came in by host 1"
    );

    // The host is cut off, the address moves, and a task leaves the ring.
    let (switch, port) = (lan.namespace("s"), lan.switch_port("n1"));
    run(&format!("ip -n {switch} link set {port} nomaster"))?;
    let leaving = lan
        .state
        .endpoints
        .get_mut(&BackendId(30))
        .context("the third task")?;
    leaving.phase = EndpointPhase::Draining;
    // No manager says that it is dead: the others' own probes find out.
    lan.hosts.remove(&1);
    move_address(&mut lan, 3, floating).await?;

    // Every connection has to say something twice after that, downloads too.
    for words in &seen.words {
        words.store(0, Ordering::Relaxed);
    }
    let deadline = Instant::now() + STUCK + Duration::from_secs(20);
    while !seen.silent().is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    let silent = seen.silent();
    ensure!(
        silent.is_empty(),
        "{} of {count} say nothing any more: {:?}, {:?}\n{}",
        silent.len(),
        &silent[..silent.len().min(10)],
        seen.failures().first(),
        lan.report()
    );
    sleep(3 * pause).await;
    seen.enough.store(true, Ordering::Relaxed);
    sleep(2 * pause).await;
    let failures = seen.failures();
    let worst = seen.worst.lock().map(|worst| *worst).unwrap_or(STUCK);
    println!(
        "{count} connections, {} lost, worst stall {worst:?}",
        failures.len()
    );
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for failure in &failures {
        *kinds
            .entry(failure.split(": ").nth(1).unwrap_or(""))
            .or_default() += 1;
    }
    ensure!(
        failures.is_empty(),
        "{} of {count} lost: {kinds:?}, {}\n{}",
        failures.len(),
        failures[0],
        lan.report()
    );
    ensure!(worst < STUCK, "worst stall {worst:?}");
    if is_full {
        ensure!(worst < Duration::from_millis(1500), "worst stall {worst:?}");
    }
    Ok(())
}

/// Gives the floating address to a host, tells the cluster, and then the client's link. A host whose data
/// plane has not seen its new address yet (within two seconds it does by itself) would leave packets to
/// its own stack, which refuses connections that it does not know.
async fn move_address(lan: &mut Lan, index: u32, floating: IpAddr) -> Result<()> {
    let (host, client) = (lan.namespace(&format!("n{index}")), lan.namespace("c"));
    let (family, one) = if floating.is_ipv4() {
        ("-4", "32 dev eth0")
    } else {
        ("-6", "128 dev eth0 nodad")
    };
    run(&format!("ip -n {host} addr add {floating}/{one}"))?;
    for node in lan.state.nodes.values_mut() {
        if node.index == index {
            node.addresses.insert(floating);
        } else {
            node.addresses.remove(&floating);
        }
    }
    lan.apply().await?;
    run(&format!(
        "mac=$(ip -n {host} -o link show eth0 | sed 's/.*link.ether \\([^ ]*\\) .*/\\1/') && \
         ip {family} -n {client} neigh replace {floating} lladdr $mac dev eth0 nud reachable"
    ))
    .map(drop)
}
