//! Three managers: any of them serves, the leader may die, members come and go.

mod cluster;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cluster::*;
use weft_control::runtime::Manager;
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest,
    dial::{self, JoinWish},
    dispatcher::ManagerMessage,
    raft::{RaftCall, RaftMessage},
};
use weft_types::{
    container::ContainerSpec,
    network::NetworkSpec,
    node::{Availability, Reachability, Role},
    secret::{Base64, ConfigSpec},
    service::{EndpointSpec, NetworkAttachmentConfig, PortConfig, Replicated, ServiceSpec},
};

struct Trio {
    hosts: Vec<Host>,
    managers: Vec<Arc<Manager>>,
}

impl Trio {
    async fn up() -> Self {
        let hosts = vec![Host::new(), Host::new(), Host::new()];
        let first = hosts[0].init().await;
        let token = cluster_of(&first).await.join_tokens.manager;
        let second = hosts[1].join_manager(hosts[0].addr, &token).await;
        // Through a follower, which hands the request on.
        let third = hosts[2].join_manager(hosts[1].addr, &token).await;
        Self {
            hosts,
            managers: vec![first, second, third],
        }
    }

    async fn leader(&self) -> usize {
        leader_of(&self.managers).await
    }

    async fn down(self) {
        for manager in self.managers {
            manager.shutdown().await;
        }
    }
}

