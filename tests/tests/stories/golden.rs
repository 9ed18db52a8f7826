//! What Docker's own swarm mode prints, scenario by scenario: `tests/golden/`.
//!
//! A run of all tests tells those that take seconds. Asked for by name (`cargo xtask story golden`), all are told.

use anyhow::ensure;
use weft_tests::golden::tell;
use weft_tests::{Bed, Shape, story};

const WORKERS: Shape = Shape::Swarm(3, 1);
const MANAGERS: Shape = Shape::Swarm(3, 3);

/// Whether somebody asked for these stories, and not just for all tests.
fn asked_for() -> bool {
    std::env::args()
        .skip(1)
        .any(|word| word.starts_with("golden"))
}

fn scripts(shape: Shape, names: &[&str], before: impl Fn(&Bed)) {
    story(shape, |bed| {
        before(bed);
        // All of them, so that one that differs hides no other.
        let told = names.iter().map(|name| tell(name, &bed.hosts()));
        let faults: Vec<String> = told
            .filter_map(|told| Some(format!("{:#}", told.err()?)))
            .collect();
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    });
}

/// Scripts that take seconds.
macro_rules! quick {
    ($($story:ident: $($script:literal),+;)+) => {$(
        #[test]
        fn $story() {
            scripts(WORKERS, &[$($script),+], |_| {});
        }
    )+};
}

/// Scripts that take a minute.
macro_rules! long {
    ($($story:ident: $($script:literal),+;)+) => {$(
        #[test]
        fn $story() {
            if asked_for() {
                scripts(WORKERS, &[$($script),+], |_| {});
            }
        }
    )+};
}

/// Scripts after which the bed is not what it was.
macro_rules! spoiling {
    ($($story:ident: $shape:expr, $($script:literal),+;)+) => {$(
        #[test]
        fn $story() {
            if asked_for() {
                scripts($shape, &[$($script),+], Bed::spoil);
            }
        }
    )+};
}

quick! {
    golden_nodes_are_shown: "node-ls", "node-inspect", "info-swarm", "on-a-worker";
    golden_secrets_and_configs: "secret-config";
    golden_refusals: "errors", "errors-api";
    golden_a_service_is_shown: "service-ls-ps-inspect";
    golden_scaling: "service-scale-down";
    golden_networks: "network";
    golden_a_node_is_drained: "node-drain";
}

long! {
    golden_a_service_is_made: "service-create-min", "service-create-flags";
    golden_modes: "service-modes";
    golden_history: "service-ps-history";
    golden_updates: "service-update-rollback";
    golden_failed_updates: "service-update-failed";
    golden_logs: "service-logs";
    golden_stacks: "stack";
    golden_events: "events";
}

spoiling! {
    golden_a_node_is_lost: WORKERS, "node-down";
    golden_managers_come_and_go: WORKERS, "three-managers";
    golden_logs_of_a_lost_node: MANAGERS, "worker-lost-logs";
    golden_a_locked_manager: MANAGERS, "manager-locked";
    golden_no_leader: MANAGERS, "no-leader";
    golden_a_swarm_is_founded: Shape::Hosts(3), "swarm-init-join", "swarm-leave-rotate";
}
