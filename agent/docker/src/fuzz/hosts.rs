//! Requests that nobody meant, put to the cluster socket: over real connections, since most of them are handed on.
//!
//! Of the three hosts one is this one, one is reached over a tunnel (and is this one again), one does not answer.
//! `WEFT_FUZZ_HOSTS_ROUNDS` asks more than the test run does.

use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle};

use super::*;
use crate::{ClusterConfig, DoorConfig, Policy, serve, serve_cluster};

/// Inputs put to one world.
const PER_WORLD: u64 = 500;

/// Front door and cluster socket of one host; gone when dropped.
struct Hosts {
    socket: std::path::PathBuf,
    _engine: FakeEngine,
    _stop: [oneshot::Sender<()>; 2],
    tasks: [JoinHandle<()>; 2],
    _folder: tempfile::TempDir,
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn opens(socket: &Path) {
    let begun = Instant::now();
    while UnixStream::connect(socket).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "{} opens", socket.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Hosts {
    async fn new(number: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let (door, socket, engine_socket) = (place("door"), place("cluster"), place("engine"));
        let engine = FakeEngine::at(&engine_socket);
        let managed = Managed::new(number).beyond(&door);
        let node: Arc<dyn NodeControl> = Arc::new(Node {
            fake: FakeNode::manager(),
            managed: Some(Arc::new(managed)),
        });
        let config = DoorConfig {
            socket: door.clone(),
            group: Some("0".to_owned()),
            engine_socket,
            tcp: vec![],
        };
        let (stop, stopped) = oneshot::channel();
        let served = serve(config, Arc::clone(&node), async {
            // Also when the hosts are dropped.
            let _ = stopped.await;
        });
        let one = tokio::spawn(async { served.await.unwrap() });
        opens(&door).await;
        let config = ClusterConfig {
            socket: socket.clone(),
            group: Some("0".to_owned()),
            door,
            policy: Policy::default(),
        };
        let (stop_cluster, stopped) = oneshot::channel();
        let served = serve_cluster(config, node, async {
            let _ = stopped.await;
        });
        let other = tokio::spawn(async { served.await.unwrap() });
        opens(&socket).await;
        Self {
            socket,
            _engine: engine,
            _stop: [stop, stop_cluster],
            tasks: [one, other],
            _folder: folder,
        }
    }

    /// Puts `input` on a connection of its own; its status, none where no client can send it.
    async fn put(&self, input: &Input) -> Option<u16> {
        let request = Request::builder()
            .method(Method::from_bytes(input.method.as_bytes()).unwrap())
            .uri(&input.target)
            .header("Host", "docker")
            .body(Full::new(Bytes::from(input.body.clone())))
            .ok()?;
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        assert!((200..600).contains(&status) || status == 101, "{status}");
        if status >= 400 && input.method != "HEAD" {
            let body = Limited::new(response.into_body(), 64 << 20).collect().await;
            let text = body.unwrap().to_bytes();
            let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
            assert!(
                answer["message"].is_string() || text.is_empty() || status == 404,
                "{status} {text:?}"
            );
        }
        connection.abort();
        Some(status)
    }
}

#[test]
fn odd_requests_to_all_hosts_are_answered() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let count = number("WEFT_FUZZ_HOSTS_ROUNDS").unwrap_or(600);
    let first = number("WEFT_FUZZ_SEED").unwrap_or(0);
    let seeds = inputs::read(include_str!("hosts.json"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (asked, accepted, slowest) = runtime.block_on(async {
        let (mut asked, mut accepted, mut slowest) = (0, 0, Duration::ZERO);
        let mut hosts = Hosts::new(0).await;
        for number in first..first + count {
            if number.is_multiple_of(PER_WORLD) {
                hosts = Hosts::new(number / PER_WORLD).await;
            }
            let mut chance = Chance(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let seed = chance.below(seeds.len());
            let input = chance.bend(&seeds[seed]);
            let begun = Instant::now();
            let put = AssertUnwindSafe(hosts.put(&input)).catch_unwind();
            let status = match tokio::time::timeout(PATIENCE, put).await {
                Ok(Ok(status)) => status,
                Ok(Err(_)) => panic!("input {number} is answered badly: {input:?}"),
                Err(_) => panic!("input {number} is not answered: {input:?}"),
            };
            let Some(status) = status else { continue };
            asked += 1;
            accepted += u64::from((200..300).contains(&status));
            slowest = slowest.max(begun.elapsed());
        }
        (asked, accepted, slowest)
    });
    println!(
        "{asked} inputs to the cluster socket: {accepted} accepted, the slowest took {slowest:.1?}"
    );
    assert!(accepted * 10 > asked, "only {accepted} of {asked} accepted");
}
