//! Sockets that hooks led, and the tasks that they were led to.

use super::*;
use crate::led::{Connected, Led, tests::asked};

const TASK: &str = "10.0.0.8:80";

/// A socket that asked for `what` and was led to [`TASK`].
fn led(cookie: u64, what: &str) -> Led {
    asked(cookie, TASK, 17, what)
}

fn connected(cookie: u64) -> Connected {
    Connected {
        cookie,
        from: "192.0.2.11:40000".parse().unwrap(),
        to: TASK.parse().unwrap(),
        link: 0,
    }
}

/// A keeper whose host has a task, 7, and another one, 8, to which a socket of each was led; and one of the host's
/// chose the same address itself.
fn world() -> Keeper<Fake> {
    let mut fake = Fake::host("192.0.2.11/24");
    fake.led = vec![led(1, "127.0.0.1"), led(2, "10.0.0.100")];
    fake.connected = [vec![connected(1), connected(3)], vec![connected(2)]];
    let mut keeper = keeper(fake);
    keeper.apply(desired(1, &[7, 8])).unwrap();
    keeper.create_sandbox(&spec(&[7]), netns()).unwrap();
    assert_eq!(keeper.kernel.connected[0].len(), 2);
    keeper
}

#[test]
fn led_sockets_end_with_their_task_and_no_others() {
    let mut keeper = world();
    keeper.apply(desired(2, &[7, 8])).unwrap();
    assert_eq!(keeper.kernel.connected[0].len(), 2, "the task is there");
    keeper.apply(desired(3, &[7])).unwrap();
    assert_eq!(keeper.kernel.connected, [vec![connected(3)], vec![]]);
    keeper.kernel.writes = 0;
    keeper.apply(desired(3, &[7])).unwrap();
    assert_eq!(keeper.kernel.writes, 0, "nothing is done twice");
}

#[test]
fn a_kernel_that_ends_no_sockets_is_told_of_and_keeps_nothing_from_being_done() {
    for fault in ["led", "connected", "end"] {
        let mut keeper = world();
        keeper.kernel.faults.insert(fault);
        keeper.apply(desired(2, &[7])).unwrap();
        let faults = keeper.status().faults;
        let named = faults.iter().any(|fault| fault.contains("stay so"));
        assert!(named, "{fault}: {faults:?}");
        keeper.kernel.faults.clear();
        keeper.tick();
        assert_eq!(
            keeper.kernel.connected,
            [vec![connected(3)], vec![]],
            "{fault}"
        );
        assert_eq!(keeper.status().faults, [""; 0]);
    }
}

/// Tasks that lived before this process are known again one by one.
#[test]
fn sockets_of_a_task_that_is_known_again_late_end_then() {
    let mut before = world();
    before.kernel.connected[0].clear();
    let mut keeper = keeper(before.kernel);
    keeper.apply(desired(2, &[7])).unwrap();
    assert_eq!(keeper.kernel.connected[1].len(), 1);
    keeper.create_sandbox(&spec(&[7]), netns()).unwrap();
    assert!(keeper.kernel.connected[1].is_empty());
}
