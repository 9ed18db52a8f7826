//! One task's machine: its ways, and what holds on all of them.

use std::time::Duration;

use crate::fixture::{at, task};
use proptest::prelude::*;
use weft_agent::task::{Action, Event, Failure, Health, Machine, Observation};
use weft_types::{
    TaskState,
    service::{PortConfig, PublishMode},
    task::Task,
};

fn exited(code: i64) -> Event {
    Event::Observed(Ok(Observation::Exited {
        code,
        error: String::new(),
    }))
}

fn assigned(machine: &Machine, change: impl FnOnce(&mut Task)) -> Event {
    let mut task = machine.task().clone();
    change(&mut task);
    Event::Assigned(Box::new(task))
}

/// A machine whose program runs.
fn running(task: Task) -> Machine {
    let (mut machine, action) = Machine::accept(task, at(0));
    assert_eq!(action, Some(Action::Prepare));
    assert_eq!(
        machine.step(Event::Prepared(Ok("c1".into())), at(1)),
        Some(Action::Start)
    );
    let connect = machine.step(Event::Started(Ok(7)), at(2));
    assert_eq!(connect, Some(Action::Connect { pid: 7 }));
    assert_eq!(machine.status().state, TaskState::Starting);
    assert_eq!(
        machine.step(Event::Connected(Ok(Health::Unprobed)), at(3)),
        None
    );
    assert_eq!(machine.status().state, TaskState::Running);
    assert_eq!(machine.status().message, "started");
    machine
}

#[test]
fn a_running_task_tells_its_ports_of_the_node() {
    let mut task = task(1, TaskState::Running);
    let port = |published_port, publish_mode| PortConfig {
        target_port: 80,
        published_port,
        publish_mode,
        ..PortConfig::default()
    };
    let own = port(32_767, PublishMode::Host);
    task.ports = vec![port(8080, PublishMode::Ingress), own.clone()];
    assert_eq!(running(task).status().port_status.ports, [own]);
}

#[test]
fn a_task_that_ends_well_is_complete() {
    let mut machine = running(task(1, TaskState::Running));
    assert_eq!(machine.step(exited(0), at(4)), None);
    let status = machine.status();
    assert_eq!(
        (status.state, status.message.as_str()),
        (TaskState::Complete, "finished")
    );
}

#[test]
fn a_task_that_ends_badly_says_its_status() {
    let mut machine = running(task(1, TaskState::Running));
    machine.step(exited(3), at(4));
    let status = machine.status();
    assert_eq!(
        (status.state, status.message.as_str()),
        (TaskState::Failed, "started")
    );
    assert_eq!(status.err, "task: non-zero exit (3)");
    assert_eq!(
        status
            .container_status
            .as_ref()
            .map(|container| container.exit_code),
        Some(3)
    );
}

#[test]
fn an_unknown_image_rejects_the_task() {
    let (mut machine, _) = Machine::accept(task(1, TaskState::Running), at(0));
    let failure = Failure::lasting("No such image: nosuch:latest");
    assert_eq!(machine.step(Event::Prepared(Err(failure)), at(1)), None);
    let status = machine.status();
    assert_eq!(
        (status.state, status.message.as_str()),
        (TaskState::Rejected, "preparing")
    );
    assert_eq!(status.err, "No such image: nosuch:latest");
}

#[test]
fn an_engine_that_does_not_answer_is_asked_again() {
    let (mut machine, _) = Machine::accept(task(1, TaskState::Running), at(0));
    let failure = Failure::passing("no answer");
    assert_eq!(machine.step(Event::Prepared(Err(failure)), at(1)), None);
    assert_eq!(machine.status().state, TaskState::Preparing);
    let wake = machine.wake_at().expect("a time to try again");
    assert_eq!(machine.step(Event::Tick, at(1)), None);
    assert_eq!(machine.step(Event::Tick, wake), Some(Action::Prepare));
}