fn config(name: &str) -> ControlRequest {
    ControlRequest::CreateConfig(Box::new(ConfigSpec {
        name: name.to_owned(),
        data: Base64(b"text".to_vec()),
        ..ConfigSpec::default()
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manager_serves_and_a_dead_leader_costs_no_acknowledged_write() {
    log_to_stderr();
    let mut trio = Trio::up().await;
    for (number, manager) in trio.managers.iter().enumerate() {
        let made = manager.call(config(&format!("before-{number}"))).await;
        assert!(matches!(made, Ok(ControlReply::Created(_))), "{made:?}");
    }
    for manager in &trio.managers {
        assert_eq!(configs(manager).await.len(), 3, "a follower reads behind");
    }
    eventually("three reachable managers", || async {
        let listed = nodes(&trio.managers[1]).await;
        assert_eq!(listed.len(), 3);
        let mut all = listed.iter().map(|node| node.manager_status.as_ref());
        let reach =
            all.all(|status| status.expect("a manager").reachability == Reachability::Reachable);
        reach.then_some(())
    })
    .await;

    let leader = trio.leader().await;
    let dead = trio.managers.remove(leader);
    dead.shutdown().await;
    let begun = Instant::now();
    let survivor = Arc::clone(&trio.managers[0]);
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while acknowledged.is_empty() {
        let name = format!("after-{number}");
        if survivor.call(config(&name)).await.is_ok() {
            acknowledged.push(name);
        }
        number += 1;
        assert!(begun.elapsed() < LIMIT, "no write after the leader's death");
    }
    eprintln!("next acknowledged write after {:?}", begun.elapsed());
    for manager in &trio.managers {
        let names = configs(manager).await;
        for name in ["before-0", "before-1", "before-2"] {
            assert!(names.iter().any(|known| known == name), "{name} is lost");
        }
        assert!(names.contains(&acknowledged[0]), "{acknowledged:?} is lost");
    }
    eventually("the dead one to be missed", || async {
        let view = nodes(&survivor).await;
        let lost = view
            .iter()
            .find(|node| node.id == dead_node(&trio.hosts[leader]));
        let lost = lost.and_then(|node| node.manager_status.clone());
        (lost.expect("still a member").reachability == Reachability::Unreachable).then_some(())
    })
    .await;

    // The dead one comes back and knows everything.
    let back = trio.hosts[leader].restart().await;
    eventually("the one that was dead to serve", || async {
        let names = configs(&back).await;
        names.contains(&acknowledged[0]).then_some(())
    })
    .await;
    trio.managers.push(back);
    trio.down().await;
}

fn dead_node(host: &Host) -> weft_types::NodeId {
    host.credentials().identity().node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_requests_are_refused_in_dockers_words() {
    log_to_stderr();
    let mut trio = Trio::up().await;
    let last = trio.managers.remove(1);
    let network = last.call(network_named("front")).await.expect("made");
    let ControlReply::Created(network) = network else {
        panic!("not created: {network:?}");
    };
    let create = ControlRequest::CreateService {
        spec: Box::new(published(&network, 8000)),
        registry_auth: String::new(),
    };
    last.call(create).await.expect("made");
    let before = eventually("everything to have its numbers", || holdings(&last)).await;
    for manager in std::mem::take(&mut trio.managers) {
        manager.shutdown().await;
    }
    // It may still believe in a leader that has just gone; what it then says is a failed forward.
    eventually("the refusal in Docker's words", || async {
        let answer = last.call(ControlRequest::ListConfigs).await;
        let refusal: ControlError = answer.expect_err("no majority");
        let words = "The swarm does not have a leader.";
        refusal.message.starts_with(words).then_some(())
    })
    .await;
    assert!(!last.standing().await.error.is_empty());
    last.shutdown().await;

    // What is left is made into a cluster of its own, with everything in it.
    let alone = Manager::force_new_cluster(trio.hosts[1].config(), trio.hosts[1].credentials())
        .await
        .expect("a new beginning");
    assert_eq!(holdings(&alone).await, Some(before), "numbers have changed");
    let made = alone.call(network_named("later")).await;
    assert!(matches!(made, Ok(ControlReply::Created(_))), "{made:?}");
    let listed = nodes(&alone).await;
    assert_eq!(listed.len(), 3, "nodes are lost");
    let members = listed.iter().filter(|node| node.manager_status.is_some());
    assert_eq!(members.count(), 1);
    alone.shutdown().await;
}

fn network_named(name: &str) -> ControlRequest {
    let mut spec = NetworkSpec {
        name: name.to_owned(),
        ..NetworkSpec::default()
    };
    spec.driver_configuration.name = "overlay".to_owned();
    ControlRequest::CreateNetwork(Box::new(spec))
}

/// A service on `network` with a published port.
fn published(network: &str, port: u16) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: "web".to_owned(),
        ..ServiceSpec::default()
    };
    spec.mode.replicated = Some(Replicated { replicas: Some(2) });
    spec.task_template.container_spec = Some(ContainerSpec {
        image: "weft/whoami:latest".to_owned(),
        ..ContainerSpec::default()
    });
    spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
        target: network.to_owned(),
        ..NetworkAttachmentConfig::default()
    }]);
    spec.endpoint_spec = Some(EndpointSpec {
        ports: Some(vec![PortConfig {
            target_port: 80,
            published_port: port,
            ..PortConfig::default()
        }]),
        ..EndpointSpec::default()
    });
    spec
}

/// The numbers and addresses that networks and services have, which must not change under them;
/// `None` while something has none yet.
async fn holdings(manager: &Manager) -> Option<Vec<String>> {
    let mut held = Vec::new();
    match manager.call(ControlRequest::ListNetworks).await {
        Ok(ControlReply::Networks(networks)) => {
            for network in networks {
                held.push(format!(
                    "{} {} {:?}",
                    network.id, network.vni?, network.ipam
                ));
            }
        }
        other => panic!("not networks: {other:?}"),
    }
    match manager.call(ControlRequest::ListServices).await {
        Ok(ControlReply::Services(services)) => {
            for service in services {
                let endpoint = &service.endpoint;
                let has_all = !endpoint.ports.is_empty() && !endpoint.virtual_ips.is_empty();
                held.push(has_all.then(|| format!("{} {endpoint:?}", service.id))?);
            }
        }
        other => panic!("not services: {other:?}"),
    }
    Some(held)
}

