//! The network as the managers tell it, and what the kernel makes of it.

use weft_types::netstate::{FormerKey, NetDelta, NetState, WireGuardPeer};

use super::*;

#[tokio::test]
async fn the_network_is_applied_acknowledged_and_mended_after_a_gap() {
    let world = World::new();
    let mut node = world.boot();
    let mut line = node.session().await;
    let first = NetState {
        revision: 5,
        data_path_port: 4789,
        ..NetState::default()
    };
    let delta = NetState::default().delta_to(&first);
    line.say(ManagerMessage::NetState(Box::new(delta))).await;
    let applied = |revision| move |message: &NodeMessage| matches!(message, NodeMessage::Applied { revision: told, .. } if *told == revision);
    line.until("revision 5 applied", applied(5)).await;
    let gap = NetDelta {
        base: 6,
        revision: 7,
        ..NetDelta::default()
    };
    line.say(ManagerMessage::NetState(Box::new(gap))).await;
    line.until("the gap told", |message| {
        matches!(message, NodeMessage::NetStateGap)
    })
    .await;
    assert_eq!(
        world.wiring.held().state.revision,
        5,
        "a gap changes nothing"
    );
    let snapshot = NetState {
        revision: 7,
        data_path_port: 4789,
        ..NetState::default()
    };
    let delta = NetState::default().delta_to(&snapshot);
    line.say(ManagerMessage::NetState(Box::new(delta))).await;
    line.until("revision 7 applied", applied(7)).await;
}

#[tokio::test]
async fn a_network_that_the_kernel_refuses_is_named_until_it_is_taken() {
    let world = World::new();
    world.wiring.held().refuses = Some(Failure::passing("UDP port 4789 is taken"));
    let mut node = world.boot();
    let line = node.session().await;
    let state = NetState {
        revision: 5,
        ..NetState::default()
    };
    let delta = NetState::default().delta_to(&state);
    line.say(ManagerMessage::NetState(Box::new(delta))).await;
    let mut glance = node.agent.glance();
    let named = glance.wait_for(|glance| glance.refusal.is_some()).await;
    let named = named.expect("the agent runs").refusal.clone();
    assert_eq!(named.as_deref(), Some("UDP port 4789 is taken"));
    world.wiring.held().refuses = None;
    let taken = glance.wait_for(|glance| glance.refusal.is_none()).await;
    assert_eq!(taken.expect("the agent runs").applied_revision, 5);
}

#[tokio::test]
async fn a_new_session_is_told_what_the_kernel_holds_though_nothing_has_changed() {
    let world = World::new();
    let mut node = world.boot();
    let state = NetState {
        revision: 5,
        data_path_port: 4789,
        ..NetState::default()
    };
    for _ in 0..3 {
        let mut line = node.session().await;
        let delta = NetState::default().delta_to(&state);
        line.say(ManagerMessage::NetState(Box::new(delta))).await;
        line.until("revision 5 applied", |message| {
            matches!(message, NodeMessage::Applied { revision: 5 })
        })
        .await;
    }
}

#[tokio::test]
async fn an_agent_killed_after_a_change_comes_back_with_all_that_the_kernel_holds() {
    let world = World::new();
    let mut held = NetState::default();
    for revision in 5..9 {
        let mut node = world.boot();
        let mut line = node.session().await;
        // The first is the whole of it; each later life goes on by a step from what the last one held.
        let next = NetState {
            revision,
            ring_seed: revision * 10,
            data_path_port: 4789,
            ..NetState::default()
        };
        let step = held.delta_to(&next);
        line.say(ManagerMessage::NetState(Box::new(step))).await;
        line.until("the revision applied", |message| {
            matches!(message, NodeMessage::Applied { revision: told } if *told == revision)
        })
        .await;
        held = next;
        drop(node);
        // The kernel keeps what it holds; the pretend one forgets, so that all it is told now shows.
        world.wiring.held().state = NetState::default();
        let _no_manager = world.boot();
        wait_for("the kernel to be told of a network", || {
            world.wiring.held().state.revision != 0
        })
        .await;
        assert_eq!(
            world.wiring.held().state,
            held,
            "it took away what was in use"
        );
        world.wiring.held().state = NetState::default();
    }
}

#[tokio::test]
async fn keys_are_told_until_the_network_has_them() {
    let world = World::new();
    let first = WireGuardPeer {
        key: [1; 32],
        port: 51871,
        ..WireGuardPeer::default()
    };
    world.wiring.held().keys = Some(first);
    let mut node = world.boot();
    let mut line = node.session().await;
    let told = |keys| move |message: &NodeMessage| *message == NodeMessage::WireGuard(keys);
    // The first telling may have been lost on the way to the store.
    for _ in 0..2 {
        line.until("the keys told", told(first)).await;
    }
    let newer = WireGuardPeer {
        key: [2; 32],
        port: 51872,
        generation: 1,
        before: Some(FormerKey {
            key: first.key,
            port: first.port,
        }),
        settled: false,
    };
    world.wiring.held().keys = Some(newer);
    line.until("the newer keys told", told(newer)).await;
    // A new session begins with them: without them the others would take this node's keys away.
    drop(line);
    let mut line = node.lines.recv().await.expect("another session");
    let hello = line.from_node.recv().await;
    let Some(NodeMessage::Hello { wireguard, .. }) = hello else {
        panic!("first comes Hello, not {hello:?}");
    };
    assert_eq!(wireguard, Some(newer));
}