#[test]
fn a_task_desired_ready_is_prepared_and_held() {
    let (mut machine, action) = Machine::accept(task(1, TaskState::Ready), at(0));
    assert_eq!(action, Some(Action::Prepare));
    assert_eq!(machine.step(Event::Prepared(Ok("c1".into())), at(1)), None);
    assert_eq!(machine.status().state, TaskState::Ready);
    let go = assigned(&machine, |task| task.desired_state = TaskState::Running);
    assert_eq!(machine.step(go, at(5)), Some(Action::Start));
}

#[test]
fn a_task_with_a_probe_runs_only_when_healthy() {
    let (mut machine, _) = Machine::accept(task(1, TaskState::Running), at(0));
    machine.step(Event::Prepared(Ok("c1".into())), at(1));
    machine.step(Event::Started(Ok(7)), at(2));
    machine.step(Event::Connected(Ok(Health::Starting)), at(3));
    assert_eq!(machine.status().state, TaskState::Starting);
    let well = Observation::Running {
        pid: 0,
        health: Health::Healthy,
    };
    machine.step(Event::Observed(Ok(well)), at(4));
    assert_eq!(machine.status().state, TaskState::Running);
}

#[test]
fn an_unhealthy_task_is_stopped_and_failed() {
    let mut machine = running(task(1, TaskState::Running));
    let unwell = Observation::Running {
        pid: 0,
        health: Health::Unhealthy,
    };
    let stop = machine.step(Event::Observed(Ok(unwell)), at(4));
    assert_eq!(
        stop,
        Some(Action::Stop {
            grace: Duration::from_secs(10)
        })
    );
    machine.step(Event::Stopped(Ok(137)), at(5));
    assert_eq!(machine.status().state, TaskState::Failed);
    assert_eq!(
        machine.status().err,
        "task: non-zero exit (137): dockerexec: unhealthy container"
    );
}

/// On a network, so that others have to let it go first.
fn networked(number: u128) -> Task {
    let mut task = task(number, TaskState::Running);
    let attachment = serde_json::json!({ "NetworkID": weft_types::NetworkId::numbered(1) });
    task.networks_attachments
        .push(serde_json::from_value(attachment).expect("an attachment"));
    task
}

#[test]
fn a_stop_waits_until_nobody_chooses_the_task() {
    let mut machine = running(networked(1));
    let stop = assigned(&machine, |task| task.desired_state = TaskState::Shutdown);
    assert_eq!(
        machine.step(stop, at(4)),
        None,
        "others may still choose it"
    );
    assert_eq!(
        machine.step(Event::Flows(0), at(4)),
        None,
        "a flow may come after that count"
    );
    let withdrawn = assigned(&machine, |task| task.withdrawn = true);
    assert_eq!(machine.step(withdrawn, at(5)), None, "its flows may go on");
    assert_eq!(machine.step(Event::Flows(1), at(5)), None, "one does");
    assert!(matches!(
        machine.step(Event::Flows(0), at(6)),
        Some(Action::Stop { .. })
    ));
    machine.step(Event::Stopped(Ok(143)), at(6));
    assert_eq!(machine.status().state, TaskState::Shutdown);
    assert_eq!(machine.status().message, "shutdown");
}

#[test]
fn a_stop_waits_for_the_rings_also_while_the_task_is_being_adopted() {
    let before = running(networked(1));
    let (mut machine, _) = Machine::adopt(before.task().clone(), before.status().clone(), at(10));
    let found = Observation::Running {
        pid: 7,
        health: Health::Unprobed,
    };
    let connect = machine.step(Event::Observed(Ok(found)), at(11));
    assert_eq!(connect, Some(Action::Connect { pid: 7 }));
    let stop = assigned(&machine, |task| task.desired_state = TaskState::Shutdown);
    assert_eq!(
        machine.step(stop, at(12)),
        None,
        "it was running before: others may choose it"
    );
    assert_eq!(
        machine.step(Event::Connected(Ok(Health::Unprobed)), at(12)),
        None
    );
    let withdrawn = assigned(&machine, |task| task.withdrawn = true);
    assert_eq!(machine.step(withdrawn, at(13)), None, "its flows may go on");
    assert!(matches!(
        machine.step(Event::Flows(0), at(14)),
        Some(Action::Stop { .. })
    ));
}

