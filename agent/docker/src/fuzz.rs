//! Requests that nobody meant, put to the door itself: no sockets between, so that millions can be.
//!
//! Behind the door stands a manager's own store with its loops, so that what comes through is carried out, and an
//! input that breaks the manager is found as well. The test run asks some thousands; `WEFT_FUZZ_ROUNDS=10000000`
//! as many, on all cores. `WEFT_FUZZ_SEED` begins elsewhere; an input is made from its number alone.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use tokio::sync::watch;
use weft_proto::{ControlApi, ControlError};
use weft_types::{NodeId, TaskId, netstate::NetState};

use crate::{
    AttachRequest, DetachRequest, InitRequest, JoinRequest, LocalStatus, NodeControl, NotManager,
    door::Door, engine::Engine,
};
use cluster::FakeNode;
use engine::FakeEngine;
use inputs::{Chance, Input, seeds};
use managed::Managed;

#[expect(dead_code, reason = "the tests over sockets use all of it")]
#[path = "../tests/door/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "the tests over sockets use all of it")]
#[path = "../tests/door/engine.rs"]
mod engine;
mod hosts;
#[path = "../tests/door/inputs.rs"]
mod inputs;
mod managed;
#[path = "../tests/door/store.rs"]
mod store;

/// Inputs put to one world before it is made anew, so that it does not grow.
const PER_WORLD: u64 = 250;

/// No input may take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bad inputs after which a run ends: more of them say the same.
const ENOUGH: usize = 20;

/// A pretended node whose manager is a real one.
struct Node {
    fake: Arc<FakeNode>,
    managed: Option<Arc<Managed>>,
}

#[async_trait]
impl NodeControl for Node {
    async fn init(&self, request: InitRequest) -> Result<NodeId, ControlError> {
        self.fake.init(request).await
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ControlError> {
        self.fake.join(request).await
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        self.fake.leave(force).await
    }

    async fn unlock(&self, key: &str) -> Result<(), ControlError> {
        self.fake.unlock(key).await
    }

    async fn status(&self) -> LocalStatus {
        self.fake.status().await
    }

    async fn control(&self) -> Result<Arc<dyn ControlApi>, NotManager> {
        match &self.managed {
            Some(managed) => Ok(Arc::<Managed>::clone(managed)),
            None => self.fake.control().await,
        }
    }

    fn gate(&self) -> Option<std::path::PathBuf> {
        self.fake.gate()
    }

    async fn attach(&self, request: AttachRequest) -> Result<(), ControlError> {
        self.fake.attach(request).await
    }

    async fn detach(&self, _: DetachRequest) -> Result<(), ControlError> {
        Ok(())
    }

    async fn net_state(&self) -> Arc<NetState> {
        self.fake.net_state().await
    }

    async fn local_containers(&self) -> BTreeMap<TaskId, String> {
        self.fake.local_containers().await
    }
}

/// A manager that waits for its key.
fn locked() -> Arc<FakeNode> {
    let fake = FakeNode::inactive();
    fake.status.lock().unwrap().state = crate::LocalState::Locked;
    *fake.not_manager.lock().unwrap() = Some(NotManager::Locked);
    fake
}

struct World {
    node: Arc<Node>,
    door: Door,
    _running: watch::Sender<()>,
}

impl World {
    /// Mostly a manager; now and then a worker, a node of no swarm, or a locked one.
    fn new(engine: &std::path::Path, number: u64) -> Self {
        let (fake, managed) = match number % 8 {
            1 => (FakeNode::worker(), None),
            2 => (FakeNode::inactive(), None),
            3 => (locked(), None),
            _ => (FakeNode::manager(), Some(Arc::new(Managed::new(number)))),
        };
        let node = Arc::new(Node { fake, managed });
        let (running, stop) = watch::channel(());
        let shared: Arc<dyn NodeControl> = Arc::<Node>::clone(&node);
        Self {
            door: Door::new(Engine::at(engine), shared, stop),
            node,
            _running: running,
        }
    }

    fn written(&self) -> u64 {
        self.node
            .managed
            .as_ref()
            .map_or(0, |managed| managed.written())
    }

    /// Status and, of an answer that ends, the body.
    async fn ask(&self, method: &Method, target: &str, body: &str) -> Option<(u16, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .body(Full::new(Bytes::from(body.to_owned())))
            .ok()?;
        let response = self.door.answer(request, None).await;
        let status = response.status().as_u16();
        if target.contains("/events") || target.contains("/logs") {
            return Some((status, Value::Null));
        }
        let body = Limited::new(response.into_body(), 64 << 20).collect().await;
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        Some((status, serde_json::from_slice(&text).unwrap_or_default()))
    }

    /// Puts `input`, and checks that it was applied whole or not at all; answers its status.
    async fn put(&self, input: &Input) -> u16 {
        let method = Method::from_bytes(input.method.as_bytes()).unwrap();
        let before = self.written();
        let Some((status, answer)) = self.ask(&method, &input.target, &input.body).await else {
            return 0;
        };
        assert!((200..600).contains(&status), "{status}");
        let written = self.written() - before;
        if !input.target.contains("/prune") {
            assert!(written <= 1, "{written} transactions");
        }
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&method);
        assert!(
            written == 0 || (status < 400 && !reads),
            "answered {status} and applied"
        );
        if status >= 400 && method != Method::HEAD {
            assert!(
                answer["message"].is_string() || answer.is_null(),
                "{answer}"
            );
        }
        if let (201, Some(id)) = (status, answer["ID"].as_str())
            && input.target.contains("/services/")
        {
            self.comes_back(id).await;
        }
        self.node.fake.cluster.state().requests.clear();
        self.node.fake.asked.lock().unwrap().clear();
        status
    }

