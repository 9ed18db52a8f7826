//! One manager: a cluster made, joined, kept over a crash; tokens refused.

mod cluster;

use cluster::*;
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest, ErrorCode,
    dial::{self, DialError, JoinWish},
    dispatcher::ManagerMessage,
    token::JoinToken,
};
use weft_types::{
    network::NetworkSpec,
    node::{Availability, NodeState, Role},
};

fn network(name: &str) -> ControlRequest {
    let mut spec = NetworkSpec {
        name: name.to_owned(),
        scope: "swarm".to_owned(),
        ..NetworkSpec::default()
    };
    spec.driver_configuration.name = "overlay".to_owned();
    ControlRequest::CreateNetwork(Box::new(spec))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let cluster = cluster_of(&manager).await;
    assert_eq!(cluster.data_path_port, 4789);
    let mut made = Vec::new();
    for number in 0..20 {
        match manager.call(network(&format!("net{number}"))).await {
            Ok(ControlReply::Created(id)) => made.push(id),
            other => panic!("not created: {other:?}"),
        }
    }
    manager.shutdown().await;

    let manager = host.restart().await;
    let again = cluster_of(&manager).await;
    assert_eq!(again.join_tokens, cluster.join_tokens);
    let Ok(ControlReply::Networks(networks)) = manager.call(ControlRequest::ListNetworks).await
    else {
        panic!("no networks");
    };
    for id in made {
        let network = networks.iter().find(|network| network.id.as_str() == id);
        let network = network.unwrap_or_else(|| panic!("network {id} is lost"));
        assert!(network.vni.is_some(), "network {id} lost its VNI");
    }
    assert!(networks.iter().any(|network| network.spec.ingress));
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_object_is_still_once_its_node_was_welcomed() {
    let host = Host::new();
    let (manager, mut agent) = with_agent(&host).await;
    let first = agent.next().await;
    assert!(
        matches!(first, Some(ManagerMessage::Welcome { .. })),
        "{first:?}"
    );
    let welcomed = nodes(&manager).await;
    // Whatever the loops still had to do comes before what is written now, one after the other.
    for number in 0..5 {
        let made = manager.call(network(&format!("net{number}"))).await;
        assert!(made.is_ok(), "{made:?}");
        eventually("the network to be allocated", || async {
            match manager.call(ControlRequest::ListNetworks).await {
                Ok(ControlReply::Networks(networks)) => networks
                    .iter()
                    .all(|network| network.vni.is_some())
                    .then_some(()),
                other => panic!("no networks: {other:?}"),
            }
        })
        .await;
    }
    let later = nodes(&manager).await;
    assert_eq!(
        later[0].meta, welcomed[0].meta,
        "the node was written again"
    );
    // So a client that looks and then changes what it saw is not refused.
    let mut spec = welcomed[0].spec.clone();
    spec.labels.insert("zone".to_owned(), "a".to_owned());
    let update = ControlRequest::UpdateNode {
        node: welcomed[0].id.to_string(),
        version: welcomed[0].meta.version.index,
        spec,
    };
    manager.call(update).await.expect("in sequence");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_joins_and_is_told_the_network() {
    let host = Host::new();
    let (manager, credentials) = with_worker(&host).await;
    assert_eq!(credentials.identity().role, Role::Worker);
    let mut agent = Agent::open(host.addr, &credentials, "n2").await;
    let beats = agent.keep_alive();
    let first = agent.next().await;
    assert!(
        matches!(first, Some(ManagerMessage::Welcome { .. })),
        "{first:?}"
    );
    agent
        .until("a network state with the ingress network", |agent, _| {
            agent
                .net
                .networks
                .values()
                .any(|network| network.ingress && network.subnets.len() == 2)
                .then_some(())
        })
        .await;
    agent
        .until("the complete assignments", |_, message| match message {
            ManagerMessage::Assignments(set) => set.complete.then_some(()),
            _ => None,
        })
        .await;
    let listed = nodes(&manager).await;
    let node = listed.iter().find(|node| node.id == agent.node);
    let node = node.expect("the worker is listed");
    assert_eq!(node.status.state, NodeState::Ready);
    assert_eq!(node.status.addr, "127.0.0.1");
    assert_eq!(node.index, 2);

    // Silent from here on: it is down within its grace.
    beats.abort();
    eventually("the silent node to be down", || async {
        let listed = nodes(&manager).await;
        let node = listed.iter().find(|node| node.id == agent.node)?;
        (node.status.state == NodeState::Down).then_some(())
    })
    .await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_gets_addresses_for_its_own_containers_and_nothing_else() {
    let host = Host::new();
    let (manager, credentials) = with_worker(&host).await;
    let mut spec = NetworkSpec {
        name: "front".to_owned(),
        scope: "swarm".to_owned(),
        attachable: true,
        ..NetworkSpec::default()
    };
    spec.driver_configuration.name = "overlay".to_owned();
    let made = manager.call(ControlRequest::CreateNetwork(Box::new(spec)));
    made.await.expect("a network");
    let mut client = dial::dispatcher(connected(host.addr, &credentials).await);
    let attach = |node, network: &str| ControlRequest::AttachNetwork {
        node,
        container_id: "ab".repeat(32),
        container_name: "mine".to_owned(),
        network: network.to_owned(),
        aliases: vec!["other".to_owned()],
        addresses: vec!["10.0.1.77".parse().expect("an address")],
    };
    let own = credentials.identity().node;
    let reply = client.ask(attach(own, "front")).await;
    let Ok(ControlReply::Tasks(tasks)) = reply.expect("an answer").into_inner() else {
        panic!("no address was given");
    };
    assert_eq!(
        tasks[0].networks_attachments[0].addresses[0].to_string(),
        "10.0.1.77/24"
    );
    let twice = client.ask(attach(own, "front")).await;
    let twice = twice.expect("an answer").into_inner();
    assert_eq!(
        twice.map_err(|error| error.code).expect_err("a refusal"),
        ErrorCode::AlreadyExists
    );
    let manager_node = manager.credentials().identity().node;
    for request in [
        attach(manager_node, "front"),
        ControlRequest::ListSecrets,
        ControlRequest::GetUnlockKey,
        ControlRequest::DetachNetwork(weft_types::TaskId::numbered(9)),
    ] {
        let refusal = client.ask(request).await.expect_err("a refusal");
        assert_eq!(refusal.code(), tonic::Code::PermissionDenied, "{refusal}");
    }
    let detach = ControlRequest::DetachNetwork(tasks[0].id);
    let reply = client.ask(detach).await.expect("an answer").into_inner();
    assert_eq!(reply, Ok(ControlReply::Done));
    manager.shutdown().await;
}

async fn refused(host: &Host, token: &str) -> DialError {
    let wish = JoinWish {
        token: token.to_owned(),
        availability: Availability::Active,
        advertise_addr: String::new(),
    };
    dial::join(host.addr, &wish).await.expect_err("a refusal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_tokens_are_refused_and_change_nothing() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let cluster = cluster_of(&manager).await;
    let before = settled(&manager).await;
    let token = &cluster.join_tokens.worker;

    for text in [
        "",
        "SWMTKN-1-",
        &token[..token.len() - 1],
        "hello",
        &format!("{token}x"),
    ] {
        let error = refused(&host, text).await;
        assert_eq!(
            ControlError::from(error).message,
            "invalid join token",
            "{text:?}"
        );
    }

    let wrong_secret = JoinToken::new(&cluster.tls_info.trust_root, [1; 16]).to_string();
    let error = ControlError::from(refused(&host, &wrong_secret).await);
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert_eq!(
        error.message,
        "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"
    );

    let other = JoinToken::new("another cluster's root", [1; 16]);
    let error = ControlError::from(refused(&host, &other.to_string()).await);
    let hex = other.digest_hex();
    assert_eq!(
        error.message,
        format!("remote CA does not match fingerprint. Expected: {hex}")
    );

    assert_eq!(settled(&manager).await, before);
    manager.shutdown().await;
}
