//! The session: nothing that was seen is lost before it is stored, and dials go round.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proptest::prelude::*;
use weft_agent::session::Session;
use weft_proto::dispatcher::NodeMessage;
use weft_types::{NodeId, TaskId, netstate::NetState, task::TaskStatus};

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 2377))
}

fn session(managers: &[u8]) -> Session {
    let managers = managers.iter().map(|last| (None, addr(*last)));
    Session::new(managers.collect(), NetState::default())
}

fn status(number: u32) -> TaskStatus {
    TaskStatus {
        message: number.to_string(),
        ..TaskStatus::default()
    }
}

#[test]
fn dials_go_round_and_slow_down() {
    let mut session = session(&[1, 2]);
    let dials: Vec<_> = (0..9).filter_map(|_| session.dial()).collect();
    let round: Vec<_> = dials.iter().map(|dial| dial.addr).take(4).collect();
    assert_eq!(round, [addr(1), addr(2), addr(1), addr(2)]);
    let pauses: Vec<_> = dials.iter().map(|dial| dial.pause.as_millis()).collect();
    assert_eq!(pauses, [0, 100, 300, 700, 1500, 2000, 2000, 2000, 2000]);
    session.established();
    session.lost();
    assert_eq!(session.dial().map(|dial| dial.pause), Some(Duration::ZERO));
}

#[test]
fn the_manager_that_was_lost_is_asked_last() {
    let mut session = session(&[1, 2, 3]);
    let next = |session: &mut Session| session.dial().map(|dial| dial.addr);
    assert_eq!(next(&mut session), Some(addr(1)));
    session.established();
    session.lost();
    let round: Vec<_> = (0..3).filter_map(|_| next(&mut session)).collect();
    assert_eq!(round, [addr(2), addr(3), addr(1)]);
    // Also when it was found because another one named it, or the list has changed since.
    session.redirected(Some("192.0.2.2:2377"));
    assert_eq!(next(&mut session), Some(addr(2)));
    session.established();
    let told = [2, 3, 1].map(|last| (NodeId::numbered(last.into()), addr(last).to_string()));
    session.set_managers(&told);
    session.lost();
    assert_eq!(next(&mut session), Some(addr(3)));
}

#[test]
fn the_leader_that_was_named_is_next() {
    let mut session = session(&[1, 2]);
    session.redirected(Some("192.0.2.9:2377"));
    assert_eq!(session.dial().map(|dial| dial.addr), Some(addr(9)));
    assert_eq!(session.dial().map(|dial| dial.addr), Some(addr(1)));
}

#[test]
fn with_another_certificate_the_same_manager_is_asked_at_once() {
    let mut session = session(&[1, 2]);
    let next = |session: &mut Session| session.dial().map(|dial| (dial.addr, dial.pause.is_zero()));
    assert_eq!(next(&mut session), Some((addr(1), true)));
    session.established();
    session.report(TaskId::numbered(1), status(1));
    let report = session.take_report();
    session.renewed();
    assert!(!session.is_up());
    assert_eq!(next(&mut session), Some((addr(1), true)));
    session.established();
    assert_eq!(session.take_report(), report, "it was not stored");
    // Nobody has welcomed it yet: it goes on looking.
    session.lost();
    assert_eq!(next(&mut session), Some((addr(2), true)));
    session.renewed();
    assert_eq!(next(&mut session), Some((addr(1), false)));
}

#[test]
fn an_empty_list_of_managers_is_not_believed() {
    let mut session = session(&[1]);
    session.set_managers(&[]);
    session.set_managers(&[(NodeId::numbered(1), "nonsense".to_owned())]);
    assert_eq!(session.managers(), [(None, addr(1))]);
}

#[derive(Debug, Clone)]
enum Step {
    Report(u8),
    Take,
    Stored(u64),
    Reconnect,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_stored_is_told_again(steps in proptest::collection::vec(
        prop_oneof![
            (0..4u8).prop_map(Step::Report),
            Just(Step::Take),
            (0..6u64).prop_map(Step::Stored),
            Just(Step::Reconnect),
        ],
        0..80,
    )) {
        let mut session = session(&[1]);
        session.established();
        // Newest status per task that no manager has stored.
        let mut owed: BTreeMap<TaskId, TaskStatus> = BTreeMap::new();
        let mut sent: BTreeMap<u64, Vec<(TaskId, TaskStatus)>> = BTreeMap::new();
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Report(task) => {
                    let task = TaskId::numbered(task.into());
                    session.report(task, status(number));
                    owed.insert(task, status(number));
                }
                Step::Take => {
                    if let Some(NodeMessage::Status { sequence, updates }) = session.take_report() {
                        sent.insert(sequence, updates);
                    }
                }
                Step::Stored(sequence) => {
                    session.stored(sequence);
                    let later = sent.split_off(&(sequence + 1));
                    for (task, stored) in std::mem::replace(&mut sent, later).into_values().flatten() {
                        if owed.get(&task) == Some(&stored) {
                            owed.remove(&task);
                        }
                    }
                }
                Step::Reconnect => {
                    session.lost();
                    sent.clear();
                    session.established();
                }
            }
        }
        session.lost();
        prop_assert!(session.take_report().is_none(), "nobody listens");
        session.established();
        let mut told = BTreeMap::new();
        while let Some(NodeMessage::Status { updates, .. }) = session.take_report() {
            told.extend(updates);
        }
        for (task, status) in owed {
            prop_assert_eq!(told.get(&task), Some(&status));
        }
    }
}
