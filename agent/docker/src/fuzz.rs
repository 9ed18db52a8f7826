//! Requests that nobody meant, put to the door itself: no sockets between, so that millions can be.
//!
//! The test run asks some thousands; `WEFT_FUZZ=10000000` as many. `WEFT_FUZZ_SEED` begins elsewhere.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use tokio::sync::watch;

use crate::{door::Door, engine::Engine};
use cluster::FakeNode;
use engine::FakeEngine;
use inputs::{Chance, Input, seeds};

#[expect(dead_code, reason = "the tests over sockets use all of it")]
#[path = "../tests/door/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "the tests over sockets use all of it")]
#[path = "../tests/door/engine.rs"]
mod engine;
#[path = "../tests/door/inputs.rs"]
mod inputs;
#[path = "../tests/door/store.rs"]
mod store;

/// Inputs put to one world before it is made anew, so that it does not grow.
const PER_WORLD: u64 = 500;

struct World {
    node: Arc<FakeNode>,
    door: Door,
    _running: watch::Sender<()>,
}

impl World {
    fn new(engine: &std::path::Path, manager: bool) -> Self {
        let node = if manager {
            FakeNode::manager()
        } else {
            FakeNode::worker()
        };
        let (running, stop) = watch::channel(());
        let shared: Arc<dyn crate::NodeControl> = Arc::<FakeNode>::clone(&node);
        Self {
            door: Door::new(Engine::at(engine), shared, stop),
            node,
            _running: running,
        }
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
        let before = self.node.cluster.state().applied;
        let Some((status, answer)) = self.ask(&method, &input.target, &input.body).await else {
            return 0;
        };
        assert!((200..600).contains(&status), "{status}");
        let applied = self.node.cluster.state().applied - before;
        if !input.target.contains("/prune") {
            assert!(applied <= 1, "{applied} changes");
        }
        assert!(
            status < 400 || applied == 0,
            "refused with {status} and applied"
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
        self.node.cluster.state().requests.clear();
        self.node.asked.lock().unwrap().clear();
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
}

async fn run(first: u64, count: u64) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let _engine = FakeEngine::at(&socket);
    let seeds = seeds();
    let mut world = World::new(&socket, true);
    for seed in &seeds {
        world.put(seed).await;
    }
    let mut accepted = 0;
    for number in first..first + count {
        if number % PER_WORLD == 0 {
            world = World::new(&socket, number % (5 * PER_WORLD) != 0);
        }
        // Each input from its own number, so that one alone can be asked again.
        let mut chance = Chance(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let input = chance.bend(&seeds);
        let put = AssertUnwindSafe(world.put(&input)).catch_unwind();
        match tokio::time::timeout(Duration::from_secs(60), put).await {
            Ok(Ok(status)) => accepted += u64::from((200..300).contains(&status)),
            Ok(Err(panic)) => {
                eprintln!("input {number}: {input:?}");
                std::panic::resume_unwind(panic);
            }
            Err(_) => panic!("input {number} is not answered: {input:?}"),
        }
    }
    // Inputs that are all refused at the first look would prove little.
    assert!(accepted * 10 > count, "only {accepted} of {count} accepted");
}

#[test]
fn odd_requests_are_answered_whole_or_not_at_all() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let count = number("WEFT_FUZZ").unwrap_or(20_000);
    let first = number("WEFT_FUZZ_SEED").unwrap_or(0);
    let threads = 2;
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let share = count / threads;
                runtime.block_on(run(first + thread * share, share));
            })
        })
        .collect();
    for worker in workers {
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
