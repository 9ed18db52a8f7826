//! The network as the managers tell it, and what the kernel makes of it.

use weft_types::netstate::{NetDelta, NetState};

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
