//! Ways from managers to the front doors of nodes: a node's session ends at the leader, yet any manager may ask.

mod cluster;

use std::sync::Arc;

use cluster::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use weft_control::runtime::Manager;
use weft_proto::{ControlApi, ErrorCode, TunnelAsk, dispatcher::ManagerMessage, tunnel};

/// More than any buffer on the way holds.
const BYTES: usize = 3 << 20;

/// The leader first, then two followers.
async fn trio() -> (Vec<Host>, Vec<Arc<Manager>>) {
    let hosts = vec![Host::new(), Host::new(), Host::new()];
    let first = hosts[0].init().await;
    let token = cluster_of(&first).await.join_tokens.manager;
    let second = hosts[1].join_manager(hosts[0].addr, &token).await;
    let third = hosts[2].join_manager(hosts[0].addr, &token).await;
    (hosts, vec![first, second, third])
}

/// The node's next wish to answer.
async fn asked(agent: &mut Agent) -> TunnelAsk {
    let what = "the wish for a way to the front door";
    agent
        .until(what, |_, message| match message {
            ManagerMessage::Tunnel(ask) => Some(ask.clone()),
            _ => None,
        })
        .await
}

/// A byte stream that is not the same anywhere.
fn bytes(seed: u32) -> Vec<u8> {
    (0..BYTES as u32)
        .map(|n| ((n ^ seed).wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_reaches_a_node_s_front_door() {
    log_to_stderr();
    let (hosts, managers) = trio().await;
    let tokens = cluster_of(&managers[0]).await.join_tokens;
    let worker = Host::new();
    let credentials = worker.join(hosts[0].addr, &tokens.worker).await;
    let node = credentials.identity().node;
    // Nobody can be reached who holds no session, and who asks is told so at once.
    let refused = managers[1].tunnel(node).await.err().expect("not connected");
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused:?}");
    assert!(refused.message.contains(&node.to_string()), "{refused:?}");

    let leader = leader_of(&managers).await;
    let mut agent = Agent::open(hosts[leader].addr, &credentials, "w1").await;
    agent.keep_alive();
    agent
        .until("the welcome", |_, message| {
            matches!(message, ManagerMessage::Welcome { .. }).then_some(())
        })
        .await;

    for (number, manager) in managers.iter().enumerate() {
        let who = if number == leader {
            "the leader"
        } else {
            "a follower"
        };
        let wish = {
            let manager = Arc::clone(manager);
            tokio::spawn(async move { manager.tunnel(node).await })
        };
        let ask = asked(&mut agent).await;
        // It dials who asked, not who passed the wish on.
        assert_eq!(ask.manager, hosts[number].addr.to_string(), "{who}");
        let at = ask.manager.parse().expect("an address");
        let door = tunnel::offer(at, &credentials, ask.token)
            .await
            .expect("taken");
        let end = wish.await.expect("asked").expect("a way to the node");

        let (request, answer) = (bytes(number as u32), bytes(100 + number as u32));
        let (to_send, to_answer) = (request.clone(), answer.clone());
        // The door hears the request to its end before it answers: one half is closed, the other open.
        let served = tokio::spawn(async move {
            let (mut from, mut to) = split(door);
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).await.expect("a whole request");
            to.write_all(&to_answer).await.expect("an answer");
            to.shutdown().await.expect("its end");
            heard
        });
        let talk = async {
            let (mut from, mut to) = split(end);
            to.write_all(&to_send).await.expect("a request");
            to.shutdown().await.expect("its end");
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).await.expect("a whole answer");
            heard
        };
        let heard = tokio::time::timeout(LIMIT, talk)
            .await
            .unwrap_or_else(|_| panic!("{who} waited {LIMIT:?} for the answer"));
        assert!(heard == answer, "{who} got another answer");
        assert!(
            served.await.expect("served") == request,
            "{who}'s request changed on its way"
        );
    }
    for manager in managers {
        manager.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gives_a_way_only_to_the_node_it_asked() {
    log_to_stderr();
    let (hosts, managers) = trio().await;
    let tokens = cluster_of(&managers[0]).await.join_tokens;
    let (worker, other) = (Host::new(), Host::new());
    let credentials = worker.join(hosts[0].addr, &tokens.worker).await;
    let others = other.join(hosts[0].addr, &tokens.worker).await;
    let node = credentials.identity().node;
    let mut agent = Agent::open(hosts[0].addr, &credentials, "w1").await;
    agent.keep_alive();
    agent
        .until("the welcome", |_, message| {
            matches!(message, ManagerMessage::Welcome { .. }).then_some(())
        })
        .await;
    let follower = Arc::clone(&managers[1]);
    let wish = tokio::spawn(async move { follower.tunnel(node).await });
    let ask = asked(&mut agent).await;
    let at = ask.manager.parse().expect("an address");
    // Another node that got hold of the token: its connection is closed, and the wish stands.
    let mut stolen = tunnel::offer(at, &others, ask.token)
        .await
        .expect("dialled");
    let mut said = [0; 1];
    let closed = tokio::time::timeout(LIMIT, stolen.read(&mut said)).await;
    let closed = closed.expect("the follower lets go of it");
    assert!(!matches!(closed, Ok(1..)), "it was given a way: {closed:?}");
    let mut door = tunnel::offer(at, &credentials, ask.token)
        .await
        .expect("taken");
    let mut end = wish.await.expect("asked").expect("a way to the node");
    door.write_all(b"here").await.expect("written");
    door.flush().await.expect("sent");
    let mut heard = [0; 4];
    let read = tokio::time::timeout(LIMIT, end.read_exact(&mut heard)).await;
    read.expect("in time").expect("read");
    assert_eq!(&heard, b"here");
    for manager in managers {
        manager.shutdown().await;
    }
}