#[test]
fn flows_that_live_on_hold_a_stop_up_for_some_seconds_only() {
    let mut machine = running(networked(1));
    let stop = assigned(&machine, |task| {
        task.desired_state = TaskState::Shutdown;
        task.withdrawn = true;
    });
    assert_eq!(machine.step(stop, at(4)), None);
    assert_eq!(machine.wake_at(), Some(at(9)));
    assert!(matches!(
        machine.step(Event::Tick, at(9)),
        Some(Action::Stop { .. })
    ));
}

#[test]
fn a_stop_does_not_wait_longer_than_the_grace() {
    let mut machine = running(networked(1));
    let stop = assigned(&machine, |task| task.desired_state = TaskState::Shutdown);
    machine.step(stop, at(4));
    assert_eq!(machine.wake_at(), Some(at(14)));
    assert!(matches!(
        machine.step(Event::Tick, at(14)),
        Some(Action::Stop { .. })
    ));
}

#[test]
fn the_container_of_history_is_kept_until_the_task_is_forgotten() {
    let mut machine = running(task(1, TaskState::Running));
    machine.step(exited(1), at(4));
    let shut = assigned(&machine, |task| task.desired_state = TaskState::Shutdown);
    assert_eq!(machine.step(shut, at(5)), None);
    assert_eq!(machine.step(Event::Forgotten, at(6)), Some(Action::Remove));
    machine.step(Event::Removed(Ok(())), at(7));
    assert!(machine.is_gone());
}

#[test]
fn a_running_container_is_adopted_without_a_start() {
    let before = running(task(1, TaskState::Running));
    let (mut machine, action) =
        Machine::adopt(before.task().clone(), before.status().clone(), at(10));
    assert_eq!(action, Some(Action::Inspect));
    let found = Observation::Running {
        pid: 9,
        health: Health::Unprobed,
    };
    assert_eq!(
        machine.step(Event::Observed(Ok(found)), at(11)),
        Some(Action::Connect { pid: 9 })
    );
    machine.step(Event::Connected(Ok(Health::Unprobed)), at(12));
    assert_eq!(machine.status().state, TaskState::Running);
}

#[test]
fn a_container_that_died_while_the_agent_was_away_fails_its_task() {
    let before = running(task(1, TaskState::Running));
    let (mut machine, _) = Machine::adopt(before.task().clone(), before.status().clone(), at(10));
    machine.step(exited(137), at(11));
    assert_eq!(machine.status().state, TaskState::Failed);
}

