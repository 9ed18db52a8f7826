//! Certificates are renewed before they end, under open sessions.

mod cluster;

use std::time::{Duration, Instant};

use cluster::*;
use weft_control::runtime::Manager;
use weft_proto::{
    ControlApi, ControlReply, ControlRequest, dial, dispatcher::NodeMessage, identity::Credentials,
};
use weft_types::network::NetworkSpec;

/// How long certificates are valid here.
const VALIDITY: Duration = Duration::from_secs(10);

fn network(name: &str) -> ControlRequest {
    let mut spec = NetworkSpec {
        name: name.to_owned(),
        ..NetworkSpec::default()
    };
    spec.driver_configuration.name = "overlay".to_owned();
    ControlRequest::CreateNetwork(Box::new(spec))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_the_certificate_it_was_opened_with() {
    log_to_stderr();
    let host = Host::new();
    let (config, mut init) = host.to_init();
    init.spec.ca_config.node_cert_expiry =
        i64::try_from(VALIDITY.as_nanos()).expect("a few seconds");
    let manager = Manager::bootstrap(config, init).await.expect("init");
    let token = cluster_of(&manager).await.join_tokens.worker;
    let worker = Host::new();
    let credentials = worker.join(host.addr, &token).await;
    let issued = Instant::now();
    let old = (*credentials.identity()).clone();
    let agent = Agent::at_work(host.addr, &credentials, "n2").await;

    // Both are renewed in time, as their agents do it, into credentials that are in use.
    for (place, held) in [
        (&host, manager.credentials()),
        (&worker, credentials.clone()),
    ] {
        let identity = dial::renew(host.addr, &held).await.expect("renewed");
        assert_ne!(identity.certificate, held.identity().certificate);
        identity.save(place.path()).expect("saved");
        held.swap(identity).expect("usable");
    }
    let renewed = Instant::now();

    // The first certificates end; the session does not.
    let end = issued + VALIDITY + Duration::from_secs(1);
    tokio::time::sleep(end.saturating_duration_since(Instant::now())).await;
    let made = manager.call(network("later")).await;
    assert!(matches!(made, Ok(ControlReply::Created(_))), "{made:?}");
    // Still taken: a report changes what the manager knows of the node.
    let mut told = description("renamed");
    told.resources.nano_cpus = 1;
    agent
        .say
        .send(NodeMessage::Description(Box::new(told)))
        .await
        .expect("the session stands");
    eventually("the manager to hear it", || async {
        let nodes = nodes(&manager).await;
        nodes
            .iter()
            .any(|node| node.description.hostname == "renamed")
            .then_some(())
    })
    .await;

    // Who shows the old one is refused by now; the new one opens.
    let stale = Credentials::new(old).expect("it was good once");
    let refused = dial::renew(host.addr, &stale).await;
    assert!(refused.is_err(), "an ended certificate was taken");
    if renewed.elapsed() < VALIDITY {
        dial::connect(host.addr, &credentials)
            .await
            .expect("the renewed certificate opens");
    }
    manager.shutdown().await;
}
