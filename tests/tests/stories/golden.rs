//! What Docker's own swarm mode prints, scenario by scenario: `tests/golden/`.

use weft_tests::golden::tell;
use weft_tests::{Shape, story};

const WORKERS: Shape = Shape::Swarm(3, 1);
const MANAGERS: Shape = Shape::Swarm(3, 3);

/// A story that is a script, on a bed that the next one may have.
macro_rules! scripts {
    ($($story:ident: $shape:expr, $($script:literal),+;)+) => {$(
        #[test]
        fn $story() {
            story($shape, |bed| {
                $(tell($script, &bed.hosts())?;)+
                Ok(())
            });
        }
    )+};
}

/// A story that is a script, after which the bed is not what it was.
macro_rules! last_scripts {
    ($($story:ident: $shape:expr, $($script:literal),+;)+) => {$(
        #[test]
        fn $story() {
            story($shape, |bed| {
                bed.spoil();
                $(tell($script, &bed.hosts())?;)+
                Ok(())
            });
        }
    )+};
}

scripts! {
    golden_nodes_are_shown: WORKERS, "node-ls", "node-inspect", "info-swarm", "on-a-worker";
    golden_a_service_is_made: WORKERS, "service-create-min", "service-create-flags";
    golden_a_service_is_shown: WORKERS, "service-ls-ps-inspect";
    golden_modes: WORKERS, "service-modes";
    golden_history: WORKERS, "service-ps-history";
    golden_scaling: WORKERS, "service-scale-down";
    golden_updates: WORKERS, "service-update-rollback";
    golden_failed_updates: WORKERS, "service-update-failed";
    golden_logs: WORKERS, "service-logs";
    golden_networks: WORKERS, "network";
    golden_secrets_and_configs: WORKERS, "secret-config";
    golden_stacks: WORKERS, "stack";
    golden_events: WORKERS, "events";
    golden_refusals: WORKERS, "errors";
    golden_a_node_is_drained: WORKERS, "node-drain";
}

last_scripts! {
    golden_a_node_is_lost: WORKERS, "node-down";
    golden_managers_come_and_go: WORKERS, "three-managers";
    golden_logs_of_a_lost_node: MANAGERS, "worker-lost-logs";
    golden_a_locked_manager: MANAGERS, "manager-locked";
    golden_no_leader: MANAGERS, "no-leader";
    golden_a_swarm_is_founded: Shape::Hosts(3), "swarm-init-join", "swarm-leave-rotate";
}