async fn set_role(manager: &Manager, node: weft_types::NodeId, role: Role) {
    eventually("the role to be written", || async {
        let listed = nodes(manager).await;
        let found = listed.iter().find(|known| known.id == node)?;
        let mut spec = found.spec.clone();
        spec.role = role;
        let request = ControlRequest::UpdateNode {
            node: node.to_string(),
            version: found.meta.version.index,
            spec,
        };
        manager.call(request).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_manager_leaves_the_group_and_may_come_back() {
    log_to_stderr();
    let mut trio = Trio::up().await;
    let leader = trio.leader().await;
    let host = &trio.hosts[leader];
    let node = dead_node(host);
    let helper = (leader + 1) % 3;
    let helper_manager = Arc::clone(&trio.managers[helper]);

    // The leader itself is demoted: it hands over first.
    set_role(&helper_manager, node, Role::Worker).await;
    eventually("the demoted manager to be out of the group", || async {
        let listed = nodes(&helper_manager).await;
        let found = listed.iter().find(|known| known.id == node)?;
        (found.manager_status.is_none() && found.role == Role::Worker).then_some(())
    })
    .await;
    trio.managers[leader].shutdown().await;
    let credentials = host.credentials();
    let helper_addr = trio.hosts[helper].addr;
    // Its certificate says manager still, and is believed no more.
    let channel = connected(helper_addr, &credentials).await;
    let words = format!("node {node} is a worker; this call is for managers");
    eventually("the helper to hear of the demotion", || async {
        let nothing = RaftMessage {
            call: RaftCall::Vote,
            body: Vec::new(),
        };
        let refused = dial::raft(channel.clone()).message(nothing).await;
        let refused = refused.expect_err("it means nothing in any case");
        (refused.message() == words).then_some(())
    })
    .await;
    let identity = weft_proto::dial::renew(helper_addr, &credentials)
        .await
        .expect("a worker's certificate");
    assert_eq!(identity.role, Role::Worker);
    identity.save(host.path()).expect("saved");
    credentials.swap(identity).expect("usable");
    std::fs::remove_dir_all(host.path().join("raft")).expect("its state is gone");

    // Promoted again: its session tells it, a new certificate makes it a manager, as somebody new.
    let at = trio.leader_of(&[helper, 3 - leader - helper]).await;
    let mut agent = Agent::open(at, &credentials, "back").await;
    agent.keep_alive();
    set_role(&helper_manager, node, Role::Manager).await;
    agent
        .until("word of the promotion", |_, message| {
            matches!(message, ManagerMessage::Role(Role::Manager)).then_some(())
        })
        .await;
    let identity = weft_proto::dial::renew(helper_addr, &credentials)
        .await
        .expect("a manager's certificate");
    assert_eq!(identity.role, Role::Manager);
    identity.save(host.path()).expect("saved");
    credentials.swap(identity).expect("usable");
    let again = Manager::start(host.config(), credentials, vec![helper_addr])
        .await
        .expect("a manager again");
    assert_eq!(nodes(&again).await.len(), 3);
    trio.managers[leader] = again;
    trio.down().await;
}

impl Trio {
    /// Address of the leader among these.
    async fn leader_of(&self, among: &[usize]) -> std::net::SocketAddr {
        eventually("a leader among the others", || async {
            for number in among {
                if self.managers[*number].standing().await.leads {
                    return Some(self.hosts[*number].addr);
                }
            }
            None
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_manager_stays_and_a_member_cannot_be_removed() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    let node = dead_node(&host);
    let refusal = eventually("a refusal of the newest version", || async {
        let listed = nodes(&manager).await;
        let mut spec = listed[0].spec.clone();
        spec.role = Role::Worker;
        let request = ControlRequest::UpdateNode {
            node: node.to_string(),
            version: listed[0].meta.version.index,
            spec,
        };
        let refusal = manager.call(request).await.expect_err("the last manager");
        (refusal.message != "update out of sequence").then_some(refusal)
    })
    .await;
    assert_eq!(
        refusal.message,
        "attempting to demote the last manager of the swarm"
    );
    let refusal = manager
        .call(ControlRequest::RemoveNode {
            node: node.to_string(),
            force: true,
        })
        .await
        .expect_err("a member");
    assert!(
        refusal
            .message
            .ends_with("must be demoted to worker before removal"),
        "{refusal}"
    );
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_that_would_cost_the_majority_is_refused() {
    log_to_stderr();
    let mut trio = Trio::up().await;
    let leader = trio.leader().await;
    let (dead, alive) = ((leader + 1) % 3, (leader + 2) % 3);
    let at = Arc::clone(&trio.managers[leader]);
    trio.managers[dead].shutdown().await;
    let dead_node = dead_node(&trio.hosts[dead]);
    eventually("the dead one to be known", || async {
        let listed = nodes(&at).await;
        let found = listed.into_iter().find(|node| node.id == dead_node)?;
        let status = found.manager_status?;
        (status.reachability == Reachability::Unreachable).then_some(())
    })
    .await;
    let demote = async |node: weft_types::NodeId| {
        eventually("an answer to a demotion of the newest version", || async {
            let listed = nodes(&at).await;
            let found = listed.into_iter().find(|known| known.id == node);
            let found = found.expect("a node");
            let mut spec = found.spec.clone();
            spec.role = Role::Worker;
            let request = ControlRequest::UpdateNode {
                node: node.to_string(),
                version: found.meta.version.index,
                spec,
            };
            match at.call(request).await {
                // The node was written between the look and the call.
                Err(refusal) if refusal.message == "update out of sequence" => None,
                answer => Some(answer),
            }
        })
        .await
    };
    let living = trio.hosts[alive].credentials().identity().node;
    let refusal = demote(living).await.expect_err("it would leave one of two");
    assert_eq!(
        refusal.message,
        "can't remove member from the raft: this would result in a loss of quorum"
    );
    let listed = nodes(&at).await;
    let kept = listed.iter().find(|node| node.id == living).expect("there");
    assert_eq!(kept.spec.role, Role::Manager, "half of it was done");
    // The dead one may go: the two that are left are all there.
    demote(dead_node).await.expect("demoted");
    eventually("the dead one to be out of the group", || async {
        let listed = nodes(&at).await;
        let found = listed.into_iter().find(|node| node.id == dead_node)?;
        found.manager_status.is_none().then_some(())
    })
    .await;
    trio.managers.remove(dead);
    trio.down().await;
}

/// The manager that a node joined through may be demoted before the node's first session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_through_one_manager_knows_all() {
    log_to_stderr();
    let trio = Trio::up().await;
    let mut all: Vec<_> = trio.hosts.iter().map(|host| host.addr).collect();
    all.sort();
    for host in &trio.hosts {
        let wish = JoinWish {
            token: cluster_of(&trio.managers[0]).await.join_tokens.worker,
            availability: Availability::Active,
            advertise_addr: String::new(),
        };
        let mut told = dial::join(host.addr, &wish).await.expect("join").managers;
        assert_eq!(told[0], trio.hosts[trio.leader().await].addr);
        told.sort();
        assert_eq!(told, all, "through {}", host.addr);
    }
    trio.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_manager_catches_up_by_snapshot() {
    log_to_stderr();
    let host = Host::new();
    let manager = host.init().await;
    for number in 0..30 {
        let made = manager.call(config(&format!("c{number}"))).await;
        assert!(made.is_ok(), "{made:?}");
    }
    manager.compact().await;
    let token = cluster_of(&manager).await.join_tokens.manager;
    let second = Host::new();
    let joined = second.join_manager(host.addr, &token).await;
    assert_eq!(configs(&joined).await.len(), 30);
    let at = Instant::now();
    while joined.standing().await.leader.is_none() {
        assert!(at.elapsed() < LIMIT, "no leader");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    joined.shutdown().await;
    manager.shutdown().await;
}