fn events() -> impl Strategy<Value = Event> {
    let failure = prop_oneof![
        Just(Failure::passing("later")),
        Just(Failure::lasting("never"))
    ];
    let health = prop_oneof![
        Just(Health::Unprobed),
        Just(Health::Starting),
        Just(Health::Healthy),
        Just(Health::Unhealthy)
    ];
    let observation = prop_oneof![
        Just(Observation::Missing),
        Just(Observation::Created),
        health
            .clone()
            .prop_map(|health| Observation::Running { pid: 3, health }),
        (0..3i64).prop_map(|code| Observation::Exited {
            code,
            error: String::new()
        }),
    ];
    let desired = prop_oneof![
        Just(TaskState::Ready),
        Just(TaskState::Running),
        Just(TaskState::Shutdown),
        Just(TaskState::Remove)
    ];
    prop_oneof![
        (desired, any::<bool>()).prop_map(|(desired, withdrawn)| {
            let mut task = networked(1);
            task.desired_state = desired;
            task.withdrawn = withdrawn;
            Event::Assigned(Box::new(task))
        }),
        Just(Event::Forgotten),
        Just(Event::Tick),
        (0..2u64).prop_map(Event::Flows),
        prop_oneof![Just(Ok("c1".to_owned())), failure.clone().prop_map(Err)]
            .prop_map(Event::Prepared),
        prop_oneof![Just(Ok(3)), failure.clone().prop_map(Err)].prop_map(Event::Started),
        prop_oneof![health.prop_map(Ok), failure.clone().prop_map(Err)].prop_map(Event::Connected),
        prop_oneof![observation.prop_map(Ok), failure.clone().prop_map(Err)]
            .prop_map(Event::Observed),
        prop_oneof![Just(Ok(143)), failure.clone().prop_map(Err)].prop_map(Event::Stopped),
        prop_oneof![Just(Ok(())), failure.prop_map(Err)].prop_map(Event::Removed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: the observed state never falls, an end is final, a
    /// container is started only while that is wished and removed only when the task is forgotten.
    #[test]
    fn the_machine_keeps_its_promises(events in proptest::collection::vec(events(), 0..60)) {
        let (mut machine, _) = Machine::accept(networked(1), at(0));
        let mut is_forgotten = false;
        for (second, event) in events.into_iter().enumerate() {
            let before = machine.status().clone();
            is_forgotten |= event == Event::Forgotten;
            let is_gone = machine.is_gone();
            let action = machine.step(event, at(second as u64));
            let after = machine.status();
            prop_assert!(after.state >= before.state, "{} fell to {}", before.state, after.state);
            if before.state.is_terminal() {
                prop_assert_eq!(&before, after);
            }
            let desired = machine.task().desired_state;
            match action {
                Some(Action::Start) => {
                    prop_assert!(desired >= TaskState::Running);
                    prop_assert!(desired < TaskState::Shutdown && !is_forgotten);
                    prop_assert!(!after.state.is_terminal());
                }
                Some(Action::Remove) => prop_assert!(is_forgotten),
                Some(Action::Prepare | Action::Connect { .. }) => {
                    prop_assert!(!after.state.is_terminal());
                }
                _ => {}
            }
            if is_gone {
                prop_assert_eq!(action, None);
            }
        }
    }

    /// A forgotten task always ends, however often the engine fails, once it answers again.
    #[test]
    fn a_forgotten_task_goes_away(events in proptest::collection::vec(events(), 0..40)) {
        let (mut machine, first) = Machine::accept(networked(1), at(0));
        let mut action = first;
        for (second, event) in events.into_iter().enumerate() {
            // Only answers to what was asked: an engine does not make them up.
            let answers = matches!(
                (&event, &action),
                (Event::Assigned(_) | Event::Tick, _)
                    | (Event::Prepared(_), Some(Action::Prepare))
                    | (Event::Started(_), Some(Action::Start))
                    | (Event::Connected(_), Some(Action::Connect { .. }))
                    | (Event::Stopped(_), Some(Action::Stop { .. }))
                    | (Event::Observed(_), _)
            );
            if !answers {
                continue;
            }
            let is_answer = !matches!(event, Event::Assigned(_) | Event::Tick | Event::Observed(_));
            let next = machine.step(event, at(second as u64));
            if next.is_some() || is_answer {
                action = next;
            }
        }
        if let Some(next) = machine.step(Event::Forgotten, at(100)) {
            action = Some(next);
        }
        for second in 0..20 {
            let event = match action.take() {
                Some(Action::Prepare) => Event::Prepared(Ok("c1".into())),
                Some(Action::Start) => Event::Started(Ok(3)),
                Some(Action::Connect { .. }) => Event::Connected(Ok(Health::Unprobed)),
                Some(Action::Inspect) => Event::Observed(Ok(Observation::Missing)),
                Some(Action::Stop { .. }) => Event::Stopped(Ok(0)),
                Some(Action::Remove) => Event::Removed(Ok(())),
                Some(Action::Abort) | None => Event::Tick,
            };
            action = machine.step(event, at(200 + 20 * second));
        }
        prop_assert!(machine.is_gone(), "left in {:?}", machine);
    }
}
