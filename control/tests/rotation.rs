//! The root certificate is replaced while everybody stays connected.

mod cluster;

use cluster::*;
use weft_proto::{
    ControlApi, ControlRequest, dial, dispatcher::ManagerMessage, identity::Credentials,
    token::JoinToken,
};

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
async fn the_root_is_replaced_under_open_sessions() {
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
    obey(&mut first, &host, host.addr, &manager_credentials).await;

    let after = eventually("the rotation to end", || async {
        let cluster = cluster_of(&manager).await;
        (!cluster.root_rotation_in_progress).then_some(cluster)
    })
    .await;
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
