//! The root certificate is replaced while everybody stays connected.

mod cluster;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cluster::*;
use tokio_util::sync::CancellationToken;
use weft_control::runtime::Manager;
use weft_proto::{
    ControlApi, ControlRequest, dial, dispatcher::ManagerMessage, identity::Credentials,
    token::JoinToken,
};
use weft_types::secret::{Base64, ConfigSpec};

/// Ways by which a manager is written to.
const WAYS: [&str; 3] = ["here", "stands", "anew"];

/// Writes by each of [`WAYS`] until it is stopped: in the manager's own process, over a connection
/// that stands, and over one that is made for each write with the certificate of the moment.
struct Writers {
    stop: CancellationToken,
    /// Acknowledged, by way.
    done: [Arc<AtomicUsize>; 3],
    work: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    async fn start(manager: &Arc<Manager>, host: &Host) -> Self {
        let stop = CancellationToken::new();
        let done: [Arc<AtomicUsize>; 3] = Default::default();
        let credentials = manager.credentials();
        let standing = connected(host.addr, &credentials).await;
        let mut work = Vec::new();
        for (way, done) in WAYS.into_iter().zip(&done) {
            let (stop, done, manager) = (stop.clone(), Arc::clone(done), Arc::clone(manager));
            let (standing, credentials, addr) = (standing.clone(), credentials.clone(), host.addr);
            work.push(tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let number = done.load(Ordering::Relaxed);
                    let config = ConfigSpec {
                        name: format!("{way}-{number}"),
                        data: Base64(b"text".to_vec()),
                        ..ConfigSpec::default()
                    };
                    let write = ControlRequest::CreateConfig(Box::new(config));
                    let channel = match way {
                        "here" => None,
                        "stands" => Some(standing.clone()),
                        _ => Some(connected(addr, &credentials).await),
                    };
                    let written = match channel {
                        None => manager.call(write).await,
                        Some(channel) => {
                            let answer = dial::control(channel).call(write).await;
                            answer.expect("an answer").into_inner()
                        }
                    };
                    written.unwrap_or_else(|error| panic!("{way}: {error}"));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self { stop, done, work }
    }

    fn done(&self) -> [usize; 3] {
        self.done
            .each_ref()
            .map(|done| done.load(Ordering::Relaxed))
    }

    /// Waits until each has written once more than now.
    async fn go_on(&self) {
        let before = self.done();
        eventually("each way to write once more", || async {
            let mut both = self.done().into_iter().zip(before);
            both.all(|(now, before)| now > before).then_some(())
        })
        .await;
    }

    /// Stops, and finds all that was acknowledged.
    async fn end(self, manager: &Manager) {
        self.stop.cancel();
        for work in self.work {
            work.await.expect("each write was acknowledged");
        }
        let there = configs(manager).await;
        let done = self.done.map(|done| done.load(Ordering::Relaxed));
        assert_eq!(there.len(), done.iter().sum::<usize>(), "{done:?}");
    }
}

/// What an agent does when it is told of roots and roles.
async fn obey(agent: &mut Agent, host: &Host, at: std::net::SocketAddr, credentials: &Credentials) {
    let renewed = agent
        .until(
            "roots to trust, and the wish for a new certificate",
            |_, message| match message {
                ManagerMessage::TrustRoot(roots) => {
                    let mut identity = (*credentials.identity()).clone();
                    identity.trust_root.clone_from(roots);
                    credentials.swap(identity).expect("usable");
                    None
                }
                ManagerMessage::Role(_) => Some(()),
                _ => None,
            },
        )
        .await;
    let () = renewed;
    let identity = dial::renew(at, credentials)
        .await
        .expect("a new certificate");
    identity.save(host.path()).expect("saved");
    credentials.swap(identity).expect("usable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_is_replaced_under_open_sessions_and_load() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let before = cluster_of(&manager).await;
    let worker = Host::new();
    let worker_credentials = worker.join(host.addr, &before.join_tokens.worker).await;
    let manager_credentials = manager.credentials();
    let mut first = Agent::open(host.addr, &manager_credentials, "n1").await;
    first.keep_alive();
    let mut second = Agent::open(host.addr, &worker_credentials, "n2").await;
    second.keep_alive();
    let writers = Writers::start(&manager, &host).await;
    writers.go_on().await;

    let mut spec = before.spec.clone();
    spec.ca_config.force_rotate += 1;
    // Sessions and commits move the version: take the newest until it fits.
    eventually("the rotation to be asked for", || async {
        let version = cluster_of(&manager).await.meta.version.index;
        let update = ControlRequest::UpdateCluster {
            version,
            spec: Box::new(spec.clone()),
            rotate_worker_token: false,
            rotate_manager_token: false,
            rotate_unlock_key: false,
        };
        manager.call(update).await.ok()
    })
    .await;
    // The worker first: the manager then still shows its old certificate to it.
    obey(&mut second, &worker, host.addr, &worker_credentials).await;
    assert!(cluster_of(&manager).await.root_rotation_in_progress);
    writers.go_on().await;
    obey(&mut first, &host, host.addr, &manager_credentials).await;

    let after = eventually("the rotation to end", || async {
        let cluster = cluster_of(&manager).await;
        (!cluster.root_rotation_in_progress).then_some(cluster)
    })
    .await;
    writers.go_on().await;
    writers.end(&manager).await;
    assert_ne!(after.tls_info, before.tls_info);
    assert_ne!(after.join_tokens, before.join_tokens);
    let token: JoinToken = after.join_tokens.worker.parse().expect("a token");
    assert!(token.knows(&after.tls_info.trust_root));
    for agent in [&mut first, &mut second] {
        let root = after.tls_info.trust_root.clone();
        agent
            .until("the new root alone", move |_, message| {
                matches!(message, ManagerMessage::TrustRoot(roots) if *roots == root).then_some(())
            })
            .await;
    }

    // Who knows only the new root, and who still trusts both, reach the manager.
    let channel = dial::connect(host.addr, &worker_credentials).await;
    assert!(channel.is_ok(), "{channel:?}");
    let third = Host::new();
    third.join(host.addr, &after.join_tokens.worker).await;
    manager.shutdown().await;
}