    /// What was accepted is shown so that it is accepted again, and shown the same.
    async fn comes_back(&self, id: &str) {
        let path = format!("/services/{id}");
        let (status, shown) = self.ask(&Method::GET, &path, "").await.unwrap();
        assert_eq!(status, 200, "{shown}");
        let update = format!("{path}/update?version={}", shown["Version"]["Index"]);
        let spec = shown["Spec"].to_string();
        let (status, answer) = self.ask(&Method::POST, &update, &spec).await.unwrap();
        assert_eq!(status, 200, "{answer}: {spec}");
        let (_, again) = self.ask(&Method::GET, &path, "").await.unwrap();
        assert_eq!(again["Spec"], shown["Spec"]);
    }

    fn is_crowded(&self) -> bool {
        let managed = self.node.managed.as_ref();
        managed.is_some_and(|managed| managed.view().task_count() > managed::CROWD)
    }

    /// `target` with the version that its object has now, where it names one.
    fn current(&self, target: &str) -> Option<String> {
        let view = self.node.managed.as_ref()?.view();
        let (path, query) = target.split_once('?')?;
        let mut words = path.trim_start_matches('/').split('/');
        let (kind, name) = (words.next()?, words.next()?);
        let meta = match kind {
            "services" => view.service_named(name)?.meta,
            "secrets" => view.secret_named(name)?.meta,
            "configs" => view.config_named(name)?.meta,
            "swarm" => view.cluster()?.meta,
            "nodes" => {
                let named = |node: &&Arc<weft_types::node::Node>| node.description.hostname == name;
                view.nodes().find(named)?.meta
            }
            _ => return None,
        };
        let (_, rest) = query.split_once('&').unwrap_or((query, ""));
        Some(format!("{path}?version={}&{rest}", meta.version.index))
    }
}

/// What many inputs came to.
#[derive(Debug, Default)]
struct Tally {
    asked: u64,
    accepted: u64,
    slowest: Duration,
    bad: Vec<String>,
    /// Asked and accepted of each of the seeds.
    seeds: BTreeMap<usize, (u64, u64)>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.asked += other.asked;
        self.accepted += other.accepted;
        self.slowest = self.slowest.max(other.slowest);
        self.bad.extend(other.bad);
        for (seed, (asked, accepted)) in other.seeds {
            let sum = self.seeds.entry(seed).or_default();
            *sum = (sum.0 + asked, sum.1 + accepted);
        }
    }
}

/// Puts the inputs from `first`, `count` of them.
async fn run(first: u64, count: u64) -> Tally {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let _engine = FakeEngine::at(&socket);
    let seeds = seeds();
    // What others speak of comes first.
    let mut beginning: Vec<&Input> = seeds
        .iter()
        .filter(|seed| ["/networks/create", "/services/create"].contains(&seed.target.as_str()))
        .collect();
    beginning.sort_by(|one, other| one.target.cmp(&other.target));
    let mut world = World::new(&socket, 0);
    let mut tally = Tally::default();
    for number in first..first + count {
        if number.is_multiple_of(PER_WORLD) || world.is_crowded() {
            world = World::new(&socket, number / PER_WORLD);
            for seed in &beginning {
                world.put(seed).await;
            }
        }
        // Each input from its own number, so that one alone can be asked again.
        let mut chance = Chance(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seed = chance.below(seeds.len());
        let mut input = chance.bend(&seeds[seed]);
        if input.target.contains("/update?version=")
            && chance.below(4) > 0
            && let Some(target) = world.current(&input.target)
        {
            input.target = target;
        }
        let begun = Instant::now();
        let put = AssertUnwindSafe(world.put(&input)).catch_unwind();
        match tokio::time::timeout(PATIENCE, put).await {
            Ok(Ok(status)) => {
                let accepted = u64::from((200..300).contains(&status));
                tally.accepted += accepted;
                let sum = tally.seeds.entry(seed).or_default();
                *sum = (sum.0 + 1, sum.1 + accepted);
            }
            Ok(Err(panic)) => {
                let why = panic
                    .downcast_ref::<String>()
                    .map_or("a panic", String::as_str);
                tally.bad.push(format!("input {number}: {why}: {input:?}"));
                world = World::new(&socket, number / PER_WORLD);
            }
            Err(_) => tally
                .bad
                .push(format!("input {number} is not answered: {input:?}")),
        }
        tally.asked += 1;
        tally.slowest = tally.slowest.max(begun.elapsed());
        if tally.bad.len() >= ENOUGH {
            break;
        }
    }
    tally
}

#[test]
fn odd_requests_are_answered_whole_or_not_at_all() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let count = number("WEFT_FUZZ_ROUNDS").unwrap_or(10_000);
    let first = number("WEFT_FUZZ_SEED").unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let begun = Instant::now();
    let whole = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let whole = &whole;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let share = count / threads;
                let tally = runtime.block_on(run(first + thread * share, share));
                whole
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(tally);
            });
        }
    });
    let tally = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (seed, (asked, accepted)) in &tally.seeds {
        let seed = &seeds()[*seed];
        println!("{asked:9} {accepted:9} {} {}", seed.method, seed.target);
    }
    let Tally {
        asked,
        accepted,
        slowest,
        bad,
        ..
    } = &tally;
    println!(
        "{asked} inputs in {:.0} s: {accepted} accepted, the slowest took {slowest:.1?}, {} answered badly",
        begun.elapsed().as_secs_f64(),
        bad.len()
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    // Inputs that are all refused at the first look would prove little.
    assert!(
        accepted * 10 > *asked,
        "only {accepted} of {asked} accepted"
    );
}
